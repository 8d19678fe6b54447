"""The drift of a free run beside its floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .classes import LIMIT
from .ulps import difference, finite_part, same_values

# The floor of a free run is the largest drift of RUNS runs of the reference under noise, over
# WINDOW steps before and after.
RUNS = 7
WINDOW = 10
# In e-folds: so far at least the spread of a chaotic run grows. Of 23 trainings of the grid and the
# tests, the nine whose learning rate is too large grow by 11 to 36, the others by 4.3 at most; of
# 32 others, with other nets, seeds and rates, it names the four that are chaotic, and no other.
CHAOS = 7.0


@dataclass(frozen=True)
class Drift:
    """How far a free run is from the reference's, step by step, beside how far noise drives it."""

    drift: np.ndarray
    floor: np.ndarray
    ratio: np.ndarray  # drift / floor
    sharpness: float  # the largest ratio of a noisy run to the floor of the others

    @property
    def parted(self) -> int | None:
        """The first step of the ratio beyond LIMIT, from 0, or None."""
        beyond = np.flatnonzero(self.ratio > LIMIT)
        return int(beyond[0]) if beyond.size else None


def free_drift(
    ours: np.ndarray, twin: np.ndarray, noisy: np.ndarray, u: float, scale: np.ndarray | None = None
) -> Drift:
    """The drift of a free run, and its floor: u |scale| + the largest drift of a noisy run within
    WINDOW steps.

    ours and twin are (steps, …) and noisy (runs, steps, …), recorded at every step. What lies
    behind the steps counts as one: its largest element, each relative to `scale`. Without a scale,
    for a loss, differences are absolute.
    """
    relative = np.ones_like(twin) if scale is None else scale
    size = abs(finite_part(twin)) if scale is None else np.ones(len(twin))

    def distance(run: np.ndarray) -> np.ndarray:
        apart = np.where(
            same_values(run, twin),
            0,
            np.where(np.isfinite(run) & np.isfinite(twin), difference(run, twin), np.inf),
        )
        return np.divide(apart, relative).reshape(len(twin), -1).max(axis=1)

    drifts = np.array([distance(run) for run in noisy])
    drift = distance(ours)

    def floor(of: np.ndarray) -> np.ndarray:
        padded = np.pad(of.max(axis=0), WINDOW)
        return u * size + np.lib.stride_tricks.sliding_window_view(padded, 2 * WINDOW + 1).max(
            axis=1
        )

    def ratio(of: np.ndarray, to: np.ndarray) -> np.ndarray:
        comparable = np.isfinite(to) & (of > 0)
        return np.where(comparable, of / np.where(comparable & (to > 0), to, 1), 0)

    rest = [ratio(d, floor(np.delete(drifts, k, axis=0))).max() for k, d in enumerate(drifts)]
    return Drift(drift, floor(drifts), ratio(drift, floor(drifts)), float(max(rest)))


def chaos(noisy: np.ndarray, twin: np.ndarray) -> float:
    """By how many e-folds a step the spread of noisy runs grows; 0 where that is no chaos, as in a
    run that diverges.

    noisy is (runs, steps) and twin (steps,). The spread is the median of their distances, relative
    to the largest loss so far, and the rate the slope of its logarithm, by least squares, from the
    first step at which they differ to the first at which a tenth of the largest is reached, where
    growth has ended. It is chaos where that rises by CHAOS at least, and by more than the square of
    the step does.
    """
    if not np.isfinite(twin).all():
        return 0.0
    apart = np.median(np.where(np.isfinite(noisy), abs(noisy - twin), np.inf), axis=0)
    size = np.maximum.accumulate(abs(twin))
    seen = np.isfinite(apart) & (size > 0)
    spread = np.divide(apart, size, out=np.zeros(len(twin)), where=seen)
    steps = np.flatnonzero(spread)
    if steps.size:
        steps = steps[steps <= np.argmax(spread >= spread.max() / 10)]
    if steps.size < WINDOW:  # of few steps, one leap is the whole growth
        return 0.0
    first, last = steps[[0, -1]]
    rate = float(np.polyfit(steps, np.log(spread[steps]), 1)[0])
    least = max(CHAOS, 2 * math.log((last + 1) / (first + 1)))
    return rate if rate * (last - first) >= least else 0.0


def trajectory_scale(trajectory: np.ndarray) -> np.ndarray:
    """The largest size that each element has had so far, 1 where it was always 0."""
    largest = np.maximum.accumulate(abs(trajectory.astype(float)), axis=0)
    return np.where(largest > 0, largest, 1)
