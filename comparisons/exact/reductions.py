import mpmath
import numpy as np


def sum(x, dim=None, keepdim=False, *, dtype=None):
    axes = tuple(dim) if isinstance(dim, (tuple, list)) else dim
    return np.sum(x, axis=axes if axes != () else None, keepdims=keepdim, initial=mpmath.mpf(0))


def mean(x, dim=None, keepdim=False, *, dtype=None):
    total = sum(x, dim, keepdim)
    n = np.size(x) // max(np.size(total), 1)
    return total / n if n else total * mpmath.nan
