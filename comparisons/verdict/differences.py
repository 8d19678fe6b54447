"""A derivative that owes torch nothing: extrapolated differences with their own error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVELS = 8  # the number of step sizes, each half of the one before


def derivative(function: Callable[[float], float], size: float) -> tuple[float, float]:
    """The derivative of function(h) at h = 0, and an estimate of its error.

    Richardson's extrapolation over h = 1/4, 1/8, …: the error of a central difference is a series
    in h², that of a one-sided one a series in h, whose terms are removed one after another. The
    entry that changed least from both its parents is taken. That change is the error estimate, with
    what rounding does to a function that adds up terms of the given total `size`. Where the slopes
    of the two sides differ by more than their own errors there is a kink, and the distance between
    them counts as error. Steps at which the function is not finite are left out; if all are, the
    error is infinite.

    Ridders, 1982, "Accurate computation of F'(x) and F'(x) F''(x)"
    """
    steps = [1 / 4 / 2**level for level in range(LEVELS)]
    here = function(0.0)
    ahead, behind = ([function(sign * h) for h in steps] for sign in (1, -1))
    best, error = _limit(
        [(h, (a - b) / (2 * h)) for h, a, b in zip(steps, ahead, behind, strict=True)], 4, size
    )
    right, right_error = _limit(
        [(h, (a - here) / h) for h, a in zip(steps, ahead, strict=True)], 2, size
    )
    left, left_error = _limit(
        [(h, (here - b) / h) for h, b in zip(steps, behind, strict=True)], 2, size
    )
    jump = abs(right - left)
    return best, error + jump if jump > right_error + left_error else error


def _limit(row: Sequence[tuple[float, float]], order: int, size: float) -> tuple[float, float]:
    """The limit of differences D(h) as h is halved, by Neville's scheme, and its error."""
    u = float(np.finfo(float).eps) / 2
    best, error = 0.0, np.inf
    above: list[float] = []
    for h, difference in row:
        if not np.isfinite(difference):
            above = []
            continue
        line = [difference]
        for k, coarser in enumerate(above, start=1):
            line.append(line[-1] + (line[-1] - coarser) / (order**k - 1))
            change = max(abs(line[-1] - line[-2]), abs(line[-1] - coarser)) + u * size / h
            if change < error:
                best, error = line[-1], change
        above = line
    return best, error
