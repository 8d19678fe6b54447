import mpmath
import numpy as np

from . import distances
from .distances import pairwise_distance
from .numbers import exp, log, reduce, still


def mse_loss(x, target, *, reduction="mean", weight=None):
    squares = (x - target) ** 2
    if weight is None:
        return reduce(squares, reduction)
    return reduce(weight * squares, reduction, np.sum(weight))


def binary_cross_entropy(x, target, weight=None, *, reduction="mean"):
    bounded_log = np.frompyfunc(lambda p: max(log(p), -100) if p > 0 else -100, 1, 1)
    loss = -target * bounded_log(x) - (1 - target) * bounded_log(1 - x)
    return reduce(loss if weight is None else weight * loss, reduction)


def binary_cross_entropy_with_logits(x, target, weight=None, *, reduction="mean", pos_weight=None):
    p = 1 if pos_weight is None else pos_weight
    loss = p * target * log(1 + exp(-x)) + (1 - target) * log(1 + exp(x))
    return reduce(loss if weight is None else weight * loss, reduction)


def nll_loss(x, target, weight=None, *, ignore_index=-100, reduction="mean"):
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    loss, w_t = np.zeros(target.shape, object), np.zeros(target.shape, object)
    for i in np.ndindex(target.shape):
        if target[i] != ignore_index:
            w_t[i] = 1 if weight is None else weight[target[i]]
            loss[i] = -w_t[i] * rows[i][target[i]]
    return reduce(loss, reduction, np.sum(w_t))


