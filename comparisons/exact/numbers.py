"""Functions of mpmath over object arrays, and the reduction that losses share."""

from functools import lru_cache

import mpmath
import numpy as np

ABOVE_STEPS = 1e-75  # steps are at most 10⁻⁸⁰
REMEMBERED = 2**14  # results of each function, more than a call has numbers


def _elementwise(function):
    """The function over arrays. Results are remembered, because when one number of a call is moved,
    the others are what they were."""

    @lru_cache(REMEMBERED)
    def at(x, precision):
        return function(x)

    return np.frompyfunc(lambda x: at(x, mpmath.mp.prec), 1, 1)


exp, log, tanh = map(_elementwise, (mpmath.exp, mpmath.log, mpmath.tanh))
expm1, ncdf = map(_elementwise, (mpmath.expm1, mpmath.ncdf))


def reduce(x, reduction, total=None):
    if reduction == "none":
        return x
    count = np.size(x) if total is None else total
    if reduction == "mean":
        return np.sum(x) / count if count else mpmath.nan
    return np.sum(x)


def still(a):
    """The numbers as they were before a step was added: what has no slope. A step away from 0 is a
    number itself, and smaller than any that is sampled."""
    return np.frompyfunc(lambda x: mpmath.mpf(float(x) if abs(x) > ABOVE_STEPS else 0), 1, 1)(a)
