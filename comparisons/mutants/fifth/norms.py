"""Norms: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal

# --- layer norm as in a course: forward and backward with a cache


def layernorm_forward(x, gamma, beta, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    var = x.var(axis=-1, keepdims=True)
    rstd = 1.0 / np.sqrt(var + eps)
    xhat = (x - mean) * rstd
    out = gamma * xhat + beta
    return out, (x, xhat, gamma, rstd)


def layernorm_backward(dout, cache):
    x, xhat, gamma, rstd = cache
    lead = tuple(range(dout.ndim - 1))
    dbeta = dout.sum(axis=lead)
    dgamma = (dout * xhat).sum(axis=lead)
    dxhat = dout * gamma
    m1 = dxhat.mean(axis=-1, keepdims=True)
    m2 = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = rstd * (dxhat - m1 - xhat * m2)
    return dx, dgamma, dbeta


layernorm = (layernorm_forward, layernorm_backward)


def layernorm_torch(x, gamma, beta, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * gamma + beta


# --- batch norm over N, H, W, a layer's class


class BatchNorm2d:
    def __init__(self):
        self.dgamma = 0.0
        self.dbeta = 0.0

    def forward(self, x, gamma, beta, eps=1e-5):
        self.m = x.shape[0] * x.shape[2] * x.shape[3]
        mu = x.mean(axis=(0, 2, 3), keepdims=True)
        self.xc = x - mu
        var = (self.xc**2).mean(axis=(0, 2, 3), keepdims=True)
        self.rstd = 1.0 / np.sqrt(var + eps)
        self.xhat = self.xc * self.rstd
        self.gamma = gamma[None, :, None, None]
        return self.gamma * self.xhat + beta[None, :, None, None]

    def backward(self, dout):
        self.dbeta = dout.sum(axis=(0, 2, 3))
        self.dgamma = (dout * self.xhat).sum(axis=(0, 2, 3))
        dxhat = dout * self.gamma
        dvar = -0.5 * (dxhat * self.xc).sum(axis=(0, 2, 3), keepdims=True) * self.rstd**3
        dmu = -(dxhat * self.rstd).sum(axis=(0, 2, 3), keepdims=True)
        dx = dxhat * self.rstd + 2.0 * self.xc * dvar / self.m + dmu / self.m
        return dx, self.dgamma, self.dbeta


def batchnorm_torch(x, gamma, beta, eps=1e-5):
    mean = x.mean((0, 2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * gamma[None, :, None, None] + beta[None, :, None, None]


# --- group norm


def groupnorm(x, gamma, beta, groups=2, eps=1e-5):
    N, C, H, W = x.shape
    if C % groups:
        raise ValueError("channels must be a multiple of the groups")
    xg = x.reshape(N, groups, C // groups, H, W)
    mean = xg.mean(axis=(2, 3, 4), keepdims=True)
    rstd = 1.0 / np.sqrt(xg.var(axis=(2, 3, 4), keepdims=True) + eps)
    xhat = (xg - mean) * rstd
    y = xhat.reshape(N, C, H, W) * gamma[:, None, None] + beta[:, None, None]

    def pullback(dy):
        dgamma = (dy * xhat.reshape(N, C, H, W)).sum((0, 2, 3))
        dbeta = dy.sum((0, 2, 3))
        dxhat = (dy * gamma[:, None, None]).reshape(xg.shape)
        a = dxhat.mean((2, 3, 4), keepdims=True)
        b = (dxhat * xhat).mean(axis=(-1, -2, -3), keepdims=True)
        dx = rstd * (dxhat - a - xhat * b)
        return dx.reshape(N, C, H, W), dgamma, dbeta

    return y, pullback


def groupnorm_torch(x, gamma, beta, groups=2, eps=1e-5):
    N, C, H, W = x.shape
    if C % groups:
        raise ValueError("channels must be a multiple of the groups")
    xg = x.reshape(N, groups, C // groups, H, W)
    mean = xg.mean((2, 3, 4), keepdim=True)
    var = ((xg - mean) ** 2).mean((2, 3, 4), keepdim=True)
    return ((xg - mean) / torch.sqrt(var + eps)).reshape(N, C, H, W) * gamma[:, None, None] + beta[:, None, None]


# --- RMS norm, a torch.autograd.Function


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        r = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        ctx.save_for_backward(x, weight, r)
        return x * r * weight

    @staticmethod
    def backward(ctx, dy):
        x, weight, r = ctx.saved_tensors
        xhat = x * r
        g = dy * weight
        dx = r * (g - xhat * (g * xhat).mean(-1, keepdim=True))
        dw = (dy * xhat).reshape(-1, x.shape[-1]).sum(0)
        return dx, dw


def rmsnorm_torch(x, weight):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


# --- modulated layer norm of a diffusion transformer: shift and scale for each sample


def modulated_norm(x, shift, scale, eps=1e-6):
    xc = x - x.mean(-1, keepdims=True)
    rstd = 1.0 / np.sqrt((xc * xc).mean(-1, keepdims=True) + eps)
    xhat = xc * rstd
    y = xhat * (1.0 + scale[:, None, :]) + shift[:, None, :]

    def pullback(dy):
        dshift = dy.sum(axis=1)
        dscale = (dy * xhat).sum(axis=1)
        d = dy * (1.0 + scale[:, None])
        dx = rstd * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))
        return dx, dshift, dscale

    return y, pullback


def modulated_norm_torch(x, shift, scale, eps=1e-6):
    xc = x - x.mean(-1, keepdim=True)
    xhat = xc / torch.sqrt((xc * xc).mean(-1, keepdim=True) + eps)
    return xhat * (1 + scale[:, None, :]) + shift[:, None, :]


# --- a linear layer whose weight is a direction and a length


def weightnorm_linear(x, v, g, b):
    n = np.sqrt((v * v).sum(axis=1, keepdims=True) + 1e-8)
    vhat = v / n
    w = g[:, None] * vhat
    y = x @ w.T + b

    def pullback(dy):
        dw = dy.T @ x
        dx = dy @ w
        dg = (dw * vhat).sum(axis=1)
        dv = (g[:, None] / n) * (dw - vhat * dg[:, None])
        return dx, dv, dg, dy.sum(axis=0)

    return y, pullback


def weightnorm_linear_torch(x, v, g, b):
    w = g[:, None] * v / torch.sqrt((v * v).sum(1, keepdim=True) + 1e-8)
    return x @ w.T + b


SUBJECTS = {
    "layernorm": Subject(
        against=layernorm_torch,
        calls=[call(normal(2, 3, 5), normal(5), normal(5)), call(normal(4, 6), normal(6), normal(6), eps=1e-2)],
    ),
    "BatchNorm2d": Subject(
        against=batchnorm_torch,
        calls=[call(normal(3, 2, 2, 3), normal(2), normal(2)), call(normal(2, 3, 4, 1, shift=2.0), normal(3), normal(3))],
    ),
    "groupnorm": Subject(
        against=groupnorm_torch,
        calls=[call(normal(2, 4, 2, 3), normal(4), normal(4)), call(normal(1, 6, 3, 2), normal(6), normal(6), groups=3, eps=1e-3)],
    ),
    "RMSNorm": Subject(against=rmsnorm_torch, calls=[call(normal(2, 3, 6), normal(6)), call(normal(5, 4), normal(4))]),
    "modulated_norm": Subject(
        against=modulated_norm_torch,
        calls=[call(normal(2, 3, 5), normal(2, 5), normal(2, 5)), call(normal(3, 4, 6), normal(3, 6), normal(3, 6), eps=1e-3)],
    ),
    "weightnorm_linear": Subject(
        against=weightnorm_linear_torch,
        calls=[call(normal(4, 3), normal(5, 3), normal(5), normal(5)), call(normal(2, 6), normal(3, 6), normal(3), normal(3))],
    ),
}
MISTAKES = [
    # copied from batch norm: the mean over the batch
    Mistake("layernorm", "broadcast", "m1 = dxhat.mean(axis=-1, keepdims=True)", "m1 = dxhat.mean(axis=0, keepdims=True)"),
    # x of the cache where its normalized values belong
    Mistake("layernorm", "operand", "dgamma = (dout * xhat)", "dgamma = (dout * x)"),
    # gradients collected for an accumulation that nobody resets: seen from the second backward on
    Mistake("BatchNorm2d", "state", "self.dgamma = (dout * self.xhat)", "self.dgamma = self.dgamma + (dout * self.xhat)"),
    # the unbiased variance's gradient, of the biased variance
    Mistake("BatchNorm2d", "variant / counts", "2.0 * self.xc * dvar / self.m +", "2.0 * self.xc * dvar / (self.m - 1) +"),
    # the statistics of instance norm for one of the two means
    Mistake("groupnorm", "broadcast", "a = dxhat.mean((2, 3, 4), keepdims=True)", "a = dxhat.mean((3, 4), keepdims=True)"),
    # as in ports of Llama: .float(), harmless in half, a loss in float64
    Mistake("RMSNorm", "precision", "xhat = x * r\n", "xhat = (x.float() * r.float()).to(x.dtype)\n"),
    # sum for mean
    Mistake("RMSNorm", "factor / counts", "(g * xhat).mean(-1, keepdim=True)", "(g * xhat).sum(-1, keepdim=True)"),
    # 1 + forgotten in the backward
    Mistake("modulated_norm", "missing term / variant", "d = dy * (1.0 + scale[:, None])", "d = dy * scale[:, None]"),
    # averaged over the tokens
    Mistake("modulated_norm", "factor / counts", "dshift = dy.sum(axis=1)", "dshift = dy.mean(axis=1)"),
    # plus where the projection is taken away
    Mistake("weightnorm_linear", "sign", "(dw - vhat * dg[:, None])", "(dw + vhat * dg[:, None])"),
]
