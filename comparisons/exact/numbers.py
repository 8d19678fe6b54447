"""Functions of mpmath over object arrays, and the reduction that losses share."""

import mpmath
import numpy as np

ABOVE_STEPS = 1e-75  # all of which are at most 10⁻⁸⁰

exp = np.frompyfunc(mpmath.exp, 1, 1)
log = np.frompyfunc(mpmath.log, 1, 1)
tanh = np.frompyfunc(mpmath.tanh, 1, 1)
expm1 = np.frompyfunc(mpmath.expm1, 1, 1)
ncdf = np.frompyfunc(mpmath.ncdf, 1, 1)


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
