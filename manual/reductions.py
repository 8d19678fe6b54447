"""Sums and means over axes.

All of them take x in float16, float32 or float64, and dim as one axis, several, or None for all.
They raise TypeError for any other array and for a setting of the wrong type, IndexError for an axis
that x does not have; the message names the argument.
"""

import math

import numpy as np

from .arguments import as_dtype, axis_of, flag, floating
from .arrays import pairwise_sum


def sum(x, dim=None, keepdim=False, *, dtype=None):
    """Σ x over dim, which keepdim keeps with length 1; each x gets dy. x is first converted to
    `dtype`, a floating one. Raises ValueError for an axis that is named twice."""
    x = floating(x=x)
    flag(keepdim=keepdim)
    axes = _axes(x.ndim, dim)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    y = pairwise_sum(x.astype(as_dtype(dtype) or x.dtype), axes)
    y = y.reshape(kept) if keepdim else y
    shape, own = x.shape, x.dtype

    def pullback(dy):
        return np.broadcast_to(np.reshape(dy, kept), shape).astype(own)

    return y, pullback


def mean(x, dim=None, keepdim=False, *, dtype=None):
    """Σ x / n, where n is the number of elements added up; each x gets dy / n. The mean of nothing
    is NaN. The arguments are those of sum; raises ValueError for an axis that is named twice."""
    total, pull_sum = sum(x, dim, keepdim, dtype=dtype)
    shape = np.shape(x)
    n = math.prod(shape[axis] for axis in _axes(len(shape), dim))
    y = total / n if n else total * math.nan

    def pullback(dy):
        return pull_sum(dy / n if n else dy)

    return y, pullback


def _axes(ndim, dim):
    """The axes, counted from 0, that dim names: one, several, or all if it is None or empty."""
    dims = dim if isinstance(dim, (tuple, list)) else () if dim is None else (dim,)
    axes = tuple(axis_of(ndim, dim=d) for d in dims) if dims else tuple(range(ndim))
    if len(set(axes)) < len(axes):
        raise ValueError(f"dim: expected each axis once, got {dim}")
    return axes if ndim else ()
