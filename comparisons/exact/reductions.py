import math
import operator

import mpmath
import numpy as np


def sum(x, dim=None, keepdim=False, *, dtype=None):
    axes = tuple(dim) if isinstance(dim, (tuple, list)) else dim
    return np.sum(x, axis=axes if axes != () else None, keepdims=keepdim, initial=mpmath.mpf(0))


def mean(x, dim=None, keepdim=False, *, dtype=None):
    total = sum(x, dim, keepdim)
    n = np.size(x) // (np.size(total) or 1)
    return total / n if n else total * mpmath.nan


def cumsum(x, dim, *, dtype=None):
    return np.cumsum(np.atleast_1d(x), axis=dim).reshape(np.shape(x)) if x.size else x


def _rows(x, dim):
    """The rows that a reduction is of, and the shape with the axes kept; x has the others left."""
    dims = dim if isinstance(dim, (tuple, list)) else [] if dim is None else [dim]
    axes = sorted(d % x.ndim for d in dims) if dims and x.ndim else list(range(x.ndim))
    others = [axis for axis in range(x.ndim) if axis not in axes]
    moved = x.transpose([*others, *axes])
    left = moved.shape[: len(others)]
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return moved.reshape(math.prod(left), math.prod(moved.shape[len(others) :])), left, kept


def _each_row(function, x, dim, keepdim):
    rows, left, kept = _rows(np.asarray(x), dim)
    y = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        y[i] = function(list(row))
    return y.reshape(kept if keepdim else left)


def _first(row, better):
    """Where the first of the best is; a NaN is the best."""
    best = 0
    for i, a in enumerate(row):
        beaten = better(a, row[best]) or mpmath.isnan(a)
        if beaten and not mpmath.isnan(row[best]):
            best = i
    return best


def _best(x, dim, keepdim, better):
    if isinstance(dim, np.ndarray):
        choose = np.frompyfunc(lambda a, b: [a, b][_first([a, b], better)], 2, 1)
        return choose(x, dim)
    y = _each_row(lambda row: row[_first(row, better)], x, dim, keepdim)
    if dim is None:
        return y
    return y, _each_row(lambda row: _first(row, better), x, dim, keepdim).astype(int)


def max(x, dim=None, keepdim=False):
    return _best(x, dim, keepdim, operator.gt)


def min(x, dim=None, keepdim=False):
    return _best(x, dim, keepdim, operator.lt)


def amax(x, dim=(), keepdim=False):
    return _each_row(lambda row: row[_first(row, operator.gt)], x, dim, keepdim)


def amin(x, dim=(), keepdim=False):
    return _each_row(lambda row: row[_first(row, operator.lt)], x, dim, keepdim)


def var(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    c = mpmath.mpf(int(unbiased) if correction is None else correction)

    def of_row(row):
        n = len(row)
        if n - c <= 0:
            return mpmath.nan
        mean = mpmath.fsum(row) / n
        return mpmath.fsum((a - mean) ** 2 for a in row) / (n - c)

    return _each_row(of_row, x, dim, keepdim)


def std(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    found = var(x, dim, unbiased, keepdim, correction=correction)
    return np.frompyfunc(mpmath.sqrt, 1, 1)(found)


def norm(x, p="fro", dim=None, keepdim=False, *, dtype=None):
    if p == "nuc":
        return _nuclear(x, (0, 1) if dim is None else dim, keepdim)
    order = mpmath.mpf(2 if p in ("fro", None) else p)

    def of_row(row):
        sizes = [mpmath.fabs(a) for a in row]
        if order == 0:
            return mpmath.mpf(len([a for a in sizes if a]))
        if mpmath.isinf(order):
            return sorted(sizes)[-1 if order > 0 else 0]
        if not any(sizes) or (order < 0 and not all(sizes)):
            return mpmath.mpf(0)
        return mpmath.fsum(a**order for a in sizes if a) ** (1 / order)

    return _each_row(of_row, x, dim, keepdim)


def _nuclear(x, dim, keepdim):
    first, second = (d % x.ndim for d in dim)
    rows, columns = x.shape[first], x.shape[second]
    moved = np.moveaxis(x, (first, second), (-2, -1)).reshape(-1, rows, columns)
    y = np.empty(len(moved), dtype=object)
    for i, matrix in enumerate(moved):
        y[i] = mpmath.fsum(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False))
    shape = [1 if axis in (first, second) else n for axis, n in enumerate(x.shape)]
    left = [n for axis, n in enumerate(x.shape) if axis not in (first, second)]
    return y.reshape(shape if keepdim else left)


def logsumexp(x, dim, keepdim=False):
    def of_row(row):
        total = mpmath.fsum(mpmath.exp(a) for a in row)
        return mpmath.log(total) if total else -mpmath.inf

    return _each_row(of_row, x, dim, keepdim)
