"""Sums, means, extremes and other functions of many elements, over axes.

All of them take x in float16, float32 or float64, and dim as one axis, several, or None for all.
They raise TypeError for any other array and for a setting of the wrong type, IndexError for an axis
that x does not have; the message names the argument.
"""

import math
from itertools import pairwise

import numpy as np

from .arguments import as_dtype, axis_of, flag, floating, one_of, real
from .arrays import LARGE, exponentials, pairwise_sum, where
from .distances import _norm
from .pointwise import _chosen, div
from .standardized import dot


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


def cumsum(x, dim, *, dtype=None):
    """The sums of x up to each element along dim; an element gets the sum of dy from itself on. x
    is first converted to `dtype`, a floating one."""
    x = floating(x=x)
    axis = axis_of(x.ndim, dim=dim)
    y = _running(x, axis, as_dtype(dtype) or x.dtype)

    def pullback(dy):
        back = np.flip(np.atleast_1d(dy), axis)
        return np.flip(_running(back, axis, x.dtype), axis).reshape(x.shape)

    return y, pullback


def _running(x, axis, dtype):
    """Added up in float64, for each sum is the last one and a term more; of many lines all at once,
    which takes a third of the time."""
    sums = np.moveaxis(np.atleast_1d(x), axis, 0).astype(np.float64)
    if len(sums) < sums.size // LARGE:
        for last, here in pairwise(sums):
            here += last
    else:
        np.cumsum(sums, 0, out=sums)
    return np.moveaxis(sums, 0, axis).astype(dtype, copy=False).reshape(x.shape)


def max(x, dim=None, keepdim=False):
    """The largest element of x, whose slope is 1, or with dim, one axis, the largest along it and
    where the first of them is; keepdim keeps the axis with length 1. With an array in the place of
    dim it is maximum.

    Of several largest each has the same share without dim, and the first all of it with dim. NaN is
    larger than any number. Raises TypeError for keepdim without dim, ValueError for no elements.
    """
    if isinstance(dim, np.ndarray):
        return _chosen(np.maximum, np.greater, x=x, dim=dim)
    return _best(x, np.argmax, dim, keepdim)


def min(x, dim=None, keepdim=False):
    """The smallest element of x, whose slope is 1, or with dim, one axis, the smallest along it and
    where the first of them is; keepdim keeps the axis with length 1. With an array in the place of
    dim it is minimum.

    Of several smallest each has the same share without dim, and the first all of it with dim. NaN
    is smaller than any number. Raises TypeError for keepdim without dim, ValueError for no
    elements.
    """
    if isinstance(dim, np.ndarray):
        return _chosen(np.minimum, np.less, x=x, dim=dim)
    return _best(x, np.argmin, dim, keepdim)


def _best(x, place, dim, keepdim):
    x = floating(x=x)
    flag(keepdim=keepdim)
    if dim is None:
        if keepdim:
            raise TypeError("keepdim: expected False without dim, got True")
        return _best_of_all(x, place)
    axis = axis_of(x.ndim, dim=dim)
    lines = np.atleast_1d(x)
    _not_empty(lines, (axis,))
    first = place(lines, axis=axis, keepdims=True)
    kept = first.shape if keepdim and x.ndim else np.squeeze(first, axis).shape
    y = np.take_along_axis(lines, first, axis).reshape(kept), first.reshape(kept)

    def pullback(dy):
        dx = np.zeros(lines.shape, x.dtype)
        np.put_along_axis(dx, first, np.reshape(dy[0], first.shape), axis)
        return dx.reshape(x.shape)

    return y, pullback


def _best_of_all(x, place):
    _not_empty(x, tuple(range(x.ndim)))
    y = x.reshape(-1)[place(x)]

    def pullback(dy):
        equal = x == y if y == y else np.isnan(x)
        return where(equal, dy / int(np.count_nonzero(equal)), 0)

    return y, pullback


def amax(x, dim=(), keepdim=False):
    """The largest elements of x over dim, which keepdim keeps with length 1; equal ones share the
    slope evenly, and it is NaN where there is a NaN. Raises ValueError for an axis that is named
    twice and for no elements."""
    return _over_rows(_extreme, x, dim, keepdim, np.max)


def amin(x, dim=(), keepdim=False):
    """The smallest elements of x over dim, which keepdim keeps with length 1; equal ones share the
    slope evenly, and it is NaN where there is a NaN. Raises ValueError for an axis that is named
    twice and for no elements."""
    return _over_rows(_extreme, x, dim, keepdim, np.min)


