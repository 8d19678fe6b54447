"""Elements in order.

All of them take x in float16, float32 or float64, and give a tuple of values and of indices into
x, which have no gradient: dy is (d, None). NaN is larger than any number, and of equal elements the
first comes first. They raise TypeError for any other array and for a setting of the wrong type,
IndexError for an axis that x does not have; the message names the argument.
"""

import numpy as np

from .arguments import axis_of, flag, floating, whole

FEW = 8  # how many times as long an axis is, from which on not all of it is sorted


def sort(x, dim=-1, descending=False, *, stable=False):
    """The elements along an axis from the least to the largest, or the other way round, and where
    each was; dy goes back there. With or without `stable` equal elements keep their order."""
    x, axis = floating(x=x), axis_of(np.ndim(x), dim=dim)
    flag(descending=descending)
    if stable is not None:
        flag(stable=stable)
    return _picked(x, axis, _order(np.atleast_1d(x), axis, descending))


def topk(x, k, dim=-1, largest=True, sorted=True):
    """The k largest elements along an axis, the largest first, or the k least, the least first, and
    where each was; dy goes back there, 0 to all others. They are in order with or without `sorted`.
    Raises ValueError for a k below 0 or above the length of the axis."""
    x, axis = floating(x=x), axis_of(np.ndim(x), dim=dim)
    whole(k=k)
    flag(largest=largest, sorted=sorted)
    rows = np.atleast_1d(x)
    if not 0 <= k <= rows.shape[axis] or not (k or x.ndim):
        raise ValueError(f"k: expected from {1 - bool(x.ndim)} to {rows.shape[axis]}, got {k}")
    return _picked(x, axis, _first(rows, k, axis, largest))


def _order(rows, axis, descending):
    """The indices that sort along an axis. From behind, and turned round, the last of equal
    elements would be the first: so the rows are turned round as well."""
    if not descending:
        return np.argsort(rows, axis, kind="stable")
    turned = np.argsort(np.flip(rows, axis), axis, kind="stable")
    return rows.shape[axis] - 1 - np.flip(turned, axis)


def _first(rows, k, axis, descending):
    """The first k of the indices that sort along an axis. Where they are few, only they are sorted:
    what lies before the k-th element, and of its equals the first ones."""
    n = rows.shape[axis]
    if n < FEW * k or not k:
        return np.take(_order(rows, axis, descending), range(k), axis)
    a = np.moveaxis(rows, axis, -1)
    place = n - k if descending else k - 1
    edge = np.partition(a, place, -1)[..., place : place + 1]
    if np.isnan(edge).any():
        return np.take(_order(rows, axis, descending), range(k), axis)
    chosen = ~(a < edge) if descending else a <= edge
    if np.count_nonzero(chosen) > edge.size * k:
        equal = a == edge
        before = chosen & ~equal
        open_ = k - np.count_nonzero(before, axis=-1)[..., np.newaxis]
        chosen = before | (equal & (np.cumsum(equal, -1) <= open_))
    index = np.nonzero(chosen)[-1].reshape(*a.shape[:-1], k)
    order = _order(np.take_along_axis(a, index, -1), -1, descending)
    return np.moveaxis(np.take_along_axis(index, order, -1), -1, axis)


def _picked(x, axis, index):
    """((x at the index along the axis, the index), pullback), where no two indices are one."""
    rows = np.atleast_1d(x)
    shape = index.shape if x.ndim else ()
    values = np.take_along_axis(rows, index, axis)

    def pullback(dy):
        dx = np.zeros_like(rows)
        np.put_along_axis(dx, index, np.reshape(dy[0], index.shape), axis)
        return dx.reshape(x.shape)

    return (values.reshape(shape), index.reshape(shape)), pullback
