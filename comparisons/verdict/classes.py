"""The classes of a verdict, and what is said of one result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = ("float64", "float32")  # the dtypes in which results are judged
HALF_DTYPES = ("bfloat16", "float16")  # judged too, in arrays of float32 that hold their values

# In floors: how far a correct value, gradient, step or free run may be from the reference.
# `gradtwin calibrate` measures it on all that is here, with --kernels on each set of kernels.
LIMIT = 8.0
IDENTICAL, ROUNDING, IMPRECISE = "identical", "rounding", "imprecise"
REFERENCE_IMPRECISE, PARTED, UNDECIDED = "reference imprecise", "parted", "undecided"
CONVENTION, DIFFERENT = "convention", "different"

# From harmless to wrong: many comparisons together have the last class that occurs among them.
CLASSES = (
    *(IDENTICAL, ROUNDING, REFERENCE_IMPRECISE, CONVENTION),
    *(IMPRECISE, PARTED, UNDECIDED, DIFFERENT),
)
Results = Mapping[str, np.ndarray]
Function = Callable[[Any], Results]  # a tree of arrays → named results
Exact = Callable[[str, tuple[int, ...]], float]  # name of a result, index → exact value
Exactly = Callable[[Any], Exact | None]  # the inputs → what is exact there, if it can be known
Sides = Callable[[str, tuple[int, ...]], tuple[float, float]]  # → exact slope to the left and right


class Fixed(float):
    """A setting that a length follows from: moved by noise, it would make another call."""


@dataclass(frozen=True)
class Verdict:
    """One result, judged. The values are those of the element with the largest margin."""

    kind: str  # one of CLASSES
    margin: float  # |difference| / (LIMIT · floor), the largest
    ulp: int  # distance in units in the last place, the largest
    index: tuple[int, ...] | None
    manual: float
    reference: float
    error: float  # ‖difference‖ / ‖reference‖
    floor: float
    level: float  # the largest floor / the largest |reference|: the floor of the tensor as a whole
    resolution: float  # the smallest relative error that would have been seen: the median
    note: str = ""


EMPTY = Verdict(IDENTICAL, 0.0, 0, None, math.nan, math.nan, 0.0, 0.0, 0.0, math.nan)


def worst(kinds: Iterable[str]) -> str:
    """The last of CLASSES that occurs."""
    return max(kinds, key=CLASSES.index, default=IDENTICAL)
