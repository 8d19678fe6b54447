"""Dropout. What is drawn is the mask, a boolean array that broadcasts to x and is true where x is
kept. Without training nothing is drawn, and x is returned.

All of them take x in float16, float32 or float64, and p from 0 to 1, the probability of being
dropped. They raise TypeError for any other array and for a setting of the wrong type, ValueError
for a p out of range; the message names the argument.
"""

import math

import numpy as np

from .activations import SELU_ALPHA, SELU_SCALE
from .arguments import Constant, array, broadcastable, flag, floating, within
from .arrays import where

_LIMIT = SELU_SCALE * SELU_ALPHA  # on the left, selu tends to −_LIMIT


def dropout(x, p=0.5, training=True, *, mask: Constant = None):
    """m x / (1 − p), where m is 1 with probability 1 − p and else 0, so that the mean is x; the
    slope is m / (1 − p). Here x may have any shape. Raises ValueError for a mask that does not
    broadcast to x, TypeError for training without a boolean mask.

    Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, 2014
    """
    return _scaled(*_drawn(x, p, training, mask))


def dropout1d(x, p=0.5, training=True, *, mask: Constant = None):
    """dropout of whole channels of x, (C, L) or (N, C, L): the mask is (…, C, 1). Raises ValueError
    for an x with other numbers of axes or a mask that does not broadcast to x, TypeError for
    training without a boolean mask.

    Tompson, Goroshin, Jain, LeCun & Bregler, 2015, arXiv:1411.4280
    """
    if np.ndim(x) not in (2, 3):
        raise ValueError(f"x: expected (C, L) or (N, C, L), got shape {np.shape(x)}")
    return _scaled(*_drawn(x, p, training, mask))


def dropout2d(x, p=0.5, training=True, *, mask: Constant = None):
    """dropout of whole channels of x, (N, C, …): the mask is (N, C, 1, …). Raises ValueError for an
    x with fewer axes or a mask that does not broadcast to x, TypeError for training without a
    boolean mask.

    Tompson, Goroshin, Jain, LeCun & Bregler, 2015, arXiv:1411.4280
    """
    return _scaled(*_drawn(x, p, training, mask, axes=2))


def dropout3d(x, p=0.5, training=True, *, mask: Constant = None):
    """dropout of whole channels of x, (N, C, D, H, W), or else (C, …): the mask is (…, C, 1, …).
    Raises ValueError for an x with fewer axes or a mask that does not broadcast to x, TypeError for
    training without a boolean mask.

    Tompson, Goroshin, Jain, LeCun & Bregler, 2015, arXiv:1411.4280
    """
    return _scaled(*_drawn(x, p, training, mask, axes=1))


def alpha_dropout(x, p=0.5, training=False, *, mask: Constant = None):
    """a (x + p s) where x is kept and a (p − 1) s where not; the slope is a or 0. x may have any
    shape.

    −s is the limit of selu on the left, and a = ((1 − p) (1 + p s²))^(−½) keeps a mean of 0 and a
    variance of 1. Raises ValueError for a mask that does not broadcast to x, TypeError for training
    without a boolean mask.

    Klambauer, Unterthiner, Mayr & Hochreiter, 2017, arXiv:1706.02515
    """
    return _saturated(*_drawn(x, p, training, mask))


def feature_alpha_dropout(x, p=0.5, training=False, *, mask: Constant = None):
    """alpha_dropout of whole channels of x, (N, C, …): the mask is (N, C, 1, …). Raises ValueError
    for an x with fewer axes or a mask that does not broadcast to x, TypeError for training without
    a boolean mask.

    Klambauer, Unterthiner, Mayr & Hochreiter, 2017, arXiv:1706.02515
    """
    return _saturated(*_drawn(x, p, training, mask, axes=2))


def _drawn(x, p, training, mask, axes=0):
    """x, p and the mask, checked: x has at least `axes` axes. Without training the mask is None."""
    x = floating(x=x)
    within(0, 1, p=p)
    flag(training=training)
    if not training:
        return x, p, None
    if x.ndim < axes:
        raise ValueError(f"x: expected at least {axes} axes, got shape {x.shape}")
    if mask is None:
        raise TypeError("mask: expected a boolean array of what training keeps, got None")
    mask = array(mask=mask)
    if mask.dtype != bool:
        raise TypeError(f"mask: expected a boolean array of what is kept, got {mask.dtype}")
    broadcastable(x.shape, mask=mask)
    return x, p, mask


def _scaled(x, p, mask):
    kept = True if mask is None else mask & (p < 1)
    factor = 1 if mask is None or p == 1 else 1 / (1 - p)
    y = where(kept, x * factor, 0)

    def pullback(dy):
        return where(kept, dy * factor, 0)

    return y, pullback


def _saturated(x, p, mask):
    if mask is None or p == 1:
        return _scaled(x, p, mask)
    a = 1 / math.sqrt((1 - p) * (1 + p * _LIMIT**2))
    y = where(mask, a * x + a * p * _LIMIT, a * (p - 1) * _LIMIT)

    def pullback(dy):
        return where(mask, a * dy, 0)

    return y, pullback
