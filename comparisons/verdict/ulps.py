"""How far apart two arrays are, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .halves import half_bits, is_half, rounded

BLOCK = 2**14  # elements, of which a few arrays fit into the cache of any core


def ulps(ours: np.ndarray, truth: np.ndarray, dtype: Any = None) -> np.ndarray:
    """How many floating-point numbers of the dtype of `ours`, or of the given one of 16 bits, lie
    between it and the truth, rounded to that; between whole numbers, their difference."""
    if ours.dtype.kind != "f":
        return abs(ours.astype(np.int64) - truth.astype(np.int64))
    if is_half(dtype):
        pair = [half_bits(rounded(a, dtype), dtype) for a in (ours, truth)]
    else:
        with np.errstate(over="ignore"):
            pair = [np.array(a, ours.dtype, order="C") for a in (ours, truth)]
    a, b = (_counted(p.reshape(-1)) for p in pair)
    distance = np.maximum(a, b)
    distance -= np.minimum(a, b, out=a)  # of which the bits are right, whatever the sign
    distance[same_values(ours, truth).reshape(-1)] = 0
    return distance.view(f"u{distance.itemsize}").reshape(ours.shape)


def _counted(floats: np.ndarray) -> np.ndarray:
    """The floating-point numbers, or their bits, overwritten by whole ones in the same order: how
    many there are between 0 and each."""
    signed = floats.view(f"i{floats.itemsize}")
    negative = signed >> (8 * floats.itemsize - 1)  # −1 or 0
    signed ^= negative & np.iinfo(signed.dtype).max
    signed -= negative
    return signed


def same_values(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def finite_part(a: np.ndarray) -> np.ndarray:
    """In float64, 0 where it is not finite; the array itself where it need not change."""
    finite = np.isfinite(a)
    return (a if finite.all() else np.where(finite, a, 0)).astype(np.float64, copy=False)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| in float64 where both are finite, 0 elsewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.asarray(np.subtract(a, b, dtype=np.float64))
    np.abs(apart, out=apart)
    if np.isfinite(apart).all():
        return apart
    return np.where(np.isfinite(a) & np.isfinite(b), apart, 0)


def by_blocks(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """An element-wise function of arrays of one shape; of large ones block by block, so that what
    is computed on the way never leaves the cache."""
    shape, size = arrays[0].shape, arrays[0].size
    if size <= BLOCK:
        return np.asarray(function(*arrays))
    flat = [a.reshape(-1) for a in arrays]
    found: Any = None
    for i in range(0, size, BLOCK):
        block = function(*(a[i : i + BLOCK] for a in flat))
        found = np.empty(size, block.dtype) if found is None else found
        found[i : i + BLOCK] = block
    return np.asarray(found.reshape(shape))
