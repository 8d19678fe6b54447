"""What all else is made of: arithmetic, matrix products, sums, and moving elements about.

Arrays broadcast, and where there are two of them either may be a number, which has no gradient.
"""

import math
import numbers

import numpy as np

from .arrays import (
    as_dtype,
    axis_of,
    broadcast,
    flag,
    floating,
    one_of,
    pairwise_sum,
    real,
    sum_to,
    whole,
)


def add(x, other, *, alpha=1):
    """x + α other; the slopes are 1 and α."""
    real(alpha=alpha)
    x, other, back = _operands(x=x, other=other)
    y = x + alpha * other

    def pullback(dy):
        return back(dy, alpha * dy)

    return y, pullback


def sub(x, other, *, alpha=1):
    """x − α other; the slopes are 1 and −α."""
    real(alpha=alpha)
    x, other, back = _operands(x=x, other=other)
    y = x - alpha * other

    def pullback(dy):
        return back(dy, -alpha * dy)

    return y, pullback


def mul(x, other):
    """x · other; the slope in each is the other one."""
    x, other, back = _operands(x=x, other=other)
    y = x * other

    def pullback(dy):
        return back(dy * other, dy * x)

    return y, pullback


def div(x, other, *, rounding_mode=None):
    """x / other, rounded to a whole number by "trunc" or "floor"; the slopes are 1 / other and −y /
    other, and 0 of what is rounded. By 0 it is ±∞, and 0 / 0 is NaN."""
    if rounding_mode is not None:
        one_of(("trunc", "floor"), rounding_mode=rounding_mode)
    x, other, back = _operands(x=x, other=other)
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
    x, a, back = _operands(x=x, exponent=exponent)
    y = _power(x, a)

    def pullback(dy):
        dx = dy * (a * np.where(a == 0, 0, _power(x, a - 1)))
        da = dy * (y * log(np.where((x == 0) & (a >= 0), 1, x))[0])
        return back(dx, da)

    return y, pullback


def exp(x):
    """eˣ, which is its own slope."""
    x = floating(x=x)
    most = math.log(np.finfo(x.dtype).max)
    largest = x.dtype.type(most)
    largest = np.nextafter(largest, 0) if float(largest) > most else largest
    y = np.where(x > largest, math.inf, np.exp(np.minimum(x, largest))).astype(x.dtype)

    def pullback(dy):
        return dy * y

    return y, pullback


def log(x):
    """log x, −∞ at 0 and NaN below; the slope is 1 / x."""
    x = floating(x=x)
    above = np.log(np.where(x > 0, x, 1))
    y = np.where(x > 0, above, np.where(x == 0, -math.inf, math.nan)).astype(x.dtype)

    def pullback(dy):
        return _over(dy, x)

    return y, pullback


def sqrt(x):
    """√x, NaN below 0; the slope is 1 / 2√x."""
    x = floating(x=x)
    y = np.where(x < 0, math.nan, np.sqrt(np.where(x < 0, 0, x))).astype(x.dtype)

    def pullback(dy):
        return _over(dy, 2 * y)

    return y, pullback


def matmul(x, other):
    """x @ other: (…, N, K) and (…, K, M) → (…, N, M); dx = dy otherᵀ, dother = xᵀ dy. A vector is a
    matrix of one row before the @, and of one column behind it."""
    x, other = floating(x=x, other=other)
    for name, a in (("x", x), ("other", other)):
        if not a.ndim:
            raise ValueError(f"{name}: expected at least one axis, got none")
    a, b = np.atleast_2d(x), other[:, np.newaxis] if other.ndim == 1 else other
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"other: expected {a.shape[-1]} rows, got shape {other.shape}")
    broadcast(x=a[..., :1, :1], other=b[..., :1, :1])
    product = a @ b
    rows, columns = product.shape[-2:]
    ends = (rows,) * (x.ndim > 1) + (columns,) * (other.ndim > 1)
    y = product.reshape(product.shape[:-2] + ends)

    def pullback(dy):
        d = dy.reshape(product.shape)
        dx, dother = sum_to(d @ b.mT, a.shape), sum_to(a.mT @ d, b.shape)
        return dx.reshape(x.shape), dother.reshape(other.shape)

    return y, pullback


def sum(x, dim=None, keepdim=False, *, dtype=None):
    """Σ x over one axis, several, or all, which keepdim keeps with length 1; each x gets dy. x is
    first made `dtype`."""
    x = floating(x=x)
    flag(keepdim=keepdim)
    axes = _axes(x.ndim, dim)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    y = pairwise_sum(x.astype(as_dtype(dtype) or x.dtype), axes)
    y = y.reshape(kept) if keepdim else y
    shape, own = x.shape, x.dtype

    def pullback(dy):
        return np.broadcast_to(np.reshape(dy, kept), shape).astype(own)

    return y, pullback


def mean(x, dim=None, keepdim=False, *, dtype=None):
    """Σ x / n, where n is how many are added up; each x gets dy / n. Of nothing it is NaN."""
    total, pull_sum = sum(x, dim, keepdim, dtype=dtype)
    shape = np.shape(x)
    n = math.prod(shape[axis] for axis in _axes(len(shape), dim))
    y = total / n if n else total * math.nan

    def pullback(dy):
        return pull_sum(dy / n if n else dy)

    return y, pullback


def reshape(x, shape):
    """The elements of x, in their order, in another shape, one length of which may be −1: what is
    left."""
    x = floating(x=x)
    _lengths(shape)
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(f"shape: expected {x.size} elements, got {tuple(shape)}") from None
    before = x.shape

    def pullback(dy):
        return dy.reshape(before)

    return y, pullback


