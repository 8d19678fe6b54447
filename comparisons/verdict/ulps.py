"""How far apart two arrays are, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from .halves import half_bits, is_half, rounded


def ulps(ours: np.ndarray, truth: np.ndarray, dtype: Any = None) -> np.ndarray:
    """How many floating-point numbers of the dtype of `ours`, or of the given one of 16 bits, lie
    between it and the truth, rounded to that; between whole numbers, their difference."""
    if ours.dtype.kind != "f":
        return abs(ours.astype(np.int64) - truth.astype(np.int64))
    bits: Any
    if is_half(dtype):
        bits = np.uint16
        pair = [half_bits(rounded(a, dtype), dtype) for a in (ours, truth)]
    else:
        bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[ours.dtype.itemsize]
        with np.errstate(over="ignore"):
            pair = [np.ascontiguousarray(a, ours.dtype).view(bits) for a in (ours, truth)]
    negative = bits(1 << (8 * np.dtype(bits).itemsize - 1))
    a, b = (np.where(p >= negative, negative - (p - negative), p + negative) for p in pair)
    distance = np.maximum(a, b) - np.minimum(a, b)
    return np.where(same_values(ours, truth), bits(0), distance).reshape(ours.shape)


def same_values(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def finite_part(a: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(a), a, 0).astype(np.float64)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| in float64 where both are finite, 0 elsewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.asarray(abs(np.subtract(a, b, dtype=np.float64)))
    if np.isfinite(apart).all():
        return apart
    return np.where(np.isfinite(a) & np.isfinite(b), apart, 0)
