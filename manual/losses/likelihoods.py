"""Losses of probabilities, of rates and of variances.

All of them take x and the target as arrays in float16, float32 or float64 of one dtype; reduction
is "none", "mean" or "sum". They raise TypeError for any other array and for a setting of the wrong
type, ValueError for shapes that do not fit and for another reduction; the message names the
argument.
"""

import math

import numpy as np

from ..activations import sigmoid
from ..arguments import Constant, alike, broadcast, flag, floating, one_of, real, truth, weights
from ..arrays import reduce, sum_to, where

GUARD = float(np.float32(1e-12))  # torch holds its 1e-12 in float32


def binary_cross_entropy(x, target, weight: Constant = None, *, reduction="mean"):
    """−t log p − (1 − t) log(1 − p) for probabilities p = x; the slope in p is (p − t) / (p (1 −
    p)). The target t has the shape of x, and the weight broadcasts to it.

    Torch's two guards are part of the function: a logarithm is at least −100, and p (1 − p) at
    least 1e-12 (held in float32, whatever the dtype), so that the slope at p = 10⁻²⁰, t = 1 is
    −10¹² where the exact one is −10²⁰. The slope in t, log(1 − p) − log p, has no guard.

    Raises ValueError for a p or t outside [0, 1]. Good, 1952, "Rational Decisions"
    """
    x, target = alike(x=x, target=target)
    weight = weights(x, weight=weight)
    for name, a in (("x", x), ("target", target)):
        if not np.all((a >= 0) & (a <= 1)):
            raise ValueError(
                f"{name}: expected values from 0 to 1, got {a[~((a >= 0) & (a <= 1))].flat[0]}"
            )
    log_p = where(x > 0, np.log(where(x > 0, x, 1)), -math.inf)
    log_q = where(x < 1, np.log1p(-where(x < 1, x, 0)), -math.inf)
    w = 1 if weight is None else weight
    y, spread = reduce(
        w * ((target - 1) * np.maximum(log_q, -100) - target * np.maximum(log_p, -100)), reduction
    )

    def pullback(dy):
        dloss = w * spread(dy)
        return dloss * ((x - target) / np.maximum(x * (1 - x), GUARD)), dloss * (log_q - log_p)

    return y, pullback


def binary_cross_entropy_with_logits(
    x, target, weight: Constant = None, *, reduction="mean", pos_weight: Constant = None
):
    """(1 − t) s(x) + p t s(−x) with s(x) = log(1 + eˣ) and p = pos_weight; as s′ = σ, the slope in
    x is

        (1 − t) σ(x) − p t σ(−x)

    and in t it is p s(−x) − s(x), where the tail log(1 + e^−|x|) that both share is taken once.
    Neither sum cancels for t in [0, 1]. t has the shape of x, and both weights broadcast to it.

    Good, 1952, "Rational Decisions"
    """
    x, target = alike(x=x, target=target)
    weight, pos_weight = weights(x, weight=weight, pos_weight=pos_weight)
    tail = np.log1p(np.exp(-abs(x)))
    softplus, softplus_of_minus = np.maximum(x, 0) + tail, np.maximum(-x, 0) + tail
    w, p = (1 if a is None else a for a in (weight, pos_weight))
    y, spread = reduce(w * ((1 - target) * softplus + p * target * softplus_of_minus), reduction)

    def pullback(dy):
        dloss = w * spread(dy)
        dx = dloss * ((1 - target) * sigmoid(x)[0] - p * target * sigmoid(-x)[0])
        return dx, dloss * ((p - 1) * tail - where(x < 0, p * x, x))

    return y, pullback


