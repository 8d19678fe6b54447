import mpmath
import numpy as np

from .numbers import exp as exp


def add(x, other, *, alpha=1):
    return x + mpmath.mpf(alpha) * other


def sub(x, other, *, alpha=1):
    return x - mpmath.mpf(alpha) * other


def mul(x, other):
    return x * other


def div(x, other, *, rounding_mode=None):
    def divided(a, b):
        if not b:
            return mpmath.nan if not a else mpmath.inf * mpmath.sign(a)
        rounded = {None: lambda q: q, "floor": mpmath.floor, "trunc": _whole}[rounding_mode]
        return rounded(mpmath.mpf(a) / b)

    return np.frompyfunc(divided, 2, 1)(x, other)


def _whole(q):
    return mpmath.sign(q) * mpmath.floor(mpmath.fabs(q))


def neg(x):
    return -x


def abs(x):
    return np.frompyfunc(mpmath.fabs, 1, 1)(x)


def pow(x, exponent):
    def power(a, b):
        a, b = mpmath.mpf(a), mpmath.mpf(b)
        if (a < 0 and b != mpmath.floor(b)) or (a == 0 and b < 0):
            return mpmath.nan if a else mpmath.inf
        return a**b

    return np.frompyfunc(power, 2, 1)(x, exponent)


def log(x):
    return np.frompyfunc(lambda a: mpmath.log(a) if a > 0 else mpmath.nan, 1, 1)(x)


def sqrt(x):
    return np.frompyfunc(lambda a: mpmath.sqrt(a) if a >= 0 else mpmath.nan, 1, 1)(x)


def matmul(x, other):
    return np.matmul(x, other)


def sum(x, dim=None, keepdim=False, *, dtype=None):
    axes = tuple(dim) if isinstance(dim, (tuple, list)) else dim
    return np.sum(x, axis=axes if axes != () else None, keepdims=keepdim, initial=mpmath.mpf(0))


def mean(x, dim=None, keepdim=False, *, dtype=None):
    total = sum(x, dim, keepdim)
    n = np.size(x) // max(np.size(total), 1)
    return total / n if n else total * mpmath.nan


def reshape(x, shape):
    return x.reshape(shape)


def transpose(x, dim0, dim1):
    return x.swapaxes(dim0, dim1) if x.ndim else x


def permute(x, dims):
    return x.transpose(dims)


def broadcast_to(x, shape):
    given = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, [g if n == -1 else n for n, g in zip(shape, given, strict=True)])


def where(condition, x, other):
    return np.where(condition, x, other)


def getitem(x, index):
    return x[index]
