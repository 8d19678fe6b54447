"""Losses. Each is computed element by element, (or sample by sample), then reduced: "none", "mean"
or "sum"."""

import math

import numpy as np

from .activations import sigmoid
from .arrays import (
    alike,
    broadcastable,
    flag,
    floating,
    one_of,
    pairwise_sum,
    real,
    reduce,
    same_shape,
    sum_to,
    weights,
    within,
)
from .distances import pairwise_distance

_GUARD = float(np.float32(1e-12))


def mse_loss(x, target, *, reduction="mean", weight=None):
    """e² with e = x − t; the slope is 2e in x and −2e in t. x and t broadcast; weight has the shape
    of x.

    A weighted mean is L = Σ w e² / Σ w, whose slope in w is (e² − L) / Σ w.

    Legendre, 1805; Gauss, 1809
    """
    return _of_error(lambda e: (e * e, 2 * e), x, target, reduction, weight)


def l1_loss(x, target, *, reduction="mean", weight=None):
    """|e| with e = x − t; the slope is the sign of e, 0 at 0. Broadcasting and weight are those of
    mse_loss.

    Laplace, 1774
    """
    return _of_error(lambda e: (abs(e), np.sign(e)), x, target, reduction, weight)


def huber_loss(x, target, reduction="mean", delta=1.0, weight=None):
    """c (e − c/2), where c is e = x − t, cut off at ± δ: e²/2 within, δ (|e| − δ/2) outside. The
    slope is c. A weighted mean is Σ w c (e − c/2) / n.

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
    """huber_loss(δ = β) / β, and l1_loss for β = 0.

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
    x, target, weight = floating(x=x, target=target, weight=weight)
    term, slope = measured(_difference(x, target))
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


def _difference(x, target, name="target", first="x"):
    try:
        return x - target
    except ValueError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts with {first}, {x.shape}, got {target.shape}"
        ) from None


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
    gap = _difference(log_t, x, "x", "target")
    loss = np.where(p == 0, -p * x, p * np.where(p == 0, 0, gap))
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
    _difference(x, target)
    rate, log_rate = (np.exp(x), x) if log_input else (x, _log(x + eps))
    loss = rate - target * log_rate
    t = np.where(target > 1, target, 1)
    if full:
        stirling = t * np.log(t) - t + np.log(2 * math.pi * t) / 2
        loss = loss + np.where(target > 1, stirling, 0)
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        dx = dloss * (rate - target if log_input else 1 - target / (x + eps))
        dtarget = dloss * -log_rate
        if full:
            dtarget = dtarget + dloss * np.where(target > 1, np.log(t) + 1 / (2 * t), 0)
        return sum_to(dx, x.shape), sum_to(dtarget, target.shape)

    return y, pullback


def gaussian_nll_loss(x, target, var, full=False, eps=1e-6, reduction="mean"):
    """(log v + e² / v) / 2 with e = x − t and v = var, but at least ε; full adds log(2π) / 2. With
    z = e / v the slopes are z, −z and (1 / v − z²) / 2, and torch lets the last through where ε
    stands for var.

    var is a number, which has no gradient, or an array of the shape of x, of that shape without
    the last axis, or with length 1 in one place. Nix & Weigend, 1994
    """
    lone = isinstance(var, float)
    x, target = floating(x=x, target=target)
    v = np.full(x.shape, var, x.dtype) if lone else floating(x=x, var=np.asarray(var))[1]
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
    error = _difference(x, target)
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


def hinge_embedding_loss(x, target, margin=1.0, *, reduction="mean"):
    """x where the target is 1, max(0, margin − x) where it is −1, and their sum elsewhere; the
    slopes are 1 and −1, the latter also at the edge.

    Hadsell, Chopra & LeCun, 2006
    """
    x = floating(x=x)
    real(margin=margin)
    target = np.asarray(target)
    gap = margin - _difference(x, np.zeros_like(target, x.dtype))
    positive, negative = target != -1, target != 1
    y, spread = reduce(
        np.where(positive, x, 0) + np.where(negative, np.maximum(gap, 0), 0), reduction
    )

    def pullback(dy):
        dloss = spread(dy)
        active = negative & ~(gap < 0)
        return sum_to(np.where(positive, dloss, 0) - np.where(active, dloss, 0), x.shape)

    return y, pullback


def soft_margin_loss(x, target, *, reduction="mean"):
    """log(1 + e^(−t x)) for targets t of 1 and −1; the slope is −t σ(−t x).

    Cox, 1958, "The Regression Analysis of Binary Sequences"
    """
    x = floating(x=x)
    t = _signs(target, x)
    broadcastable(x.shape, target=t)
    v = t * x
    y, spread = reduce(np.maximum(-v, 0) + np.log1p(np.exp(-abs(v))), reduction)

    def pullback(dy):
        return spread(dy) * (-t * sigmoid(-v)[0])

    return y, pullback


