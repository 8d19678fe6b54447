import numpy as np

from .numbers import exp, log, reduce


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


def cross_entropy(
    x, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    C = rows.shape[-1]
    w = np.ones(C, int) if weight is None else weight
    z = exp(rows)
    log_p = log(z / z.sum(axis=-1, keepdims=True))
    loss, w_t = np.zeros(target.shape, object), np.zeros(target.shape, object)
    for i in np.ndindex(target.shape):
        if target[i] != ignore_index:
            w_t[i] = w[target[i]]
            loss[i] = -(1 - label_smoothing) * w_t[i] * log_p[i][target[i]]
            if label_smoothing:
                loss[i] -= label_smoothing / C * np.sum(w * log_p[i])
    return reduce(loss, reduction, np.sum(w_t))
