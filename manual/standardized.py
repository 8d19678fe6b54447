"""What the normalizations share: x̂, which is x at zero mean and unit variance.

Each of them sees x in another shape, and takes its mean and variance over other axes. Such a set of
axes is given as the shape that is left when they are summed over, with a 1 in their place. Weight
and bias come in a shape that broadcasts to that in which x is seen.

The checks raise TypeError or ValueError with a message that names the argument.
"""

import math

import numpy as np

from .arguments import real, whole
from .arrays import where

BLOCK = 2**16  # elements at a time, few enough to stay in the cache
RUN = 256  # elements that lie beside each other in memory, at least
LONG, MANY = 2**12, 2**9  # terms beyond which a sum, of a row or of rows, is pairwise


def rows_of(normalized_shape, arrays):
    """How many rows the first of the named arrays has, and how long they are, if its last axes have
    the normalized shape; so have the others, each of which may be None.

    Raises TypeError unless it is a list or tuple of whole numbers, ValueError for another shape.
    """
    (name, a), *parameters = arrays.items()
    if not isinstance(normalized_shape, (tuple, list)) or not normalized_shape:
        raise TypeError(f"normalized_shape: expected some lengths, got {normalized_shape!r}")
    whole(**{f"normalized_shape[{i}]": n for i, n in enumerate(normalized_shape)})
    shape, ahead = tuple(normalized_shape), a.ndim - len(normalized_shape)
    if ahead < 0 or a.shape[ahead:] != shape:
        raise ValueError(f"{name}: expected a shape that ends in {shape}, got {a.shape}")
    _have(shape, parameters)
    return math.prod(a.shape[:ahead]), math.prod(shape)


def channels_of(arrays, least=2):
    """N, C and L of the first of the named arrays, (N, C, …) with at least so many axes, where L
    elements lie behind each channel; the others, each of which may be None, are (C), and of the
    running statistics there are both or none. Raises ValueError where that is not so."""
    (name, a), *parameters = arrays.items()
    if a.ndim < least:
        raise ValueError(f"{name}: expected (N, C, …), got shape {a.shape}")
    N, C, *space = a.shape if a.ndim > 1 else (*a.shape, 0)
    _have((C,), parameters)
    missing = [name for name, a in parameters if name.startswith("running") and a is None]
    if len(missing) == 1:
        raise ValueError(f"{missing[0]}: expected both running statistics or none, got None")
    return N, C, math.prod(space)


def channels_in(channels, **groups):
    """The channels in each of the named number of groups. Raises ValueError unless they are equally
    many in each."""
    ((name, count),) = groups.items()
    whole(**groups)
    if count < 1 or channels % count:
        raise ValueError(f"{name}: expected a divisor of {channels} channels, got {count}")
    return channels // count


def epsilon(eps, training):
    """Raises ValueError for a negative ε of batch_norm, in training for 0 as well."""
    real(eps=eps)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"eps: expected {'above' if training else 'at least'} 0, got {eps}")


def shaped(shape, *parameters):
    """The parameters in that shape, each of which may be None."""
    return [None if a is None else a.reshape(shape) for a in parameters]


def _have(shape, parameters):
    for name, a in parameters:
        if a is not None and a.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {a.shape}")


def seen_as(given, y, pullback, statistics=()):
    """y and the gradients of what is given, x and its parameters or None, which were computed in
    other shapes, in theirs; with further outputs."""
    y = y.reshape(given[0].shape)

    def back(dy):
        found = pullback(dy[0] if statistics else dy)
        pairs = zip(found, given, strict=True)
        found = tuple(d.reshape(a.shape) for d, a in pairs if a is not None)
        return found[0] if len(found) == 1 else found

    return ((y, *statistics) if statistics else y), back


def fixed(x, mean, var, eps):
    """x̂ by given statistics of the channels of x (N, C, L), and r = 1 / √(var + ε). Raises
    ValueError where there are none."""
    if mean is None:
        raise ValueError("running_mean: expected statistics in evaluation, got None")
    mean, total = (a[:, np.newaxis] for a in (mean, var + eps))
    r = 1 / np.sqrt(where(total > 0, total, math.nan))
    return (x - mean) * r, r


def affine(hat, r, w, b):
    """w x̂ + b, each of which may be None, where x̂ is x times r, and moved."""
    y = _scaled(hat, w, b)

    def pullback(dy):
        dout = dy.reshape(hat.shape)
        dw = None if w is None else dot(dout, hat, w.shape)
        db = None if b is None else sum_to(dout, b.shape)
        return (dout if w is None else dout * w) * r, dw, db

    return y, pullback


