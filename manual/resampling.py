"""Resampling: an image read at other places, and its elements in another arrangement.

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range; the message names the argument.

What is read at a place is a sum over its taps, the elements around it, times weights: y = A x with
a sparse matrix A, so dx = Aᵀ dy. Weights are those of float64, rounded once.
"""

import math

import numpy as np

from .arguments import flag, floating, one_of, real, truth, whole
from .arrays import room
from .taps import FILTERS, along_axes, between, matrix_of, products, spread, taps_along, wide

AXES = {"linear": (1,), "bilinear": (2,), "bicubic": (2,), "lanczos": (2,), "trilinear": (3,)}
SELECTING = ("nearest", "nearest-exact", "area")


def interpolate(
    x,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    """x (N, C, …) with one to three axes of another length, `size` or ⌊n scale_factor⌋ of n.

    Element i is read at s (i + ½) − ½, where s = n / size, or 1 / scale_factor unless that is
    recomputed; "nearest" reads at ⌊s i⌋, and with align_corners both ends stay where they are. An
    axis of which the length stays is copied, but not by "nearest-exact" and a cubic. The taps of a
    place are one element, two, four of a cubic, those that it covers ("area") or, with antialias,
    all that a filter s times as wide reaches.

    Each axis has a matrix, y = A x, so dx = Aᵀ dy, axis by axis. Raises ValueError for an x of
    which any but the first axis is empty, or that a mode is not for, and unless just one of size
    and scale_factor is given.

    Keys, 1981 (cubic); Duchon, 1979 (Lanczos)
    """
    x = floating(x=x)
    truth(antialias=antialias)
    align = _aligned(x, mode, align_corners, antialias)
    lengths, steps = _lengths(x, mode, size, scale_factor, recompute_scale_factor)
    room(x.dtype, x=(*x.shape[:2], *lengths))
    matrices = [
        matrix_of(*taps_along(mode, n, m, step, align, antialias), n, wide(x.dtype))
        for n, m, step in zip(x.shape[2:], lengths, steps, strict=True)
    ]
    y = along_axes(matrices[::-1], x, range(x.ndim - 1, 1, -1))

    def pullback(dy):
        return along_axes([A.T.tocsr() for A in matrices], dy, range(2, dy.ndim))

    return y, pullback


def upsample(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """interpolate by its former name, without its last settings."""
    return interpolate(x, size, scale_factor, mode, align_corners)


def upsample_nearest(x, size=None, scale_factor=None):
    """interpolate to the nearest element."""
    return interpolate(x, size, scale_factor)


def upsample_bilinear(x, size=None, scale_factor=None):
    """interpolate in two axes, whose ends stay where they are."""
    return interpolate(x, size, scale_factor, "bilinear", True)


def grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    """x (N, C, H, W) or (N, C, D, H, W) read at the places of a grid (N, …, 2) or (N, …, 3), the
    last axis of x first: −1 and 1 are its ends, with align_corners the middles of its outermost
    elements. Outside, x is 0, its border, or reflected.

    A place moves the weights of its taps alone, so with y = A x

        dx = Aᵀ dy,   dgrid = Σ dy (∂A/∂grid x)  over the channels

    and nothing moves at the "nearest" element, nor along a border. Raises ValueError for a place
    that is NaN or ∞.

    Jaderberg, Simonyan, Zisserman & Kavukcuoglu, 2015, arXiv:1506.02025
    """
    x, grid = floating(x=x, grid=grid)
    one_of(("bilinear", "nearest", "bicubic"), mode=mode)
    one_of(("zeros", "border", "reflection"), padding_mode=padding_mode)
    if align_corners is not None:
        flag(align_corners=align_corners)
    N, C, *space = _sampled(x, grid, mode)
    places = grid.shape[1:-1]
    P, n = math.prod(places), math.prod(space)
    where = np.moveaxis(grid.reshape(N * P, len(space)), -1, 0)[::-1].astype(np.float64)
    axes = [
        between(mode, g, m, padding_mode, align_corners) for g, m in zip(where, space, strict=True)
    ]
    index, inside = spread(axes, space)
    index += np.repeat(np.arange(N) * n, P)[:, np.newaxis]
    dtype = wide(x.dtype)
    rows = _channels_last(x, N, C, n).astype(dtype)

    def matrix(k=None):
        """A, or its slope along axis k."""
        parts = [taps.slopes if i == k else taps.weights for i, taps in enumerate(axes)]
        return matrix_of(index, products(parts), inside, N * n, dtype)

    A = matrix()
    y = _channels_first(A @ rows, N, C, places).astype(x.dtype)

    def pullback(dy):
        drows = _channels_last(dy, N, C, P).astype(dtype)
        dx = _channels_first(A.T @ drows, N, C, space).astype(x.dtype)
        dgrid = np.zeros((N * P, len(space)), grid.dtype)
        for k in range(len(space)) if mode != "nearest" else ():
            dgrid[:, -1 - k] = np.vecdot(matrix(k) @ rows, drows)
        return dx, dgrid.reshape(grid.shape)

    return y, pullback


def affine_grid(theta, size, align_corners=None):
    """The grid of grid_sample that maps each place p of an image of that size, (N, C, H, W) or
    (N, C, D, H, W), to θ (p, 1): theta (N, 2, 3) or (N, 3, 4).

    It is linear in θ, so dθ is Σ dy (p, 1)ᵀ over all places. Raises TypeError for a size that is
    no tuple or list of whole numbers, ValueError for one that is empty or does not fit.

    Jaderberg, Simonyan, Zisserman & Kavukcuoglu, 2015, arXiv:1506.02025
    """
    theta = floating(theta=theta)
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"size: expected the shape of an image, got {size!r}")
    whole(**{f"size[{i}]": n for i, n in enumerate(size)})
    if align_corners is not None:
        flag(align_corners=align_corners)
    d = len(size) - 2
    if d not in (2, 3) or min(size) < 1:
        raise ValueError(f"size: expected four or five lengths above 0, got {tuple(size)}")
    if theta.shape != (size[0], d, d + 1):
        raise ValueError(f"theta: expected shape {(size[0], d, d + 1)}, got {theta.shape}")
    ends = [1.0 if align_corners else (n - 1) / n for n in size[2:]]
    lines = [
        np.linspace(-e, e, n) if n > 1 else np.zeros(1) for e, n in zip(ends, size[2:], strict=True)
    ]
    room(theta.dtype, size=(*size[2:], d + 1))
    p = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(size[2:])], -1)
    p = p.reshape(-1, d + 1).astype(wide(theta.dtype))
    y = (p @ theta.swapaxes(1, 2)).astype(theta.dtype).reshape(size[0], *size[2:], d)

    def pullback(dy):
        dplaces = dy.reshape(size[0], len(p), d)
        return (dplaces.swapaxes(1, 2) @ p).astype(theta.dtype)

    return y, pullback