def margin_ranking_loss(input1, input2, target, margin=0, *, reduction="mean"):
    """max(0, m − t (x₁ − x₂)): x₁ should be above x₂ by m where t = 1, and below where t = −1. The
    slopes are −t, t and x₂ − x₁, also at the edge. All three broadcast, from as many axes.

    Herbrich, Graepel & Obermayer, 2000
    """
    input1, input2 = floating(input1=input1, input2=input2)
    real(margin=margin)
    t = _signs(target, input1)
    if not input1.ndim == input2.ndim == t.ndim:
        raise ValueError(
            f"target: expected as many axes as the inputs, {input1.ndim} and {input2.ndim}, got "
            f"shape {t.shape}"
        )
    d = _difference(input1, input2, "input2", "input1")
    try:
        gap = margin - t * d
    except ValueError:
        raise ValueError(
            f"target: expected a shape that broadcasts to {d.shape}, got {t.shape}"
        ) from None
    y, spread = reduce(np.maximum(gap, 0), reduction)

    def pullback(dy):
        dgap = np.where(gap < 0, 0, spread(dy))
        found = (
            sum_to(-dgap * t, input1.shape),
            sum_to(dgap * t, input2.shape),
            sum_to(-dgap * d, t.shape),
        )
        return found if np.asarray(target).dtype.kind == "f" else found[:2]

    return y, pullback


def cosine_embedding_loss(input1, input2, target, margin=0, *, reduction="mean"):
    """1 − c where the target is 1, max(0, c − margin) where it is −1, else 0; c is the cosine of
    the rows x₁ and x₂, with 10⁻¹² added to each square of a norm.

    dx₁ = dc (x₂ / n − c x₁ / ‖x₁‖²), n = ‖x₁‖ ‖x₂‖. The inputs are (N, D) for targets (N), or (D)
    for one. Hadsell, Chopra & LeCun, 2006
    """
    input1, input2 = floating(input1=input1, input2=input2)
    real(margin=margin)
    target = np.asarray(target)
    if target.ndim > 1:
        raise ValueError(f"target: expected at most one axis, got shape {target.shape}")
    for name, x in (("input1", input1), ("input2", input2)):
        if x.ndim != target.ndim + 1:
            raise ValueError(f"{name}: expected {target.ndim + 1} axes, got shape {x.shape}")
    _difference(input1, input2, "input2", "input1")
    square1, square2 = ((x * x).sum(axis=-1, keepdims=True) + 1e-12 for x in (input1, input2))
    n = np.sqrt(square1 * square2)
    cosine = ((input1 * input2).sum(axis=-1, keepdims=True) / n)[..., 0]
    gap = cosine - margin
    try:
        loss = np.where(target == 1, 1 - cosine, np.where(target == -1, np.maximum(gap, 0), 0))
    except ValueError:
        raise ValueError(
            f"target: expected a shape that broadcasts to {cosine.shape}, got {target.shape}"
        ) from None
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        sign = np.where(target == 1, -1, np.where((target == -1) & (gap >= 0), 1, 0))
        dc = sum_to(sign.astype(dloss.dtype) * dloss, cosine.shape)[..., np.newaxis]
        c = cosine[..., np.newaxis]
        return (
            sum_to(dc * (input2 / n - c * input1 / square1), input1.shape),
            sum_to(dc * (input1 / n - c * input2 / square2), input2.shape),
        )

    return y, pullback


def triplet_margin_loss(
    anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, *, reduction="mean"
):
    """max(0, margin + d(a, p) − d(a, n)), where d is pairwise_distance with this p and ε.

    Balntas, Riba, Ponsa & Mikolajczyk, 2016
    """
    real(p=p, eps=eps)
    flag(swap=swap)

    def distance(x1, x2):
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean"
):
    """triplet_margin_loss with another distance, a rule of two arrays; pairwise_distance without.

    Balntas, Riba, Ponsa & Mikolajczyk, 2016
    """
    distance = pairwise_distance if distance_function is None else distance_function
    if not callable(distance):
        raise TypeError(f"distance_function: expected a rule of two arrays, got {distance!r}")
    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def _triplet(distance, anchor, positive, negative, margin, swap, reduction):
    """swap takes the lesser of d(a, n) and d(p, n); where they are equal, half of each slope."""
    anchor, positive, negative = floating(anchor=anchor, positive=positive, negative=negative)
    real(margin=margin)
    if not margin > 0:
        raise ValueError(f"margin: expected above 0, got {margin}")
    for name, x in (("positive", positive), ("negative", negative)):
        if x.ndim != anchor.ndim:
            raise ValueError(
                f"{name}: expected {anchor.ndim} axes, like anchor, got shape {x.shape}"
            )
        _difference(anchor, x, name, "anchor")
    near, pull_near = distance(anchor, positive)
    far, pull_far = distance(anchor, negative)
    if swap:
        other, pull_other = distance(positive, negative)
        share = np.where(far == other, 0.5, far < other).astype(far.dtype)
        far = np.minimum(far, other)
    gap = margin + near - far
    y, spread = reduce(np.maximum(gap, 0), reduction)

    def pullback(dy):
        dgap = np.where(gap < 0, 0, spread(dy))
        danchor, dpositive = pull_near(sum_to(dgap, near.shape))
        dfar = sum_to(-dgap, far.shape)
        from_anchor, dnegative = pull_far(dfar * share if swap else dfar)
        if swap:
            from_positive, from_negative = pull_other(dfar * (1 - share))
            dpositive, dnegative = dpositive + from_positive, dnegative + from_negative
        return danchor + from_anchor, dpositive, dnegative

    return y, pullback


def _signs(target, x):
    """A target of 1 and −1, whole or floating, as an array like x."""
    target = np.asarray(target)
    return target.astype(x.dtype) if target.dtype.kind in "iu" else floating(x=x, target=target)[1]


def _log(a):
    """log a, silently −∞ at 0 and NaN below."""
    return np.where(
        a > 0, np.log(np.where(a > 0, a, 1)), np.where(a == 0, -math.inf, math.nan)
    ).astype(a.dtype)
