"""Losses. Each is computed element by element, (or sample by sample), then reduced: "none", "mean"
or "sum"."""

import math

import numpy as np

from .activations import sigmoid
from .arrays import alike, floating, pairwise_sum, reduce, same_shape, sum_to, weights, within

_GUARD = float(np.float32(1e-12))


def mse_loss(x, target, *, reduction="mean", weight=None):
    """e² with e = x − t; the slope is 2e in x and −2e in t. x and t broadcast; weight has the shape
    of x.

    A weighted mean is L = Σ w e² / Σ w, whose slope in w is (e² − L) / Σ w.

    Legendre, 1805; Gauss, 1809
    """
    x, target, weight = floating(x=x, target=target, weight=weight)
    try:
        error = x - target
    except ValueError:
        raise ValueError(
            f"target: expected a shape that broadcasts with x, {x.shape}, got {target.shape}"
        ) from None
    squares = error * error
    if weight is None:
        y, spread = reduce(squares, reduction)
    else:
        same_shape(x=x, weight=weight)
        y, spread = reduce(
            weight * squares, reduction, pairwise_sum(weight, tuple(range(weight.ndim)))
        )

    def pullback(dy):
        dterm = spread(dy)
        derror = 2 * error * (dterm if weight is None else weight * dterm)
        dx, dtarget = sum_to(derror, x.shape), sum_to(-derror, target.shape)
        if weight is None:
            return dx, dtarget
        return (
            dx,
            dtarget,
            sum_to(dterm * (squares - y if reduction == "mean" else squares), weight.shape),
        )

    return y, pullback


def binary_cross_entropy(x, target, weight=None, *, reduction="mean"):
    """−t log p − (1 − t) log(1 − p) for probabilities p = x; the slope in p is (p − t) / (p (1 −
    p)).

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
    log_p = np.where(x > 0, np.log(np.where(x > 0, x, 1)), -math.inf)
    log_q = np.where(x < 1, np.log1p(-np.where(x < 1, x, 0)), -math.inf)
    w = 1 if weight is None else weight
    y, spread = reduce(
        w * ((target - 1) * np.maximum(log_q, -100) - target * np.maximum(log_p, -100)), reduction
    )

    def pullback(dy):
        dloss = w * spread(dy)
        return dloss * ((x - target) / np.maximum(x * (1 - x), _GUARD)), dloss * (log_q - log_p)

    return y, pullback


def binary_cross_entropy_with_logits(x, target, weight=None, *, reduction="mean", pos_weight=None):
    """(1 − t) s(x) + p t s(−x) with s(x) = log(1 + eˣ) and p = pos_weight; as s′ = σ, the slope in
    x is

        (1 − t) σ(x) − p t σ(−x)

    and in t, because s(x) = x + s(−x), it is (p − 1) s(−x) − x. Neither sum cancels for t in [0,
    1].

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
        return dx, dloss * ((p - 1) * softplus_of_minus - x)

    return y, pullback


def cross_entropy(
    x, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """−Σⱼ aⱼ log pⱼ, where p = softmax(x) and aⱼ = wⱼ ((1 − ε) [j = t] + ε / C); the mean is over Σ
    w_t.

    x is (C), (N, C) or (N, C, d₁, …), target holds class indices of the same shape without C, ε is
    label_smoothing. As ∂ log pₖ / ∂xⱼ = [j = k] − pⱼ, the slope is pⱼ Σₖ aₖ − aⱼ, which is written
    so that nothing cancels when one class wins:

        dxⱼ = pⱼ (Σₖ aₖ − aⱼ) − aⱼ (1 − pⱼ)        1 − pⱼ = Σ_{k≠j} pₖ

    Samples whose target is ignore_index count for nothing. Raises IndexError for a target that is
    no class.

    Bridle, 1990; Szegedy et al., 2016, arXiv:1512.00567 (label smoothing)
    """
    x, weight = floating(x=x, weight=weight)
    target = _class_indices(x, target, ignore_index)
    within(0, 1, label_smoothing=label_smoothing)
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    C = rows.shape[-1]
    w = np.ones(C, x.dtype) if weight is None else weight
    if w.shape != (C,):
        raise ValueError(
            f"weight: expected one number for each of {C} classes, got shape {w.shape}"
        )

    counted = target != ignore_index
    t = np.where(counted, target, 0)[..., np.newaxis]
    classes = np.arange(C)
    d = rows - rows.max(axis=-1, keepdims=True)
    z = np.exp(d)
    winner = classes == d.argmax(axis=-1, keepdims=True)
    others = np.where(winner, 0, z).sum(axis=-1, keepdims=True)
    log_p = d - np.log1p(others)
    w_t = np.where(counted, w[t[..., 0]], 0)
    loss = -(1 - label_smoothing) * w_t * np.take_along_axis(log_p, t, axis=-1)[..., 0]
    if label_smoothing:
        loss = loss - label_smoothing / C * np.where(counted, (w * log_p).sum(axis=-1), 0)
    y, spread = reduce(loss, reduction, pairwise_sum(w_t, tuple(range(w_t.ndim))))

    def pullback(dy):
        p = z / (1 + others)
        one_minus_p = np.where(winner, others, 1 + others - z) / (1 + others)
        a = np.where(classes == t, (1 - label_smoothing) * w, 0) + label_smoothing / C * w
        slope = p * (a.sum(axis=-1, keepdims=True) - a) - a * one_minus_p
        dx = np.where(counted, spread(dy), 0)[..., np.newaxis] * slope
        return np.moveaxis(dx, -1, 1) if x.ndim > 1 else dx

    return y, pullback


def _class_indices(x, target, ignore_index):
    """The target of a cross entropy, checked against the logits x."""
    target = np.asarray(target)
    if target.dtype not in (np.int64, np.uint8):
        raise TypeError(
            f"target: expected class indices of dtype int64 or uint8, got {target.dtype}"
        )
    if x.ndim == 0 or x.shape[min(1, x.ndim - 1)] == 0:
        raise ValueError(f"x: expected an axis of classes, got shape {x.shape}")
    expected = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if target.shape != expected:
        raise ValueError(
            f"target: expected shape {expected} for logits of shape {x.shape}, got {target.shape}"
        )
    C = x.shape[1] if x.ndim > 1 else x.shape[0]
    wrong = (target != ignore_index) & ((target < 0) | (target >= C))
    if np.any(wrong):
        raise IndexError(f"target: expected classes from 0 to {C - 1}, got {target[wrong].flat[0]}")
    return target
