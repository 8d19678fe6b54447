"""The number with which a call would give what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ...verdict.classes import Results

STEPS = 8  # of the secant
MANY = 3  # elements that differ, from which one number that fits all says something
DIGITS = range(1, 7)  # to which it is rounded, the fewest first

Given = Callable[[float], Results]


def solved(value: float, given: Given, wanted: Results, before: Results) -> float | None:
    """The value near a first one that makes of what is given what is wanted, as far as one along
    which they differ can; None where what is left over does not halve at each step.

    before   what is given with the first
    """
    apart = {n: before[n].astype(float) - wanted[n] for n in before if n in wanted}
    length = sum(float((d * d).sum()) for d in apart.values())
    if not (0 < length < math.inf) or sum(np.count_nonzero(d) for d in apart.values()) < MANY:
        return None

    def left(x: float) -> tuple[float, float]:
        """Along what differs, 1 at first, and in all."""
        found = given(x)
        rest = {n: found[n].astype(float) - wanted[n] for n in apart}
        along = sum(float((rest[n] * apart[n]).sum()) for n in apart) / length
        return along, math.sqrt(sum(float((d * d).sum()) for d in rest.values()) / length)

    x, y, best = value, 1.0, 1.0
    new = 1.01 * value if value else 1e-3
    for step in range(STEPS):
        along, rest = left(new)
        if not math.isfinite(along) or along == y or (step > 2 and rest > best / 2):
            break
        best = min(best, rest)
        x, y, new = new, along, new - along * (new - x) / (along - y)
    return new if best < 1 and math.isfinite(new) else None


def shortest(value: float) -> Iterator[float]:
    """A number rounded to few digits, to more, and as it is."""
    yield from dict.fromkeys(float(f"{value:.{digits}g}") for digits in DIGITS)
    yield value
