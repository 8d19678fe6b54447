"""Losses. Each is computed element by element, (or sample by sample), then reduced: "none", "mean"
or "sum"."""

import math

import numpy as np

from .activations import sigmoid
from .arrays import (
    Constant,
    alike,
    axis_of,
    broadcast,
    broadcastable,
    exponentials,
    flag,
    floated,
    floating,
    one_of,
    pairwise_sum,
    real,
    reduce,
    same_shape,
    sum_to,
    weights,
    whole,
    within,
)
from .distances import pairwise_distance
from .linear import linear

GUARD = float(np.float32(1e-12))  # as torch holds it, in both places


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


def binary_cross_entropy(x, target, weight: Constant = None, *, reduction="mean"):
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
        return dloss * ((x - target) / np.maximum(x * (1 - x), GUARD)), dloss * (log_q - log_p)

    return y, pullback


def binary_cross_entropy_with_logits(
    x, target, weight: Constant = None, *, reduction="mean", pos_weight: Constant = None
):
    """(1 − t) s(x) + p t s(−x) with s(x) = log(1 + eˣ) and p = pos_weight; as s′ = σ, the slope in
    x is

        (1 − t) σ(x) − p t σ(−x)

    and in t it is p s(−x) − s(x), where the tail log(1 + e^−|x|) that both share is taken once.
    Neither sum cancels for t in [0, 1].

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
        return dx, dloss * ((p - 1) * tail - np.where(x < 0, p * x, x))

    return y, pullback


def nll_loss(x, target, weight: Constant = None, *, ignore_index=-100, reduction="mean"):
    """−w_t x_t for log-probabilities x, (C), (N, C) or (N, C, d₁, …), and classes t of that shape
    without C; the mean is over Σ w_t. The slope is −w_t at t and 0 elsewhere.

    Samples whose target is ignore_index count for nothing. Raises IndexError for a target that is
    no class.
    """
    x, weight = floating(x=x, weight=weight)
    whole(ignore_index=ignore_index)
    rows, w = _class_rows(x, weight if weight is None or x.ndim < 3 else weight.reshape(-1))
    t, counted = _class_indices(x, target, ignore_index)
    chosen = (np.arange(rows.shape[-1]) == t[..., np.newaxis]) & counted[..., np.newaxis]
    a = np.where(chosen, w, 0)
    total = pairwise_sum(a, tuple(range(a.ndim)))
    y, spread = reduce(-(a * np.where(a == 0, 0, rows)).sum(axis=-1), reduction, total)

    def pullback(dy):
        return _unrow(-a * np.where(chosen, spread(dy)[..., np.newaxis], 0), x.shape)

    return y, pullback


def cross_entropy(
    x,
    target,
    weight: Constant = None,
    *,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
):
    """−Σⱼ aⱼ log pⱼ, p = softmax(x), aⱼ = wⱼ ((1 − ε) tⱼ + ε / C), where ε is label_smoothing.

    x is (C), (N, C) or (N, C, d₁, …). The target holds classes, of that shape without C, and t is 1
    at the class, or it holds the t themselves, of the shape of x. The mean is over Σ w_t, or over
    the rows of t. As ∂ log pₖ / ∂xⱼ = [j = k] − pⱼ, the slope is pⱼ Σₖ aₖ − aⱼ, which is written so
    that nothing cancels when one class wins; in tⱼ it is −(1 − ε) wⱼ log pⱼ.

        dxⱼ = pⱼ (Σₖ aₖ − aⱼ) − aⱼ (1 − pⱼ)        1 − pⱼ = Σ_{k≠j} pₖ

    Samples whose target is ignore_index count for nothing. Raises IndexError for a target that is
    no class. It is long because two kinds of targets share it.

    Bridle, 1990; Szegedy et al., 2016, arXiv:1512.00567 (label smoothing)
    """
    x, target = floating(x=x), np.asarray(target)
    within(-math.inf, 1, label_smoothing=label_smoothing)
    label_smoothing = max(label_smoothing, 0)  # below 0 there is none
    whole(ignore_index=ignore_index)
    given = target.dtype.kind == "f"
    rows, w = _class_rows(x, floated(x, weight) if given else weight)
    classes = np.arange(rows.shape[-1])
    if given:
        x, target = alike(x=x, target=target)
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index: expected below 0 for probabilities, got {ignore_index}"
            )
        share, counted = _class_rows(target)[0], np.ones(rows.shape[:-1], bool)
        total = counted.size
    else:
        t, counted = _class_indices(x, target, ignore_index)
        share = (classes == t[..., np.newaxis]).astype(x.dtype)
        chosen = np.where(counted, w[t], 0)
        total = pairwise_sum(chosen, tuple(range(chosen.ndim)))
    smooth = (1 - label_smoothing) * share + label_smoothing / max(len(classes), 1)
    a = np.where(counted[..., np.newaxis], w * smooth, 0)
    d, z, winner, others = exponentials(rows)
    log_p = d - np.log1p(others)
    y, spread = reduce(-(a * np.where(a == 0, 0, log_p)).sum(axis=-1), reduction, total)

    def pullback(dy):
        dloss = np.where(counted, spread(dy), 0)[..., np.newaxis]
        p, rest = z / (1 + others), np.where(winner, others, 1 + others - z) / (1 + others)
        slope = p * (a.sum(axis=-1, keepdims=True) - a) - a * rest
        dx = _unrow(dloss * slope, x.shape)
        if not given:
            return dx
        return dx, _unrow(dloss * (label_smoothing - 1) * w * log_p, x.shape)

    return y, pullback


def linear_cross_entropy(
    x,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight: Constant = None,
    reduction="mean",
    ignore_index=None,
    label_smoothing=0.0,
    options=None,
):
    """cross_entropy of linear(x, linear_weight, linear_bias): x is (in) or (N, in), the weight (C,
    in) or (C, d₁, …, in), and the bias (C) or (C, d₁, …). options is torch's choice of an
    algorithm. It is long because of its arguments and what it refuses.
    """
    x, linear_weight, linear_bias = floating(
        x=x, linear_weight=linear_weight, linear_bias=linear_bias
    )
    if x.ndim not in (1, 2):
        raise ValueError(f"x: expected (in) or (N, in), got shape {x.shape}")
    if linear_weight.ndim < 2 or linear_weight.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"linear_weight: expected (C, …, {x.shape[-1]}), got shape {linear_weight.shape}"
        )
    outputs, probable = linear_weight.shape[:-1], np.asarray(target).dtype.kind == "f"
    chosen = len(outputs) == 1 and not probable and label_smoothing == 0  # else torch ignores it
    if chosen and not (options is None or type(options).__name__ == "LinearCrossEntropyOptions"):
        raise TypeError(f"options: expected None or LinearCrossEntropyOptions, got {options!r}")
    if probable and ignore_index is not None:
        raise ValueError(f"ignore_index: expected None for probabilities, got {ignore_index!r}")
    if x.ndim == 1 and len(outputs) > 1:
        raise ValueError(
            f"x: expected (N, in) for a weight of shape {linear_weight.shape}, got {x.shape}"
        )
    if linear_bias is not None and linear_bias.shape != outputs:
        raise ValueError(f"linear_bias: expected shape {outputs}, got {linear_bias.shape}")
    flat = linear_weight.reshape(-1, x.shape[-1])
    logits, pull_linear = linear(x, flat, None if linear_bias is None else linear_bias.reshape(-1))
    shape = (*x.shape[:-1], *outputs)
    y, pull_loss = cross_entropy(
        logits.reshape(shape),
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )

    def pullback(dy):
        found = pull_loss(dy)
        dlogits, *dtarget = found if isinstance(found, tuple) else (found,)
        dx, dweight, *dbias = pull_linear(dlogits.reshape(logits.shape))
        dbias = [d.reshape(outputs) for d in dbias]
        return dx, dweight.reshape(linear_weight.shape), *dtarget, *dbias

    return y, pullback


def multi_margin_loss(x, target, p=1, margin=1.0, weight: Constant = None, *, reduction="mean"):
    """w_t / C Σ_{j≠t} max(0, margin − x_t + xⱼ)ᵖ for x of (C) or (N, C) and the class t of each
    row; p is 1 or 2. Each term that is above 0 pushes xⱼ down and x_t up.

    Crammer & Singer, 2001
    """
    x, weight = floating(x=x, weight=weight)
    if x.ndim > 2:
        raise ValueError(f"x: expected (C) or (N, C), got shape {x.shape}")
    real(margin=margin)
    if p not in (1, 2):
        raise ValueError(f"p: expected 1 or 2, got {p!r}")
    rows, target = np.atleast_2d(x), np.asarray(target)
    if target.dtype != np.int64:
        raise TypeError(f"target: expected classes of dtype int64, got {target.dtype}")
    t, _ = _class_indices(rows, target[np.newaxis] if target.ndim == 0 else target, None)
    w = _class_rows(rows, weight)[1][t][:, np.newaxis]
    hit = np.arange(rows.shape[1]) == t[:, np.newaxis]
    gap = np.where(hit, 0, margin - np.where(hit, rows, 0).sum(axis=1, keepdims=True) + rows)
    active = gap > 0
    terms = w * np.where(active, gap, 0) ** p / rows.shape[1]
    y, spread = reduce(terms.sum(axis=1).reshape(target.shape), reduction)

    def pullback(dy):
        h = w * np.where(active, p * gap ** (p - 1), 0) / rows.shape[1]
        drows = h - np.where(hit, h.sum(axis=1, keepdims=True), 0)
        return (drows * spread(dy).reshape(-1, 1)).reshape(x.shape)

    return y, pullback


def multilabel_margin_loss(x, target, *, reduction="mean"):
    """Σ max(0, 1 − x_k + xⱼ) / C over all labels k of a row and all j that are none, for x of (C)
    or (N, C). The target, of its shape, lists the labels of each row; −1 ends the list.

    Each term that is above 0 pushes xⱼ down and x_k up.
    """
    x = floating(x=x)
    target = np.asarray(target)
    if x.ndim > 2:
        raise ValueError(f"x: expected (C) or (N, C), got shape {x.shape}")
    if target.dtype != np.int64:
        raise TypeError(f"target: expected labels of dtype int64, got {target.dtype}")
    if target.shape != x.shape and not (x.size == target.size == 1 and x.ndim + target.ndim < 2):
        raise ValueError(f"target: expected the shape of x, {x.shape}, got {target.shape}")
    rows, t = np.atleast_2d(x), np.atleast_2d(target)
    C = rows.shape[1]
    listed_labels = np.logical_and.accumulate(t >= 0, axis=1)
    if np.any((t < -1) | (t >= C)):
        raise ValueError(
            f"target: expected labels from 0 to {C - 1}, or −1, got {t.min()}, {t.max()}"
        )
    hit = (t[..., np.newaxis] == np.arange(C)) & listed_labels[..., np.newaxis]  # (N, label, class)
    own = np.where(hit, rows[:, np.newaxis], 0).sum(axis=2, keepdims=True)
    other = listed_labels[..., np.newaxis] & ~hit.any(axis=1, keepdims=True)
    gap = np.where(other, 1 - own + rows[:, np.newaxis], 0)
    active = (gap > 0).astype(x.dtype)
    y, spread = reduce((gap * active).sum(axis=(1, 2)).reshape(x.shape[:-1]) / max(C, 1), reduction)

    def pullback(dy):
        up = np.where(hit, active.sum(axis=2, keepdims=True), 0).sum(axis=1)
        drows = (active.sum(axis=1) - up) / C
        return (drows * spread(dy).reshape(-1, 1)).reshape(x.shape)

    return y, pullback


def multilabel_soft_margin_loss(x, target, weight=None, *, reduction="mean"):
    """The mean over the last axis of w ((1 − t) s(x) + t s(−x)), s(x) = log(1 + eˣ); the slopes are
    those of binary_cross_entropy_with_logits, and in w it is the term itself. All broadcast.
    """
    x, target, weight = floating(x=x, target=target, weight=weight)
    broadcast(x=x, target=target, weight=weight)
    tail = np.log1p(np.exp(-abs(x)))
    terms = (1 - target) * (np.maximum(x, 0) + tail) + target * (np.maximum(-x, 0) + tail)
    if not x.ndim:
        raise ValueError(f"x: expected an axis of classes, got shape {x.shape}")
    w = np.ones((), x.dtype) if weight is None else weight
    weighted = w * terms
    axis, C = x.ndim - 1, max(x.shape[-1], 1)
    y, spread = reduce(weighted.sum(axis=axis) / C, reduction)

    def pullback(dy):
        dweighted = np.broadcast_to(np.expand_dims(spread(dy), axis) / C, weighted.shape)
        dterms = w * dweighted
        dx = dterms * ((1 - target) * sigmoid(x)[0] - target * sigmoid(-x)[0])
        found = sum_to(dx, x.shape), sum_to(-dterms * x, target.shape)
        return found if weight is None else (*found, sum_to(dweighted * terms, w.shape))

    return y, pullback


def ctc_loss(
    log_probs,
    targets: Constant,
    input_lengths,
    target_lengths,
    blank=0,
    reduction="mean",
    zero_infinity=False,
):
    """−log of the probability that a sequence of log_probs, (T, N, C) or (T, C), spells its target:
    the sum over all paths that become the target when repeats are merged and then blanks left out.

    A path goes through the states blank, l₁, blank, l₂, …, blank. With α the log-probability of all
    that comes before, and β of all that comes after, exp(α + β) / P is the share of a state in all
    paths. Summed over the states of a class that is its occupancy o, and the slope is −o; torch
    gives exp(log_probs) − o, the slope in logits whose log_softmax they are, and so do we.

    targets is (N, S), or all of them end to end; "mean" divides each loss by the length of its
    target first. Where no path is possible the loss is ∞, with zero_infinity 0, and has no slope.
    It is long because batches come in two forms.

    Graves, Fernández, Gomez & Schmidhuber, 2006
    """
    log_probs = floating(log_probs=log_probs)
    flag(zero_infinity=zero_infinity)
    batch, labels, lengths = _sequences(log_probs, targets, input_lengths, target_lengths, blank)
    found = [_ctc(p[:T], own, blank) for p, T, own in zip(batch, lengths, labels, strict=True)]
    loss = np.array([nll for nll, _ in found], log_probs.dtype)
    if zero_infinity:
        loss = np.where(np.isinf(loss), 0, loss)
    loss = loss.reshape(log_probs.shape[1:-1])
    spelled = np.array([max(len(own), 1) for own in labels], log_probs.dtype).reshape(loss.shape)
    y, spread = reduce(loss / spelled if reduction == "mean" else loss, reduction)

    def pullback(dy):
        share = (spread(dy) / spelled if reduction == "mean" else spread(dy)).reshape(-1)
        grad = np.zeros_like(batch)
        for i, (nll, occupancy) in enumerate(found):
            if np.isfinite(nll):
                grad[i, : lengths[i]] = share[i] * (np.exp(batch[i, : lengths[i]]) - occupancy)
            elif not zero_infinity:
                grad[i, : lengths[i]] = math.nan
        return grad[0] if log_probs.ndim == 2 else np.moveaxis(grad, 0, 1)

    return y, pullback


def _ctc(log_p, labels, blank):
    """The loss of one sequence (T, C), and the occupancy (T, C)."""
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    if not len(log_p):
        return (math.inf if len(labels) else 0.0), log_p
    emitted = log_p[:, states]
    alpha = _forward(emitted, states)
    beta = _forward(emitted[::-1, ::-1], states[::-1])[::-1, ::-1]  # it is symmetric in time
    total = np.logaddexp.reduce(alpha[-1, -2:])
    if not np.isfinite(total):
        return math.inf, np.zeros_like(log_p)
    possible = (alpha > -math.inf) & (beta > -math.inf)
    share = np.where(possible, alpha, -math.inf) + np.where(possible, beta - emitted, 0) - total
    return -total, np.exp(share) @ (states[:, np.newaxis] == np.arange(log_p.shape[1]))


def _forward(emitted, states):
    """The log-probability of all ways to each state (T, S), with what it emits itself: from the
    same state, the one before, or past a blank between two labels that differ."""
    alpha = np.full_like(emitted, -math.inf)
    alpha[0, :2] = emitted[0, :2]
    skips = states[2:] != states[:-2]
    for t in range(1, len(emitted)):
        ways = alpha[t - 1].copy()
        ways[1:] = np.logaddexp(ways[1:], alpha[t - 1, :-1])
        ways[2:] = np.where(skips, np.logaddexp(ways[2:], alpha[t - 1, :-2]), ways[2:])
        alpha[t] = ways + emitted[t]
    return alpha


def _sequences(log_probs, targets, input_lengths, target_lengths, blank):
    """The batch as (N, T, C), the labels of each sequence, and its length."""
    if log_probs.ndim not in (2, 3):
        raise ValueError(f"log_probs: expected (T, N, C) or (T, C), got shape {log_probs.shape}")
    batch = np.moveaxis(log_probs, 1, 0) if log_probs.ndim == 3 else log_probs[np.newaxis]
    N, T, C = batch.shape
    if not 0 <= axis_of(C, blank=blank) == blank:
        raise ValueError(f"blank: expected a class from 0 to {C - 1}, got {blank}")
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iuf":
        raise TypeError(f"targets: expected classes, got dtype {targets.dtype}")
    targets = targets.astype(np.int64)
    lengths = {}
    for name, given in (("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        lengths[name] = np.asarray(given).reshape(-1)
        if lengths[name].dtype.kind not in "iu":
            raise TypeError(f"{name}: expected whole numbers, got dtype {lengths[name].dtype}")
        if lengths[name].shape != (N,):
            raise ValueError(f"{name}: expected {N} lengths, got shape {lengths[name].shape}")
    inputs, spelled = lengths.values()
    if np.any((inputs < 0) | (inputs > T)):
        raise ValueError(f"input_lengths: expected from 0 to {T}, got {inputs}")
    if targets.ndim == 2 and len(targets) == N:
        if np.any((spelled < 0) | (spelled > targets.shape[1])):
            raise ValueError(
                f"target_lengths: expected from 0 to {targets.shape[1]}, got {spelled}"
            )
        labels = [row[:n] for row, n in zip(targets, spelled, strict=True)]
    elif targets.ndim == 1:
        if np.any(spelled < 0) or spelled.sum() != len(targets):
            raise ValueError(f"target_lengths: expected {len(targets)} in all, got {spelled}")
        labels = np.split(targets, np.cumsum(spelled)[:-1])
    else:
        raise ValueError(f"targets: expected ({N}, S) or one axis, got shape {targets.shape}")
    for own in labels:  # what pads a row may be anything
        if np.any((own < 0) | (own >= C)):
            raise IndexError(f"targets: expected classes from 0 to {C - 1}, got {own}")
    return batch, labels, inputs


def _class_rows(x, weight=None):
    """x with its classes last, and a weight for each class, 1 without."""
    if x.ndim == 0 or x.shape[min(1, x.ndim - 1)] == 0:
        raise ValueError(f"x: expected an axis of classes, got shape {x.shape}")
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    C = rows.shape[-1]
    w = np.ones(C, x.dtype) if weight is None else floating(x=x, weight=weight)[1]
    if w.shape != (C,):
        raise ValueError(
            f"weight: expected one number for each of {C} classes, got shape {w.shape}"
        )
    return rows, w


def _unrow(rows, shape):
    return np.moveaxis(rows, -1, 1) if len(shape) > 1 else rows


def _class_indices(x, target, ignore_index):
    """The classes of the rows of x, 0 where a row does not count, and where it does."""
    target = np.asarray(target)
    if target.dtype not in (np.int64, np.uint8):
        raise TypeError(
            f"target: expected class indices of dtype int64 or uint8, got {target.dtype}"
        )
    expected = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if target.shape != expected:
        raise ValueError(
            f"target: expected shape {expected} for scores of shape {x.shape}, got {target.shape}"
        )
    C = x.shape[min(1, x.ndim - 1)]
    counted = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    wrong = counted & ((target < 0) | (target >= C))
    if np.any(wrong):
        raise IndexError(f"target: expected classes from 0 to {C - 1}, got {target[wrong].flat[0]}")
    return np.where(counted, target, 0), counted


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
    broadcast(x=x, target=target)
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


def hinge_embedding_loss(x, target: Constant, margin=1.0, *, reduction="mean"):
    """x where the target is 1, max(0, margin − x) where it is −1, and their sum elsewhere; the
    slopes are 1 and −1, the latter also at the edge.

    Hadsell, Chopra & LeCun, 2006
    """
    x = floating(x=x)
    real(margin=margin)
    target = np.asarray(target)
    shape = broadcast(x=x, target=target)
    gap = margin - np.broadcast_to(x, shape)
    positive, negative = target != -1, target != 1
    y, spread = reduce(
        np.where(positive, x, 0) + np.where(negative, np.maximum(gap, 0), 0), reduction
    )

    def pullback(dy):
        dloss = spread(dy)
        active = negative & ~(gap < 0)
        return sum_to(np.where(positive, dloss, 0) - np.where(active, dloss, 0), x.shape)

    return y, pullback


def soft_margin_loss(x, target: Constant, *, reduction="mean"):
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
    broadcast(input1=input1, input2=input2, target=t)
    d = input1 - input2
    gap = margin - t * d
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


def cosine_embedding_loss(input1, input2, target: Constant, margin=0, *, reduction="mean"):
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
    shape = broadcast(input1=input1, input2=input2)
    square1, square2 = ((x * x).sum(axis=-1, keepdims=True) + GUARD for x in (input1, input2))
    n = np.sqrt(square1 * square2)
    cosine = ((input1 * input2).sum(axis=-1, keepdims=True) / n)[..., 0]
    broadcast(input1=cosine, target=target)
    gap = cosine - margin
    loss = np.where(target == 1, 1 - cosine, np.where(target == -1, np.maximum(gap, 0), 0))
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        sign = np.where(target == 1, -1, np.where((target == -1) & (gap >= 0), 1, 0))
        dc = sum_to(sign.astype(dloss.dtype) * dloss, cosine.shape)[..., np.newaxis]
        c = cosine[..., np.newaxis]
        return tuple(  # a norm is of an input as it came, a product of both at full length
            sum_to(np.broadcast_to(dc * b / n, shape), a.shape) - sum_to(dc * c * a / q, a.shape)
            for a, b, q in ((input1, input2, square1), (input2, input1, square2))
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
        broadcast(**{"anchor": anchor, name: x})
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
