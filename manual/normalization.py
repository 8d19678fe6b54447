"""Normalization: x̂, which is x at zero mean and unit variance, or at unit length.

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range, IndexError for a dim that is not there; the message names the argument.

layer_norm, group_norm, instance_norm and batch_norm are one rule: they see x in another shape, and
take its mean and variance over other axes. Such a set of axes is given as the shape that is left
when they are summed over, with a 1 in their place.
"""

import math

import numpy as np

from .arguments import Constant, axis_of, flag, floating, real, whole
from .arrays import where
from .distances import _norm

BLOCK = 2**15  # elements at a time, few enough to stay in the cache
RUN = 16  # elements that lie beside each other in memory, at least


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, where x̂ is x at zero mean and unit variance over the last axes: x (…, *shape) with
    weight and bias of the normalized shape.

    Both statistics depend on x, so dx̂ loses its mean and its part along x̂:

        dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / σ,   σ² = var(x) + ε,   dx̂ = w dy

    Ba, Kiros & Hinton, 2016, arXiv:1607.06450
    """
    x, weight, bias = floating(x=x, weight=weight, bias=bias, optional="weight bias")
    rows, n = _rows(x, normalized_shape, weight=weight, bias=bias)
    real(eps=eps)
    w, b = _shaped((1, n), weight, bias)
    (y, *_), pullback = _normed(x.reshape(rows, n), (rows, 1), w, b, eps)
    return _seen((x, weight, bias), y, pullback)


def rms_norm(x, normalized_shape, weight=None, eps=None):
    """w x̂, where x̂ is x at unit mean square over the last axes: x (…, *shape) with a weight of the
    normalized shape. ε is by default that of the dtype, 2⁻²³ in float32.

    As in layer_norm dx̂ loses its part along x̂; its mean it keeps:

        dx = (dx̂ − x̂ mean(dx̂ x̂)) / σ,   σ² = mean(x²) + ε,   dx̂ = w dy

    Zhang & Sennrich, 2019, arXiv:1910.07467
    """
    x, weight = floating(x=x, weight=weight, optional="weight")
    rows, n = _rows(x, normalized_shape, weight=weight)
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    real(eps=eps)
    (w,) = _shaped((1, n), weight)
    (y, *_), pullback = _normed(x.reshape(rows, n), (rows, 1), w, None, eps, centred=False)
    return _seen((x, weight, None), y, pullback)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, where x̂ is x at zero mean and unit variance over each group of channels: x (N, C, …)
    with weight and bias (C). The slope is that of layer_norm.

    Raises ValueError unless the channels can be parted evenly, and where a group has one element.

    Wu & He, 2018, arXiv:1803.08494
    """
    x, weight, bias = _channelled(x, weight=weight, bias=bias)
    G, K = _groups(x, num_groups)
    real(eps=eps)
    N, C, L = *x.shape[:2], math.prod(x.shape[2:])
    if N * C // G * L == 1:
        raise ValueError(f"x: expected more than one element in a group, got shape {x.shape}")
    w, b = _shaped((1, G, K, 1), weight, bias)
    (y, *_), pullback = _normed(x.reshape(N, G, K, L), (N, G, 1, 1), w, b, eps)
    return _seen((x, weight, bias), y, pullback)


