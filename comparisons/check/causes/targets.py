"""What a loss takes off at the target of each row, at another place than it should.

The gradient of a cross entropy by its logits is p − 1 at the target, however it is computed; by
blocks, the target's index is one within a block. Which places the ones may have been taken off at
is found row by row: from those elements of the gradients that hang on this row alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ....reference.adapters import array, leaves, tensor
from ...verdict.noise import is_floating
from ..traced import BothWays, operation
from .case import Candidate, Case, Wrong
from .graphs import LARGE, both_ways_of, once

MOST = 160  # logits, of which each is moved once
WITHIN = 1e-6


def elsewhere(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from once(case, wrong, _found)


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    if sum(a.size for a in leaves(wrong.inputs) if is_floating(a)) > LARGE:
        return
    both, names = both_ways_of(case, wrong), list(case.done.order)
    if both is None or not all(name in wrong.all_ours for name in names):
        return
    base = both.gradients({})
    ours = [np.asarray(wrong.all_ours[name], float) for name in names]
    off = _flat([a - b for a, b in zip(ours, base, strict=True)])
    for node, ones in _taken_off(both):
        value = both.values[node.name]
        rows = ones.reshape(-1, ones.shape[-1])
        unit = rows.sum(1, keepdims=True)  # what is taken off in each row
        moves = []
        for k, j in np.ndindex(rows.shape):
            more = np.zeros(rows.shape)
            more[k, j] = unit[k, 0]
            changed = both.gradients({node.name: value + tensor(more.reshape(ones.shape))})
            moves.append(_flat(changed) - _flat(base))
        times = _times(np.array(moves).reshape(*rows.shape, -1), off, rows != 0)
        if times is None or not times.any():
            continue
        more = (times * unit).reshape(ones.shape)
        gradient = both.gradients({node.name: value + tensor(more)})[names.index(wrong.name)]
        cause, text = _named(times)
        yield Candidate(cause, f"that with the target's part of {text}", gradient)


def _taken_off(both: BothWays) -> Iterator[tuple[Any, np.ndarray]]:
    """Differences in the pullback of which the first term is one number in each row."""
    for node in both.backward:
        if operation(node) != "sub" or node.name not in both.of_dy:
            continue
        ones = both.values.get(getattr(node.args[0], "name", ""))
        if not isinstance(ones, torch.Tensor) or ones.ndim < 2 or ones.numel() > MOST:
            continue
        shown = (ones != 0).sum(-1)
        if ones.shape == both.values[node.name].shape and bool((shown == 1).all()):
            yield node, array(ones)


def _times(moves: np.ndarray, off: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    """How many times more than it should the number of each row is taken off at each place; None
    where no whole numbers explain it."""
    scale = WITHIN * float(np.max(abs(off), initial=0))
    touched = (abs(moves) > 1e-12 * np.max(abs(moves), initial=0)).any(1)
    found = np.zeros(own.shape)
    for k, row in enumerate(moves):
        mine = touched[k] & (touched.sum(0) == 1)
        aim, a = off[mine], row[:, mine]
        if not mine.any():
            return None
        if np.max(abs(aim)) <= scale:
            continue
        ways = _ways(own[k])
        away = abs(ways @ a - aim).max(1)
        if away.min() <= scale:
            found[k] = ways[np.argmin(away)]
            continue
        made, _, rank, _ = np.linalg.lstsq(a.T, aim, rcond=1e-10)
        if rank < len(a) or np.max(abs(made - np.round(made))) > 1e-4:
            return None
        found[k] = np.round(made)
    return found


def _ways(own: np.ndarray) -> np.ndarray:
    """With or without what is taken off at its own place, at up to two others as well."""
    one = np.eye(len(own))
    others = [np.zeros(len(own)), *one, *itertools.starmap(np.add, itertools.combinations(one, 2))]
    return np.concatenate([np.array(others) - own, others])


def _named(times: np.ndarray) -> tuple[str, str]:
    if np.all(times <= 0):
        return "missing term", "some rows left out"
    if np.all(times >= 0):
        return "extra term", "some rows at other places as well"
    return "misplaced", "some rows at another place"


def _flat(gradients: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(g, float).ravel() for g in gradients])