def transpose(x, dim0, dim1):
    """x with two axes swapped, which swaps those of dy back."""
    x = floating(x=x)
    dims = axis_of(x.ndim, dim0=dim0), axis_of(x.ndim, dim1=dim1)
    y = x.swapaxes(*dims) if x.ndim else x

    def pullback(dy):
        return dy.swapaxes(*dims) if np.ndim(dy) else dy

    return y, pullback


def permute(x, dims):
    """x with its axes in the order dims; those of dy go back where they came from."""
    x = floating(x=x)
    _lengths(dims, "dims")
    order = [axis_of(x.ndim, dims=dim) for dim in dims]
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"dims: expected each of {x.ndim} axes once, got {tuple(dims)}")
    y = x.transpose(order)

    def pullback(dy):
        return dy.transpose(np.argsort(order))

    return y, pullback


def broadcast_to(x, shape):
    """x repeated along axes of length 1 and new ones in front; −1 keeps a length. dy is summed over
    them."""
    x = floating(x=x)
    _lengths(shape)
    new = len(shape) - x.ndim
    given = (None,) * new + x.shape
    wanted = tuple(
        g if n == -1 and g is not None else n for n, g in zip(shape, given, strict=False)
    )
    if new < 0 or any(n < 0 or g not in (None, 1, n) for n, g in zip(wanted, given, strict=True)):
        raise ValueError(f"shape: expected one that {x.shape} broadcasts to, got {tuple(shape)}")
    y, before = np.broadcast_to(x, wanted), x.shape

    def pullback(dy):
        return sum_to(dy, before)

    return y, pullback


def where(condition, x, other):
    """x where the condition holds, other elsewhere; dy goes where its element came from."""
    condition = np.asarray(condition)
    if condition.dtype != bool:
        raise TypeError(f"condition: expected dtype bool, got {condition.dtype}")
    x, other, back = _operands(x=x, other=other)
    broadcast(condition=condition, x=x, other=other)
    y = np.where(condition, x, other)

    def pullback(dy):
        return back(np.where(condition, dy, 0), np.where(condition, 0, dy))

    return y, pullback


def getitem(x, index):
    """x[index], by numbers, slices, arrays, None and …; an element picked more than once collects
    all of its dy."""
    x = floating(x=x)
    steps = [i.step for i in (index if isinstance(index, tuple) else (index,)) if type(i) is slice]
    if any(step is not None and step < 1 for step in steps):
        raise ValueError(f"index: expected steps above 0, got {index!r}")
    try:
        y = x[index]
    except IndexError:
        raise IndexError(f"index: expected one into shape {x.shape}, got {index!r}") from None

    shape, dtype = x.shape, x.dtype

    def pullback(dy):
        dx = np.zeros(shape, dtype)
        np.add.at(dx, index, dy)
        return dx

    return y, pullback


def _operands(**two):
    """The two named operands as arrays, and what brings a slope of each into its shape and leaves
    out that of a number.

    Raises TypeError unless one at least is a floating array, and both of one dtype.
    """
    numeric = {
        name: isinstance(a, numbers.Real) and not isinstance(a, np.generic)
        for name, a in two.items()
    }
    arrays = {name: np.asarray(a) for name, a in two.items() if not numeric[name]}
    if not arrays:
        first = next(iter(two))
        raise TypeError(f"{first}: expected a floating array, got {two[first]!r}")
    floating(**arrays)
    dtype = next(iter(arrays.values())).dtype
    a, b = (np.asarray(a, dtype if numeric[name] else None) for name, a in two.items())
    broadcast(**dict(zip(two, (a, b), strict=True)))

    shapes = [None if numeric[name] else a.shape for name, a in zip(two, (a, b), strict=True)]

    def back(*slopes):
        pairs = zip(slopes, shapes, strict=True)
        found = tuple(sum_to(slope, shape) for slope, shape in pairs if shape is not None)
        return found[0] if len(found) == 1 else found

    return a, b, back


def _over(a, b):
    """a / b, silently ±∞ by 0, and NaN for 0 / 0."""
    infinite = np.where(a == 0, math.nan, a) * np.copysign(math.inf, b)
    return np.where(b == 0, infinite, a / np.where(b == 0, 1, b)).astype(b.dtype)


def _power(x, a):
    """xᵃ, silently NaN for a negative x unless a is whole, and ±∞ for 0 to a negative power."""
    none, pole = (x < 0) & (a != np.floor(a)), (x == 0) & (a < 0)
    y = np.power(np.where(none | pole, 1, x), a)
    zero = np.power(np.where(pole, x, 0), np.where(pole, -a, 1))
    return np.where(none, math.nan, np.where(pole, _over(np.ones_like(y), zero), y)).astype(y.dtype)


def _axes(ndim, dim):
    """The axes, counted from 0, that dim names: one, several, or all by None or none."""
    dims = dim if isinstance(dim, (tuple, list)) else () if dim is None else (dim,)
    axes = tuple(axis_of(ndim, dim=d) for d in dims) if dims else tuple(range(ndim))
    if len(set(axes)) < len(axes):
        raise ValueError(f"dim: expected each axis once, got {dim}")
    return axes if ndim else ()


def _lengths(lengths, name="shape"):
    """Raises TypeError unless the named setting is a tuple or list of whole numbers."""
    if not isinstance(lengths, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of whole numbers, got {lengths!r}")
    for length in lengths:
        whole(**{name: length})