def cross_entropy(
    x, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    C = rows.shape[-1]
    w = np.ones(C, int) if weight is None else weight
    z = exp(rows)
    log_p = log(z / z.sum(axis=-1, keepdims=True))
    smooth = mpmath.mpf(label_smoothing)
    if target.dtype == object:
        share = np.moveaxis(target, 1, -1) if x.ndim > 1 else target
        loss = -(w * ((1 - smooth) * share + smooth / C) * log_p).sum(axis=-1)
        return reduce(np.asarray(loss), reduction)
    loss, w_t = np.zeros(target.shape, object), np.zeros(target.shape, object)
    for i in np.ndindex(target.shape):
        if target[i] != ignore_index:
            w_t[i] = w[target[i]]
            loss[i] = -(1 - smooth) * w_t[i] * log_p[i][target[i]]
            if label_smoothing:
                loss[i] -= smooth / C * np.sum(w * log_p[i])
    return reduce(loss, reduction, np.sum(w_t))


def linear_cross_entropy(
    x, linear_weight, target, *, linear_bias=None, ignore_index=None, options=None, **settings
):
    logits = x @ linear_weight.reshape(-1, x.shape[-1]).T
    logits = logits.reshape(*x.shape[:-1], *linear_weight.shape[:-1])
    logits = logits if linear_bias is None else logits + linear_bias
    return cross_entropy(
        logits, target, ignore_index=-100 if ignore_index is None else ignore_index, **settings
    )


def multi_margin_loss(x, target, p=1, margin=1.0, weight=None, *, reduction="mean"):
    loss = []
    for row, t in zip(x.reshape(-1, x.shape[-1]), target.reshape(-1), strict=True):
        terms = _above(margin - row[t] + np.delete(row, t)) ** p
        loss.append((1 if weight is None else weight[t]) * np.sum(terms) / len(row))
    return reduce(np.array(loss, object).reshape(x.shape[:-1]), reduction)


def multilabel_margin_loss(x, target, *, reduction="mean"):
    loss = []
    for row, t in zip(x.reshape(-1, x.shape[-1]), target.reshape(-1, x.shape[-1]), strict=True):
        labels = list(t[: [*t, -1].index(-1)])
        others = [j for j in range(len(row)) if j not in labels]
        terms = [max(1 - row[k] + row[j], 0) for k in labels for j in others]
        loss.append(sum(terms, mpmath.mpf(0)) / len(row))
    return reduce(np.array(loss, object).reshape(x.shape[:-1]), reduction)


def multilabel_soft_margin_loss(x, target, weight=None, *, reduction="mean"):
    loss = target * log(1 + exp(-x)) + (1 - target) * log(1 + exp(x))
    loss = loss if weight is None else weight * loss
    return reduce(np.asarray(loss.sum(axis=-1) / x.shape[-1]), reduction)


def ctc_loss(
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    blank=0,
    reduction="mean",
    zero_infinity=False,
):
    """The loss by its sum over states, beside Σ eˣ, which normalizes, and of which only the slope
    counts."""
    batch = np.moveaxis(log_probs, 1, 0) if log_probs.ndim == 3 else log_probs[np.newaxis]
    flat = targets.ndim == 1 and log_probs.ndim == 3
    ends = np.cumsum(target_lengths)
    loss = []
    for i, (T, S) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        row = targets[ends[i] - S : ends[i]] if flat else np.atleast_2d(targets)[i][:S]
        states = [blank, *(state for label in row for state in (label, blank))]
        ways = [mpmath.mpf(s < 2) * exp(batch[i, 0, c]) for s, c in enumerate(states)]
        for t in range(1, T):
            ways = [
                exp(batch[i, t, c])
                * (
                    ways[s]
                    + (ways[s - 1] if s else 0)
                    + (ways[s - 2] if s > 1 and c != states[s - 2] else 0)
                )
                for s, c in enumerate(states)
            ]
        total = sum(ways[-2:])
        nll = -log(total) if total else mpmath.mpf(0 if zero_infinity else "inf")
        if total:
            nll += np.sum(exp(batch[i, :T]) - exp(still(batch[i, :T])))
        loss.append(nll / max(S, 1) if reduction == "mean" else nll)
    return reduce(np.array(loss, object).reshape(log_probs.shape[1:-1]), reduction)


def l1_loss(x, target, *, reduction="mean", weight=None):
    error = abs(x - target)
    if weight is None:
        return reduce(error, reduction)
    return reduce(weight * error, reduction, np.sum(weight))


def huber_loss(x, target, reduction="mean", delta=1.0, weight=None):
    delta, error = mpmath.mpf(delta), abs(x - target)
    loss = np.where(error < delta, error**2 / 2, delta * (error - delta / 2))
    return reduce(loss if weight is None else weight * loss, reduction)


def smooth_l1_loss(x, target, *, reduction="mean", beta=1.0):
    if beta == 0:
        return l1_loss(x, target, reduction=reduction)
    return huber_loss(x, target, reduction, beta) / mpmath.mpf(beta)


def kl_div(x, target, *, reduction="mean", log_target=False):
    p = exp(target) if log_target else target
    loss = p * ((target if log_target else log(target)) - x)
    if reduction == "batchmean":
        return np.sum(loss) / (len(x) if x.ndim else 1)
    return reduce(loss, reduction)


def poisson_nll_loss(x, target, log_input=True, full=False, *, eps=1e-8, reduction="mean"):
    loss = exp(x) - target * x if log_input else x - target * log(x + mpmath.mpf(eps))
    if full:
        t = np.where(target > 1, target, 0 * target + 1)
        stirling = t * log(t) - t + log(2 * mpmath.pi * t) / 2
        loss = loss + np.where(target > 1, stirling, 0)
    return reduce(loss, reduction)


def gaussian_nll_loss(x, target, var, full=False, eps=1e-6, reduction="mean"):
    """Where ε stands for var, the slope is 0 here, and not in torch."""
    v = np.asarray(var, object)
    v = v[..., np.newaxis] if v.ndim == x.ndim - 1 and v.ndim else v
    v = np.frompyfunc(lambda a: max(mpmath.mpf(a), mpmath.mpf(eps)), 1, 1)(v)
    loss = (log(v) + (x - target) ** 2 / v) / 2
    return reduce(loss + (log(2 * mpmath.pi) / 2 if full else 0), reduction)


def hinge_embedding_loss(x, target, margin=1.0, *, reduction="mean"):
    loss = np.where(target != -1, x, 0) + np.where(target != 1, _above(margin - x), 0)
    return reduce(loss, reduction)


def soft_margin_loss(x, target, *, reduction="mean"):
    return reduce(log(1 + exp(-target * x)), reduction)


def margin_ranking_loss(input1, input2, target, margin=0, *, reduction="mean"):
    return reduce(_above(margin - target * (input1 - input2)), reduction)


def cosine_embedding_loss(input1, input2, target, margin=0, *, reduction="mean"):
    square1, square2 = (np.sum(a * a, axis=-1) + float(np.float32(1e-12)) for a in (input1, input2))
    root = np.frompyfunc(mpmath.sqrt, 1, 1)
    cosine = np.sum(input1 * input2, axis=-1) / root(square1 * square2)
    loss = np.where(target == 1, 1 - cosine, np.where(target == -1, _above(cosine - margin), 0))
    return reduce(loss, reduction)


def triplet_margin_loss(
    anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, *, reduction="mean"
):
    def distance(x1, x2):
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean"
):
    name = distance_function.__name__ if distance_function else "pairwise_distance"
    distance = getattr(distances, name)
    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def _triplet(distance, anchor, positive, negative, margin, swap, reduction):
    far = distance(anchor, negative)
    if swap:
        other = distance(positive, negative)
        far = np.where(far < other, far, other)
    return reduce(_above(margin + distance(anchor, positive) - far), reduction)


def _above(gap):
    return np.where(gap > 0, gap, 0 * gap)
