"""A line search for the strong Wolfe conditions."""

import math
from typing import NamedTuple

import numpy as np


class Point(NamedTuple):
    """A place t on the line, the loss and its gradient there, and the slope along the line."""

    t: float
    loss: float
    gradient: np.ndarray
    slope: float


def strong_wolfe(along, t, start, width, *, c1=1e-4, c2=0.9, tolerance_change=1e-9, max_ls=25):
    """A point that is low enough, f(t) ≤ f(0) + c₁ t f′(0), and flat enough, |f′(t)| ≤ c₂ |f′(0)|.

    First t grows until such a point is met or must lie between the last two; then the bracket
    shrinks around it. Each trial is the minimum of the cubic through both ends, kept away from them
    where that has failed to shrink the bracket.

    along(t) gives the Point at t, start is the Point at 0, width the largest element of the
    direction. Returns the best point found and the number of evaluations, of which there are at
    most max_ls + 1. Nocedal & Wright, 2006, "Numerical Optimization", algorithms 3.5 and 3.6
    """

    def too_high(point, floor):
        return point.loss > start.loss + c1 * point.t * start.slope or point.loss >= floor

    def flat(point):
        return abs(point.slope) <= -c2 * start.slope

    before, new, tried = start, along(t), 0
    while tried < max_ls:
        if too_high(new, before.loss if tried > 1 else math.inf) or (
            new.slope >= 0 and not flat(new)
        ):
            bracket = [before, new]
            break
        if flat(new):
            return new, tried + 1
        reach = new.t + 0.01 * (new.t - before.t), new.t * 10
        before, new = new, along(_lowest_of_cubic(before, new, *reach))
        tried += 1
    else:
        bracket = [start, new]
    low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
    stuck = False
    while tried < max_ls:
        left, right = sorted(point.t for point in bracket)
        if (right - left) * width < tolerance_change:
            break
        t = _lowest_of_cubic(*bracket, left, right)
        margin = 0.1 * (right - left)
        near = min(right - t, t - left) < margin
        if near and (stuck or t >= right or t <= left):
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            near = False
        stuck = near
        new = along(t)
        tried += 1
        if too_high(new, bracket[low].loss):
            bracket[high] = new
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        found = flat(new)
        if not found and new.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = new
        if found:
            break
    return bracket[low], tried + 1


def _lowest_of_cubic(a, b, left, right):
    """Where the cubic with the loss and slope of both points is lowest, between left and right; the
    middle if it has no minimum."""
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (left + right) / 2
    d2 = np.sqrt(square)
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, left), right)
