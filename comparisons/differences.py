"""A derivative that owes torch nothing: extrapolated central differences with their own error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LEVELS = 8  # step sizes, each half of the one before


def derivative(function: Callable[[float], float], size: float) -> tuple[float, float]:
    """The derivative of function(h) at h = 0, and an estimate of its error.

    Richardson's extrapolation over h = 1/4, 1/8, …: the error of a central difference is a series
    in h², whose terms are removed one after another. The entry that changed least from both its
    parents is taken. That change is the error estimate, with what rounding does to a function
    that adds up terms of the given total `size`.

    Ridders, 1982, "Accurate computation of F'(x) and F'(x) F''(x)"
    """
    u = float(np.finfo(float).eps) / 2
    best, error = 0.0, np.inf
    above: list[float] = []
    for level in range(LEVELS):
        h = 1 / 4 / 2**level
        row = [(function(h) - function(-h)) / (2 * h)]
        for k, coarser in enumerate(above, start=1):
            row.append(row[-1] + (row[-1] - coarser) / (4**k - 1))
            change = max(abs(row[-1] - row[-2]), abs(row[-1] - coarser)) + u * size / h
            if change < error:
                best, error = row[-1], change
        above = row
    return best, error
