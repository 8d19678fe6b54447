"""Exact values: each op defined once more, in mpmath, so plainly that it needs no derivative of its
own.

The definitions work on object arrays of mpf. A derivative is a central difference with 240 digits
and a step of 10⁻⁸⁰, right to far more digits than a dtype has; at a kink it is the mean of both
sides, which decides nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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

    def exact(name: str, index: tuple[int, ...]) -> float:
        with mpmath.workdps(DIGITS):
            argument, _, key = name.partition(".")
            if argument == "value":
                function, (args, kwargs, _) = _definition(op), tree_map(_exactly, inputs)
                y = function(*args, **kwargs)
                return float(np.asarray(leaves(y)[int(key or 0)])[index])
            behind, here, ahead = _around(op, inputs, name, index)
            slope = (ahead - behind) / (2 * STEP)
            bend = (ahead - 2 * here + behind) / STEP
            if not kinks and not abs(bend) <= KINK * abs(slope):
                return float("nan")
            return float(slope)

    return exact


def sides(op: str, inputs: Any, name: str, index: tuple[int, ...]) -> tuple[float, float]:
    """The derivative from the left and from the right."""
    with mpmath.workdps(DIGITS):
        behind, here, ahead = _around(op, inputs, name, index)
        return float((here - behind) / STEP), float((ahead - here) / STEP)


def _definition(op: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module(f".{family(op)}", __name__), op)
    return found


def _around(op: str, inputs: Any, name: str, index: tuple[int, ...]) -> list[Any]:
    """⟨dy, y⟩ with one number a step back, where it is, and a step ahead."""
    function, (args, kwargs, dy) = _definition(op), tree_map(_exactly, inputs)
    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    argument, _, key = name.partition(".")
    array = arguments[argument][key] if key else arguments[argument]
    still, found = array[index], []
    for step in (-STEP, mpmath.mpf(0), STEP):
        array[index] = still + step
        found.append(inner(dy, function(*args, **kwargs)))
    return found


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
