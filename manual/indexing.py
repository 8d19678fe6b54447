"""Elements picked by their place or by a condition.

All of them take arrays in float16, float32 or float64, and raise TypeError for any others,
ValueError for shapes that do not fit; the message names the argument.
"""

import numpy as np

from .arguments import array, broadcast, floating
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
