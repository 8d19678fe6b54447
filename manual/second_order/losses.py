"""Backward passes of losses.

They raise TypeError or ValueError, as the package says.
"""

import numpy as np

from .. import activations
from ..arguments import (
    Constant,
    alike,
    array,
    floated,
    floating,
    same_shape,
    weights,
    whole,
    within,
)
from ..arrays import sum_to, where
from ..losses import classes
from ..losses.likelihoods import GUARD
from .promoted import divisor, promoted


def mse_loss_backward(grad_output, self, target, reduction):
    """f′ = 2 e, f″ = 2 with e = x − t; in t all slopes are the negative ones. Raises ValueError for
    another reduction and a shape that does not fit."""
    return _of_error(grad_output, self, target, reduction, lambda e: (2 * e, np.full_like(e, 2)))


def huber_loss_backward(grad_output, self, target, reduction, delta):
    """f′ = e cut off at ± δ, e = x − t; f″ = 1 within. Raises ValueError for another reduction and
    a shape that does not fit."""
    within(0, delta=delta)

    def measured(e):
        return np.clip(e, -delta, delta), (abs(e) < delta).astype(e.dtype)

    return _of_error(grad_output, self, target, reduction, measured)


def smooth_l1_loss_backward(grad_output, self, target, reduction, beta):
    """f′ = e / β cut off at ± 1, e = x − t; f″ = 1 / β within, and 0 everywhere for β = 0, where f′
    at 0 is −1. Raises ValueError for another reduction and a shape that does not fit."""
    within(0, beta=beta)

    def measured(e):
        within_beta = abs(e) < beta
        sides = where(e <= -beta, -1, 1)
        return where(within_beta, e / (beta or 1), sides), within_beta / (beta or 1)

    return _of_error(grad_output, self, target, reduction, measured)


def _of_error(grad_output, x, target, reduction, measured):
    """The backward pass of a loss of e = x − t: measured(e) is f′ and f″."""
    g, x, t = floating(grad_output=grad_output, self=x, target=target)
    same_shape(self=x, target=t)
    n = divisor(g, x.shape, reduction, x.size)
    slope, bend = (np.asarray(a / n) for a in measured(x - t))
    return promoted(g, slope, (x, bend), (t, -bend))


def soft_margin_loss_backward(grad_output, self, target: Constant, reduction):
    """f′ = −t σ(−t x), f″ = t² σ(t x) σ(−t x). The target t has the shape of x. Raises ValueError
    for another reduction and a shape that does not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    x, t = alike(self=x, target=floated(x, target))
    n = divisor(g, x.shape, reduction, x.size)
    s, bend = activations.sigmoid(-t * x)
    return promoted(g, -t * s / n, (x, bend(t * t / n)))


def binary_cross_entropy_backward(grad_output, self, target, weight: Constant = None, reduction=1):
    """f′ = w (p − t) / (p q) with q = 1 − p; in p the slope is w ((p − t)² + t (1 − t)) / (p q)²,
    where nothing cancels, in t it is −w / (p q). Torch has another guard for these than for f′: ε =
    1e-12 is added to p and to q; they have it here only where p q is below it.

    Raises ValueError for another reduction, a shape that does not fit, and a p or t outside [0, 1].
    """
    g, p, t = floating(grad_output=grad_output, self=self, target=target)
    same_shape(self=p, target=t)
    w = weights(p, weight=weight)
    for name, a in (("self", p), ("target", t)):
        if not np.all((a >= 0) & (a <= 1)):
            raise ValueError(f"{name}: expected values from 0 to 1, as its loss does")
    share = np.asarray((1 if w is None else w) / divisor(g, p.shape, reduction, p.size), p.dtype)
    pq = p * (1 - p)
    guarded = where(pq < GUARD, (p + 1e-12) * (1 - p + 1e-12), pq)
    bend = share * (((p - t) ** 2 + t * (1 - t)) / (guarded * guarded))
    y, _ = promoted(g, share * ((p - t) / np.maximum(pq, GUARD)))
    _, pullback = promoted(
        g, share * ((p - t) / guarded), (p, bend), (t, -share / np.maximum(pq, 1e-12))
    )
    return y, pullback


def nll_loss_backward(
    grad_output,
    self,
    target,
    weight: Constant,
    reduction,
    ignore_index,
    total_weight: Constant,
):
    """nll_loss is linear in x: so its pullback of grad_output has no slope in x, and that in
    grad_output is nll_loss itself, of dy. A "mean" is over total_weight, Σ w_t. The other arguments
    are those of nll_loss. Raises ValueError for an x without axes, another reduction and a shape
    that does not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    whole(reduction=reduction)
    given = total_weight if reduction == 1 else floated(x, total_weight)  # else it does not count
    total = floating(self=x, total_weight=given)[1]
    if not x.ndim:
        raise ValueError(f"self: expected an axis of classes, got shape {x.shape}")
    target, settings = array(target=target), {"ignore_index": ignore_index, "reduction": "none"}
    n = divisor(g, target.shape, reduction, total.item() if reduction == 1 else 1)
    _, pull = classes.nll_loss(x, target, weight, **settings)
    y = pull(np.broadcast_to(g / n, target.shape))

    def pullback(dy):
        loss, _ = classes.nll_loss(dy, target, weight, **settings)
        return sum_to(loss / n, g.shape), np.zeros_like(x)

    return y, pullback


def nll_loss2d_backward(
    grad_output,
    self,
    target,
    weight: Constant,
    reduction,
    ignore_index,
    total_weight: Constant,
):
    """nll_loss_backward for images: x is (N, C, H, W), the target (N, H, W), the weight (C). Raises
    ValueError for other numbers of axes."""
    x = floating(self=self)
    if x.ndim != 4:
        raise ValueError(f"self: expected (N, C, H, W), got shape {x.shape}")
    if np.ndim(weight) > 1:
        raise ValueError(f"weight: expected one number for each class, got {np.shape(weight)}")
    return nll_loss_backward(grad_output, x, target, weight, reduction, ignore_index, total_weight)
