"""Linear maps."""

import math

import numpy as np

from .arrays import broadcastable, floating, sum_to


def linear(x, weight, bias=None):
    """x Wᵀ + b over the last axis of x: (…, in) → (…, out), with weight (out, in) or (in,), whose y
    is (…).

    With rows of x and dy beneath one another, each of the three is linear in what it multiplies:

        dx = dy W        dW = dyᵀ x        db = Σ dy
    """
    x, weight, bias = floating(x=x, weight=weight, bias=bias)
    if weight.ndim not in (1, 2):
        raise ValueError(f"weight: expected 1 or 2 axes, got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[-1]:
        features = weight.shape[-1]
        raise ValueError(f"x: expected {features} features on its last axis, got shape {x.shape}")
    y = x @ weight.T
    rows = (1, *y.shape) if x.ndim == 1 == y.ndim else y.shape  # a lone x is a matrix of one row
    if bias is not None:
        broadcastable(rows, bias=bias)
        y = (y + bias).reshape(y.shape)

    def pullback(dy):
        W = np.atleast_2d(weight)
        N = math.prod(x.shape[:-1])
        d = dy.reshape(N, W.shape[0])
        dx = (d @ W).reshape(x.shape)
        dweight = (d.T @ x.reshape(N, W.shape[1])).reshape(weight.shape)
        if bias is None:
            return dx, dweight
        return dx, dweight, sum_to(dy.reshape(rows), bias.shape)

    return y, pullback
