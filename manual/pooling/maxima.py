"""Maxima over windows, and their inverse.

They raise TypeError, ValueError or MemoryError, as the package says.
"""

import itertools
import math

import numpy as np

from ..arguments import Constant, array, floating, real, truth
from ..arrays import BLOCK, room, where
from ..windows import per_axis
from .windows import adaptive, padded, rows_of, sliding

FEW = 32  # elements of a window that are compared one by one


def max_pool1d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    """The maximum over windows of x, (C, L) or (N, C, L), as max_pool2d has it."""
    return _sliding(x, 1, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    """The maximum over windows of x, (C, H, W) or (N, C, H, W), which are `stride` apart, by
    default as far as they are wide, begin `padding` before x, and take every `dilation`-th element;
    with ceil_mode, the last may stand out. A setting is a number for all or one for each axis.

    The first maximum in a window gets dy, and of several NaN the last. With return_indices its
    place in H W is a further output. Raises ValueError for another shape and settings out of range,
    and where a window has no element of x.
    """
    return _sliding(x, 2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    """The maximum over windows of x, (C, D, H, W) or (N, C, D, H, W), as max_pool2d has it."""
    return _sliding(x, 3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def adaptive_max_pool1d(x, output_size, return_indices=False):
    """The maximum over so many windows of x, (C, L) or (N, C, L), as adaptive_max_pool2d has it."""
    return _adaptively(x, 1, output_size, return_indices)


def adaptive_max_pool2d(x, output_size, return_indices=False):
    """The maximum over so many windows of x, (C, H, W) or (N, C, H, W), that together they cover
    it, those of adaptive_avg_pool2d. The slope and the indices are those of max_pool2d.

    Raises ValueError for another shape or a size below 0, MemoryError for one too large.
    """
    return _adaptively(x, 2, output_size, return_indices)


def adaptive_max_pool3d(x, output_size, return_indices=False):
    """The maximum over so many windows of x, (C, D, H, W) or (N, C, D, H, W), as
    adaptive_max_pool2d has it."""
    return _adaptively(x, 3, output_size, return_indices)


def fractional_max_pool2d(
    x,
    kernel_size,
    output_size=None,
    output_ratio=None,
    return_indices=False,
    *,
    _random_samples: Constant = None,
):
    """The maximum over windows of x, (C, H, W) or (N, C, H, W), whose distances are drawn: with a
    number u for each plane and axis, the last behind the first, the i-th starts at

        ⌊(i + u) α⌋ − ⌊u α⌋,    α = (n − k) / (out − 1)

    and the last at n − k. _random_samples, (N, C, 2) or of an x without N (1, C, 2), is u, for W
    first. The output has output_size, or output_ratio times that of x. The slope and the indices
    are those of max_pool2d.

    Raises TypeError without _random_samples, ValueError for shapes that do not fit, for windows
    that x has no room for, and without size and ratio.

    Graham, 2014, arXiv:1412.6071
    """
    settings = kernel_size, output_size, output_ratio, return_indices, _random_samples
    return _fractional(x, 2, *settings)


def fractional_max_pool3d(
    x,
    kernel_size,
    output_size=None,
    output_ratio=None,
    return_indices=False,
    *,
    _random_samples: Constant = None,
):
    """The maximum over windows of x, (C, D, H, W) or (N, C, D, H, W), whose distances are drawn, as
    fractional_max_pool2d has it; _random_samples, (…, C, 3), is for D first. The output
    is to be smaller by one than x has room for. Raises TypeError and ValueError as that does."""
    settings = kernel_size, output_size, output_ratio, return_indices, _random_samples
    return _fractional(x, 3, *settings)


def max_unpool1d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """x, (C, L) or (N, C, L), put where it was before max_pool1d, as max_unpool2d has it. Raises
    TypeError and ValueError as that does."""
    return _unpooled(x, 1, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """x, (C, H, W) or (N, C, H, W), put where it was before max_pool2d, and zero elsewhere: indices
    are those that max_pool2d returns. The output has output_size, or for each axis
    (n − 1) stride + kernel_size − 2 padding.

    Of several x with one index the last stays, and gets dy; the others get 0. Raises TypeError
    unless the indices are whole numbers, ValueError for shapes that do not fit, for an index that
    is out of range, and for a size that is a stride or more off, MemoryError for one too large.

    Zeiler & Fergus, 2013, arXiv:1311.2901
    """
    return _unpooled(x, 2, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """x, (C, D, H, W) or (N, C, D, H, W), put where it was before max_pool3d, as max_unpool2d has
    it, with a stride of at least 1. Raises TypeError and ValueError as that does."""
    return _unpooled(x, 3, indices, kernel_size, stride, padding, output_size)


def _sliding(x, rank, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    x = floating(x=x)
    rows = rows_of(x, rank, rank + 1)
    axes = sliding(x, rank, kernel_size, stride, padding, dilation, ceil_mode)
    return pooled(x, rows, axes, return_indices)


def _adaptively(x, rank, output_size, return_indices):
    x = floating(x=x)
    rows = rows_of(x, rank, rank + 1)
    return pooled(x, rows, adaptive(x, rank, output_size, missing=rank > 1), return_indices)


def pooled(x, rows, axes, return_indices=False):
    """The maximum over windows along these axes."""
    outs = tuple(axis.out for axis in axes)
    found = _winners(rows, lambda rows: _first(rows, axes))
    return _taken(x, rows, found, outs, return_indices)


def _taken(x, rows, found, outs, return_indices):
    """The elements found in each of the rows, by their place in it."""
    shape = *x.shape[: x.ndim - len(outs)], *outs
    places = (found + starts(rows)).reshape(shape)
    y = rows.reshape(-1).take(places)
    several = truth(return_indices=return_indices)

    def pullback(dy):
        return collected(dy[0] if several else dy, places, x.shape)

    return ((y, found.reshape(shape)) if several else y), pullback


def starts(rows):
    """Where each of the rows begins, as a column."""
    return np.arange(len(rows))[:, np.newaxis] * math.prod(rows.shape[1:])


def collected(d, places, shape):
    """The adjoint of taking elements of an array of that shape by their places: each of them
    collects the d of wherever it was taken."""
    total = np.bincount(places.reshape(-1), d.reshape(-1), math.prod(shape))
    return total.astype(d.dtype).reshape(shape)


def _winners(rows, first):
    """The place of the maximum of each window in its row, (rows, windows): the first, as
    first(rows) finds it, and of NaN the last."""
    if not rows.size or not np.isnan(rows.max()):
        return first(rows)
    absent, space = np.isnan(rows), rows.shape[1:]
    numbers = np.where(absent, np.arange(1.0, math.prod(space) + 1).reshape(space), 0)
    last = numbers.reshape(-1).take(first(numbers) + starts(rows))
    found = first(np.where(absent, -math.inf, rows).astype(rows.dtype))
    return np.where(last > 0, last - 1, found).astype(np.int64)


def _first(rows, axes):
    """The place of the first maximum, where there is no NaN."""
    space, outs, kernel = rows.shape[1:], [ax.out for ax in axes], [ax.taps for ax in axes]
    windows, taps = math.prod(outs), math.prod(kernel)
    few = taps <= max(FEW, windows) and all(axis.period == 1 for axis in axes)
    if not (few and rows.size and windows):
        return _gathered(rows, _places([axis.at for axis in axes], space))
    wide, rows_in_block = padded(rows, axes, -math.inf), max(BLOCK // windows, 1)
    winners = np.empty((len(rows), *outs), np.min_scalar_type(taps))
    winners[...] = _flat([axis.first for axis in axes], kernel).reshape(outs)
    for i in range(0, len(rows), rows_in_block):
        block = slice(i, i + rows_in_block)
        _compare(winners[block], parts(wide[block], axes))
    base = _flat([axis.starts for axis in axes], space)
    offset = _flat([np.arange(axis.taps) * axis.step for axis in axes], space)
    return base + offset.take(winners.reshape(len(rows), windows))


def _compare(winner, elements):
    """Moves `winner`, the number of an element of each window, to the first maximum of those that
    come from there on."""
    best = None
    for tap, part in enumerate(elements):
        if tap:
            later = np.multiply(part > best, tap, dtype=winner.dtype)
            np.maximum(winner, later, out=winner)
        best = part if best is None else np.maximum(best, part)


def _gathered(rows, at):
    """The same, of windows that are seen at once, by the places of their elements."""
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    if not (at.size and len(rows)):
        return np.zeros((len(rows), len(at)), np.int64)
    whole = at.shape == (1, flat.shape[1])
    seen = flat[:, np.newaxis] if whole else flat.take(at, axis=1)
    return at[np.arange(len(at)), seen.argmax(axis=-1)]


def parts(wide, axes):
    """Of padded rows, the first elements of all windows, the second, and so on."""
    for each in itertools.product(*(axis.slices() for axis in axes)):
        yield wide[(slice(None), *each)]


def _flat(along, lengths):
    """Numbers along each axis, as places in an array of those lengths."""
    total = np.zeros((), np.int64)
    for numbers, n in zip(along, lengths, strict=True):
        total = total[..., np.newaxis] * n + np.asarray(numbers)
    return total.reshape(-1)


def _places(along, space):
    """The places of windows in a row, (windows, taps), from those along each axis of space."""
    places = np.zeros((1, 1), np.int64)
    for at, n in zip(along, space, strict=True):
        places = places[:, np.newaxis, :, np.newaxis] * n + at[:, np.newaxis]
        a, b, c, d = places.shape
        places = places.reshape(a * b, c * d)
    return places


def _fractional(x, rank, kernel_size, output_size, output_ratio, return_indices, samples):
    x, u = floating(x=x, _random_samples=samples)
    rows = rows_of(x, rank, rank + 1)
    lead, space = x.shape[:-rank], x.shape[-rank:]
    if u.ndim != 3 or u.shape[1:] != (lead[-1], rank) or len(u) < math.prod(lead[:-1]):
        expected = (*lead, rank) if len(lead) > 1 else (1, *lead, rank)
        raise ValueError(f"_random_samples: expected shape {expected}, got {u.shape}")
    if not np.isfinite(u).all():
        raise ValueError("_random_samples: expected finite numbers, got NaN or ∞")
    kernel = per_axis(rank, 1, alone=False, kernel_size=kernel_size)
    outs = _outputs(space, output_size, output_ratio)
    room(x.dtype, output_size=(len(rows), *outs))
    u = u[: math.prod(lead[:-1])].reshape(len(rows), rank)
    u = u[:, ::-1] if rank == 2 else u
    base = np.zeros((len(rows), 1), np.int64)
    for axis, (n, k, out) in enumerate(zip(space, kernel, outs, strict=True)):
        most = n - k + 1 if rank == 2 else n - k  # torch leaves one out in three dimensions
        if out > most:
            raise ValueError(f"output_size: expected at most {most} of {n} elements, got {out}")
        along = _intervals(u[:, axis, np.newaxis], n, k, out)
        base = (base[..., np.newaxis] * n + along[:, np.newaxis]).reshape(
            len(rows), base.shape[1] * out
        )
    offset = _flat([np.arange(k) for k in kernel], space)

    def first(rows):
        flat, ahead = rows.reshape(-1), base + starts(rows)
        winner = np.zeros(base.shape, np.min_scalar_type(len(offset)))
        _compare(winner, (flat.take(ahead + tap) for tap in offset))
        return base + offset.take(winner)

    return _taken(x, rows, _winners(rows, first), tuple(outs), return_indices)


def _outputs(space, size, ratio):
    """How many windows there are along each axis."""
    rank = len(space)
    if size is not None:
        return per_axis(rank, 0, alone=False, output_size=size)
    ratios = [ratio] * rank if rank == 3 and not isinstance(ratio, (tuple, list)) else ratio
    if not isinstance(ratios, (tuple, list)):
        raise TypeError(f"output_ratio: expected {rank} numbers, got {ratio!r}")
    if len(ratios) != rank:
        raise ValueError(f"output_ratio: expected {rank} numbers, got {ratio!r}")
    real(**{f"output_ratio[{i}]": r for i, r in enumerate(ratios)})
    outs = [int(n * r) for n, r in zip(space, ratios, strict=True)]
    if min(outs) < 0:
        raise ValueError(f"output_ratio: expected at least 0, got {ratio!r}")
    return outs


def _intervals(u, n, k, out):
    """Where the windows along an axis start, (rows, out), by u, (rows, 1)."""
    alpha = u.dtype.type((n - k) / max(out - 1, 1))
    found = np.trunc((np.arange(out, dtype=u.dtype) + u) * alpha) - np.trunc(u * alpha)
    found[:, -1:] = n - k
    return found.astype(np.int64)


def _unpooled(x, rank, indices, kernel_size, stride, padding, output_size):
    x = floating(x=x)
    rows = rows_of(x, rank, rank + 1)
    outs = _sizes_before(x, rank, kernel_size, stride, padding, output_size)
    room(x.dtype, output_size=(len(rows), *outs))
    places = placed(x, indices, outs, "x").reshape(-1)
    size = len(rows) * math.prod(outs)
    y, last = np.zeros(size, x.dtype), np.empty(size, np.int64)
    y[places] = x.reshape(-1)
    last[places] = np.arange(x.size)
    stays = last[places] == np.arange(x.size)

    def pullback(dy):
        return where(stays, dy.reshape(-1).take(places), 0).astype(dy.dtype).reshape(x.shape)

    return y.reshape(*x.shape[:-rank], *outs), pullback


def placed(x, indices, space, name="grad_output"):
    """Indices of x in planes of such axes as places in all of them.

    Raises TypeError unless they are int64, ValueError unless they have the shape of x and are in
    range.
    """
    indices, size = array(indices=indices), math.prod(space)
    if indices.dtype != np.int64:
        raise TypeError(f"indices: expected int64, got dtype {indices.dtype}")
    if indices.shape != x.shape:
        raise ValueError(f"indices: expected the shape of {name}, {x.shape}, got {indices.shape}")
    if indices.size and not (indices.min() >= 0 and indices.max() < size):
        raise ValueError(f"indices: expected places from 0 to {size - 1}, got others")
    front = x.shape[: x.ndim - len(space)]
    planes = np.arange(math.prod(front)).reshape(*front, *(1 for _ in space))
    return indices + planes * size


def _sizes_before(x, rank, kernel_size, stride, padding, output_size):
    """The lengths of what was pooled."""
    anything = -(2**63)
    kernel = per_axis(rank, anything, alone=False, kernel_size=kernel_size)
    strides = kernel
    if stride is not None:
        strides = per_axis(rank, anything, alone=False, stride=stride)
    paddings = per_axis(rank, anything, alone=False, padding=padding)
    if rank == 3 and min(strides) < 1:
        raise ValueError(f"stride: expected at least 1, got {stride!r}")
    sides = zip(x.shape[-rank:], strides, kernel, paddings, strict=True)
    sizes = [(n - 1) * s + k - 2 * p for n, s, k, p in sides]
    if output_size is not None:
        if not isinstance(output_size, (tuple, list)):
            raise TypeError(f"output_size: expected a tuple of lengths, got {output_size!r}")
        given = output_size[2:] if len(output_size) == rank + 2 else output_size
        found = per_axis(rank, anything, alone=False, output_size=list(given))
        for size, s, wanted in zip(sizes, strides, found, strict=True):
            if not size - s < wanted < size + s:
                raise ValueError(
                    f"output_size: expected less than {s} from {size}, got {output_size!r}"
                )
        sizes = found
    if min(sizes) < 0:
        raise ValueError(f"kernel_size: expected an output without negative lengths, got {sizes}")
    return sizes
