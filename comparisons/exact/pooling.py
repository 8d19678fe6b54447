import itertools
import math

import mpmath
import numpy as np


def max_pool1d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    axes = _sliding(x, 1, kernel_size, stride, padding, dilation, ceil_mode)
    return _largest(x, axes, return_indices)


def max_pool2d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    axes = _sliding(x, 2, kernel_size, stride, padding, dilation, ceil_mode)
    return _largest(x, axes, return_indices)


def max_pool3d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    axes = _sliding(x, 3, kernel_size, stride, padding, dilation, ceil_mode)
    return _largest(x, axes, return_indices)


def adaptive_max_pool1d(x, output_size, return_indices=False):
    return _largest(x, _adaptive(x, 1, output_size), return_indices)


def adaptive_max_pool2d(x, output_size, return_indices=False):
    return _largest(x, _adaptive(x, 2, output_size), return_indices)


def adaptive_max_pool3d(x, output_size, return_indices=False):
    return _largest(x, _adaptive(x, 3, output_size), return_indices)


def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    return _average(x, 1, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    settings = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return _average(x, 2, *settings)


def avg_pool3d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    settings = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return _average(x, 3, *settings)


def adaptive_avg_pool1d(x, output_size):
    return _pooled(x, _adaptive(x, 1, output_size), _mean)


def adaptive_avg_pool2d(x, output_size):
    return _pooled(x, _adaptive(x, 2, output_size), _mean)


def adaptive_avg_pool3d(x, output_size):
    return _pooled(x, _adaptive(x, 3, output_size), _mean)


def lp_pool1d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    return _power(x, 1, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    return _power(x, 2, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    return _power(x, 3, norm_type, kernel_size, stride, ceil_mode)


def fractional_max_pool2d(
    x,
    kernel_size,
    output_size=None,
    output_ratio=None,
    return_indices=False,
    *,
    _random_samples=None,
):
    settings = kernel_size, output_size, output_ratio, return_indices
    return _fractional(x, 2, *settings, _random_samples[..., ::-1])


def fractional_max_pool3d(
    x,
    kernel_size,
    output_size=None,
    output_ratio=None,
    return_indices=False,
    *,
    _random_samples=None,
):
    settings = kernel_size, output_size, output_ratio, return_indices
    return _fractional(x, 3, *settings, _random_samples)


def max_unpool1d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    return _unpooled(x, 1, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    return _unpooled(x, 2, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    return _unpooled(x, 3, indices, kernel_size, stride, padding, output_size)


def _each(value, rank):
    numbers = value if isinstance(value, (tuple, list)) else [value]
    return numbers if len(numbers) == rank else [*numbers] * rank


def _sliding(x, rank, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """For each axis the windows, each with its places in the padded axis."""
    stride = kernel_size if stride is None or stride in ((), []) else stride
    sides = [_each(value, rank) for value in (kernel_size, stride, padding, dilation)]
    axes = []
    for n, k, s, p, d in zip(x.shape[-rank:], *sides, strict=True):
        windows, start = [], -p
        while start + d * (k - 1) < n + p:  # it fits
            windows.append([start + t * d for t in range(k)])
            start += s
        left = start - s + d * (k - 1) < n + p - 1 if windows else True
        if ceil_mode and left and start < n:
            windows.append([start + t * d for t in range(k)])
        axes.append((n, windows))
    return axes


def _adaptive(x, rank, output_size):
    outs = _each(output_size, rank)
    axes = []
    for n, out in zip(x.shape[-rank:], outs, strict=True):
        out = n if out is None else out
        bounds = [(math.floor(i * n / out), math.ceil((i + 1) * n / out)) for i in range(out)]
        axes.append((n, [list(range(*b)) for b in bounds]))
    return axes


def _pooled(x, axes, chosen):
    """chosen(elements by their places, all places with those of the padding) of each window."""
    rank = len(axes)
    lead, outs = x.shape[:-rank], [len(windows) for _, windows in axes]
    y = np.empty((*lead, *outs), object)
    for i in np.ndindex(*lead):
        for o in np.ndindex(*outs):
            every = list(itertools.product(*(axes[a][1][o[a]] for a in range(rank))))
            inside = {
                place: x[i + place]
                for place in every
                if all(0 <= q < n for q, (n, _) in zip(place, axes, strict=True))
            }
            y[i + o] = chosen(inside, every)
    return y


def _largest(x, axes, return_indices=False):
    found = _pooled(x, axes, lambda inside, _: _winner(inside))
    lengths = [n for n, _ in axes]
    y = np.empty(found.shape, object)
    indices = np.empty(found.shape, np.int64)
    for o in np.ndindex(found.shape):
        y[o] = found[o][1]
        indices[o] = np.ravel_multi_index(found[o][0], lengths)
    return (y, indices) if return_indices else y


def _winner(inside):
    """The first place of the largest element, and it; of NaN the last."""
    best = None
    for place, value in inside.items():
        if best is None or value > best[1] or mpmath.isnan(value):
            best = place, value
    return best


def _mean(inside, _):
    if not inside:
        return mpmath.nan
    return sum(inside.values(), mpmath.mpf(0)) / len(inside)


def _average(x, rank, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    axes = _sliding(x, rank, kernel_size, stride, padding, 1, ceil_mode)
    ends = [n + p for (n, _), p in zip(axes, _each(padding, rank), strict=True)]

    def mean(inside, every):
        padded = [place for place in every if all(q < e for q, e in zip(place, ends, strict=True))]
        n = divisor_override or len(padded if count_include_pad else inside)
        return sum(inside.values(), mpmath.mpf(0)) / n

    return _pooled(x, axes, mean)


def _power(x, rank, p, kernel_size, stride, ceil_mode):
    axes = _sliding(x, rank, kernel_size, stride, ceil_mode=ceil_mode)
    if math.isinf(p):
        choose = max if p > 0 else min
        return _pooled(x, axes, lambda inside, _: choose(abs(v) for v in inside.values()))

    def norm(inside, every):
        if p != int(p) and any(v < 0 for v in inside.values()):
            return mpmath.nan
        if p < 0 and 0 in inside.values():
            return mpmath.mpf(0)
        total = sum((v ** mpmath.mpf(p) for v in inside.values()), mpmath.mpf(0))
        total = total * len(every) / len(inside)
        if total < 0 and 1 / p != int(1 / p):
            return mpmath.nan
        return total ** (1 / mpmath.mpf(p))

    return _pooled(x, axes, norm)


def _fractional(x, rank, kernel_size, output_size, output_ratio, return_indices, samples):
    kernel, space = _each(kernel_size, rank), x.shape[-rank:]
    if output_size is None:
        output_size = [int(n * r) for n, r in zip(space, _each(output_ratio, rank), strict=True)]
    outs = _each(output_size, rank)
    planes = x.reshape(-1, x.shape[-rank - 1], *space)
    y, indices = (np.empty((*planes.shape[:2], *outs), kind) for kind in (object, np.int64))
    for i in np.ndindex(planes.shape[:2]):
        axes = []
        for u, n, k, out in zip(samples[i], space, kernel, outs, strict=True):
            alpha = mpmath.mpf(n - k) / max(out - 1, 1)
            starts = [int((j + u) * alpha) - int(u * alpha) for j in range(out - 1)]
            axes.append((n, [list(range(a, a + k)) for a in [*starts, n - k]][:out]))
        y[i], indices[i] = _largest(planes[i], axes, return_indices=True)
    shape = *x.shape[:-rank], *outs
    return (y.reshape(shape), indices.reshape(shape)) if return_indices else y.reshape(shape)


def _unpooled(x, rank, indices, kernel_size, stride, padding, output_size):
    kernel, strides = _each(kernel_size, rank), _each(stride or kernel_size, rank)
    sides = zip(x.shape[-rank:], kernel, strides, _each(padding, rank), strict=True)
    outs = [(n - 1) * s + k - 2 * p for n, k, s, p in sides]
    outs = list(output_size)[-rank:] if output_size is not None else outs
    y = np.full((*x.shape[:-rank], *outs), mpmath.mpf(0))
    for i in np.ndindex(x.shape):
        y[i[:-rank] + np.unravel_index(indices[i], outs)] = x[i]
    return y
