"""Normalization: x̂, which is x at zero mean and unit variance, or at unit length.

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range, IndexError for a dim that is not there; the message names the argument.

layer_norm, group_norm, instance_norm and batch_norm are one rule, `normed`: they see x in another
shape, and take its mean and variance over other axes.
"""

import math

import numpy as np

from .arguments import Constant, axis_of, flag, floated, floating, real, whole
from .arrays import where
from .distances import _norm
from .standardized import (
    affine,
    channels_in,
    channels_of,
    epsilon,
    fixed,
    normed,
    rows_of,
    seen_as,
    shaped,
)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, where x̂ is x at zero mean and unit variance over the last axes: x (…, *shape) with
    weight and bias of the normalized shape.

    Both statistics depend on x, so dx̂ loses its mean and its part along x̂:

        dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / σ,   σ² = var(x) + ε,   dx̂ = w dy

    Ba, Kiros & Hinton, 2016, arXiv:1607.06450
    """
    x, weight, bias = floating(x=x, weight=weight, bias=bias, optional="weight bias")
    rows, n = rows_of(normalized_shape, {"x": x, "weight": weight, "bias": bias})
    real(eps=eps)
    w, b = shaped((1, n), weight, bias)
    (y, *_), pullback = normed(x.reshape(rows, n), (rows, 1), w, b, eps)
    return seen_as((x, weight, bias), y, pullback)


def rms_norm(x, normalized_shape, weight=None, eps=None):
    """w x̂, where x̂ is x at unit mean square over the last axes: x (…, *shape) with a weight of the
    normalized shape. ε is by default that of the dtype, 2⁻²³ in float32.

    As in layer_norm dx̂ loses its part along x̂; its mean it keeps:

        dx = (dx̂ − x̂ mean(dx̂ x̂)) / σ,   σ² = mean(x²) + ε,   dx̂ = w dy

    Zhang & Sennrich, 2019, arXiv:1910.07467
    """
    x, weight = floating(x=x, weight=weight, optional="weight")
    rows, n = rows_of(normalized_shape, {"x": x, "weight": weight})
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    real(eps=eps)
    (w,) = shaped((1, n), weight)
    (y, *_), pullback = normed(x.reshape(rows, n), (rows, 1), w, None, eps, centred=False)
    return seen_as((x, weight, None), y, pullback)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, where x̂ is x at zero mean and unit variance over each group of channels: x (N, C, …)
    with weight and bias (C). The slope is that of layer_norm.

    Raises ValueError unless the channels can be parted evenly, and where a group has one element.

    Wu & He, 2018, arXiv:1803.08494
    """
    x, weight, bias = floating(x=x, weight=weight, bias=bias, optional="weight bias")
    N, C, L = channels_of({"x": x, "weight": weight, "bias": bias})
    G, K = num_groups, channels_in(C, num_groups=num_groups)
    real(eps=eps)
    if N * K * L == 1:
        raise ValueError(f"x: expected more than one element in a group, got shape {x.shape}")
    w, b = shaped((1, G, K, 1), weight, bias)
    (y, *_), pullback = normed(x.reshape(N, G, K, L), (N, G, 1, 1), w, b, eps)
    return seen_as((x, weight, bias), y, pullback)


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
    flag(training=training)
    real(momentum=momentum)
    epsilon(eps, training)
    arrays = _arrays(x, running_mean, running_var, weight, bias)
    N, C, L = shape = channels_of(arrays, 2 if np.size(x) else 1)
    if training and N * L == 1:
        raise ValueError(f"x: expected more than one value of a channel, got shape {np.shape(x)}")
    return _by_channel(arrays, shape, (1, C, 1) if training else None, momentum, eps)


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
    flag(use_input_stats=use_input_stats)
    real(momentum=momentum, eps=eps)
    running_mean = floated(x, running_mean)  # as torch does with the mean, and not the variance
    arrays = _arrays(x, running_mean, running_var, weight, bias)
    N, C, L = shape = channels_of(arrays)
    if use_input_stats and L == 1:
        raise ValueError(f"x: expected more than one value of a channel, got shape {np.shape(x)}")
    over = (N, C, 1) if use_input_stats else None
    return _by_channel(arrays, shape, over, momentum, eps)


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
    """x / n along dim, one axis, several, or with None all of them, where n is ‖x‖ₚ, but at least
    ε. Without p it is 2.

    The norm has the slope u = sign(x) (|x| / ‖x‖)^(p − 1), so dx = (dy − u Σ dy y) / n, and dy / ε
    where ε stands in for the norm. Raises ValueError for an axis given twice.
    """
    x = floating(x=x)
    p = 2.0 if p is None else p
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


def _axes(ndim, dim):
    """One axis or several, counted from 0; all for None."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return list(range(max(ndim, 1)))
    axes = [axis_of(ndim, dim=axis) for axis in (dim if isinstance(dim, (tuple, list)) else [dim])]
    if len({*axes}) < len(axes):
        raise ValueError(f"dim: expected each axis once, got {dim}")
    return axes


def _arrays(x, running_mean, running_var, weight, bias):
    """The arrays by name, checked to be floating, with both running statistics or none."""
    arrays = {
        "x": x,
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    found = floating(**arrays, optional="running_mean running_var weight bias")
    return dict(zip(arrays, found, strict=True))


def _by_channel(arrays, shape, over, momentum, eps):
    """w x̂ + b for x seen in that shape, (N, C, L), by its own means, which leave `over`, or where
    that is None by those given."""
    x, mean, var, weight, bias = arrays.values()
    seen, (w, b) = x.reshape(shape), shaped((1, shape[1], 1), weight, bias)
    if over is None:
        return seen_as((x, weight, bias), *affine(*fixed(seen, mean, var, eps), w, b))
    (y, *found), pullback = normed(seen, over, w, b, eps)
    moved = _moved(mean, var, found, momentum, x.size // max(math.prod(over), 1))
    return seen_as((x, weight, bias), y, pullback, moved)


def _moved(mean, var, found, momentum, n):
    """The running statistics that there are, moved towards those found: means and deviations of n
    values each."""
    if mean is None:
        return ()
    means, deviations = (a[..., 0] for a in found)
    if not n * len(means):
        return mean, var
    pairs = (mean, means), (var, deviations * deviations * (n / (n - 1)))
    return tuple((1 - momentum) * old + momentum * new.mean(axis=0) for old, new in pairs)


def _windows(a, before, after):
    """Σ over a window along axis 1, from `before` in front of each element to `after` behind it."""
    wide = [(0, 0)] * a.ndim
    wide[1] = before, after
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(a, wide), before + after + 1, axis=1)
    return windows.sum(axis=-1)
