"""Averages over windows, and their like.

They raise TypeError, ValueError or MemoryError, as the package says.
"""

import math

import numpy as np

from ..arguments import flag, floating, real, whole
from ..arrays import where
from ..pointwise import _power
from ..reductions import mean
from ..windows import per_axis
from .maxima import parts, pooled
from .windows import adaptive, inside, padded, rows_of, sliding

FEW, MANY = 16, 128  # elements of a window that are added one by one, and by one call


def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean over windows of x, (C, L) or (N, C, L), as avg_pool2d has it. Raises ValueError as
    that does."""
    settings = kernel_size, stride, padding, ceil_mode, count_include_pad
    return _averaged(x, 1, *settings)


def avg_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Σ x / n over windows of x, (C, H, W) or (N, C, H, W). n is the size of the window with the
    padding, a number for all or one for each axis, but without what ceil_mode lets stand out
    further, or without the padding if not count_include_pad, or divisor_override.

    Each x collects dy / n from the windows that it is in. Raises ValueError for another shape and
    settings out of range.
    """
    settings = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return _averaged(x, 2, *settings)


def avg_pool3d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """The mean over windows of x, (C, D, H, W) or (N, C, D, H, W), as avg_pool2d has it. Raises
    ValueError for a kernel that is larger than x as well."""
    settings = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return _averaged(x, 3, *settings)


def adaptive_avg_pool1d(x, output_size):
    """The mean over so many windows of x, (C, L) or (N, C, L), as adaptive_avg_pool2d has it."""
    return _adaptively(x, 1, output_size)


def adaptive_avg_pool2d(x, output_size):
    """The mean over so many windows of x, (C, H, W) or (N, C, H, W), that together they cover it:
    the i-th of `out` along an axis of n is from ⌊i n / out⌋ to ⌈(i + 1) n / out⌉. One number is for
    both axes, None the length of x. Where both are 1, x may have any axes in front.

    Each x collects dy / n from the windows that it is in. Raises ValueError for another shape or a
    size below 0, MemoryError for one too large.
    """
    return _adaptively(x, 2, output_size)


def adaptive_avg_pool3d(x, output_size):
    """The mean over so many windows of x, (C, D, H, W) or (N, C, D, H, W), as adaptive_avg_pool2d
    has it."""
    return _adaptively(x, 3, output_size)


