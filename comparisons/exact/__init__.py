"""Exact values: each op defined once more, in mpmath, so plainly that it needs no derivative of its
own.

The definitions work on object arrays of mpf. A derivative is a central difference with 240 digits
and a step of 10⁻⁸⁰, right to far more digits than a dtype has; at a kink it is the mean of both
sides, which decides nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any

import mpmath
import numpy as np

from ...reference.adapters import leaves, tree_map
from ..samples import family

DIGITS = 240
STEP = mpmath.mpf(10) ** -80
KINK = mpmath.mpf(10) ** -40  # how far the slopes of two sides are apart, of their size

Oracle = Callable[[str, tuple[int, ...]], float]


def oracle(op: str, inputs: Any, kinks: bool = True) -> Oracle:
    """(name of a result, index) → its exact value; the inputs are (args, kwargs, dy). Without
    `kinks` a derivative is NaN where there is none.

    The results are "value", or "value.0" and so on, and the names of arguments, for a dict with the
    key behind a point.
    """
    call = _Call(op, inputs)

    def exact(name: str, index: tuple[int, ...]) -> float:
        with mpmath.workdps(DIGITS):
            argument, _, key = name.partition(".")
            if argument == "value":
                return float(np.asarray(leaves(call.y)[int(key or 0)])[index])
            behind, ahead = call.along(name, index, -STEP), call.along(name, index, STEP)
            slope = (ahead - behind) / (2 * STEP)
            if not kinks:
                bend = (ahead - 2 * call.here + behind) / STEP
                if not mpmath.fabs(bend) <= KINK * mpmath.fabs(slope):
                    return float("nan")
            return float(slope)

    return exact


def sides(op: str, inputs: Any, name: str, index: tuple[int, ...]) -> tuple[float, float]:
    """The derivative from the left and from the right."""
    call = _Call(op, inputs)
    with mpmath.workdps(DIGITS):
        behind, ahead = call.along(name, index, -STEP), call.along(name, index, STEP)
        return float((call.here - behind) / STEP), float((ahead - call.here) / STEP)


class _Call:
    """A call of a definition. What all results share is computed once, and not before it is
    needed."""

    def __init__(self, op: str, inputs: Any) -> None:
        self.op, self.inputs = op, inputs

    @cached_property
    def function(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(import_module(f".{family(self.op)}", __name__), self.op)
        return found

    @cached_property
    def exactly(self) -> Any:
        return tree_map(_exactly, self.inputs)

    @cached_property
    def y(self) -> Any:
        args, kwargs, _ = self.exactly
        return self.function(*args, **kwargs)

    @cached_property
    def here(self) -> Any:
        """⟨dy, y⟩."""
        return inner(self.exactly[2], self.y)

    def along(self, name: str, index: tuple[int, ...], step: Any) -> Any:
        """⟨dy, y⟩ with one number a step further."""
        args, kwargs, dy = self.exactly
        arguments = inspect.signature(self.function).bind(*args, **kwargs).arguments
        argument, _, key = name.partition(".")
        array = arguments[argument][key] if key else arguments[argument]
        still = array[index]
        array[index] = still + step
        try:
            return inner(dy, self.function(*args, **kwargs))
        finally:
            array[index] = still


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
