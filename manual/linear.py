"""Linear maps.

All of them take arrays in float16, float32 or float64 of one dtype, and raise TypeError for any
others, ValueError for shapes that do not fit; the message names the argument.
"""

import math

import numpy as np

from .arguments import broadcastable, floating
from .arrays import sum_to


def linear(x, weight, bias=None):
    """x Wᵀ + b over the last axis of x: (…, in) → (…, out), with weight (out, in) or (in,), for
    which y is (…), and a bias that broadcasts to y.

    With rows of x and dy beneath one another, each of the three is linear in what it multiplies:

        dx = dy W        dW = dyᵀ x        db = Σ dy

    Raises ValueError for shapes that do not fit.
    """
    x, weight, bias = floating(x=x, weight=weight, bias=bias, optional="bias")
    if weight.ndim not in (1, 2):
        raise ValueError(f"weight: expected 1 or 2 axes, got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[-1]:
        features = weight.shape[-1]
        raise ValueError(f"x: expected {features} features on its last axis, got shape {x.shape}")
    y = x @ weight.T
    shape = (1, *y.shape) if x.ndim == 1 == y.ndim else y.shape  # a lone x is a matrix of one row
    if bias is not None:
        broadcastable(shape, bias=bias)
        y = (y + bias).reshape(y.shape)

    def pullback(dy):
        W = weight if weight.ndim == 2 else weight[np.newaxis]
        N = math.prod(x.shape[:-1])
        rows = dy.reshape(N, W.shape[0])
        dx = (rows @ W).reshape(x.shape)
        dweight = (rows.T @ x.reshape(N, W.shape[1])).reshape(weight.shape)
        if bias is None:
            return dx, dweight
        return dx, dweight, sum_to(dy.reshape(shape), bias.shape)

    return y, pullback


def bilinear(input1, input2, weight, bias=None):
    """yₒ = Σᵢⱼ x₁ᵢ Wₒᵢⱼ x₂ⱼ + bₒ over the last axes: (…, in1) and (…, in2) → (…, out), with weight
    (out, in1, in2) and bias (out).

    It is linear in each of the four, so that each gradient is the same sum with dy in its place.
    Raises ValueError for shapes that do not fit.
    """
    input1, input2, weight, bias = floating(
        input1=input1, input2=input2, weight=weight, bias=bias, optional="bias"
    )
    if weight.ndim != 3:
        raise ValueError(f"weight: expected (out, in1, in2), got shape {weight.shape}")
    for name, x, features in (("input1", input1, 1), ("input2", input2, 2)):
        if x.ndim == 0 or x.shape[-1] != weight.shape[features]:
            raise ValueError(
                f"{name}: expected {weight.shape[features]} features on its last axis, got shape "
                f"{x.shape}"
            )
    if input1.shape[:-1] != input2.shape[:-1]:
        raise ValueError(
            f"input2: expected {input1.shape[:-1]} in front of its features, got shape "
            f"{input2.shape}"
        )
    a, b = (x.reshape(-1, x.shape[-1]) for x in (input1, input2))
    y = np.einsum("ni,oij,nj->no", a, weight, b, optimize=True)
    y = y.reshape(*input1.shape[:-1], len(weight))
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias: expected shape {weight.shape[:1]}, got {bias.shape}")
        y = y + bias

    def pullback(dy):
        d = dy.reshape(-1, len(weight))
        found = (
            np.einsum("no,oij,nj->ni", d, weight, b, optimize=True).reshape(input1.shape),
            np.einsum("no,oij,ni->nj", d, weight, a, optimize=True).reshape(input2.shape),
            np.einsum("no,ni,nj->oij", d, a, b, optimize=True),
        )
        return found if bias is None else (*found, sum_to(dy, bias.shape))

    return y, pullback
