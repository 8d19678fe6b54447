"""Normalization: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal


def rms_norm_residual(x, residual, weight, eps=1e-6):
    """The sum of two streams, normalized, times 1 + weight (as Gemma keeps it)."""
    h = x + residual
    rstd = 1 / np.sqrt((h * h).mean(-1, keepdims=True) + eps)
    y = h * rstd * (1 + weight)

    def pullback(dy):
        normed = h * rstd
        g = dy * (1 + weight)
        dh = rstd * (g - normed * (g * normed).mean(-1, keepdims=True))
        dweight = (dy * normed).sum(tuple(range(dy.ndim - 1)))
        return dh, dh.copy(), dweight

    return y, pullback


def rms_norm_residual_torch(x, residual, weight, eps=1e-6):
    h = x + residual
    return h * torch.rsqrt((h * h).mean(-1, keepdim=True) + eps) * (1 + weight)


class LayerNormFunction(torch.autograd.Function):
    """Layer norm over the last axis; saves x, mean and rstd, and computes xhat again."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        mean = x.mean(-1, keepdim=True)
        rstd = torch.rsqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5)
        ctx.save_for_backward(x, weight, mean, rstd)
        return (x - mean) * rstd * weight + bias

    @staticmethod
    def backward(ctx, dy):
        x, weight, mean, rstd = ctx.saved_tensors
        xhat = (x - mean) * rstd
        rows = xhat.reshape(-1, x.shape[-1])
        drows = dy.reshape(-1, x.shape[-1])
        dweight = (drows * rows).sum(0)
        dbias = drows.sum(0)
        g = dy * weight
        dx = g - g.mean(-1, keepdim=True)
        dx = dx - xhat * (g * xhat).mean(-1, keepdim=True)
        return dx * rstd, dweight, dbias


def layer_norm_torch(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def group_norm_forward(x, gamma, beta, groups=2, eps=1e-5):
    n, c, h, w = x.shape
    grouped = x.reshape(n, groups, -1)
    mean = grouped.mean(2, keepdims=True)
    centred = grouped - mean
    std = np.sqrt((centred**2).mean(2, keepdims=True) + eps)
    xhat = (centred / std).reshape(x.shape)
    y = gamma[None, :, None, None] * xhat + beta[None, :, None, None]
    return y, (xhat, std, gamma, groups)


def group_norm_backward(dout, cache):
    xhat, std, gamma, groups = cache
    n, c, h, w = xhat.shape
    m = c // groups * h * w
    dgamma = np.sum(dout * xhat, axis=(0, 2, 3))
    dbeta = np.sum(dout, axis=(0, 2, 3))
    dxhat = (dout * gamma[None, :, None, None]).reshape(n, groups, -1)
    flat = xhat.reshape(n, groups, -1)
    first = dxhat.sum(2, keepdims=True) / m
    second = flat * (dxhat * flat).sum(2, keepdims=True) / m
    dx = (dxhat - first - second) / std
    return dx.reshape(xhat.shape), dgamma, dbeta


group_norm = (group_norm_forward, group_norm_backward)


def group_norm_torch(x, gamma, beta, groups=2, eps=1e-5):
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    xhat = centred / torch.sqrt((centred**2).mean(2, keepdim=True) + eps)
    return gamma[None, :, None, None] * xhat.reshape(x.shape) + beta[None, :, None, None]


def weight_norm_linear(x, v, g, bias):
    """y = x Wᵀ + bias, where the rows of W are g v / |v|."""
    norm = np.sqrt((v * v).sum(1, keepdims=True))
    unit = v / norm
    w = g[:, None] * unit
    y = x @ w.T + bias

    def pullback(dy):
        dw = dy.T @ x
        dg = (dw * unit).sum(1)
        dv = g[:, None] / norm * (dw - unit * dg[:, None])
        return dy @ w, dv, dg, dy.sum(0)

    return y, pullback


def weight_norm_linear_torch(x, v, g, bias):
    w = g[:, None] * v / torch.sqrt((v * v).sum(1, keepdim=True))
    return x @ w.T + bias


SUBJECTS = {
    "rms_norm_residual": Subject(
        against=rms_norm_residual_torch,
        calls=[
            call(normal(2, 3, 6), normal(2, 3, 6), normal(6)),
            call(normal(4, 5), normal(4, 5), normal(5, scale=0.3), eps=0.1),
        ],
    ),
    "LayerNormFunction": Subject(
        against=layer_norm_torch,
        calls=[call(normal(2, 3, 6), normal(6), normal(6)), call(normal(4, 5, shift=2.0), normal(5), normal(5))],
    ),
    "group_norm": Subject(
        against=group_norm_torch,
        calls=[
            call(normal(2, 6, 3, 2), normal(6), normal(6)),
            call(normal(3, 6, 2, 2, shift=1.0), normal(6), normal(6), groups=3, eps=0.01),
        ],
    ),
    "weight_norm_linear": Subject(
        against=weight_norm_linear_torch,
        calls=[call(normal(4, 5), normal(3, 5), normal(3), normal(3))],
    ),
}

MISTAKES = [
    # ported from a norm that multiplies by the weight itself
    Mistake(
        "rms_norm_residual", "elementwise factor / operand / variant", "g = dy * (1 + weight)", "g = dy * weight"
    ),
    # summed over the batch, not over time (at the first call, which has three axes)
    Mistake("rms_norm_residual", "broadcast / shape", "(dy * normed).sum(tuple(range(dy.ndim - 1)))", "(dy * normed).sum(0)"),
    # the part through the variance
    Mistake(
        "LayerNormFunction",
        "missing term",
        "        dx = dx - xhat * (g * xhat).mean(-1, keepdim=True)\n",
        "",
    ),
    # the saved x where xhat is meant
    Mistake("LayerNormFunction", "operand", "rows = xhat.reshape(-1, x.shape[-1])", "rows = x.reshape(-1, x.shape[-1])"),
    # as if each channel were normalized alone
    Mistake("group_norm", "counts / extra term", "m = c // groups * h * w", "m = h * w"),
    # the rows of v as if they were of length one: the slope of v / |v| without 1 / |v|
    Mistake("weight_norm_linear", "elementwise factor", "dv = g[:, None] / norm * (", "dv = g[:, None] * ("),
]
