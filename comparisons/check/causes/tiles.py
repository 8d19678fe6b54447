"""Scores that are masked to a triangle, as of causal attention, and computed tile by tile: tiles on
the diagonal that are left out, or counted without their mask, and what comes from other tiles.

The gradient is linear in the scores' own gradients, as that of what is summed by their weights is
in the weights: one value is exchanged, of the forward or of the pullback. And sums along a row, of
which a tile sees but a part.
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
    yield from once(case, wrong, _triangles)


def of_parts_of_a_sum(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from once(case, wrong, _sums)


def _triangles(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    if wrong.truth.ndim < 2 or (both := both_ways_of(case, wrong)) is None:
        return
    position = list(case.done.order).index(wrong.name)
    triangles = [n for n in both.nodes.values() if _is_triangle(both.values.get(n.name))]
    for node in triangles[-MOST:]:
        value = both.values[node.name]
        for cause, text, made in _tiled(value, _whole(both, node)):
            if not torch.equal(made, value):
                gradient = both.gradients({node.name: made})[position]
                where = both.plain(node.name)
                yield Candidate(cause, f"that with the triangle {where} {text}", gradient)


def _sums(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """A sum along an axis of which each block has its own terms alone, or those up to it."""
    if (both := both_ways_of(case, wrong)) is None:
        return
    position = list(case.done.order).index(wrong.name)
    sums = [n for n in both.backward if operation(n) == "sum" and n.name in both.of_dy]
    for node in sums[:MOST]:
        terms, axis = both.values[node.args[0].name], _kept_axis(node)
        if axis is None or not 2 < terms.shape[axis] <= LONG:
            continue
        for text, made in _partial_sums(terms, axis):
            changed = {}
            for user in (u for u in node.users if node in u.args):
                changed[user.name] = _at(both, user, user.args.index(node), made)
            with contextlib.suppress(Exception):  # what does not broadcast it
                gradient = both.gradients(changed)[position]
                where = both.plain(node.args[0].name)
                yield Candidate("missing term", f"that with {where} summed {text}", gradient)


def _kept_axis(node: Any) -> int | None:
    """The one axis along which it sums, if that is kept."""
    axes, kept = node.args[1] if len(node.args) > 1 else (), (*node.args[2:], False)[0]
    return axes[0] if kept and isinstance(axes, (list, tuple)) and len(axes) == 1 else None


def _partial_sums(terms: torch.Tensor, axis: int) -> Iterator[tuple[str, torch.Tensor]]:
    rows, n = terms.movedim(axis, -1), terms.shape[axis]
    for block in range(1, n // 2 + 2):
        tile = torch.arange(n) // block
        of = "each alone" if block == 1 else f"by blocks of {block} alone"
        for text, among in (
            (of, tile[:, None] == tile),
            (f"{of.removesuffix(' alone')} and what is before", tile[:, None] <= tile),
            (f"{of.removesuffix(' alone')} and what is behind", tile[:, None] >= tile),
        ):
            yield f"{text} along axis {axis}", (rows @ among.to(terms.dtype)).movedim(-1, axis)


def _at(both: BothWays, user: Any, k: int, made: torch.Tensor) -> Any:
    return lambda values: both.applied(user, values, {k: lambda _: made})


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
            scores: Any = both.values.get(masked.name)
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
        found: Any = both.values.get(source.name)
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
        if block > 1:
            yield "transpose", f"turned within {those}", torch.where(own, value.mT, value)
        if whole is not None and block > 1:
            yield (
                "elementwise factor",
                f"without the mask in {those}",
                torch.where(own, whole, value),
            )
            yield "extra term", f"with {those} once more, unmasked", value + own * whole