def kl_div(x, target, *, reduction="mean", log_target=False):
    """t (log t − x) for log-probabilities x; the slope is −t in x and log t + 1 − x in t. With
    log_target, t is the logarithm: eᵗ (t − x), with slopes −eᵗ and eᵗ (t − x + 1).

    "batchmean" divides the sum by the length of x. x and t broadcast. Kullback & Leibler, 1951
    """
    x, target = floating(x=x, target=target)
    one_of(("none", "mean", "sum", "batchmean"), reduction=reduction)
    flag(log_target=log_target)
    log_t = target if log_target else _log(target)
    p = np.exp(target) if log_target else target
    broadcast(x=x, target=target)
    gap = log_t - x
    loss = where(p == 0, -p * x, p * where(p == 0, 0, gap))
    if reduction == "batchmean":
        y, spread = reduce(loss, "mean", len(x)) if x.ndim else reduce(loss, "sum")
    else:
        y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        dtarget = dloss * (p * (gap + 1) if log_target else gap + 1)
        return sum_to(-dloss * p, x.shape), sum_to(dtarget, target.shape)

    return y, pullback


def poisson_nll_loss(x, target, log_input=True, full=False, *, eps=1e-8, reduction="mean"):
    """eˣ − t x, or without log_input x − t log(x + ε); full adds Stirling's log t! where t > 1:
    t log t − t + log(2π t) / 2.

    The slopes are eˣ − t, or 1 − t / (x + ε), in x, and −x, or −log(x + ε), in t, and with full
    also log t + 1 / 2t in t. x and t broadcast. El Sayyad, 1973
    """
    x, target = floating(x=x, target=target)
    real(eps=eps)
    flag(log_input=log_input, full=full)
    broadcast(x=x, target=target)
    rate, log_rate = (np.exp(x), x) if log_input else (x, _log(x + eps))
    loss = rate - target * log_rate
    t = where(target > 1, target, 1)
    if full:
        stirling = t * np.log(t) - t + np.log(2 * math.pi * t) / 2
        loss = loss + where(target > 1, stirling, 0)
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        dx = dloss * (rate - target if log_input else 1 - target / (x + eps))
        dtarget = dloss * -log_rate
        if full:
            dtarget = dtarget + dloss * where(target > 1, np.log(t) + 1 / (2 * t), 0)
        return sum_to(dx, x.shape), sum_to(dtarget, target.shape)

    return y, pullback


def gaussian_nll_loss(x, target, var, full=False, eps=1e-6, reduction="mean"):
    """(log v + e² / v) / 2 with e = x − t and v = var, but at least ε; full adds log(2π) / 2. With
    z = e / v the slopes are z, −z and (1 / v − z²) / 2, and torch lets the last through where ε
    stands in for var.

    x and t broadcast. var is a number, which has no gradient, or an array of the shape of x, of
    that shape without the last axis, or with length 1 in one place. Raises ValueError for another
    shape and for a variance below 0. Nix & Weigend, 1994
    """
    lone, full = isinstance(var, float), truth(full=full)
    x, target = floating(x=x, target=target)
    v = np.full(x.shape, var, x.dtype) if lone else floating(x=x, var=var)[1]
    real(eps=eps)
    if np.any(v < 0):
        raise ValueError(f"var: expected at least 0, got {v[v < 0].flat[0]}")
    given = v.shape
    if v.shape != x.shape:
        if v.shape == x.shape[:-1]:
            v = v[..., np.newaxis]
        elif (
            x.ndim != v.ndim or sum(m for n, m in zip(x.shape, v.shape, strict=True) if n != m) != 1
        ):
            raise ValueError(f"var: expected a shape like x, {x.shape}, got {v.shape}")
    broadcast(x=x, target=target)
    error = x - target
    bounded = np.maximum(v, eps)
    z = error / bounded
    loss = (np.log(bounded) + error * z) / 2 + (math.log(2 * math.pi) / 2 if full else 0)
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        dx, dtarget = sum_to(dloss * z, x.shape), sum_to(-dloss * z, target.shape)
        if lone:
            return dx, dtarget
        return dx, dtarget, sum_to(dloss * (1 / bounded - z * z) / 2, v.shape).reshape(given)

    return y, pullback


def _log(a):
    """log a, silently −∞ at 0 and NaN below."""
    return where(a > 0, np.log(where(a > 0, a, 1)), where(a == 0, -math.inf, math.nan)).astype(
        a.dtype
    )
