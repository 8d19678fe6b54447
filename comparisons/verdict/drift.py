"""The drift of a free run beside its floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .classes import LIMIT
from .ulps import difference, finite_part, same_values

# The floor of a free run is the largest drift of RUNS runs of the reference under noise, over
# WINDOW steps before and after.
RUNS = 7
WINDOW = 10


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


def trajectory_scale(trajectory: np.ndarray) -> np.ndarray:
    """The largest size that each element has had so far, 1 where it was always 0."""
    largest = np.maximum.accumulate(abs(trajectory.astype(float)), axis=0)
    return np.where(largest > 0, largest, 1)
