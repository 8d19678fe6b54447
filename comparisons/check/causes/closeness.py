"""When two arrays are one to the eye, and which of two is nearer to a third."""

from __future__ import annotations

import math

import numpy as np


def where_finite(ours: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, with 0 where either is not finite."""
    both = np.isfinite(ours) & np.isfinite(truth)
    return np.where(both, ours, 0).astype(float), np.where(both, truth, 0).astype(float)


def better(candidate: np.ndarray, aim: np.ndarray, other: np.ndarray | None) -> bool:
    """Whether the candidate is at most a hundredth as far from the aim as the other is."""
    if other is None or candidate.shape != aim.shape or other.shape != aim.shape:
        return False
    a, aim_a = where_finite(candidate, aim)
    b, aim_b = where_finite(other, aim)
    if np.any(~np.isfinite(candidate) & np.isfinite(aim)):
        return False
    far = float(np.max(abs(b - aim_b), initial=0)) if np.isfinite(other).all() else math.inf
    return far > 0 and float(np.max(abs(a - aim_a), initial=0)) <= 1e-2 * far


def alike(a: np.ndarray, b: np.ndarray, within: float = 1e-4) -> bool:
    """Whether they differ by no more than a part of the largest, by default by what rounding does
    in float32."""
    return float(np.max(abs(a - b), initial=0)) <= within * float(np.max(abs(b), initial=0))


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of the one shape can be broadcast to the other."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
