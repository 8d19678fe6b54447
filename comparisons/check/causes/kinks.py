"""Wrong at points from which a small step to either side leads to right values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ....reference.adapters import tree_map
from ...verdict.noise import cast, is_floating
from ..findings import Finding
from ..probes import KINK
from .case import Case, Cause, at, example
from .closeness import better

STEPS = 2  # that all have to lead to right values


def at_kinks(case: Case) -> Iterator[Cause]:
    if not all(KINK in f.probe.traits for f in case.findings):
        return
    for f in case.findings:
        rng = np.random.default_rng(0)
        if all(_is_right_beside(case, f, rng) for _ in range(STEPS)):
            yield Cause("kink", f"{f.name} is wrong only at kinks and ties: {example(f)}")


def _is_right_beside(case: Case, f: Finding, rng: np.random.Generator) -> bool:
    args, kwargs, dy = cast(f.inputs, np.float64)
    beside = (*tree_map(lambda leaf: _nudged(leaf, rng), (args, kwargs)), dy)
    ours, truth = at(case.ours, beside, f.name), at(case.truth, beside, f.name)
    if ours is None or truth is None:
        return False
    return better(ours, truth, _as_wrong(f, truth))


def _nudged(leaf: Any, rng: np.random.Generator) -> Any:
    """An array with every element a small step to one side, but none beyond 0 if none was."""
    if not is_floating(leaf):
        return leaf
    size = np.where(leaf == 0, np.mean(abs(leaf)) or 1.0, abs(leaf))
    step = rng.choice([-1, 1], leaf.shape) * rng.uniform(0.5, 1, leaf.shape)
    moved = leaf + 1e-3 * step * size
    return abs(moved) if np.all(leaf >= 0) else moved


def _as_wrong(f: Finding, truth: np.ndarray) -> np.ndarray:
    """The truth, as wrong as what was found."""
    if f.ours is None or f.truth is None or f.outside is None:
        return truth + 1
    return np.asarray(truth + np.max(abs(f.ours - f.truth), where=f.outside, initial=0))
