import itertools

import mpmath
import numpy as np


def interpolate(
    x,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        m, factor = (a[axis - 2] if isinstance(a, (tuple, list)) else a
                     for a in (size, scale_factor))  # fmt: skip
        m = int(n * factor) if m is None else m
        step = mpmath.mpf(n) / m if m else 0
        if factor is not None and not recompute_scale_factor:
            step = mpmath.mpf(1 / factor)
        if n == m and (antialias or mode not in ("nearest-exact", "bicubic")):
            step = mpmath.mpf(1)
        if align_corners:
            step = mpmath.mpf(n - 1) / (m - 1) if m > 1 else mpmath.mpf(0)
        rows = [np.zeros((*x.shape[:axis], 0, *x.shape[axis + 1 :]), object)]
        for i in range(m):
            if mode == "area":
                taps = _area(i, n, m)
            elif antialias:
                taps = _filtered(mode, i, n, step)
            else:
                taps = _taps(mode, i, n, step, align_corners)
            row = sum(weight * x.take([index], axis) for index, weight in taps)
            rows.append(row)
        x = np.concatenate(rows, axis)
    return x


def upsample(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    return interpolate(x, size, scale_factor, mode, align_corners)


def upsample_nearest(x, size=None, scale_factor=None):
    return interpolate(x, size, scale_factor)


def upsample_bilinear(x, size=None, scale_factor=None):
    return interpolate(x, size, scale_factor, "bilinear", True)


def _nearest(step, i, n):
    """A product that float64 cannot tell from a whole number is one, as 1 / 0.9 times 4.5."""
    at = step * i
    whole = mpmath.nint(at)
    return _within(whole if float(at) == whole else mpmath.floor(at), n)


def _within(index, n):
    return min(max(int(index), 0), n - 1)


def _area(i, n, m):
    covered = range(i * n // m, -(-(i + 1) * n // m))
    return [(index, mpmath.mpf(1) / len(covered)) for index in covered]


def _taps(mode, i, n, step, align):
    half = mpmath.mpf(1) / 2
    if mode == "nearest":
        return [(_nearest(step, i, n), 1)]
    if mode == "nearest-exact":
        return [(_nearest(step, i + half, n), 1)]
    at = step * i if align else step * (i + half) - half
    if mode == "bicubic":
        low = min(mpmath.floor(at), n - 1)
        at = min(at, low + 1)
        return [(_within(low + k, n), _cubic(at - low - k, "-0.75")) for k in range(-1, 3)]
    at = min(max(at, 0), n - 1)
    low = mpmath.floor(at)
    return [(_within(low + k, n), 1 - abs(at - low - k)) for k in range(2)]


def _filtered(mode, i, n, step):
    width, middle, half = max(step, 1), step * (i + mpmath.mpf(1) / 2), mpmath.mpf(1) / 2
    reach = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[mode] * width
    first = max(int(mpmath.floor(middle - reach + half)), 0)
    last = min(int(mpmath.floor(middle + reach + half)), n)
    weights = [_filter(mode, (index - middle + half) / width) for index in range(first, last)]
    total = sum(weights)
    return [(first + k, weight / total) for k, weight in enumerate(weights)]


def _filter(mode, x):
    if mode == "bilinear":
        return max(1 - abs(x), mpmath.mpf(0))
    if mode == "bicubic":
        return _cubic(x, "-0.5")
    return mpmath.sincpi(x) * mpmath.sincpi(x / 3) if abs(x) < 3 else mpmath.mpf(0)


def _cubic(x, a):
    x, a = abs(x), mpmath.mpf(a)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else mpmath.mpf(0)


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    N, C, *space = x.shape
    y = np.full((N, C, *grid.shape[1:-1]), mpmath.mpf(0))
    for index in np.ndindex(grid.shape[:-1]):
        n, *place = index
        taps = [
            _on_grid(g, m, mode, padding_mode, align_corners)
            for g, m in zip(grid[index][::-1], space, strict=True)
        ]
        for corner in itertools.product(*taps):
            at, weights = zip(*corner, strict=True)
            if all(0 <= i < m for i, m in zip(at, space, strict=True)):
                read = (n, slice(None), *map(int, at))
                y[n, :, *place] += mpmath.fprod(weights) * x[read]
    return y


def _on_grid(g, n, mode, padding, align):
    """Index and weight of each tap along one axis."""
    at = (g + 1) * (n - 1) / 2 if align else ((g + 1) * n - 1) / 2
    if mode == "bicubic":
        low = mpmath.floor(at)
        pairs = [(low + k, _cubic(at - low - k, "-0.75")) for k in range(-1, 3)]
        return [(mpmath.nint(_padded(index, n, padding, align)), w) for index, w in pairs]
    at = _padded(at, n, padding, align)
    if mode == "nearest":
        return [(mpmath.nint(at), mpmath.mpf(1))]
    low = mpmath.floor(at)
    return [(low + k, 1 - abs(at - low - k)) for k in range(2)]


def _padded(at, n, padding, align):
    if padding == "zeros":
        return at
    low, high = (0, n - 1) if align else (mpmath.mpf(-1) / 2, n - mpmath.mpf(1) / 2)
    while padding == "reflection" and low < high and not low <= at <= high:
        at = 2 * low - at if at < low else 2 * high - at
    return min(max(at, 0), n - 1)


def affine_grid(theta, size, align_corners=None):
    N, _, *space = size
    y = np.empty((N, *space, len(space)), object)
    for index in np.ndindex(*space):
        pairs = list(zip(index, space, strict=True))
        if align_corners:
            ends = [mpmath.mpf(2 * i) / (n - 1) - 1 if n > 1 else 0 for i, n in pairs]
        else:
            ends = [mpmath.mpf(2 * i + 1) / n - 1 for i, n in pairs]
        y[:, *index] = theta @ np.array([*ends[::-1], 1], object)
    return y


def pixel_shuffle(x, upscale_factor):
    r = upscale_factor
    *front, C, H, W = x.shape
    y = np.empty((*front, C // (r * r), H * r, W * r), object)
    for c, h, w in np.ndindex(*y.shape[-3:]):
        y[..., c, h, w] = x[..., c * r * r + h % r * r + w % r, h // r, w // r]
    return y


def pixel_unshuffle(x, downscale_factor):
    r = downscale_factor
    *front, C, H, W = x.shape
    y = np.empty((*front, C * r * r, H // r, W // r), object)
    for c, h, w in np.ndindex(*x.shape[-3:]):
        y[..., c * r * r + h % r * r + w % r, h // r, w // r] = x[..., c, h, w]
    return y


def channel_shuffle(x, groups):
    each = x.shape[1] // groups
    y = np.empty(x.shape, object)
    for g, k in np.ndindex(groups, each):
        y[:, k * groups + g] = x[:, g * each + k]
    return y
