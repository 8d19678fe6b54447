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
    if bias is not None:
        broadcastable(y.shape, bias=bias)
        y = y + bias

    def pullback(dy):
        W = np.atleast_2d(weight)
        N = math.prod(x.shape[:-1])
        rows = dy.reshape(N, W.shape[0])
        dx = (rows @ W).reshape(x.shape)
        dweight = (rows.T @ x.reshape(N, W.shape[1])).reshape(weight.shape)
        return (dx, dweight) if bias is None else (dx, dweight, sum_to(dy, bias.shape))

    return y, pullback
