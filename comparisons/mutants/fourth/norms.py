"""Normalisations: right functions, and the mistakes that are made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal


def batchnorm_forward(x, gamma, beta, eps=1e-5):
    mu = x.mean(axis=0)
    xmu = x - mu
    var = (xmu**2).mean(axis=0)
    istd = 1 / np.sqrt(var + eps)
    xhat = xmu * istd
    return gamma * xhat + beta, (xhat, xmu, istd, gamma)


def batchnorm_backward(dout, cache):
    xhat, xmu, istd, gamma = cache
    N = dout.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    dvar = np.sum(dxhat * xmu, axis=0) * -0.5 * istd**3
    dmu = -np.sum(dxhat, axis=0) * istd
    dx = dxhat * istd + dvar * 2 * xmu / N + dmu / N
    return dx, dgamma, dbeta


batchnorm = (batchnorm_forward, batchnorm_backward)


def batchnorm_torch(x, gamma, beta, eps=1e-5):
    return (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + eps) * gamma + beta


class LayerNorm:
    def forward(self, x, gamma, beta, eps=1e-6):
        self.gamma = gamma
        c = x - x.mean(-1, keepdims=True)
        self.rstd = (np.mean(c * c, -1, keepdims=True) + eps) ** -0.5
        self.xhat = c * self.rstd
        return self.xhat * gamma + beta

    def backward(self, dout):
        lead = tuple(range(dout.ndim - 1))
        dbeta = dout.sum(lead)
        dgamma = (dout * self.xhat).sum(lead)
        g = dout * self.gamma
        c1 = g.mean(-1, keepdims=True)
        c2 = (g * self.xhat).mean(-1, keepdims=True)
        dx = (g - c1 - self.xhat * c2) * self.rstd
        return dx, dgamma, dbeta


def layernorm_torch(x, gamma, beta, eps=1e-6):
    c = x - x.mean(-1, keepdim=True)
    return c / torch.sqrt((c * c).mean(-1, keepdim=True) + eps) * gamma + beta


def add_rms_norm(x, residual, weight, eps=1e-6, rows=3):
    """The stream h = x + residual, and h + rmsnorm(h) · weight, fused; the weight's gradient by blocks of rows."""
    D = x.shape[-1]
    h = (x + residual).reshape(-1, D)
    rstd = ((h * h).mean(-1, keepdims=True) + eps) ** -0.5
    y = h + h * rstd * weight

    def pullback(dy):
        dy = dy.reshape(-1, D)
        blocks = -(-len(h) // rows)
        partial = np.zeros((blocks, D), h.dtype)
        dh = np.empty(h.shape, h.dtype)
        for b in range(blocks):
            at = slice(b * rows, (b + 1) * rows)
            normed = h[at] * rstd[at]
            partial[b] = (dy[at] * normed).sum(0)
            g = dy[at] * weight
            dh[at] = dy[at] + rstd[at] * (g - normed * (g * normed).mean(-1, keepdims=True))
        dweight = partial.sum(0).astype(h.dtype)
        dh = dh.reshape(x.shape)
        return dh, dh.copy(), dweight

    return y.reshape(x.shape), pullback


def add_rms_norm_torch(x, residual, weight, eps=1e-6, rows=3):
    h = x + residual
    return h + h * torch.rsqrt((h * h).mean(-1, keepdim=True) + eps) * weight


def group_norm(x, weight, bias, groups=2, eps=1e-5):
    """x of (N, C, *), in torch."""
    N, C = x.shape[:2]
    grouped = x.reshape(N, groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    rstd = (grouped.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
    xhat = (grouped - mean) * rstd
    flat = xhat.reshape(N, C, -1)
    y = (flat * weight[:, None] + bias[:, None]).reshape(x.shape)

    def pullback(dy):
        dy = dy.reshape(N, C, -1)
        dweight = (dy * flat).sum((0, 2))
        dbias = dy.sum((0, 2))
        g = (dy * weight[:, None]).reshape(N, groups, -1)
        b = g.mean(-1, keepdim=True)
        a = (g * xhat).mean(-1, keepdim=True)
        dx = rstd * (g - b - xhat * a)
        return dx.reshape(x.shape), dweight, dbias

    return y, pullback


def group_norm_torch(x, weight, bias, groups=2, eps=1e-5):
    g = x.reshape(x.shape[0], groups, -1)
    g = (g - g.mean(-1, keepdim=True)) / torch.sqrt(g.var(-1, unbiased=False, keepdim=True) + eps)
    tail = (1,) * (x.ndim - 2)
    return g.reshape(x.shape) * weight.reshape(-1, *tail) + bias.reshape(-1, *tail)


def weight_norm_linear(x, v, g, b):
    """A linear layer whose rows of weights are g · v / |v|."""
    norm = np.sqrt((v * v).sum(1, keepdims=True))
    unit = v / norm
    w = g[:, None] * unit
    y = x @ w.T + b

    def pullback(dy):
        dw = dy.T @ x
        dg = (dw * unit).sum(1)
        dv = g[:, None] / norm * (dw - unit * dg[:, None])
        return dy @ w, dv, dg, dy.sum(0)

    return y, pullback


def weight_norm_linear_torch(x, v, g, b):
    return x @ (v * (g / torch.sqrt((v * v).sum(1)))[:, None]).T + b


def l2_normalize(x, eps=1e-12):
    """x / max(|x|, eps) along the last axis."""
    n = np.sqrt((x * x).sum(-1, keepdims=True))
    d = np.maximum(n, eps)
    y = x / d

    def pullback(dy):
        along = np.where(n >= eps, (y * dy).sum(-1, keepdims=True), 0)
        return ((dy - y * along) / d,)

    return y, pullback


def l2_normalize_torch(x, eps=1e-12):
    return torch.nn.functional.normalize(x, dim=-1, eps=eps)


SUBJECTS = {
    "batchnorm": Subject(against=batchnorm_torch, calls=[call(normal(7, 4), normal(4), normal(4)),
                                                         call(normal(5, 3), normal(3), normal(3), eps=0.1)]),
    "LayerNorm": Subject(against=layernorm_torch, calls=[call(normal(2, 3, 5), normal(5), normal(5))]),
    "add_rms_norm": Subject(against=add_rms_norm_torch, calls=[call(normal(2, 4, 6), normal(2, 4, 6), normal(6))]),
    "group_norm": Subject(against=group_norm_torch, calls=[call(normal(2, 4, 3, 2), normal(4), normal(4)),
                                                           call(normal(2, 6, 5), normal(6), normal(6), groups=3)]),
    "weight_norm_linear": Subject(against=weight_norm_linear_torch, calls=[call(normal(5, 4), normal(3, 4), normal(3), normal(3))]),
    "l2_normalize": Subject(against=l2_normalize_torch, calls=[call(normal(4, 3)), call(normal(4, 3, scale=0.3), eps=0.5)]),
}
MISTAKES = [
    # the right gradient of the variance with ddof 1
    Mistake("batchnorm", "variant / factor", "dvar * 2 * xmu / N", "dvar * 2 * xmu / (N - 1)"),
    Mistake("batchnorm", "operand / elementwise factor", "dgamma = np.sum(dout * xhat, axis=0)", "dgamma = np.sum(dout * xmu, axis=0)"),
    # γ is there for the mean and the first path, not for the variance
    Mistake("batchnorm", "elementwise factor / operand", "dvar = np.sum(dxhat * xmu, axis=0)", "dvar = np.sum(dout * xmu, axis=0)"),
    # from rows to (N, T, D): the axes of the two-dimensional version; the shape is (3, 5)
    Mistake("LayerNorm", "broadcast / shape", "dgamma = (dout * self.xhat).sum(lead)", "dgamma = (dout * self.xhat).sum(0)"),
    Mistake("batchnorm", "shape", "dbeta = dout.sum(axis=0)", "dbeta = dout.sum(axis=0, keepdims=True)"),
    Mistake("LayerNorm", "elementwise factor / operand", "c2 = (g * self.xhat)", "c2 = (dout * self.xhat)"),
    # partial sums of blocks in single precision
    Mistake("add_rms_norm", "precision", "partial = np.zeros((blocks, D), h.dtype)", "partial = np.zeros((blocks, D), np.float32)"),
    # the last, partial block of rows: its sum stays zero
    Mistake("add_rms_norm", "misplaced / missing term", "dweight = partial.sum(0)", "dweight = partial[: len(h) // rows].sum(0)"),
    Mistake("add_rms_norm", "missing term", "dh[at] = dy[at] + rstd[at] *", "dh[at] = rstd[at] *"),
    # the mean over a group's channels of sums: γ forgotten in one of two reductions
    Mistake("group_norm", "elementwise factor / operand", "b = g.mean(-1, keepdim=True)", "b = dy.reshape(N, groups, -1).mean(-1, keepdim=True)"),
    # as instance norm has it: per channel, not per group
    Mistake("group_norm", "broadcast / variant / operand / missing term", "a = (g * xhat).mean(-1, keepdim=True)",
            "a = (g * xhat).reshape(N, C, -1).mean(-1, keepdim=True).expand(flat.shape).reshape(g.shape)"),
    Mistake("weight_norm_linear", "missing term", "* (dw - unit * dg[:, None])", "* dw"),
    Mistake("weight_norm_linear", "elementwise factor / operand", "dg = (dw * unit).sum(1)", "dg = (dw * v).sum(1)"),
    # at a row of zeros, and below eps (second call): max's other branch is forgotten
    Mistake("l2_normalize", "kink / variant / extra term / range", "np.where(n >= eps, (y * dy).sum(-1, keepdims=True), 0)", "(y * dy).sum(-1, keepdims=True)"),
]
