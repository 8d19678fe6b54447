"""The two types of 16 bits, whose values float32 arrays carry: the type itself is said beside."""

from __future__ import annotations

from typing import Any

import numpy as np

from .classes import HALF_DTYPES

BITS = {"bfloat16": 8, "float16": 11}  # of the significand
SMALLEST = {"bfloat16": 2.0**-133, "float16": 2.0**-24}  # the smallest subnormal


def is_half(dtype: Any) -> bool:
    """Whether this names a type of 16 bits."""
    return isinstance(dtype, str) and dtype in HALF_DTYPES


def rounded(a: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest number of this type to each, in float32: of two the even one, and infinite beyond
    the largest.

    From float64 in one step. By way of float32, as ml_dtypes and torch go, 1 + 2⁻⁸ + 2⁻⁴⁰ becomes 1
    in bfloat16, for then it is a tie.
    """
    exact = a.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "float16":
            return exact.astype(np.float16).astype(np.float32)
        _, exponent = np.frexp(exact)
        step = np.maximum(np.ldexp(1.0, exponent - BITS[dtype]), SMALLEST[dtype])
        return np.asarray(np.rint(exact / step) * step, np.float32)


def half_bits(a: np.ndarray, dtype: str) -> np.ndarray:
    """The 16 bits of each number of this type."""
    if dtype == "float16":
        return np.ascontiguousarray(a, np.float16).view(np.uint16)
    return (np.ascontiguousarray(a, np.float32).view(np.uint32) >> 16).astype(np.uint16)
