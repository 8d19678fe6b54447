"""Slices of an array along an axis, or along neighbouring axes taken together."""

from __future__ import annotations

import math

import numpy as np


def together(ndim: int) -> list[tuple[int, int]]:
    """The first and the last of: each axis, neighbours in twos, all axes in a row."""
    found = [(axis, axis) for axis in range(ndim)]
    found += [(first, first + 1) for first in range(ndim - 1)]
    return [*found, (0, ndim - 1)] if ndim > 2 else found


def viewed(a: np.ndarray, first: int, last: int) -> np.ndarray:
    """The array with the axes from first to last as the middle one of three."""
    before, after = math.prod(a.shape[:first]), math.prod(a.shape[last + 1 :])
    return a.reshape(before, math.prod(a.shape[first : last + 1]), after)


def slices(which: str, count: int, first: int, last: int) -> str:
    """How slices of dy are called: "the last 2 slices of dy along axis 1"."""
    many = f"{which} slice" if count == 1 else f"{which} {count} slices"
    axes = f"axis {first}" if first == last else f"axes {first} to {last} taken together"
    return f"the {many} of dy along {axes}"
