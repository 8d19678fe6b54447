import mpmath
import numpy as np


def masked_fill(x, mask, value):
    return np.where(mask, value if isinstance(value, np.ndarray) else mpmath.mpf(value), x)


def tril(x, diagonal=0):
    return _where(x, lambda i, j: j - i <= diagonal)


def triu(x, diagonal=0):
    return _where(x, lambda i, j: j - i >= diagonal)


def _where(x, holds):
    y = x.copy()
    for *batch, i, j in np.ndindex(x.shape):
        if not holds(i, j):
            y[(*batch, i, j)] = mpmath.mpf(0)
    return y
