import math

import mpmath
import numpy as np

from .distances import _norm

_root = np.frompyfunc(lambda v: mpmath.sqrt(v) if v > 0 else mpmath.nan, 1, 1)
_power = np.frompyfunc(lambda d, beta: d**beta, 2, 1)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(normalized_shape), 0))
    return _affine(_standardised(x, axes, eps), weight, bias)


def rms_norm(x, normalized_shape, weight=None, eps=None):
    axes = tuple(range(-len(normalized_shape), 0))
    eps = mpmath.nan if eps is None else eps  # that of a dtype, which numbers do not have
    return _affine(x / _root(_mean(x * x, axes) + mpmath.mpf(eps)), weight, None)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    groups = x.reshape(x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:])
    hat = _standardised(groups, tuple(range(2, groups.ndim)), eps).reshape(x.shape)
    return _affine(hat, *_channels(x, weight, bias))


def batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    others = (0, *range(2, x.ndim))
    if not training:
        return _fixed(x, running_mean, running_var, weight, bias, eps)
    y = _affine(_standardised(x, others, eps), *_channels(x, weight, bias))
    mean, var = _statistics(x, others)
    return _moved(y, running_mean, running_var, mean.ravel(), var.ravel(), momentum)


def instance_norm(
    x,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    space = tuple(range(2, x.ndim))
    if not use_input_stats:
        return _fixed(x, running_mean, running_var, weight, bias, eps)
    y = _affine(_standardised(x, space, eps), *_channels(x, weight, bias))
    if running_mean is None and running_var is None:
        return y
    mean, var = (_mean(a.reshape(x.shape[:2]), 0)[0] for a in _statistics(x, space))
    return _moved(y, running_mean, running_var, mean, var, momentum)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    D = np.full(x.shape, mpmath.mpf(k))
    for c in range(x.shape[1]):
        first, last = c - size // 2, c + (size - 1) // 2
        for j in range(max(first, 0), min(last + 1, x.shape[1])):
            D[:, c] = D[:, c] + mpmath.mpf(alpha) / size * x[:, j] ** 2
    return x / _power(D, mpmath.mpf(beta))


def normalize(x, p=2.0, dim=1, eps=1e-12):
    axes = list(dim) if isinstance(dim, tuple) else [dim]
    last = np.moveaxis(np.atleast_1d(x), axes, range(-len(axes), 0))
    ahead = last.ndim - len(axes)
    rows = last.reshape(*last.shape[:ahead], math.prod(last.shape[ahead:]))
    bound = np.frompyfunc(lambda n: max(n, mpmath.mpf(eps)), 1, 1)
    found = rows / np.asarray(bound(_norm(rows, p)))[..., np.newaxis]
    return np.moveaxis(found.reshape(last.shape), range(-len(axes), 0), axes).reshape(x.shape)


def _mean(a, axes):
    total = np.sum(a, axis=axes, keepdims=True, initial=mpmath.mpf(0))
    return total / max(a.size // max(total.size, 1), 1)


def _standardised(x, axes, eps):
    d = x - _mean(x, axes)
    return d / _root(_mean(d * d, axes) + mpmath.mpf(eps))


def _statistics(x, axes):
    """The mean and the unbiased variance."""
    mean = _mean(x, axes)
    n = x.size // mean.size if mean.size else 0
    return mean, _mean((x - mean) ** 2, axes) * n / (n - 1)


def _channels(x, *parameters):
    shape = (-1, *(1 for _ in x.shape[2:]))
    return [None if a is None else a.reshape(shape) for a in parameters]


def _fixed(x, mean, var, weight, bias, eps):
    mean, var, weight, bias = _channels(x, mean, var, weight, bias)
    return _affine((x - mean) / _root(var + mpmath.mpf(eps)), weight, bias)


def _affine(hat, weight, bias):
    y = hat if weight is None else hat * weight
    return y if bias is None else y + bias


def _moved(y, running_mean, running_var, mean, var, momentum):
    m = mpmath.mpf(momentum)
    pairs = ((running_mean, mean), (running_var, var))
    found = [(1 - m) * old + m * new for old, new in pairs if old is not None]
    return (y, *found) if found else y
