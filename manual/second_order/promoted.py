"""What passes of second order share: a slope promoted to a rule, and checks.

They raise TypeError or ValueError, as the package says.
"""

import math

import numpy as np

from ..arguments import broadcast, floating, whole
from ..arrays import sum_to, where


def slope_of(rule, x, *settings):
    """The slope of an element-wise rule at x."""
    return rule(x, *settings)[1](np.ones_like(x))


def fitting(**arrays):
    """The named arrays, floating, of shapes that broadcast. Raises TypeError or ValueError for any
    others."""
    found = floating(**arrays)
    broadcast(**dict(zip(arrays, found, strict=True)))
    return found


def or_false(given):
    """A flag for which None means False."""
    return False if given is None else given


def divisor(g, shape, reduction, total):
    """What the terms of a loss, of this shape, are divided by: `total` for a mean, NaN instead of
    0. Raises ValueError for another reduction, or where grad_output does not fit."""
    whole(reduction=reduction)
    if reduction not in (0, 1, 2):
        raise ValueError(f"reduction: expected 0, 1 or 2, got {reduction}")
    expected = () if reduction else shape
    if g.shape != expected:
        raise ValueError(f"grad_output: expected shape {expected}, got {g.shape}")
    return (total or math.nan) if reduction == 1 else 1


def promoted(g, slope, *others):
    """g f′ as a rule of g, and of every other array, each given with the slope of f′ in it. Where
    f′ is 0, the result is 0, whatever g is."""

    def times(slope, factor, shape):
        return sum_to(where(slope == 0, 0, factor * slope).astype(g.dtype), shape)

    shape = np.broadcast_shapes(g.shape, slope.shape)
    y = times(slope, g, shape)

    def pullback(dy):
        return times(slope, dy, g.shape), *(times(bend, dy * g, a.shape) for a, bend in others)

    return y, pullback