def normed(x, over, w, b, eps, centred=True):
    """w x̂ + b, and mean and deviation of x, which leave `over`. What is large goes in blocks along
    the first axis of the statistics, so that what is made on the way stays in the cache."""
    axis = next((i for i, n in enumerate(over) if n > 1), 0)
    run = max(math.prod(x.shape[axis + 1 :]), 1)
    step = max(BLOCK * over[axis] // max(x.size, 1), RUN // run, 1)
    blocks = [(*[slice(None)] * axis, slice(i, i + step)) for i in range(0, over[axis], step)]

    def part(a, block):
        return a if a is None or a.shape[axis] == 1 else a[block]

    y, mean, deviation = np.empty_like(x), np.empty(over, x.dtype), np.empty(over, x.dtype)
    like = mean if w is None and b is None else b if w is None else w
    kept = []
    for block in blocks:
        hat, r, *found = standardized(x[block], mean[block].shape, eps, centred)
        mean[block], deviation[block] = found
        _scaled(hat, part(w, block), part(b, block), out=y[block])
        kept.append((block, hat, r))

    def pullback(dy):
        dy = dy.reshape(x.shape)
        dx = np.empty_like(x)
        dw, db = (None if a is None else np.zeros_like(a) for a in (w, b))
        for block, hat, r in kept:
            shape = tuple(map(max, r.shape, part(like, block).shape))
            sums = sum_to(dy[block], shape), dot(dy[block], hat, shape)
            slope(dy[block], hat, r, sums, part(w, block), centred, out=dx[block])
            for total, a in zip((db, dw), sums, strict=True):
                if total is not None:
                    here = part(total, block)
                    here += sum_to(a, here.shape)
        return dx, dw, db

    return (y, mean, deviation), pullback


def standardized(x, over, eps, centred=True):
    """x̂ = (x − μ) r, then r, μ and the deviation s: r = 1 / √(s² + ε), s² is the mean of (x − μ)²,
    and means leave `over`. Without `centred`, μ is 0.

    The mean is rounded; so, where it is larger than the deviation and that counts, the mean of what
    it leaves is taken off as well. It is scaled so that no square overflows.
    """
    n = max(x.size // max(math.prod(over), 1), 1)
    d, mean = x, 0
    if centred:
        mean = sum_to(x, over) / n
        d = x - mean
    scale, squares = _scaled_squares(d, over, eps)
    if centred and not np.all(abs(mean) <= np.sqrt(squares / n) * scale):
        rest = sum_to(d, over) / n
        d -= rest
        mean += rest
        scale, squares = _scaled_squares(d, over, eps)
    hat = d if isinstance(scale, float) else d / scale
    square = squares / n
    total = square + eps / scale / scale
    r = 1 / np.sqrt(where(total > 0, total, math.nan))
    hat = np.multiply(hat, r, out=None if hat is x else hat)
    return hat, r / scale, mean, np.sqrt(square) * scale


def slope(dy, hat, r, sums=None, w=None, centred=True, out=None):
    """dx = r (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) with dx̂ = w dy, of x̂ and r as `standardized` gives
    them. The sums are Σ dy and Σ dy x̂, over axes along which w and r are the same."""
    n = max(hat.size // max(r.size, 1), 1)
    sums = sums or (sum_to(dy, r.shape), dot(dy, hat, r.shape))
    mean, along = ((sum_to(a, r.shape) if w is None else dot(a, w, r.shape)) / n for a in sums)
    early = 1 if w is not None and w.shape[-1] > 1 else r  # r w would be as large as dy
    dx = np.multiply(dy, early if w is None else early * w, out=out)
    left = hat * (along * early)
    if centred:
        left += mean * early
    dx -= left
    if early is not r:
        dx *= r
    return dx


def _scaled(hat, w, b, out=None):
    y = np.multiply(hat, 1 if w is None else w, out=out)
    if b is not None:
        y += b
    return y


def _scaled_squares(d, over, eps):
    """By what d is divided before it is squared, and the sums of the squares: 1.0 unless a square
    would overflow, or vanish beside ε; then a power of 2 near the largest of those that are summed,
    but at least √ε."""
    info = np.finfo(d.dtype)
    if np.isfinite(np.vdot(d, d)) and eps > info.tiny / info.eps:
        return 1.0, dot(d, d, over)
    axes = tuple(i for i, n in enumerate(over) if n == 1)
    top = np.maximum(abs(d).max(axis=axes, keepdims=True, initial=0), math.sqrt(max(eps, 0)))
    scale = np.ldexp(np.ones_like(top), np.frexp(top)[1])
    return scale, dot(d / scale, d / scale, over)


def dot(a, b, shape):
    """Σ a b over the axes that are 1 in the shape."""
    if shape[-1] < a.shape[-1] <= LONG:
        if b.size == b.shape[-1]:
            return sum_to(_along_rows(a, b.reshape(-1, 1)), shape)
        return sum_to(np.vecdot(a, b)[..., np.newaxis], shape)
    return sum_to(a * b, shape)


def sum_to(a, shape):
    """Σ a over the axes that are 1 in the shape: pairwise where it is long, and else as a product
    with ones, which is faster."""
    if not a.size:
        return np.zeros(shape, a.dtype)
    n = a.shape[-1]
    if n > shape[-1]:
        long = n > LONG
        a = a.sum(axis=-1, keepdims=True) if long else _along_rows(a, np.ones((n, 1), a.dtype))
    for axis in range(a.ndim - 1):
        if a.shape[axis] > shape[axis]:
            a = _over_rows(a, axis)
    return a


def _along_rows(a, column):
    """Each row times the column; of rows in one piece as one product, not as one of each matrix."""
    if a.flags.c_contiguous:
        return (a.reshape(-1, a.shape[-1]) @ column).reshape(*a.shape[:-1], 1)
    return a @ column


def _over_rows(a, axis):
    """Σ a over an axis that is not the last, which stays as 1."""
    if a.shape[axis] > MANY:
        a = np.moveaxis(a, axis, 0)
        while len(a) > MANY:
            half = len(a) // 2
            halves = a[:half] + a[half : 2 * half]
            if len(a) % 2:
                halves[0] += a[-1]
            a = halves
        a = np.moveaxis(a, 0, axis)
    if axis:
        return a.sum(axis=axis, keepdims=True)
    rows = a.reshape(len(a), math.prod(a.shape[1:]))
    return (np.ones(len(a), a.dtype) @ rows).reshape(1, *a.shape[1:])
