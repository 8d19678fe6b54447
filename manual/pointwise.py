"""Arithmetic and functions of single elements, which broadcast.

All of them take arrays in float16, float32 or float64; one of two operands may also be a number,
which has no gradient. They raise TypeError for anything else, for two dtypes and for a setting of
the wrong type, ValueError for shapes that do not broadcast; the message names the argument.
"""

import math

import numpy as np

from .arguments import array, broadcast, floated, floating, one_of, real
from .arrays import BLOCK, in_blocks, operands, sum_to, where


def add(x, other, *, alpha=1):
    """x + α other; the slopes are 1 and α."""
    real(alpha=alpha)
    x, other, back = operands(x=x, other=other)
    y = x + alpha * other

    def pullback(dy):
        return back(dy, alpha * dy)

    return y, pullback


def sub(x, other, *, alpha=1):
    """x − α other; the slopes are 1 and −α."""
    real(alpha=alpha)
    x, other, back = operands(x=x, other=other)
    y = x - alpha * other

    def pullback(dy):
        return back(dy, -alpha * dy)

    return y, pullback


def mul(x, other):
    """x · other; the slope in each is the other one."""
    x, other, back = operands(x=x, other=other)
    y = x * other

    def pullback(dy):
        return back(dy * other, dy * x)

    return y, pullback


def div(x, other, *, rounding_mode=None):
    """x / other, rounded to a whole number if rounding_mode is "trunc" or "floor"; the slopes are 1
    / other and −y / other, and 0 where it is rounded. Division by 0 gives ±∞, and 0 / 0 NaN."""
    if rounding_mode is not None:
        one_of(("trunc", "floor"), rounding_mode=rounding_mode)
    x, other, back = operands(x=x, other=other)
    quotient = _over(x, other)
    y = {None: quotient, "trunc": np.trunc(quotient), "floor": np.floor(quotient)}[rounding_mode]

    def pullback(dy):
        if rounding_mode:
            return back(np.zeros_like(dy), np.zeros_like(dy))
        return back(_over(dy, other), -_over(dy * quotient, other))

    return y, pullback


def neg(x):
    """−x; the slope is −1."""
    y = -floating(x=x)

    def pullback(dy):
        return -dy

    return y, pullback


def abs(x):
    """|x|; the slope is the sign of x, 0 at 0."""
    x = floating(x=x)
    y = np.abs(x)

    def pullback(dy):
        return dy * np.sign(x)

    return y, pullback


def pow(x, exponent):
    """xᵃ; the slopes are a xᵃ⁻¹, which is 0 for a = 0, and xᵃ log x, which is 0 at x = 0 for a ≥ 0.

    It is NaN for x below 0, unless a is whole.
    """
    x, a, back = operands(x=x, exponent=exponent)
    y = _power(x, a)
    fixed = not isinstance(exponent, (np.ndarray, np.generic))  # a number, which has no slope

    def pullback(dy):
        dx = dy * (a * where(a == 0, 0, _power(x, a - 1)))
        da = None if fixed else dy * (y * log(where((x == 0) & (a >= 0), 1, x))[0])
        return back(dx, da)

    return y, pullback


def exp(x):
    """eˣ, which is its own slope."""
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(exp, x)
    most = math.log(np.finfo(x.dtype).max)
    largest = x.dtype.type(most)
    largest = np.nextafter(largest, 0) if float(largest) > most else largest
    y = where(x > largest, math.inf, np.exp(np.minimum(x, largest))).astype(x.dtype)

    def pullback(dy):
        return dy * y

    return y, pullback


def log(x):
    """log x, −∞ at 0 and NaN below; the slope is 1 / x."""
    x = floating(x=x)
    above = x > 0
    if above.all():
        y = np.log(x)
    else:
        y = where(above, np.log(where(above, x, 1)), where(x == 0, -math.inf, math.nan))
        y = y.astype(x.dtype)

    def pullback(dy):
        return _over(dy, x)

    return y, pullback


def sqrt(x):
    """√x, NaN below 0; the slope is 1 / 2√x."""
    x = floating(x=x)
    below = x < 0
    y = np.sqrt(where(below, 0, x) if below.any() else x)
    y = where(below, math.nan, y).astype(x.dtype) if below.any() else y

    def pullback(dy):
        return _over(dy, 2 * y)

    return y, pullback


