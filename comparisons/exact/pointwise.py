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


def rsqrt(x):
    return np.frompyfunc(lambda a: 1 / mpmath.sqrt(a) if a > 0 else mpmath.nan, 1, 1)(x)


def _chosen(better):
    def choose(a, b):
        return mpmath.nan if mpmath.isnan(a + b) else better(a, b)

    return np.frompyfunc(choose, 2, 1)


_larger, _smaller = _chosen(max), _chosen(min)


def maximum(x, other):
    return _larger(x, other)


def minimum(x, other):
    return _smaller(x, other)


def clamp(x, min=None, max=None):
    low, high = (
        b if isinstance(b, (np.ndarray, type(None))) else mpmath.mpf(b) for b in (min, max)
    )
    above = x if low is None else _larger(x, low)
    return above if high is None else _smaller(above, high)


def clamp_min(x, min):
    return clamp(x, min)


def clamp_max(x, max):
    return clamp(x, None, max)
