"""Scores that are masked to a triangle, as of causal attention, and computed tile by tile: tiles on
the diagonal that are left out, or counted without their mask, and what comes from other tiles.

The gradient is linear in the scores' own gradients, as that of what is summed by their weights is
in the weights: one value is exchanged, of the forward or of the pullback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..traced import BothWays, operation
from .case import Candidate, Case, Wrong
from .graphs import both_ways_of, once

MOST = 12  # values that are triangles
LONG = 64  # the longest side of one
NONE = -1e8  # scores below are left out


def of_a_triangle(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from once(case, wrong, _found)


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    if wrong.truth.ndim < 2 or (both := both_ways_of(case, wrong)) is None:
        return
    position = list(case.done.order).index(wrong.name)
    triangles = [n for n in both.nodes.values() if _is_triangle(both.values.get(n.name))]
    for node in triangles[-MOST:]:
        value = both.values[node.name]
        for cause, text, made in _tiled(value, _whole(both, node)):
            if not torch.equal(made, value):
                with contextlib.suppress(Exception):
                    gradient = both.gradients({node.name: made})[position]
                    where = both.plain(node.name)
                    yield Candidate(cause, f"that with the triangle {where} {text}", gradient)


def _is_triangle(value: Any) -> bool:
    """Whether the last two axes hold zeros on one side of the diagonal alone."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 2:
        return False
    if value.shape[-1] != value.shape[-2] or not 2 < value.shape[-1] <= LONG:
        return False
    upper, lower = value.triu(1).any(), value.tril(-1).any()
    return bool(upper) != bool(lower)


def _whole(both: BothWays, node: Any) -> torch.Tensor | None:
    """The same before it was masked; of weights that a softmax gives, by its own normalisation."""
    value = both.values[node.name]
    if operation(node) in ("where", "mul", "masked_fill", "tril"):
        return _unmasked(both, node, value)
    if node.name in both.forward and bool((value >= 0).all()):
        for masked in both.forward_calls:
            scores = both.values.get(masked.name)
            if _shape(scores) == value.shape and bool((scores < NONE).any()):
                source = _unmasked(both, masked, scores)
                if source is not None:
                    lse = (scores - value.log()).nan_to_num(-torch.inf, neginf=-torch.inf)
                    weights = (source - lse.amax(-1, keepdim=True)).exp()
                    if torch.allclose(weights[value != 0], value[value != 0]):
                        return weights
    return None


def _unmasked(both: BothWays, node: Any, value: torch.Tensor) -> torch.Tensor | None:
    kept = (value != 0) & (value > NONE)
    for source in node.all_input_nodes:
        found = both.values.get(source.name)
        if _shape(found) != value.shape or not torch.is_floating_point(found):
            continue
        if torch.equal(found[kept], value[kept]) and bool((found[~kept] > NONE).all()):
            return found
    return None


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)


def _tiled(
    value: torch.Tensor, whole: torch.Tensor | None
) -> Iterator[tuple[str, str, torch.Tensor]]:
    n = value.shape[-1]
    for block in range(1, n // 2 + 2):
        tile = torch.arange(n) // block
        away = (tile[:, None] - tile).abs()
        own = away == 0
        those = "its diagonal" if block == 1 else f"its tiles of {block} by {block} on the diagonal"
        yield "misplaced", f"without {those}", value * ~own
        yield "missing term", f"of {those} alone", value * own
        yield "overwritten", f"of {those} and their neighbours alone", value * (away <= 1)
        if whole is not None and block > 1:
            yield (
                "elementwise factor",
                f"without the mask in {those}",
                torch.where(own, whole, value),
            )
            yield "extra term", f"with {those} once more, unmasked", value + own * whole