def pixel_shuffle(x, upscale_factor):
    """Channels laid out as pixels: (…, C r², H, W) → (…, C, H r, W r), where channel (c, i, j)
    becomes row i and column j of each square of r². dy goes back to where its element came from.
    Raises ValueError unless r² divides the channels.

    Shi, Caballero, Huszár, Totz, Aitken, Bishop, Rueckert & Wang, 2016, arXiv:1609.05158
    """
    x = floating(x=x)
    r = _factor(x, upscale_factor=upscale_factor)
    if x.shape[-3] % (r * r):
        raise ValueError(f"x: expected a multiple of {r * r} channels, got shape {x.shape}")
    y = _to_pixels(x, r)

    def pullback(dy):
        return _to_channels(dy, r)

    return y, pullback


def pixel_unshuffle(x, downscale_factor):
    """Pixels laid out as channels, (…, C, H r, W r) → (…, C r², H, W): the inverse of
    pixel_shuffle, and dy goes back as there. Raises ValueError unless r divides height and width.
    """
    x = floating(x=x)
    r = _factor(x, downscale_factor=downscale_factor)
    if x.shape[-2] % r or x.shape[-1] % r:
        raise ValueError(f"x: expected height and width in multiples of {r}, got shape {x.shape}")
    y = _to_channels(x, r)

    def pullback(dy):
        return _to_pixels(dy, r)

    return y, pullback