def rsqrt(x):
    """1 / √x, ±∞ at ±0 and NaN below; the slope is −y³ / 2."""
    root, _ = sqrt(x)
    y = _over(np.ones_like(root), root)

    def pullback(dy):
        most = float(np.finfo(y.dtype).max) ** (1 / 3)  # beyond it y³ is infinite
        slope = where(np.abs(y) >= most, np.copysign(math.inf, y), y) ** 3 / -2
        return dy * slope

    return y, pullback


def maximum(x, other):
    """The larger of two arrays, element by element, which alone has a slope, of 1; where they are
    equal each has half of it. NaN is the largest, and with one, both have the slope 1."""
    return _chosen(np.maximum, np.greater, x=x, other=other)


def minimum(x, other):
    """The smaller of two arrays, element by element, which alone has a slope, of 1; where they are
    equal each has half of it. NaN is the smallest, and with one, both have the slope 1."""
    return _chosen(np.minimum, np.less, x=x, other=other)


def _chosen(choose, wins, **two):
    x, other = floating(**two)
    broadcast(**dict(zip(two, (x, other), strict=True)))
    y = choose(x, other)

    def pullback(dy):
        shared = where(x == other, dy / 2, dy)
        dx, dother = where(wins(other, x), 0, shared), where(wins(x, other), 0, shared)
        return sum_to(dx, x.shape), sum_to(dother, other.shape)

    return y, pullback


def clamp(x, min=None, max=None):
    """x brought between min and max, which are two numbers or two arrays, or of which one is None;
    where min is above max, it is max. Arrays of whole numbers have no slope.

    Of the three, that has the slope 1 which was taken, x where it equals a bound. A NaN stays, and
    has none. Raises TypeError for a number beside an array, ValueError without bounds.
    """
    x = floating(x=x)
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    bounds = {n: b for n, b in (("min", min), ("max", max)) if b is not None}
    kinds = {isinstance(b, (np.ndarray, np.generic)) for b in bounds.values()}
    if not bounds:
        raise ValueError("min: expected a number or an array where max is None, got None")
    if len(kinds) > 1:
        raise TypeError(f"min: expected what max is, {max!r:.40}, got {min!r:.40}")
    if kinds == {True}:
        array(**bounds)
        bounds = {n: floated(x, b) for n, b in bounds.items()}
        floating(x=x, **bounds)
        broadcast(x=x, **bounds)
    else:
        real(**bounds)
    y = np.minimum(np.maximum(x, bounds.get("min", low)), bounds.get("max", high))
    given = (("x", x), ("min", min), ("max", max))
    sloped = {n: a for n, a in given if getattr(getattr(a, "dtype", None), "kind", "") == "f"}

    def pullback(dy):
        taken = {
            "x": (x >= low) & (x <= high),
            "min": (x < low) & np.less(low, high),
            "max": (x > high) | np.greater(low, high),
        }
        found = tuple(sum_to(where(taken[n], dy, 0), a.shape) for n, a in sloped.items())
        return found if len(found) > 1 else found[0]

    return y, pullback


def clamp_min(x, min):
    """x, but at least min, a number or an array; see clamp. Raises TypeError for None."""
    if min is None:
        raise TypeError("min: expected a number or an array, got None")
    return clamp(x, min)


def clamp_max(x, max):
    """x, but at most max, a number or an array; see clamp. Raises TypeError for None."""
    if max is None:
        raise TypeError("max: expected a number or an array, got None")
    return clamp(x, None, max)


def _over(a, b):
    """a / b, silently ±∞ by 0, and NaN for 0 / 0."""
    if np.all(b != 0):
        return (a / b).astype(b.dtype)
    infinite = where(a == 0, math.nan, a) * np.copysign(math.inf, b)
    return where(b == 0, infinite, a / where(b == 0, 1, b)).astype(b.dtype)


def _power(x, a):
    """xᵃ, silently NaN for a negative x unless a is whole, and ±∞ for 0 to a negative power.

    Squares and cubes are products, which take a tenth of the time.
    """
    if a.ndim == 0 and a in (2, 3):
        return x * x if a == 2 else x * x * x
    none, pole = (x < 0) & (a != np.floor(a)), (x == 0) & (a < 0)
    if not (none.any() or pole.any()):
        return np.power(x, a)
    y = np.power(where(none | pole, 1, x), a)
    zero = np.power(where(pole, x, 0), where(pole, -a, 1))
    return where(none, math.nan, where(pole, _over(np.ones_like(y), zero), y)).astype(y.dtype)