def batch_norm(
    x,
    running_mean: Constant,
    running_var: Constant,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    """w x̂ + b for each channel: x (N, C, …) and all others (C). In training x̂ is x at zero mean and
    unit variance over all but the channels, with the slope of layer_norm; the running statistics
    that are given move towards those of x by the share `momentum`, the variance with n − 1 in place
    of n, and are further outputs. In evaluation x̂ = (x − running_mean) / σ, σ² = running_var + ε,
    and dx = dx̂ / σ.

    Raises ValueError in training where a channel has one value, in evaluation without statistics.

    Ioffe & Szegedy, 2015, arXiv:1502.03167
    """
    x, mean, var, weight, bias = _channelled(
        x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    _both(mean, var)
    flag(training=training)
    real(momentum=momentum, eps=eps)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"eps: expected {'above' if training else 'at least'} 0, got {eps}")
    N, C, L = *x.shape[:2], math.prod(x.shape[2:])
    if training and N * L == 1:
        raise ValueError(f"x: expected more than one value of a channel, got shape {x.shape}")
    seen, given = x.reshape(N, C, L), (x, weight, bias)
    w, b = _shaped((1, C, 1), weight, bias)
    if not training:
        return _seen(given, *_affine(*_fixed(seen, mean, var, eps), w, b))
    (y, *found), pullback = _normed(seen, (1, C, 1), w, b, eps)
    return _seen(given, y, pullback, _moved(mean, var, found, momentum, N * L))


def instance_norm(
    x,
    running_mean: Constant = None,
    running_var: Constant = None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """batch_norm of each example by itself: the statistics of x (N, C, …) are taken over all axes
    behind the channels, and the running ones move towards the mean of theirs over the examples.
    Without use_input_stats it is batch_norm in evaluation.

    Raises ValueError where a channel of an example has one value, and without statistics.

    Ulyanov, Vedaldi & Lempitsky, 2016, arXiv:1607.08022
    """
    x, mean, var, weight, bias = _channelled(
        x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    _both(mean, var)
    flag(use_input_stats=use_input_stats)
    real(momentum=momentum, eps=eps)
    N, C, L = *x.shape[:2], math.prod(x.shape[2:])
    if use_input_stats and L == 1:
        raise ValueError(f"x: expected more than one value of a channel, got shape {x.shape}")
    seen, given = x.reshape(N, C, L), (x, weight, bias)
    w, b = _shaped((1, C, 1), weight, bias)
    if not use_input_stats:
        return _seen(given, *_affine(*_fixed(seen, mean, var, eps), w, b))
    (y, *found), pullback = _normed(seen, (N, C, 1), w, b, eps)
    return _seen(given, y, pullback, _moved(mean, var, found, momentum, L))


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x D⁻ᵝ with D = k + α / size Σ x² over a window of `size` channels, size // 2 of them in front
    of each channel: x (N, C, …). Beyond the ends there are zeros.

    D depends on x in the window, so x collects from wherever it is in one:

        dx = dy D⁻ᵝ − 2 α β / size x Σᵀ (dy y / D)

    where Σᵀ sums over the window turned round. Raises ValueError for an x with fewer axes and a
    size below 1.

    Krizhevsky, Sutskever & Hinton, 2012
    """
    x = floating(x=x)
    real(alpha=alpha, beta=beta, k=k)
    if x.ndim < 3:
        raise ValueError(f"x: expected (N, C, …), got shape {x.shape}")
    whole(size=size)
    if size < 1 and x.size:
        raise ValueError(f"size: expected at least 1, got {size}")
    before, after = size // 2, (size - 1) // 2
    share = alpha / max(size, 1)
    D = k + share * _windows(x * x, before, after)
    D = where(D > 0 if beta % 1 else D != 0, D, math.nan)
    power = D**-beta
    y = x * power

    def pullback(dy):
        return dy * power - 2 * beta * share * x * _windows(dy * y / D, after, before)

    return y, pullback


def normalize(x, p=2.0, dim=1, eps=1e-12):
    """x / n along dim, one axis or several, where n is ‖x‖ₚ, but at least ε.

    The norm has the slope u = sign(x) (|x| / ‖x‖)^(p − 1), so dx = (dy − u Σ dy y) / n, and dy / ε
    where ε stands in for the norm.
    """
    x = floating(x=x)
    real(p=p, eps=eps)
    axes = _axes(x.ndim, dim)
    last = np.moveaxis(np.atleast_1d(x), axes, range(-len(axes), 0))
    ahead = last.ndim - len(axes)
    rows = last.reshape(*last.shape[:ahead], math.prod(last.shape[ahead:]))
    norm, pull_norm = _norm(rows, p)
    n = np.maximum(norm, eps)[..., np.newaxis]
    y = rows / n

    def back(a):
        return np.moveaxis(a.reshape(last.shape), range(-len(axes), 0), axes).reshape(x.shape)

    def pullback(dy):
        d = np.moveaxis(dy.reshape(np.shape(np.atleast_1d(x))), axes, range(-len(axes), 0))
        d = d.reshape(rows.shape)
        dnorm = where(norm >= eps, (d * y).sum(axis=-1), 0)
        return back(d / n - pull_norm(dnorm) / n)

    return back(y), pullback


def _rows(x, normalized_shape, **parameters):
    """How many rows x has, and how long they are, if its last axes have the normalized shape; so
    have the parameters."""
    if not isinstance(normalized_shape, (tuple, list)) or not normalized_shape:
        raise TypeError(f"normalized_shape: expected some lengths, got {normalized_shape!r}")
    whole(**{f"normalized_shape[{i}]": n for i, n in enumerate(normalized_shape)})
    shape, ahead = tuple(normalized_shape), x.ndim - len(normalized_shape)
    if ahead < 0 or x.shape[ahead:] != shape:
        raise ValueError(f"x: expected a shape that ends in {shape}, got {x.shape}")
    for name, a in parameters.items():
        if a is not None and a.shape != shape:
            raise ValueError(f"{name}: expected the normalized shape {shape}, got {a.shape}")
    return math.prod(x.shape[:ahead]), math.prod(shape)


def _channelled(x, **parameters):
    """x (N, C, …) and the parameters (C), each of which may be None, checked."""
    x, *found = floating(x=x, **parameters, optional=" ".join(parameters))
    if x.ndim < 2:
        raise ValueError(f"x: expected (N, C, …), got shape {x.shape}")
    for name, a in zip(parameters, found, strict=True):
        if a is not None and a.shape != x.shape[1:2]:
            raise ValueError(f"{name}: expected one number for each channel, got shape {a.shape}")
    return x, *found


def _groups(x, num_groups):
    """The number of groups, and how many channels each has."""
    whole(num_groups=num_groups)
    if num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"num_groups: expected a divisor of {x.shape[1]}, got {num_groups}")
    return num_groups, x.shape[1] // num_groups


def _axes(ndim, dim):
    """One axis or several, each once, counted from 0."""
    return [axis_of(ndim, dim=axis) for axis in (dim if isinstance(dim, (tuple, list)) else [dim])]


def _seen(given, y, pullback, statistics=()):
    """y and the gradients of what is given, x and its parameters or None, which were computed in
    other shapes, in theirs; with further outputs."""
    y = y.reshape(given[0].shape)

    def back(dy):
        found = pullback(dy[0] if statistics else dy)
        pairs = zip(found, given, strict=True)
        found = tuple(d.reshape(a.shape) for d, a in pairs if a is not None)
        return found[0] if len(found) == 1 else found

    return ((y, *statistics) if statistics else y), back


def _shaped(shape, *parameters):
    return [None if a is None else a.reshape(shape) for a in parameters]


def _both(mean, var):
    """Raises ValueError where there is one running statistic alone."""
    if (mean is None) != (var is None):
        name = "running_mean" if mean is None else "running_var"
        raise ValueError(f"{name}: expected both running statistics or none, got None")


def _moved(mean, var, found, momentum, n):
    """The running statistics that there are, moved towards those found: means and deviations of n
    values each."""
    if mean is None:
        return ()
    means, deviations = (a.reshape(-1, a.shape[1]) for a in found)
    if not n * len(means):
        return mean, var
    pairs = (mean, means), (var, deviations * deviations * (n / (n - 1)))
    return tuple((1 - momentum) * old + momentum * new.mean(axis=0) for old, new in pairs)


def _fixed(x, mean, var, eps):
    """x̂ by given statistics of the channels, and its pullback."""
    if mean is None:
        raise ValueError("running_mean: expected statistics in evaluation, got None")
    mean, total = (a[:, np.newaxis] for a in (mean, var + eps))
    r = 1 / np.sqrt(where(total > 0, total, math.nan))

    def pullback(dhat):
        return dhat * r

    return (x - mean) * r, pullback


def _affine(hat, pull, w, b):
    """w x̂ + b, where each may be None; the pullback goes on to that of x̂."""
    y = hat if w is None else hat * w
    y = y if b is None else y + b

    def pullback(dy):
        dout = dy.reshape(hat.shape)
        dw = None if w is None else _dot(dout, hat, w.shape)
        db = None if b is None else _sum_to(dout, b.shape)
        return pull(dout if w is None else dout * w), dw, db

    return y, pullback


def _normed(x, over, w, b, eps, centred=True):
    """w x̂ + b, and mean and deviation of x, which leave `over`. What is large goes in blocks along
    the first axis of the statistics, so that what is made on the way stays in the cache."""
    axis = next((i for i, n in enumerate(over) if n > 1), 0)
    run = max(math.prod(x.shape[axis + 1 :]), 1)
    step = max(BLOCK * over[axis] // max(x.size, 1), RUN // run, 1)
    if step >= over[axis]:
        hat, pull, *statistics = _standardised(x, over, eps, centred)
        y, pullback = _affine(hat, pull, w, b)
        return (y, *statistics), pullback
    blocks = [(*[slice(None)] * axis, slice(i, i + step)) for i in range(0, over[axis], step)]

    def part(a, block):
        return a if a is None or a.shape[axis] == 1 else a[block]

    y, mean, deviation = np.empty_like(x), np.empty(over, x.dtype), np.empty(over, x.dtype)
    pullbacks = []
    for block in blocks:
        left = mean[block].shape
        found, pull = _normed(x[block], left, part(w, block), part(b, block), eps, centred)
        y[block], mean[block], deviation[block] = found
        pullbacks.append(pull)

    def pullback(dy):
        dy = dy.reshape(x.shape)
        dx, dw, db = np.empty_like(x), *(None if a is None else np.zeros_like(a) for a in (w, b))
        for block, pull in zip(blocks, pullbacks, strict=True):
            dx[block], *others = pull(dy[block])
            for total, a in zip((dw, db), others, strict=True):
                if total is not None:
                    part(total, block)[...] += a
        return dx, dw, db

    return (y, mean, deviation), pullback


def _standardised(x, over, eps, centred=True):
    """x̂ = (x − μ) / σ, its pullback, μ and the deviation, where σ² = mean((x − μ)²) + ε and means
    leave `over`. Without `centred`, μ is 0.

    The mean is rounded; so the mean of what it leaves is taken off as well. That is s times a part
    whose square does not overflow.
    """
    n = max(x.size // max(math.prod(over), 1), 1)
    d, mean = x, 0
    if centred:
        mean = _sum_to(x, over) / n
        d = x - mean
        rest = _sum_to(d, over) / n
        d -= rest
        mean += rest
    s = _scale(d, over, eps)
    hat = d if isinstance(s, float) else d / s
    square = _dot(hat, hat, over) / n
    total = square + eps / s / s
    r = 1 / np.sqrt(where(total > 0, total, math.nan))
    hat = np.multiply(hat, r, out=None if hat is x else hat)
    r = r / s

    def pullback(dhat):
        left = dhat - _sum_to(dhat, over) / n if centred else dhat
        dx = hat * (_dot(left, hat, over) / -n)
        dx += left
        dx *= r
        return dx

    return hat, pullback, mean, np.sqrt(square) * s


def _scale(d, over, eps):
    """By what d is divided before it is squared: 1.0 unless a square would overflow, or vanish
    beside ε; then a power of 2 near the largest of those that are summed, but at least √ε."""
    info = np.finfo(d.dtype)
    largest = max(d.max(initial=0), -d.min(initial=0))
    if largest < math.sqrt(info.max / max(d.size, 1)) and eps > info.tiny / info.eps:
        return 1.0
    axes = tuple(i for i, n in enumerate(over) if n == 1)
    top = np.maximum(abs(d).max(axis=axes, keepdims=True, initial=0), math.sqrt(max(eps, 0)))
    return np.ldexp(np.ones_like(top), np.frexp(top)[1])


def _dot(a, b, shape):
    """Σ a b over the axes that are 1 in the shape."""
    if a.shape[-1] > shape[-1]:
        return _sum_to(np.einsum("...i,...i->...", a, b)[..., np.newaxis], shape)
    return _sum_to(a * b, shape)


def _sum_to(a, shape):
    """Σ a over the axes that are 1 in the shape. Over all but the last it adds halves to each
    other: a pairwise sum that needs no other layout."""
    if not a.size:
        return np.zeros(shape, a.dtype)
    if a.shape[-1] > shape[-1]:
        a = a.sum(axis=-1, keepdims=True)
    for axis in range(a.ndim - 1):
        if a.shape[axis] > shape[axis]:
            a = np.moveaxis(a, axis, 0)
            while len(a) > 1:
                half = len(a) // 2
                halves = a[:half] + a[half : 2 * half]
                if len(a) % 2:
                    halves[0] += a[-1]
                a = halves
            a = np.moveaxis(a, 0, axis)
    return a


def _windows(a, before, after):
    """Σ over a window along axis 1, from `before` in front of each element to `after` behind it."""
    wide = [(0, 0)] * a.ndim
    wide[1] = before, after
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(a, wide), before + after + 1, axis=1)
    return windows.sum(axis=-1)