def channel_shuffle(x, groups):
    """The channels of x (N, C, …) dealt out: channel k of group g becomes number k · groups + g. dy
    is dealt back. Raises ValueError unless the groups are equally large.

    Zhang, Zhou, Lin & Sun, 2018, arXiv:1707.01083
    """
    x = floating(x=x)
    _factor(x, groups=groups)
    C = x.shape[1]
    if C % groups:
        raise ValueError(f"groups: expected a divisor of {C} channels, got {groups}")
    y = _dealt(x, groups)

    def pullback(dy):
        return _dealt(dy, C // groups)

    return y, pullback


def _aligned(x, mode, align_corners, antialias):
    """align_corners, False for None, of a mode that fits to x and the other settings."""
    one_of((*SELECTING, *AXES), mode=mode)
    if x.ndim - 2 not in AXES.get(mode, (1, 2, 3)):
        raise ValueError(f"x: expected another number of axes for {mode!r}, got shape {x.shape}")
    if 0 in x.shape[1:]:
        raise ValueError(f"x: expected none but the first axis to be empty, got shape {x.shape}")
    if antialias and mode not in FILTERS:
        raise ValueError(f"antialias: expected False for {mode!r}, got {antialias!r}")
    if align_corners is None:
        return False
    if mode in SELECTING:
        raise ValueError(f"align_corners: expected None for {mode!r}, got {align_corners!r}")
    flag(align_corners=align_corners)
    return bool(align_corners)


def _lengths(x, mode, size, scale_factor, recompute):
    """The lengths of the axes resampled, and of each the step from one element to the next as a
    ratio (a, b), of whole numbers where there are such."""
    recompute = truth(recompute_scale_factor=recompute) or mode == "area"
    n = x.shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError(f"size: expected it or scale_factor, got {size!r} and {scale_factor!r}")
    if scale_factor is None:
        if recompute and mode != "area":
            raise ValueError("recompute_scale_factor: expected None or False with a size, got True")
        lengths = _one_each(whole, n, size=size)
    else:
        factors = _one_each(real, n, scale_factor=scale_factor)
        if not all(abs(length * f) < 2**63 for length, f in zip(n, factors, strict=True)):
            raise ValueError(f"scale_factor: expected finite ones, got {scale_factor!r}")
        lengths = [int(length * float(f)) for length, f in zip(n, factors, strict=True)]
    if min(lengths) < 1:
        name = "size" if scale_factor is None else "scale_factor"
        raise ValueError(f"{name}: expected lengths above 0, got {lengths}")
    if scale_factor is None or recompute:
        return lengths, list(zip(n, lengths, strict=True))
    return lengths, [(1 / float(f), 1) for f in factors]


def _one_each(check, axes, **setting):
    """The named setting as one for each axis, each of which is checked."""
    ((name, value),) = setting.items()
    if not isinstance(value, (tuple, list)):
        check(**setting)
        return [value] * len(axes)
    check(**{f"{name}[{i}]": part for i, part in enumerate(value)})
    if len(value) != len(axes):
        raise ValueError(f"{name}: expected one for each of {len(axes)} axes, got {value!r}")
    return list(value)


def _sampled(x, grid, mode):
    """The shape of x, to which the grid and the mode fit."""
    d = x.ndim - 2
    if d not in (2, 3) or 0 in x.shape[2:]:
        raise ValueError(f"x: expected (N, C, H, W) or (N, C, D, H, W), got shape {x.shape}")
    if grid.ndim != x.ndim or grid.shape[0] != len(x) or grid.shape[-1] != d:
        raise ValueError(f"grid: expected shape ({len(x)}, …, {d}), got {grid.shape}")
    if not np.isfinite(grid).all():
        raise ValueError("grid: expected finite places, got NaN or ∞")
    if mode == "bicubic" and d == 3:
        raise ValueError(f"mode: expected 'bilinear' or 'nearest' in three axes, got {mode!r}")
    return x.shape


def _factor(x, **setting):
    """The named setting, a whole number above 0, of an x with channels and pixels."""
    ((name, value),) = setting.items()
    whole(**setting)
    if x.ndim < 3:
        raise ValueError(f"x: expected at least three axes, got shape {x.shape}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return value


def _channels_last(a, N, C, n):
    return a.reshape(N, C, n).swapaxes(1, 2).reshape(N * n, C)


def _channels_first(rows, N, C, space):
    return rows.reshape(N, math.prod(space), C).swapaxes(1, 2).reshape(N, C, *space)


def _to_pixels(a, r):
    *front, C, H, W = a.shape
    squares = a.reshape(*front, C // (r * r), r, r, H, W)
    k = len(front) + 1
    return np.moveaxis(squares, (k, k + 1), (k + 1, -1)).reshape(*front, C // (r * r), H * r, W * r)


def _to_channels(a, r):
    *front, C, H, W = a.shape
    squares = a.reshape(*front, C, H // r, r, W // r, r)
    k = len(front) + 1
    return np.moveaxis(squares, (k + 1, -1), (k, k + 1)).reshape(*front, C * r * r, H // r, W // r)


def _dealt(a, groups):
    N, C, *space = a.shape
    return a.reshape(N, groups, C // groups, *space).swapaxes(1, 2).reshape(a.shape)
