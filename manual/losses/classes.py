"""Losses of scores for classes.

All of them take the scores x, and a weight if any, as arrays in float16, float32 or float64 of one
dtype; reduction is "none", "mean" or "sum". They raise TypeError for another dtype and for a
setting of the wrong type, ValueError for a shape that does not fit and for a setting out of range;
the message names the argument.
"""

import math

import numpy as np

from ..activations import log_softmax, sigmoid
from ..arguments import Constant, alike, array, broadcast, floated, floating, real, whole, within
from ..arrays import (
    along,
    exponentials,
    in_blocks_of_rows,
    pairwise_sum,
    probabilities,
    reduce,
    sum_to,
    where,
)
from ..linear import linear

CLASSES = frozenset(map(np.dtype, ("int64", "uint8")))  # what may hold classes


def nll_loss(x, target, weight: Constant = None, *, ignore_index=-100, reduction="mean"):
    """−w_t x_t for log-probabilities x, (C), (N, C) or (N, C, d₁, …), and classes t of that shape
    without C, in int64 or uint8; the weight w is (C), and the mean is over Σ w_t. The slope is −w_t
    at t and 0 elsewhere.

    Samples whose target is ignore_index count for nothing. Raises ValueError for a shape that does
    not fit, TypeError for a target of another dtype, IndexError for one that is no class.
    """
    x, weight = floating(x=x, weight=weight, optional="weight")
    whole(ignore_index=ignore_index)
    rows, w = _class_rows(x, weight if weight is None or x.ndim < 3 else weight.reshape(-1))
    t, counted = _class_indices(x, target, ignore_index)
    at, a = t[..., np.newaxis], where(counted, w[t], 0)
    picked = rows[along(at)][..., 0]
    total = pairwise_sum(a, tuple(range(a.ndim)))
    y, spread = reduce(-a * where(a == 0, 0, picked), reduction, total)

    def pullback(dy):
        drows = np.zeros_like(rows)
        dpicked = where(counted, -a * spread(dy), 0)
        drows[along(at)] = dpicked[..., np.newaxis]
        return _unrow(drows, x.shape)

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

    x is (C), (N, C) or (N, C, d₁, …), and the weight w is (C). The target holds classes in int64 or
    uint8, of the shape of x without C, and t is 1 at the class; or it holds the t themselves, of
    the shape and dtype of x. The mean is over Σ w_t, or over the rows of t. As ∂ log pₖ / ∂xⱼ = [j
    = k] − pⱼ, the slope is pⱼ Σₖ aₖ − aⱼ, which is written so that nothing cancels when one class
    wins; in tⱼ it is −(1 − ε) wⱼ log pⱼ.

        dxⱼ = pⱼ (Σₖ aₖ − aⱼ) − aⱼ (1 − pⱼ)        1 − pⱼ = Σ_{k≠j} pₖ

    Samples whose target is ignore_index count for nothing. It is long because two kinds of targets
    share it. Raises ValueError for a shape that does not fit and for an ignore_index from 0 on with
    a floating target, TypeError for a target of another dtype, IndexError for one that is no class.

    Bridle, 1990; Szegedy et al., 2016, arXiv:1512.00567 (label smoothing)
    """
    x, target = floating(x=x), array(target=target)
    within(-math.inf, 1, label_smoothing=label_smoothing)
    label_smoothing = max(label_smoothing, 0)  # below 0 there is none
    whole(ignore_index=ignore_index)
    given = target.dtype.kind == "f"
    rows, w = _class_rows(x, floated(x, weight) if given else weight)
    if given:
        x, target = alike(x=x, target=target)
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index: expected below 0 for probabilities, got {ignore_index}"
            )
        a, counted = w * _class_rows(target)[0], np.ones(rows.shape[:-1], bool)
        total = counted.size
    else:
        t, counted = _class_indices(x, target, ignore_index)
        chosen = where(counted, w[t], 0)
        total = pairwise_sum(chosen, tuple(range(chosen.ndim)))
        a = np.zeros_like(rows)
        a[along(t[..., np.newaxis])] = chosen[..., np.newaxis]
    if label_smoothing:
        smooth = where(counted[..., np.newaxis], w, 0) * (label_smoothing / rows.shape[-1])
        a = (1 - label_smoothing) * a + smooth
    losses, pull_rows = in_blocks_of_rows(_cross_entropy, rows, a)
    y, spread = reduce(losses, reduction, total)

    def pullback(dy):
        dloss = where(counted, spread(dy), 0)
        dx = _unrow(pull_rows(dloss), x.shape)
        if not given:
            return dx
        log_p, _ = log_softmax(rows, -1)
        return dx, _unrow(dloss[..., np.newaxis] * (label_smoothing - 1) * w * log_p, x.shape)

    return y, pullback


def _cross_entropy(rows, a):
    """−Σⱼ aⱼ log pⱼ of each row, as a rule of the rows alone."""
    d, z, winner, others = exponentials(rows)
    log_p = d - np.log1p(others)
    y = -(a * where(a != 0, log_p, 0)).sum(axis=-1)

    def pullback(dy):
        p, rest = probabilities(z, winner, others)
        return dy[..., np.newaxis] * (p * (a.sum(axis=-1, keepdims=True) - a) - a * rest)

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
    in) or (C, d₁, …, in), and the bias (C) or (C, d₁, …). The target is that of cross_entropy, and
    options is torch's choice of an algorithm.

    It is long because of its arguments and what it refuses. Raises ValueError for a shape that does
    not fit and for an ignore_index with a floating target, TypeError for other options or a target
    of another dtype, IndexError for one that is no class.
    """
    x, linear_weight, linear_bias = floating(
        x=x, linear_weight=linear_weight, linear_bias=linear_bias, optional="linear_bias"
    )
    target = array(target=target)
    real(label_smoothing=label_smoothing)
    if x.ndim not in (1, 2):
        raise ValueError(f"x: expected (in) or (N, in), got shape {x.shape}")
    if linear_weight.ndim < 2 or linear_weight.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"linear_weight: expected (C, …, {x.shape[-1]}), got shape {linear_weight.shape}"
        )
    outputs, probable = linear_weight.shape[:-1], target.dtype.kind == "f"
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
    row, in int64; p is 1 or 2, and the weight w is (C). Each term that is above 0 pushes xⱼ down
    and x_t up.

    Raises ValueError for a shape that does not fit and for another p, TypeError for a target of
    another dtype, IndexError for one that is no class.

    Crammer & Singer, 2001
    """
    x, weight = floating(x=x, weight=weight, optional="weight")
    if x.ndim > 2:
        raise ValueError(f"x: expected (C) or (N, C), got shape {x.shape}")
    real(p=p, margin=margin)
    if p not in (1, 2):
        raise ValueError(f"p: expected 1 or 2, got {p!r}")
    rows, target = np.atleast_2d(x), array(target=target)
    if target.dtype != np.int64:
        raise TypeError(f"target: expected classes of dtype int64, got {target.dtype}")
    t, _ = _class_indices(rows, target[np.newaxis] if target.ndim == 0 else target, None)
    w = _class_rows(rows, weight)[1][t][:, np.newaxis]
    hit = np.arange(rows.shape[1]) == t[:, np.newaxis]
    gap = where(hit, 0, margin - where(hit, rows, 0).sum(axis=1, keepdims=True) + rows)
    active = gap > 0
    terms = w * where(active, gap, 0) ** p / rows.shape[1]
    y, spread = reduce(terms.sum(axis=1).reshape(target.shape), reduction)

    def pullback(dy):
        h = w * where(active, p * gap ** (p - 1), 0) / rows.shape[1]
        drows = h - where(hit, h.sum(axis=1, keepdims=True), 0)
        return (drows * spread(dy).reshape(-1, 1)).reshape(x.shape)

    return y, pullback


def multilabel_margin_loss(x, target, *, reduction="mean"):
    """Σ max(0, 1 − x_k + xⱼ) / C over all labels k of a row and all j that are none, for x of (C)
    or (N, C). The target, of its shape and in int64, lists the labels of each row; −1 ends the
    list.

    Each term that is above 0 pushes xⱼ down and x_k up. Raises ValueError for a shape that does not
    fit and for a label that is neither a class nor −1, TypeError for a target of another dtype.
    """
    x = floating(x=x)
    target = array(target=target)
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
    own = where(hit, rows[:, np.newaxis], 0).sum(axis=2, keepdims=True)
    other = listed_labels[..., np.newaxis] & ~hit.any(axis=1, keepdims=True)
    gap = where(other, 1 - own + rows[:, np.newaxis], 0)
    active = (gap > 0).astype(x.dtype)
    y, spread = reduce((gap * active).sum(axis=(1, 2)).reshape(x.shape[:-1]) / max(C, 1), reduction)

    def pullback(dy):
        up = where(hit, active.sum(axis=2, keepdims=True), 0).sum(axis=1)
        drows = (active.sum(axis=1) - up) / C
        return (drows * spread(dy).reshape(-1, 1)).reshape(x.shape)

    return y, pullback


def multilabel_soft_margin_loss(x, target, weight=None, *, reduction="mean"):
    """The mean over the last axis of w ((1 − t) s(x) + t s(−x)), s(x) = log(1 + eˣ); the slopes are
    those of binary_cross_entropy_with_logits, and in w it is the term itself. x, the target t and
    the weight w broadcast. Raises ValueError for an x without axes."""
    x, target, weight = floating(x=x, target=target, weight=weight, optional="weight")
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


def _class_rows(x, weight=None):
    """x with its classes last, and a weight for each class, 1 without."""
    if x.ndim == 0 or x.shape[min(1, x.ndim - 1)] == 0:
        raise ValueError(f"x: expected an axis of classes, got shape {x.shape}")
    rows = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    C = rows.shape[-1]
    w = np.ones(C, x.dtype) if weight is None else floating(x=x, weight=weight)[1]
    if w.shape != (C,):
        raise ValueError(
            f"weight: expected one number for each of {C} classes, got shape {w.shape}"
        )
    return rows, w


def _unrow(rows, shape):
    return np.moveaxis(rows, -1, 1) if len(shape) > 2 else rows


def _class_indices(x, target, ignore_index):
    """The classes of the rows of x, 0 where a row does not count, and where it does."""
    target = array(target=target)
    if target.dtype not in CLASSES:
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
    if wrong.any():
        raise IndexError(f"target: expected classes from 0 to {C - 1}, got {target[wrong].flat[0]}")
    return where(counted, target, 0), counted
