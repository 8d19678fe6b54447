"""Clipping of gradients, a list of arrays of any shapes at once. Nothing that was passed is
changed.

All of them take arrays in float16, float32 or float64, of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for one out of range; the message
names the argument.
"""

import math

import numpy as np

from .arguments import flag, floating, real, within


def clip_grad_norm_(grads, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """g ← g min(1, c / (‖g‖ + 10⁻⁶)), where ‖g‖ is the norm of all of them laid end to end and c is
    max_norm.

    Returns ‖g‖ and the list. norm_type is any number, or math.inf for the largest element. A norm
    that is not finite makes all of them so, unless error_if_nonfinite. Raises ValueError for such a
    norm where that is set, TypeError for grads that are no list.

    Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063
    """
    real(max_norm=max_norm, norm_type=norm_type)
    flag(error_if_nonfinite=error_if_nonfinite)
    grads = _all(grads)
    norms = [_norm(g.reshape(-1), norm_type) for g in grads]
    total = _norm(np.array(norms, grads[0].dtype), norm_type) if grads else np.zeros(())
    if error_if_nonfinite and not np.isfinite(total):
        raise ValueError(f"grads: expected a finite norm of order {norm_type}, got {total}")
    share = np.minimum(max_norm / (total + 1e-6), 1.0).astype(total.dtype)
    return total, [np.asarray(g * share) for g in grads]


def clip_grad_value_(grads, clip_value):
    """Every element limited to ± clip_value, which is at least 0. Raises TypeError for grads that
    are no list."""
    within(0, clip_value=clip_value)
    return [np.clip(g, -clip_value, clip_value) for g in _all(grads)]


def _norm(x, order):
    """The norm of a vector, scaled by its largest element so that no power overflows."""
    size = np.max(abs(x), initial=0)
    if order == math.inf or size == 0 or not np.isfinite(size):
        return np.asarray(size)
    if order == 0:
        return np.asarray(np.count_nonzero(x), x.dtype)
    return np.asarray(size * np.sum((abs(x) / size) ** order) ** (1 / order), x.dtype)


def _all(grads):
    if not isinstance(grads, (list, tuple)):
        raise TypeError(f"grads: expected a list of arrays, got {type(grads).__name__}")
    found = floating(**{f"grads[{i}]": g for i, g in enumerate(grads)}) if len(grads) else ()
    return list(found) if isinstance(found, tuple) else [found]
