"""Slices of an array along an axis, or along neighbouring axes taken together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

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


def spread_sums(a: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The sum over one or more axes, or the mean, in the place of each element along them."""
    long = [axis for axis in range(a.ndim) if a.shape[axis] > 1]
    for count in range(1, len(long) + 1):
        for axes in itertools.combinations(long, count):
            where = " and ".join(f"axis {axis}" for axis in axes)
            for how, made in (
                ("summed", a.sum(axes, keepdims=True)),
                ("averaged", a.mean(axes, keepdims=True)),
            ):
                yield f"{how} over {where}", np.broadcast_to(made, a.shape)
