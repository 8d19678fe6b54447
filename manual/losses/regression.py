"""Losses of an error e = x − t.

All of them take x, the target t and a weight as arrays in float16, float32 or float64 of one dtype;
x and t broadcast, and the weight has the shape of x. reduction is "none", "mean" or "sum". They
raise TypeError for any other array and for a setting of the wrong type, ValueError for shapes that
do not fit and for a setting out of range; the message names the argument.
"""

import numpy as np

from ..arguments import broadcast, floating, real, same_shape, within
from ..arrays import pairwise_sum, reduce, sum_to


def mse_loss(x, target, *, reduction="mean", weight=None):
    """e² with e = x − t; the slope is 2e in x and −2e in t.

    A weighted mean is L = Σ w e² / Σ w, whose slope in w is (e² − L) / Σ w.

    Legendre, 1805; Gauss, 1809
    """
    return _of_error(lambda e: (e * e, 2 * e), x, target, reduction, weight)


def l1_loss(x, target, *, reduction="mean", weight=None):
    """|e| with e = x − t; the slope is the sign of e, 0 at 0. A weighted mean is that of mse_loss.

    Laplace, 1774
    """
    return _of_error(lambda e: (abs(e), np.sign(e)), x, target, reduction, weight)


def huber_loss(x, target, reduction="mean", delta=1.0, weight=None):
    """c (e − c/2), where c is e = x − t, cut off at ± δ: e²/2 within, δ (|e| − δ/2) outside. The
    slope is c. A weighted mean is Σ w c (e − c/2) / n. Raises ValueError for a δ that is not above
    0.

    Huber, 1964
    """
    real(delta=delta)
    if not delta > 0:
        raise ValueError(f"delta: expected above 0, got {delta}")

    def measured(e):
        c = np.clip(e, -delta, delta)
        return c * (e - c / 2), c

    return _of_error(measured, x, target, reduction, weight, weighted_mean=False)


def smooth_l1_loss(x, target, *, reduction="mean", beta=1.0):
    """huber_loss(δ = β) / β, and l1_loss for β = 0; β is at least 0.

    Girshick, 2015, arXiv:1504.08083
    """
    within(0, beta=beta)
    if beta == 0:
        return l1_loss(x, target, reduction=reduction)

    def measured(e):
        c = np.clip(e, -beta, beta)
        return c / beta * (e - c / 2), c / beta

    return _of_error(measured, x, target, reduction)


def _of_error(measured, x, target, reduction, weight=None, weighted_mean=True):
    """A loss of the error e = x − t: measured(e) is the loss and its slope, which are weighted and
    reduced; a weighted mean may be over Σ w."""
    x, target, weight = floating(x=x, target=target, weight=weight, optional="weight")
    broadcast(x=x, target=target)
    term, slope = measured(x - target)
    if weight is None:
        total = None
        y, spread = reduce(term, reduction)
    else:
        same_shape(x=x, weight=weight)
        total = pairwise_sum(weight, tuple(range(weight.ndim))) if weighted_mean else None
        y, spread = reduce(weight * term, reduction, total)

    def pullback(dy):
        dterm = spread(dy)
        derror = slope * (dterm if weight is None else weight * dterm)
        dx, dtarget = sum_to(derror, x.shape), sum_to(-derror, target.shape)
        if weight is None:
            return dx, dtarget
        above = term - y if reduction == "mean" and total is not None else term
        return dx, dtarget, sum_to(dterm * above, weight.shape)

    return y, pullback