def lp_pool1d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """(k/n Σ xᵖ)^(1/p) over windows of x, (C, L) or (N, C, L), as lp_pool2d has it. Raises
    ValueError as that does."""
    whole(kernel_size=kernel_size)
    return _powers(x, 1, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """y = (k/n Σ xᵖ)^(1/p) over windows of x, (C, H, W) or (N, C, H, W), where k is the size of the
    kernel and n that of the window, which is less where ceil_mode lets one stand out. The slope is
    k/n (x / y)^(p − 1), and 0 where the sum is. p = ±∞ is the largest or least |x|.

    There is no |x| in it: y is NaN where the sum is negative, or x is and p not whole. Raises
    ValueError for a p of 0, another shape and settings out of range.

    Gulcehre, Cho, Pascanu & Bengio, 2014, arXiv:1311.1780
    """
    return _powers(x, 2, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """(k/n Σ xᵖ)^(1/p) over windows of x, (C, D, H, W) or (N, C, D, H, W), as lp_pool2d has it.
    Raises ValueError as that does."""
    return _powers(x, 3, norm_type, kernel_size, stride, ceil_mode)


def _averaged(x, rank, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor=None):
    x = floating(x=x)
    flag(count_include_pad=count_include_pad)
    rows = rows_of(x, rank, rank + 1)
    axes = sliding(x, rank, kernel_size, stride, padding, 1, ceil_mode)
    if divisor is not None:
        whole(divisor_override=divisor)
        if divisor == 0:
            raise ValueError("divisor_override: expected another number than 0, got 0")
    return _mean(x, rows, axes, divisor, count_include_pad)


def _adaptively(x, rank, output_size):
    x = floating(x=x)
    if rank == 1 or x.ndim < rank:
        rows_of(x, rank, filled=0)
    axes = adaptive(x, rank, output_size, missing=rank > 1)
    if all(axis.out == 1 for axis in axes):
        return mean(x, tuple(range(-rank, 0)), keepdim=True)
    return _mean(x, rows_of(x, rank, filled=rank), axes, None, False)


def _mean(x, rows, axes, divisor, with_padding):
    """Σ x / divisor over the windows, by default how many elements they have."""
    n = sizes(axes, with_padding).astype(x.dtype) if divisor is None else divisor
    shape = *x.shape[: x.ndim - len(axes)], *(axis.out for axis in axes)
    y = (box_sums(rows, axes) / n).reshape(shape)

    def pullback(dy):
        return spread(dy.reshape(len(rows), *shape[-len(axes) :]) / n, axes).reshape(x.shape)

    return y, pullback


def sizes(axes, with_padding=False):
    """How many elements each window has; with those of the padding, which is as wide behind as
    before."""
    found = np.ones((), np.int64)
    for axis in axes:
        most = axis.n + (axis.before if with_padding else 0)
        least = -axis.before if with_padding else 0
        ends = np.minimum(axis.ends, most)
        starts = np.maximum(axis.starts, least)
        found = found[..., np.newaxis] * (ends - starts)
    return found


def box_sums(a, axes):
    """Σ over every window of a, (rows, *space): along one axis after the other."""
    a = padded(a, axes, 0)
    for i, axis in enumerate(axes, start=1):
        parts = [(which, _sum(view)) for which, view in axis.views(np.ascontiguousarray(a), i)]
        if len(parts) == 1:
            a = parts[0][1]
            continue
        a = np.empty((*a.shape[:i], axis.out, *a.shape[i + 1 :]), a.dtype)
        for which, part in parts:
            a[(slice(None),) * i + (which,)] = part
    return a


def spread(d, axes):
    """The adjoint: a d of each window to all of its elements, through the same views."""
    for i, axis in reversed(list(enumerate(axes, start=1))):
        wide = np.zeros(
            (*d.shape[:i], axis.before + axis.n + axis.after, *d.shape[i + 1 :]), d.dtype
        )
        width = axis.stride if axis.stride > FEW else 1  # elements that no two windows share
        for which, view in axis.views(wide, i):
            part = d[(slice(None),) * i + (which,)][..., np.newaxis]
            for tap in range(0, view.shape[-1], width):
                view[..., tap : tap + width] += part
        d = wide
    return d[inside(axes)]


def _sum(view):
    """Σ over the last axis, pairwise where it is long."""
    n = view.shape[-1]
    if FEW < n <= MANY:
        return view.sum(axis=-1)
    if n > MANY:
        half = n // 2
        return _sum(view[..., :half]) + _sum(view[..., half:])
    return _total([view[..., tap] for tap in range(n)])


def _total(terms):
    """Σ of some arrays, pairwise."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return _total(terms[:half]) + _total(terms[half:])


def _powers(x, rank, p, kernel_size, stride, ceil_mode):
    """With q = x / m, where m is the largest |x| of a window, or for p < 0 the least, no power
    overflows: y = m S^(1/p) and (x / y)^(p − 1) = q^(p − 1) S^(1/p − 1), where S = k/n Σ qᵖ."""
    x = floating(x=x)
    real(norm_type=p)
    if p == 0:
        raise ValueError("norm_type: expected another number than 0, got 0")
    rows = rows_of(x, rank, rank + 1)
    kernel = per_axis(rank, 1, alone=rank == 1, kernel_size=kernel_size)
    axes = sliding(x, rank, kernel, stride, 0, 1, ceil_mode)
    sign = 1 if p > 0 else -1
    m, pull_size = pooled(x, sign * abs(rows), axes)
    if math.isinf(p):
        return _extreme(x, sign * m, pull_size)
    m = sign * m.reshape(len(rows), *m.shape[-rank:])
    m = where((m > 0) & np.isfinite(m), m, 1)
    share = (math.prod(kernel) / sizes(axes)).astype(x.dtype)
    wide = padded(rows, axes, 0 if p > 0 else math.inf)
    every = [part / m for part in parts(wide, axes)]
    S = share * _total([_raised(q, p) for q in every])
    y = m * _raised(S, 1 / p)
    undefined = (wide < 0) & bool(p % 1)

    def pullback(dy):
        g = dy.reshape(m.shape) * share * _raised(where(S == 0, 1, S), 1 / p - 1)
        g = where(S == 0, 0, g)
        dx = where(undefined, math.nan, np.zeros_like(wide))
        for q, dpart in zip(every, parts(dx, axes), strict=True):
            dpart += _times(g, _raised(q, p - 1))
        return dx[inside(axes)].reshape(x.shape)

    return y.reshape(*x.shape[:-rank], *m.shape[1:]), pullback


def _extreme(x, y, pull_size):
    """The largest or least |x| as a rule of x."""

    def pullback(dy):
        dsize = pull_size(dy)
        return where(x > 0, dsize, where(x < 0, -dsize, np.sign(x)))

    return y, pullback


def _raised(x, p):
    return x if p == 1 else _power(x, np.asarray(p, x.dtype))


def _times(g, slope):
    """g · slope, silently NaN where 0 is multiplied by ∞."""
    undefined = (g == 0) & np.isinf(slope)
    return where(undefined, math.nan, g * where(undefined, 1, slope))
