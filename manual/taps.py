"""What resampling shares: the taps of a place, the elements that are read there, and their weights.

They come as arrays (places, taps): the index of each element, its weight, and whether there is such
an element at all. One that is outside is left out of the sum; its index and weight mean nothing.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

SCALING = ("nearest-exact", "bicubic")  # also an axis whose length stays
SMALL = 2**16  # elements of a matrix up to which it is faster with all its zeros
CUBIC, SMOOTH = -0.75, -0.5  # the slope of the cubic at 1, and that of a filter


@dataclass(frozen=True)
class Between:
    """The taps of places between elements; the slopes are those of the weights in the place."""

    index: np.ndarray
    weights: np.ndarray
    slopes: np.ndarray
    inside: np.ndarray


def wide(dtype):
    """The dtype that is computed in: float32 for float16, as sums are longer than that holds."""
    return np.result_type(dtype, np.float32)


def matrix_of(index, weights, inside, n, dtype):
    """The sparse matrix (places, n) of taps."""
    ends = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
    shape = len(index), n
    return sparse.csr_array((weights[inside].astype(dtype), index[inside], ends), shape=shape)


def along_axes(matrices, a, axes):
    """Each matrix applied along its axis of a, one after another."""
    y = a.astype(wide(a.dtype), copy=False)
    for matrix, axis in zip(matrices, axes, strict=True):
        y = _along(matrix, y, axis)
    return y.astype(a.dtype, copy=False)


def _along(matrix, a, axis):
    """The matrix applied along one axis."""
    m, n = matrix.shape
    front, behind = a.shape[:axis], a.shape[axis + 1 :]
    # ∞ must not meet the zeros of a matrix, which would make NaN of it.
    if m * n > SMALL or np.all(matrix.data == 1) or not np.isfinite(a).all():
        return _tap_by_tap(matrix, a, axis)
    if not behind:
        return (a.reshape(math.prod(front), n) @ matrix.toarray().T).reshape(*front, m)
    y = matrix.toarray() @ a.reshape(math.prod(front), n, math.prod(behind))
    return y.reshape(*front, m, *behind)


def _tap_by_tap(matrix, a, axis):
    """The same: of all rows the first tap, then the second, and so on, where they have one."""
    counts, behind = np.diff(matrix.indptr), (1,) * (a.ndim - axis - 1)
    y = np.zeros((*a.shape[:axis], len(counts), *a.shape[axis + 1 :]), a.dtype)
    for k in range(counts.max(initial=0)):
        rows = np.flatnonzero(counts > k)
        place = matrix.indptr[rows] + k
        part, weights = a.take(matrix.indices[place], axis), matrix.data[place]
        if np.any(weights != 1):
            part *= weights.reshape(-1, *behind)
        if len(rows) < len(counts):
            y[(*(slice(None),) * axis, rows)] += part
        else:
            y = np.add(y, part, out=y) if k else part
    return y


def taps_along(mode, n, m, step, align, antialias):
    """The taps of m places along n elements, whose step is a ratio (a, b): index, weight, and
    whether it is inside."""
    i, (a, b) = np.arange(m), step
    if n == m and (antialias or mode not in SCALING):
        a, b = 1, 1
    if mode == "area":
        return _window(i * n // m, -(-(i + 1) * n // m), np.ones_like)
    if mode in ("nearest", "nearest-exact"):
        low = i * a // b if mode == "nearest" else (2 * i + 1) * a // (2 * b)
        return _all_inside(low[:, np.newaxis], np.ones((m, 1)))
    if align:
        a, b = (n - 1, m - 1) if m > 1 else (0, 1)
    if antialias:
        return _filtered(mode, n, (i + 0.5) * a / b, max(a / b, 1))
    # A place is a quotient, whose fraction keeps its digits as the rest of a division.
    above, below = (i * a, b) if align else ((2 * i + 1) * a - b, 2 * b)
    cubic = mode == "bicubic"
    low, rest = np.divmod(above if cubic else np.clip(above, 0, (n - 1) * below), below)
    around = np.arange(-1, 3) if cubic else np.arange(2)
    index = np.clip(low[:, np.newaxis] + around, 0, n - 1)
    t, s = rest / below, (below - rest) / below
    return _all_inside(index, _cubic(t, s)[0] if cubic else np.stack([s, t], axis=1))


def _filtered(mode, n, middle, width):
    """All taps that a filter of that width around the middle of a place reaches."""
    reach, form = FILTERS[mode]
    first, last = (np.floor(middle + side * reach * width + 0.5) for side in (-1, 1))
    offset = middle[:, np.newaxis] - 0.5
    return _window(
        np.maximum(first, 0), np.minimum(last, n), lambda index: form(abs(index - offset) / width)
    )


def _all_inside(index, weights):
    return index.astype(np.int64), weights, np.ones(index.shape, bool)


def _window(starts, ends, form):
    """Taps from start to end, whose weights, form(index), are made to add up to 1."""
    index = (starts[:, np.newaxis] + np.arange(int(np.max(ends - starts, initial=0)))).astype(int)
    inside = index < ends[:, np.newaxis]
    weights = np.where(inside, form(index), 0)
    return index, weights / weights.sum(axis=1, keepdims=True), inside


def _cubic(t, s):
    """Keys's cubic: the weights of the four taps around a place that lies t beyond the second and s
    before the third, and their slopes. As products of both they keep their digits near 0."""
    A = CUBIC
    far, near = A * s * s * t, s * (1 + t - (A + 2) * t * t)
    next_near, next_far = t * (1 + s - (A + 2) * s * s), A * t * t * s
    falls = [(3 * (A + 2) * x - 2 * (A + 3)) * x for x in (t, s)]
    slopes = A * s * (1 - 3 * t), falls[0], -falls[1], A * t * (2 - 3 * t)
    return np.stack([far, near, next_near, next_far], axis=-1), np.stack(slopes, axis=-1)


def _triangle(x):
    return np.maximum(1 - x, 0)


def _smooth(x):
    near = (1 - x) * (1 + x - (SMOOTH + 2) * x * x)
    return np.where(x < 1, near, np.where(x < 2, SMOOTH * (x - 1) * (2 - x) ** 2, 0))


def _lanczos(x):
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


FILTERS = {"bilinear": (1, _triangle), "bicubic": (2, _smooth), "lanczos": (3, _lanczos)}


def between(mode, g, n, padding, align):
    """The taps along n elements of the places g, of which −1 and 1 are the ends. Places are counted
    from the middle, near which g is small and has digits that an index would round away."""
    middle, scale = (n - 1) / 2, (n - 1 if align else n) / 2
    place, slope = g * scale, np.full_like(g, scale)
    if mode != "bicubic":
        place, turned = _padded(place, n, padding, align)
        slope *= turned
    if mode == "nearest":
        index = np.rint(middle + place)[:, np.newaxis]
        return _between(index, np.ones_like(index), np.zeros_like(index), n)
    low = np.floor(middle + place)
    t, s, slope = place - (low - middle), (low + 1 - middle) - place, slope[:, np.newaxis]
    if mode == "bilinear":
        index = low[:, np.newaxis] + np.arange(2)
        return _between(index, np.stack([s, t], axis=1), slope * [-1, 1], n)
    index = low[:, np.newaxis] + np.arange(-1, 3)
    index = middle + _padded(index - middle, n, padding, align)[0]
    weights, slopes = _cubic(t, s)
    return _between(index, weights, slope * slopes, n)


def _between(index, weights, slopes, n):
    inside = (index >= 0) & (index < n)
    return Between(np.where(inside, index, 0).astype(np.int64), weights, slopes, inside)


def _padded(place, n, padding, align):
    """The places among n elements, counted from the middle, that stand for these, and their slope:
    1, or −1 where they are reflected, or 0 along a border."""
    if padding == "zeros":
        return place, np.ones_like(place)
    span, end, sign = n - 1 if align else n, (n - 1) / 2, np.ones_like(place)
    if padding == "reflection":
        turns = np.rint(place / max(span, 1))
        sign = np.where(turns % 2 == 1, -1.0, 1.0)
        place = sign * (place - turns * span)
    return np.clip(place, -end, end), np.where(abs(place) < end, sign, 0)


def spread(axes, lengths):
    """The taps along several axes as taps of all their elements laid end to end: index, and whether
    it is inside."""
    strides = [math.prod(lengths[k + 1 :]) for k in range(len(lengths))]
    parts = [taps.index * stride for taps, stride in zip(axes, strides, strict=True)]
    return _each(np.add, parts), _each(np.logical_and, [taps.inside for taps in axes])


def products(parts):
    """The weights of all combinations of taps along several axes."""
    return _each(np.multiply, parts)


def _each(combine, parts):
    def both(a, b):
        found = combine(a[:, :, np.newaxis], b[:, np.newaxis])
        return found.reshape(len(a), a.shape[1] * b.shape[1])

    return functools.reduce(both, parts)
