"""Exact values: each op defined once more, in mpmath, so plainly that it needs no derivative of its
own.

The definitions work on object arrays of mpf. A derivative is a central difference with 240 digits
and a step of 10⁻⁸⁰, right to far more digits than a dtype has; at a kink it is the mean of both
sides, which decides nothing.

They are numbers and not balls, which would enclose what rounding does to them: of two balls that
overlap none can say that they are equal, and ties of a maximum, slopes that are 0 and results
halfway between two floats are just that. What the step does to a difference is in no ball either.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import mpmath
import numpy as np

from ...manual.binding import named
from ...manual.trees import leaves, tree_map

DIGITS = 240
STEP = mpmath.mpf(10) ** -80
KINK = mpmath.mpf(10) ** -40  # slopes of two sides further apart, relatively, make a kink
ROUNDING = mpmath.mpf(10) ** -150  # the error of a slope, relative to y, since y has DIGITS
SOON = 100_000  # the numbers that make exact values in a second or so
Definition = Callable[..., Any]  # what an op is, over arrays of mpf
Oracle = Callable[[str, tuple[int, ...]], float]


def oracle(
    definition: Definition, inputs: Any, kinks: bool = True, work: float = math.inf
) -> Oracle:
    """(name of a result, index) → its exact value; the inputs are (args, kwargs, dy). Without
    `kinks` a derivative is NaN where there is none; so is what takes more than the work: how many
    numbers definitions are given altogether.

    The results are "value", or "value.0" and so on, and the names of arguments, for a dict or list
    with the key behind a point; an argument of such a name itself is "argument value".
    """
    call = _Call(definition, inputs, work)
    together = cache(call.together)

    def exact(name: str, index: tuple[int, ...]) -> float:
        with mpmath.workdps(DIGITS), contextlib.suppress(OutOfWork):
            argument, _, key = name.partition(".")
            if argument == "value":
                return float(np.asarray(leaves(call.y)[int(key or 0)])[index])
            every = together(name)
            slope, bend = (a[index] for a in every) if every else call.alone(name, index)
            if kinks or mpmath.fabs(bend) <= KINK * mpmath.fabs(slope):
                return float(slope)
        return math.nan

    return exact


def sides(
    definition: Definition, inputs: Any, name: str, index: tuple[int, ...]
) -> tuple[float, float]:
    """The derivative from the left and from the right."""
    with mpmath.workdps(DIGITS):
        slope, bend = _Call(definition, inputs).alone(name, index)
        return float(slope - bend / 2), float(slope + bend / 2)


class OutOfWork(Exception):
    """More numbers than were allowed."""


class _Call:
    """A call of a definition. Slopes come with bends: by how much the derivative from the right is
    larger than that from the left."""

    def __init__(self, definition: Definition, inputs: Any, work: float = math.inf) -> None:
        self.definition, self.inputs, self.work = definition, inputs, work

    @cached_property
    def size(self) -> int:
        return sum(a.size for a in leaves(self.inputs) if isinstance(a, np.ndarray))

    @cached_property
    def exactly(self) -> Any:
        if self.size > self.work:
            raise OutOfWork
        return tree_map(_exactly, self.inputs)

    @cached_property
    def y(self) -> Any:
        return self.evaluated()

    @cached_property
    def along_dy(self) -> Any:
        return inner(self.exactly[2], self.y)

    def evaluated(self) -> Any:
        """The outputs of the numbers as they are now."""
        self.work -= self.size
        if self.work < 0:
            raise OutOfWork
        args, kwargs, _ = self.exactly
        return self.definition(*args, **kwargs)

    def argument(self, name: str) -> Any:
        args, kwargs, _ = self.exactly
        arguments = inspect.signature(self.definition).bind(*args, **kwargs).arguments
        return named(dict(arguments))[name.removeprefix("argument ")]

    def moved(self, name: str, where: Any, steps: Any) -> Any:
        """The outputs with these elements of an argument moved that far."""
        array = self.argument(name)
        before = array.copy()
        array[where] += steps
        try:
            return self.evaluated()
        finally:
            array[...] = before

    def alone(self, name: str, index: tuple[int, ...]) -> tuple[Any, Any]:
        """Slope and bend of ⟨dy, y⟩ along one element."""
        dy = self.exactly[2]
        behind, ahead = (inner(dy, self.moved(name, index, step)) for step in (-STEP, STEP))
        return _slope_and_bend(behind, self.along_dy, ahead, STEP)

    def together(self, name: str) -> tuple[Any, Any] | None:
        """Slopes and bends along all elements at once, where each moves its own element of the
        output and no other, else None.

        Each is moved by a step of its own, and then by another: what one did to the output of
        another would not be in proportion to both.
        """
        dy, shape = self.exactly[2], self.argument(name).shape
        if not isinstance(dy, np.ndarray) or dy.shape != shape or dy.size <= 2:
            return None  # two take as many steps by themselves
        found = []
        for seed in range(2):
            steps = STEP * _exactly(1 + np.random.default_rng(seed).random(shape))
            behind, ahead = (self.moved(name, ..., way) for way in (-steps, steps))
            found.append(_slope_and_bend(behind, self.y, ahead, steps))
        (slopes, bends), (others, _) = found
        if np.all(abs(slopes - others) <= KINK * abs(slopes) + ROUNDING * abs(self.y)):
            return dy * slopes, dy * bends
        return None


def _slope_and_bend(behind: Any, here: Any, ahead: Any, step: Any) -> tuple[Any, Any]:
    return (ahead - behind) / (2 * step), (ahead - 2 * here + behind) / step


def inner(dy: Any, y: Any) -> Any:
    """⟨dy, y⟩ over all outputs that have a dy."""
    pairs = zip(leaves(dy), leaves(y), strict=True)
    return sum(np.sum(d * part) for d, part in pairs if d is not None)


def _exactly(leaf: Any) -> Any:
    """A floating array as an array of mpf; anything else as it is."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
        numbers = [mpmath.mpf(float(number)) for number in leaf.flat]
        return np.array(numbers, dtype=object).reshape(leaf.shape)
    return leaf
