"""Elements picked by their place or by a condition.

All of them take arrays in float16, float32 or float64, and raise TypeError for any others,
ValueError for shapes that do not fit; the message names the argument.
"""

import math

import numpy as np

from .arguments import array, axis_of, broadcast, flag, floating
from .arrays import operands


def where(condition, x, other):
    """x where the condition holds, other elsewhere; dy goes where its element came from. x and
    other are two arrays, or an array and a number; all three broadcast. Raises TypeError for a
    condition that is no boolean array."""
    condition = array(condition=condition)
    if condition.dtype != bool:
        raise TypeError(f"condition: expected dtype bool, got {condition.dtype}")
    x, other, back = operands(x=x, other=other)
    broadcast(condition=condition, x=x, other=other)
    y = np.where(condition, x, other)

    def pullback(dy):
        return back(np.where(condition, dy, 0), np.where(condition, 0, dy))

    return y, pullback


def getitem(x, index):
    """x[index], by numbers, slices, arrays, None and …; an element picked more than once collects
    all of its dy. Raises IndexError for an index that x does not have, ValueError for a slice with
    a step below 1."""
    x = floating(x=x)
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, np.ndarray):
            array(index=part)
    steps = [part.step for part in parts if type(part) is slice]
    if any(step is not None and step < 1 for step in steps):
        raise ValueError(f"index: expected steps above 0, got {index!r}")
    try:
        y = x[index]
    except IndexError:
        raise IndexError(f"index: expected one into shape {x.shape}, got {index!r}") from None

    shape, dtype = x.shape, x.dtype

    def pullback(dy):
        dx = np.zeros(shape, dtype)
        np.add.at(dx, index, dy)
        return dx

    return y, pullback


def gather(x, dim, index, *, sparse_grad=False):
    """y[i, j, …] = x[index[i, j, …], j, …], where the index stands at the axis dim: an array of as
    many axes as x, elsewhere no longer than it. An element picked more than once collects all of
    its dy. sparse_grad is torch's choice of a layout.

    Raises TypeError for an index of another dtype than int64 and int32, ValueError for one of
    another shape, IndexError for one outside x; one of no elements may have any dtype and shape.
    """
    x, index = floating(x=x), array(index=index)
    axis = axis_of(x.ndim, dim=dim)
    flag(sparse_grad=sparse_grad)
    rows, at = np.atleast_1d(x), np.atleast_1d(index)
    if index.size:
        lengths = [n for i, n in enumerate(rows.shape) if i != axis]
        wanted = [n for i, n in enumerate(at.shape) if i != axis]
        if at.ndim != rows.ndim or any(n > most for n, most in zip(wanted, lengths, strict=True)):
            raise ValueError(
                f"index: expected as many axes as x, {x.shape}, none but {dim} longer, got shape "
                f"{index.shape}"
            )
        _within(index, rows.shape[axis])
        flat = _places(rows.shape, at, axis)
    else:
        flat = np.zeros(index.shape, np.int64)
    y, shape, dtype = rows.reshape(-1).take(flat).reshape(index.shape), x.shape, x.dtype

    def pullback(dy):
        return _collected(dy, flat, shape, dtype)

    return y, pullback


def index_select(x, dim, index):
    """x at each index along the axis dim, whose length becomes that of the index, an array of one
    axis or none. What is picked more than once collects all of its dy.

    Raises TypeError for an index of another dtype than int64 and int32, ValueError for one with
    more axes and unless x without axes gets one index, IndexError for one outside x.
    """
    x, index = floating(x=x), array(index=index)
    axis = axis_of(x.ndim, dim=dim)
    if index.ndim > 1 or (x.ndim == 0 and index.size != 1):
        expected = "one axis" if x.ndim else "one element"
        raise ValueError(f"index: expected {expected}, got shape {index.shape}")
    rows, at = np.atleast_1d(x), np.atleast_1d(index)
    _within(at, rows.shape[axis])
    y = np.take(rows, at, axis)
    along = np.broadcast_to(at.reshape(-1, *[1] * (rows.ndim - axis - 1)), y.shape)
    y, lengths, shape, dtype = y if x.ndim else y.reshape(()), rows.shape, x.shape, x.dtype

    def pullback(dy):
        return _collected(dy, _places(lengths, along, axis), shape, dtype)

    return y, pullback


def _places(shape, index, axis):
    """Where in an array of this shape, laid out in a row, the elements are that an index picks."""
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    places = list(np.ogrid[tuple(map(slice, index.shape))])
    places[axis] = index.astype(np.int64, copy=False)
    return sum(place * step for place, step in zip(places, steps, strict=True))


def _collected(dy, places, shape, dtype):
    """The adjoint of picking: to each element the sum of dy over the places where it was picked, in
    float64, because it may be long."""
    sums = np.bincount(places.reshape(-1), dy.reshape(-1), math.prod(shape))
    return sums.astype(dtype).reshape(shape)


def _within(index, n):
    """Raises TypeError for an index that is neither int64 nor int32, IndexError for one outside an
    axis of n elements."""
    if index.dtype not in (np.int64, np.int32):
        raise TypeError(f"index: expected dtype int64 or int32, got {index.dtype}")
    outside = (index < 0) | (index >= n)
    if outside.any():
        raise IndexError(f"index: expected from 0 to {n - 1}, got {index[outside].flat[0]}")
