"""Lost digits are told from mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from .classes import LIMIT, Function, Results
from .floor import DRAWS, nearby
from .noise import cast, is_floating, moved, unit_roundoff
from .ulps import difference, finite_part, same_values


def only_digits_lost(
    subject: Function, reference: Function, inputs: Any, outside: Mapping[str, np.ndarray]
) -> list[str]:
    """The results whose error is rounding: it shrinks with u, as that of a mistake does not.

    Float64 makes errors 2²⁹ times smaller than float32; 2²² of it must be seen at the elements
    outside, between the largest errors over several inputs nearby.
    """
    low, high = dict.fromkeys(outside, 0.0), dict.fromkeys(outside, 0.0)
    for seed in range(DRAWS):
        single = nearby(inputs, seed) if seed else cast(inputs, np.float32)
        for name, (gap, finer, _) in _gaps(subject, reference, single, outside).items():
            low[name] = max(low[name], float(gap.max()))
            high[name] = max(high[name], float(finer.max()))
    shrinking = [name for name in outside if low[name] > 2.0**22 * high[name]]
    rest = {name: where for name, where in outside.items() if name not in shrinking}
    return shrinking + (_drowned(subject, reference, inputs, rest) if rest else [])


def _drowned(
    subject: Function, reference: Function, inputs: Any, outside: Mapping[str, np.ndarray]
) -> list[str]:
    """The results that lost no more than what one term loses beside a far larger one: 1 + e⁻⁴⁰ is
    1.

    There the error is all of a tiny result, in any dtype. But it is below u of the inputs; and at
    inputs scaled down, towards where float64 still sees the term, float32 loses it.
    """
    floating = [leaf for leaf in leaves(inputs) if is_floating(leaf)]
    if not floating:
        return []
    largest = max((float(abs(finite_part(leaf)).max(initial=0)) for leaf in floating), default=0.0)
    allowed = LIMIT * unit_roundoff(floating[0].dtype) * max(largest, 1.0)
    ours, truth = subject(inputs), reference(cast(inputs, np.float64))
    small = {
        name: where
        for name, where in outside.items()
        if np.isfinite(np.asarray(ours[name])[where]).all()
        and difference(np.asarray(ours[name]), truth[name])[where].max() <= allowed
    }
    found = set()
    for k in range(1, 17 if small else 0):
        scaled = tree_map(
            lambda leaf, k=k: np.asarray(leaf * 2.0 ** (-k / 2)) if is_floating(leaf) else leaf,
            cast(inputs, np.float64),
        )
        single = cast(scaled, np.float32)
        for name, (gap, finer, size) in _gaps(subject, reference, single, small).items():
            lost = gap > 64 * unit_roundoff(np.float32) * size
            if np.any(lost & np.isfinite(gap) & (gap > 2.0**20 * finer)):
                found.add(name)
    return [name for name in small if name in found]


def _gaps(
    subject: Function, reference: Function, single: Any, outside: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For the elements outside: the error in float32 on these inputs, that in float64, and the size
    of the truth.

    That in float64 is the larger of two: on the same inputs, because a kink is at a single point;
    and so near to them that float32 could not hold the difference, because what is computed in
    float32 shows nothing on its own numbers.
    """
    double = cast(single, np.float64)
    between = moved(double, unit_roundoff(np.float32) / 4, np.random.default_rng(0))
    truth, truth_between = reference(double), reference(between)
    low, high, high_between = subject(single), subject(double), subject(between)

    def gap(ours: Results, truth: Results, name: str) -> np.ndarray:
        a, b = np.asarray(ours[name])[outside[name]], truth[name][outside[name]]
        apart = np.where(np.isfinite(a), difference(a, b), np.inf)
        return np.where(same_values(a, b), 0, apart)

    return {
        name: (
            gap(low, truth, name),
            np.maximum(gap(high, truth, name), gap(high_between, truth_between, name)),
            abs(finite_part(truth[name][where])),
        )
        for name, where in outside.items()
    }