def _extreme(rows, extreme):
    _not_empty(rows, (-1,))
    y = extreme(rows, axis=-1, keepdims=True)

    def pullback(dy):
        equal = rows == y
        count = np.count_nonzero(equal, axis=-1, keepdims=True)
        share = dy / where(count > 0, count, math.nan).astype(dy.dtype)
        return where(equal, share, where(count > 0, 0, share))

    return y, pullback


def var(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """Σ (x − mean)² / (n − c) over dim, which keepdim keeps with length 1; the slope is 2 (x −
    mean) / (n − c), because the mean has none at the minimum of the sum. c is the correction, or 1
    if it is unbiased, or else 0; and `unbiased` may stand in the place of dim.

    Without a degree of freedom, n ≤ c, it is infinite, or NaN. Raises TypeError for a correction
    beside `unbiased`, ValueError for an axis that is named twice.
    """
    dim, correction = _corrected(dim, unbiased, correction)
    return _over_rows(_variance, x, dim, keepdim, correction)


def std(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """√(Σ (x − mean)² / (n − c)) over dim; the slope is (x − mean) / (n − c) / y, and 0 where y is.
    The arguments are those of var. Raises TypeError for a correction beside `unbiased`, ValueError
    for an axis that is named twice."""
    dim, correction = _corrected(dim, unbiased, correction)
    return _over_rows(_deviation, x, dim, keepdim, correction)


def _corrected(dim, unbiased, correction):
    """The axes and the correction that torch's three ways of calling var mean."""
    if isinstance(dim, (bool, np.bool_)):
        dim, unbiased = None, dim
    flag(unbiased=unbiased)
    if correction is not None:
        real(correction=correction)
        if not unbiased:
            raise TypeError(f"correction: expected None beside unbiased, got {correction}")
        return dim, correction
    return dim, int(unbiased)


def _centred(rows):
    """What is left of rows without their mean; of that again, because a mean is rounded."""
    n = rows.shape[-1] or 1
    d = rows - rows.sum(axis=-1, keepdims=True) / n
    d -= d.sum(axis=-1, keepdims=True) / n
    return d


def _variance(rows, correction):
    d, freedom = _centred(rows), rows.shape[-1] - correction
    total = (d * d).sum(axis=-1, keepdims=True)
    y, _ = div(total, freedom if freedom > 0 else 0)

    def pullback(dy):
        return div(2 * dy * d, freedom)[0]

    return y, pullback


def _deviation(rows, correction):
    """Of rows that are scaled by a power of 2, so that no square overflows."""
    d, freedom = _centred(rows), rows.shape[-1] - correction
    top = np.abs(d).max(axis=-1, keepdims=True, initial=0)
    scale = np.ldexp(np.ones_like(top), np.frexp(top)[1])
    hat = d / scale
    square = (hat * hat).sum(axis=-1, keepdims=True)
    s = np.sqrt(div(square, freedom if freedom > 0 else 0)[0])

    def pullback(dy):
        return where(s == 0, 0, div(dy * hat / where(s == 0, 1, s), freedom)[0])

    return s * scale, pullback


def norm(x, p="fro", dim=None, keepdim=False, *, dtype=None):
    """(Σ |x|ᵖ)^(1 / p) over dim, which keepdim keeps with length 1; the slope is sign(x) (|x| /
    y)^(p − 1), and 0 where x is. p is any number, ∞ and −∞ being the largest and the smallest |x|
    and 0 the number of elements that are not 0; "fro" is 2, as None is, and "nuc" the sum of the
    singular values of matrices, whose slope is U Vᵀ for x = U S Vᵀ. x is first converted to
    `dtype`.

    Raises TypeError or ValueError for another p and for a dtype that is narrower, ValueError for an
    axis that is named twice, for more than two axes of "fro" or not two of "nuc", and where there
    is no element and p below 0 or ∞.
    """
    x = floating(x=x)
    wide = as_dtype(dtype) or x.dtype
    if wide.itemsize < x.dtype.itemsize:
        raise ValueError(f"dtype: expected none narrower than that of x, {x.dtype}, got {wide}")
    axes = _axes(x.ndim, dim)
    if isinstance(p, str):
        one_of(("fro", "nuc"), p=p)
        if p == "nuc" and (len(axes) != 2 or isinstance(dim, int)):
            raise ValueError(f"dim: expected two axes, got {dim} of {x.ndim}")
        if dim is not None and np.size(dim) > 2:
            raise ValueError(f"dim: expected at most two axes, got {dim}")
    elif p is not None:
        real(p=p)
        if p < 0 or p == math.inf:
            _not_empty(x, axes)
    wider = x.astype(wide)
    if p == "nuc":
        y, pull = _over_rows(_nuclear, wider, dim, keepdim, tuple(x.shape[axis] for axis in axes))
    else:
        y, pull = _over_rows(_length, wider, dim, keepdim, 2 if p in ("fro", None) else p)

    def pullback(dy):
        return pull(dy).astype(x.dtype)

    return y, pullback


def _length(rows, p):
    """The norm of each row; the usual one in fewer steps, where no square overflows or vanishes."""
    if p == 2 and np.isfinite(np.vdot(rows, rows)):
        square = dot(rows, rows, (*rows.shape[:-1], 1))
        info = np.finfo(rows.dtype)
        if np.all(square > info.tiny / info.eps):
            return _euclidean(rows, np.sqrt(square))
    y, pull = _norm(rows, p)

    def pullback(dy):
        return pull(dy[..., 0])

    return y[..., np.newaxis], pullback


def _euclidean(rows, y):
    def pullback(dy):
        return dy / y * rows

    return y, pullback


def _nuclear(rows, shape):
    matrices = rows.reshape(*rows.shape[:-1], *shape)
    exact_enough = np.result_type(rows, np.float32)  # LAPACK has no float16
    U, S, Vt = np.linalg.svd(matrices.astype(exact_enough), full_matrices=False)
    y = S.sum(axis=-1, keepdims=True).astype(rows.dtype)

    def pullback(dy):
        return dy * (U @ Vt).reshape(rows.shape).astype(rows.dtype)

    return y, pullback


def logsumexp(x, dim, keepdim=False):
    """log Σ eˣ over dim, one axis or several, which keepdim keeps with length 1; the slope is the
    softmax of x, and NaN where that is ∞ / ∞ or 0 / 0. The logarithm of nothing is −∞. Raises
    TypeError for no dim, ValueError for an axis that is named twice, and for an empty dim without
    keepdim."""
    if dim is None:
        raise TypeError("dim: expected an axis or several, got None")
    if isinstance(dim, (tuple, list)) and not dim and np.ndim(x) and not keepdim:
        raise ValueError("dim: expected an axis or several, got none")
    return _over_rows(_log_sum_exp, x, dim, keepdim)


def _log_sum_exp(rows):
    top = rows.max(axis=-1, keepdims=True, initial=-math.inf)
    finite = np.isfinite(top)
    _, z, _, others = exponentials(where(finite, rows, 0))
    y = where(finite, where(finite, top, 0) + np.log1p(others), top)

    def pullback(dy):
        total = 1 + others
        infinite = np.where(rows < top, 0, math.nan).astype(rows.dtype)
        return dy * where(finite, z / total, infinite)

    return y, pullback


def _over_rows(rule, x, dim, keepdim, *settings):
    """A rule of the last axis, which it keeps with length 1, as one of the axes that dim names."""
    x = floating(x=x)
    flag(keepdim=keepdim)
    axes = _axes(x.ndim, dim)
    others = [axis for axis in range(x.ndim) if axis not in axes]
    order = [*others, *axes]
    moved = x.transpose(order)
    left = moved.shape[: len(others)]
    y, pull_rows = rule(moved.reshape(*left, math.prod(moved.shape[len(others) :])), *settings)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))

    def pullback(dy):
        dx = pull_rows(np.reshape(dy, (*left, 1)))
        return dx.reshape(moved.shape).transpose(np.argsort(order))

    return y.reshape(kept if keepdim else left), pullback


def _not_empty(x, axes):
    if not math.prod(x.shape[axis] for axis in axes):
        raise ValueError(f"x: expected an element along each axis of dim, got shape {x.shape}")


def _axes(ndim, dim):
    """The axes, counted from 0, that dim names: one, several, or all if it is None or empty."""
    dims = dim if isinstance(dim, (tuple, list)) else () if dim is None else (dim,)
    axes = tuple(axis_of(ndim, dim=d) for d in dims) if dims else tuple(range(ndim))
    if len(set(axes)) < len(axes):
        raise ValueError(f"dim: expected each axis once, got {dim}")
    return axes if ndim else ()
