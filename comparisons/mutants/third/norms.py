"""Normalisations: right functions, and the mistakes that are made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal, uniform


# course: over the last axis, with a cache -----------------------------------------------------------------------------
def layer_norm_forward(x, gamma, beta, eps=1e-5):
    mu = x.mean(axis=-1, keepdims=True)
    xc = x - mu
    var = np.mean(xc * xc, axis=-1, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = xc / std
    out = gamma * xhat + beta
    cache = (xhat, gamma, std)
    return out, cache


def layer_norm_backward(dout, cache):
    xhat, gamma, std = cache
    D = xhat.shape[-1]
    lead = tuple(range(dout.ndim - 1))
    dbeta = dout.sum(axis=lead)
    dgamma = np.sum(dout * xhat, axis=lead)
    dxhat = dout * gamma
    s1 = dxhat.sum(axis=-1, keepdims=True)
    s2 = np.sum(dxhat * xhat, axis=-1, keepdims=True)
    dx = (dxhat - s1 / D - xhat * s2 / D) / std
    return dx, dgamma, dbeta


layer_norm = (layer_norm_forward, layer_norm_backward)


def layer_norm_torch(x, gamma, beta, eps=1e-5):
    xc = x - x.mean(-1, keepdim=True)
    return gamma * xc / torch.sqrt((xc * xc).mean(-1, keepdim=True) + eps) + beta


# plain: root mean square, with the weight around 1 where asked ----------------------------------------------------------
def rms_norm(x, weight, eps=1e-6, unit_offset=False):
    inv = 1.0 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    w = 1.0 + weight if unit_offset else weight
    xhat = x * inv
    y = xhat * w

    def pullback(dy):
        dxhat = dy * w
        dot = (dxhat * xhat).mean(axis=-1, keepdims=True)
        dx = inv * (dxhat - xhat * dot)
        dweight = (dy * xhat).reshape(-1, x.shape[-1]).sum(axis=0)
        return dx, dweight

    return y, pullback


def rms_norm_torch(x, weight, eps=1e-6, unit_offset=False):
    w = 1.0 + weight if unit_offset else weight
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


# course: a batch, (N, C) or (N, C, H, W), step by step ------------------------------------------------------------------
def batch_norm_forward(x, gamma, beta, eps=1e-5):
    axes = (0,) + tuple(range(2, x.ndim))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    m = x.size // x.shape[1]
    mean = x.sum(axis=axes, keepdims=True) / m
    var = ((x - mean) ** 2).sum(axis=axes, keepdims=True) / m
    inv_std = (var + eps) ** -0.5
    xhat = (x - mean) * inv_std
    y = gamma.reshape(shape) * xhat + beta.reshape(shape)
    return y, (x, gamma, mean, var, inv_std, xhat, axes, shape, m)


def batch_norm_backward(dout, cache):
    x, gamma, mean, var, inv_std, xhat, axes, shape, m = cache
    dbeta = dout.sum(axis=axes)
    dgamma = (dout * xhat).sum(axis=axes)
    dxhat = dout * gamma.reshape(shape)
    xmu = x - mean
    dvar = -0.5 * (dxhat * xmu).sum(axis=axes, keepdims=True) * inv_std**3
    dmean = -(dxhat * inv_std).sum(axis=axes, keepdims=True)
    dx = dxhat * inv_std + dvar * 2.0 * xmu / m + dmean / m
    return dx, dgamma, dbeta


batch_norm = (batch_norm_forward, batch_norm_backward)


def batch_norm_torch(x, gamma, beta, eps=1e-5):
    axes = [0, *range(2, x.ndim)]
    shape = (1, -1) + (1,) * (x.ndim - 2)
    xc = x - x.mean(axes, keepdim=True)
    return gamma.view(shape) * xc / torch.sqrt((xc * xc).mean(axes, keepdim=True) + eps) + beta.view(shape)


# plain: the batch norm of evaluation, statistics given --------------------------------------------------------------------
def frozen_norm(x, mean, var, gamma, beta, eps=1e-5):
    inv = 1.0 / np.sqrt(var + eps)
    y = (x - mean) * (inv * gamma) + beta

    def pullback(dy):
        dbeta = dy.sum(0)
        dgamma = (dy * (x - mean)).sum(0) * inv
        dx = dy * (inv * gamma)
        dmean = -dx.sum(0)
        dvar = -0.5 * (dy * (x - mean)).sum(0) * gamma * inv**3
        return dx, dmean, dvar, dgamma, dbeta

    return y, pullback


def frozen_norm_torch(x, mean, var, gamma, beta, eps=1e-5):
    return (x - mean) / torch.sqrt(var + eps) * gamma + beta


# kernel: groups of channels, one group at a time, written into a buffer ------------------------------------------------------
def group_norm(x, weight, bias, groups=2, eps=1e-5):
    n, c = x.shape[:2]
    size = c // groups
    flat = x.reshape(n, c, -1)
    y = np.empty(flat.shape, x.dtype)
    mu, rstd = np.empty((n, groups), x.dtype), np.empty((n, groups), x.dtype)
    for g in range(groups):
        part = flat[:, g * size : (g + 1) * size]
        mu[:, g] = part.mean((1, 2))
        var = ((part - mu[:, g, None, None]) ** 2).mean((1, 2))
        rstd[:, g] = 1.0 / np.sqrt(var + eps)
        y[:, g * size : (g + 1) * size] = (part - mu[:, g, None, None]) * rstd[:, g, None, None]
    y = y * weight[:, None] + bias[:, None]

    def pullback(dy):
        d = dy.reshape(n, c, -1)
        dx = np.zeros(flat.shape, x.dtype)
        dw, db = np.zeros(c, x.dtype), np.zeros(c, x.dtype)
        for g in range(groups):
            rows = slice(g * size, (g + 1) * size)
            xhat = (flat[:, rows] - mu[:, g, None, None]) * rstd[:, g, None, None]
            dw[rows] = (d[:, rows] * xhat).sum((0, 2))
            db[rows] = d[:, rows].sum((0, 2))
            dxhat = d[:, rows] * weight[rows, None]
            mean1 = dxhat.mean((1, 2), keepdims=True)
            mean2 = (dxhat * xhat).mean((1, 2), keepdims=True)
            dx[:, rows] = rstd[:, g, None, None] * (dxhat - mean1 - xhat * mean2)
        return dx.reshape(x.shape), dw, db

    return y.reshape(x.shape), pullback


def group_norm_torch(x, weight, bias, groups=2, eps=1e-5):
    t = x.reshape(x.shape[0], groups, -1)
    t = (t - t.mean(-1, keepdim=True)) / torch.sqrt(t.var(-1, unbiased=False, keepdim=True) + eps)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return t.reshape(x.shape) * weight.view(shape) + bias.view(shape)


# course: a layer, every image and channel for itself --------------------------------------------------------------------------
class InstanceNorm:
    eps = 1e-5

    def __init__(self):
        self.dgamma, self.dbeta = None, None

    def forward(self, x, gamma, beta):
        self.shape = x.shape
        rows = x.reshape(x.shape[0] * x.shape[1], -1)
        mean = rows.mean(1, keepdims=True)
        self.rstd = 1.0 / np.sqrt(rows.var(1, keepdims=True) + self.eps)
        self.xhat = (rows - mean) * self.rstd
        self.scale = np.tile(gamma, x.shape[0])[:, None]
        y = self.xhat * self.scale + np.tile(beta, x.shape[0])[:, None]
        return y.reshape(x.shape)

    def backward(self, dy):
        N, C = self.shape[:2]
        rows = dy.reshape(N * C, -1)
        self.dgamma = (rows * self.xhat).sum(1).reshape(N, C).sum(0)
        self.dbeta = rows.sum(1).reshape(N, C).sum(0)
        dxhat = rows * self.scale
        dx = np.zeros(self.shape, dy.dtype)
        out = dx.reshape(N * C, -1)
        out[...] = dxhat - dxhat.mean(1, keepdims=True)
        out -= self.xhat * (dxhat * self.xhat).mean(1, keepdims=True)
        out *= self.rstd
        return dx, self.dgamma, self.dbeta


def instance_norm_torch(x, gamma, beta):
    axes = list(range(2, x.ndim))
    shape = (1, -1) + (1,) * len(axes)
    xc = x - x.mean(axes, keepdim=True)
    return gamma.view(shape) * xc / torch.sqrt((xc * xc).mean(axes, keepdim=True) + 1e-5) + beta.view(shape)


# plain: a linear layer whose rows have a length of their own ---------------------------------------------------------------------
def weight_norm_linear(x, v, g):
    """x (N, I), v (O, I), g (O,)."""
    norm = np.sqrt((v * v).sum(1, keepdims=True))
    unit = v / norm
    w = g[:, None] * unit
    y = x @ w.T

    def pullback(dy):
        dw = dy.T @ x
        dg = (dw * unit).sum(1)
        dv = g[:, None] / norm * (dw - dg[:, None] * unit)
        return dy @ w, dv, dg

    return y, pullback


def weight_norm_linear_torch(x, v, g):
    return x @ (g[:, None] * v / v.norm(dim=1, keepdim=True)).T


# plain: as torch's normalize ------------------------------------------------------------------------------------------------------
def l2_normalise(x, dim=1, eps=1e-12):
    length = np.sqrt((x * x).sum(axis=dim, keepdims=True))
    n = np.maximum(length, eps)
    y = x / n

    def pullback(dy):
        along = (dy * y).sum(axis=dim, keepdims=True)
        along = np.where(length >= eps, along, 0.0)
        return ((dy - y * along) / n,)

    return y, pullback


def l2_normalise_torch(x, dim=1, eps=1e-12):
    return x / x.norm(dim=dim, keepdim=True).clamp_min(eps)


# kernel: a torch Function, statistics saved, rows in blocks, the last one partial -----------------------------------------------
class BlockedLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        mean = x.mean(-1, keepdim=True)
        rstd = torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
        ctx.save_for_backward(x, weight, mean, rstd)
        return (x - mean) * rstd * weight + bias

    @staticmethod
    def backward(ctx, dy):
        x, weight, mean, rstd = ctx.saved_tensors
        d = x.shape[-1]
        xs, dys, ms, rs = (t.reshape(-1, t.shape[-1]) for t in (x, dy, mean, rstd))
        dx, dw, db = torch.zeros_like(xs), torch.zeros_like(weight), torch.zeros_like(weight)
        rows_per_program = 4
        for i in range(0, xs.shape[0], rows_per_program):
            rows = slice(i, i + rows_per_program)
            xhat = (xs[rows] - ms[rows]) * rs[rows]
            wdy = weight * dys[rows]
            c1 = (xhat * wdy).sum(-1, keepdim=True) / d
            c2 = wdy.sum(-1, keepdim=True) / d
            dx[rows] = (wdy - (xhat * c1 + c2)) * rs[rows]
            dw += (dys[rows] * xhat).sum(0)
            db += dys[rows].sum(0)
        return dx.reshape(x.shape), dw, db


SUBJECTS = {
    "layer_norm": Subject(
        against=layer_norm_torch,
        calls=[
            call(normal(2, 3, 5), normal(5, shift=1.0), normal(5)),
            call(normal(4, 6, scale=0.1), normal(6), normal(6), eps=0.01),
        ],
    ),
    "rms_norm": Subject(
        against=rms_norm_torch,
        calls=[call(normal(2, 3, 6), normal(6)), call(normal(4, 5), normal(5), unit_offset=True, eps=1e-3)],
    ),
    "batch_norm": Subject(
        against=batch_norm_torch,
        calls=[call(normal(6, 4), normal(4), normal(4)), call(normal(3, 4, 2, 3), normal(4), normal(4), eps=0.1)],
    ),
    "frozen_norm": Subject(
        against=frozen_norm_torch,
        calls=[call(normal(5, 4), normal(4), uniform(4), normal(4), normal(4))],
    ),
    "group_norm": Subject(
        against=group_norm_torch,
        calls=[
            call(normal(3, 4, 2, 3), normal(4), normal(4)),
            call(normal(2, 6, 4), normal(6), normal(6), groups=3, eps=1e-3),
        ],
    ),
    "InstanceNorm": Subject(
        against=instance_norm_torch,
        calls=[call(normal(2, 3, 4, 3), normal(3), normal(3)), call(normal(3, 2, 5), normal(2), normal(2))],
    ),
    "weight_norm_linear": Subject(
        against=weight_norm_linear_torch,
        calls=[call(normal(4, 3), normal(5, 3), normal(5)), call(normal(2, 4), normal(4, 4), normal(4))],
    ),
    "l2_normalise": Subject(
        against="torch.nn.functional.normalize",
        calls=[call(normal(3, 5)), call(normal(2, 4, 3), dim=-1), call(normal(3, 4, scale=0.3), dim=0, eps=0.5)],
    ),
    "BlockedLayerNorm": Subject(
        against=layer_norm_torch, calls=[call(normal(2, 5, 6), normal(6), normal(6)), call(normal(9, 4), normal(4), normal(4))]
    ),
}
MISTAKES = [
    Mistake("layer_norm", "missing term", "dxhat - s1 / D - xhat * s2 / D", "dxhat - xhat * s2 / D"),
    # the means with a degree of freedom less
    Mistake("layer_norm", "variant / factor / missing term", "dx = (dxhat - s1 / D - xhat * s2 / D) / std",
            "dx = (dxhat - (s1 + xhat * s2) / (D - 1)) / std"),
    Mistake("layer_norm", "broadcast / shape", "dgamma = np.sum(dout * xhat, axis=lead)",
            "dgamma = np.sum(dout * xhat, axis=0)"),
    # what is saved is the variance, the eps comes in again: at another eps (second call)
    Mistake("layer_norm", "variant", "cache = (xhat, gamma, std)", "cache = (xhat, gamma, np.sqrt(var + 1e-5))"),
    # gamma last
    Mistake("layer_norm", "elementwise factor", "dxhat = dout * gamma\n", "dxhat = dout\n"),
    Mistake("layer_norm", "operand / missing term", "cache = (xhat, gamma, std)", "cache = (xc, gamma, std)"),
    # from a layer norm
    Mistake("rms_norm", "extra term", "dx = inv * (dxhat - xhat * dot)",
            "dx = inv * (dxhat - dxhat.mean(-1, keepdims=True) - xhat * dot)"),
    # Gemma's 1 + weight, in the value alone: second call
    Mistake("rms_norm", "variant / elementwise factor / missing term", "dxhat = dy * w\n", "dxhat = dy * weight\n"),
    Mistake("rms_norm", "operand / elementwise factor", "dx = inv * (dxhat - xhat * dot)", "dx = inv * (dxhat - x * dot)"),
    Mistake("rms_norm", "precision", "dxhat = dy * w\n", "dxhat = (dy * w).astype(np.float32).astype(x.dtype)\n"),
    # averaged over the tokens
    Mistake("rms_norm", "factor / broadcast", "reshape(-1, x.shape[-1]).sum(axis=0)", "reshape(-1, x.shape[-1]).mean(axis=0)"),
    # the rows of the batch, not all of the values of a channel: images alone
    Mistake("batch_norm", "factor / counts / missing term", "dvar * 2.0 * xmu / m + dmean / m",
            "dvar * 2.0 * xmu / x.shape[0] + dmean / x.shape[0]"),
    # the unbiased variance is what running statistics want
    Mistake("batch_norm", "variant", "dvar * 2.0 * xmu / m", "dvar * 2.0 * xmu / (m - 1)"),
    Mistake("batch_norm", "missing term", "dxhat * inv_std + dvar * 2.0 * xmu / m + dmean / m", "dxhat * inv_std + dmean / m"),
    Mistake("batch_norm", "elementwise factor / missing term", "inv_std**3", "inv_std**2"),
    # the layer of evaluation
    Mistake("batch_norm", "missing term / variant", "dx = dxhat * inv_std + dvar * 2.0 * xmu / m + dmean / m", "dx = dxhat * inv_std"),
    Mistake("frozen_norm", "elementwise factor", "dmean = -dx.sum(0)", "dmean = -dy.sum(0) * inv"),
    Mistake("frozen_norm", "sign", "dmean = -dx.sum(0)", "dmean = dx.sum(0)"),
    Mistake("frozen_norm", "swapped", "return dx, dmean, dvar, dgamma, dbeta", "return dx, dmean, dvar, dbeta, dgamma"),
    # of the raw input
    Mistake("frozen_norm", "operand / missing term", "dgamma = (dy * (x - mean)).sum(0) * inv", "dgamma = (dy * x).sum(0) * inv"),
    # per channel where the statistics are a group's
    Mistake("group_norm", "broadcast / counts", "mean1 = dxhat.mean((1, 2), keepdims=True)", "mean1 = dxhat.mean(2, keepdims=True)"),
    # channels of a group taken as neighbours at a stride
    Mistake("group_norm", "misplaced / elementwise factor", "dxhat = d[:, rows] * weight[rows, None]",
            "dxhat = d[:, rows] * weight[g::groups, None]"),
    Mistake("group_norm", "operand / misplaced", "dx[:, rows] = rstd[:, g, None, None]", "dx[:, rows] = rstd[:, 0, None, None]"),
    # a buffer like dy is laid out like dy: then reshape copies, and dx stays zero; not contiguous arrays alone
    Mistake("InstanceNorm", "layout", "dx = np.zeros(self.shape, dy.dtype)", "dx = np.zeros_like(dy)"),
    Mistake("InstanceNorm", "misplaced", "self.dbeta = rows.sum(1).reshape(N, C).sum(0)",
            "self.dbeta = rows.sum(1).reshape(C, N).sum(1)"),
    # gradients that are kept between calls, with no zero_grad
    Mistake("InstanceNorm", "state", "self.dbeta = rows.sum(1).reshape(N, C).sum(0)",
            "self.dbeta = rows.sum(1).reshape(N, C).sum(0) + (0.0 if self.dbeta is None else self.dbeta)"),
    Mistake("InstanceNorm", "misplaced / elementwise factor", "dxhat = rows * self.scale",
            "dxhat = rows * self.scale.reshape(N, C).T.reshape(-1, 1)"),
    Mistake("weight_norm_linear", "missing term", "dv = g[:, None] / norm * (dw - dg[:, None] * unit)", "dv = g[:, None] / norm * dw"),
    # dg without the unit's length taken out
    Mistake("weight_norm_linear", "operand / elementwise factor", "dg = (dw * unit).sum(1)\n", "dg = (dw * v).sum(1)\n"),
    Mistake("weight_norm_linear", "operand", "return dy @ w, dv, dg", "return dy @ v, dv, dg"),
    # below eps nothing depends on the length: near zero, and at a large eps (third call)
    Mistake("l2_normalise", "variant / kink / range / extra term", "along = np.where(length >= eps, along, 0.0)", "along = along * 1.0"),
    Mistake("l2_normalise", "missing term", "((dy - y * along) / n,)", "(dy / n,)"),
    Mistake("l2_normalise", "operand / elementwise factor", "along = (dy * y).sum", "along = (dy * x).sum"),
    # as the default says, whatever was asked for
    Mistake("l2_normalise", "broadcast / variant", "along = (dy * y).sum(axis=dim, keepdims=True)",
            "along = (dy * y).sum(axis=1, keepdims=True)"),
    # the last block of rows is not full
    Mistake("BlockedLayerNorm", "misplaced / missing term", "for i in range(0, xs.shape[0], rows_per_program):",
            "for i in range(0, xs.shape[0] - xs.shape[0] % rows_per_program, rows_per_program):"),
    Mistake("BlockedLayerNorm", "overwritten", "dw += (dys[rows] * xhat).sum(0)", "dw = (dys[rows] * xhat).sum(0)"),
    # by the block's width, a power of 2, not by the row's length: first call
    Mistake("BlockedLayerNorm", "counts / factor / missing term", "c2 = wdy.sum(-1, keepdim=True) / d",
            "c2 = wdy.sum(-1, keepdim=True) / (1 << (d - 1).bit_length())"),
    Mistake("BlockedLayerNorm", "elementwise factor / operand", "db += dys[rows].sum(0)", "db += wdy.sum(0)"),
    # what is saved is torch's own default: unbiased, no eps
    Mistake("BlockedLayerNorm", "variant", "ctx.save_for_backward(x, weight, mean, rstd)",
            "ctx.save_for_backward(x, weight, mean, 1.0 / x.std(-1, keepdim=True))"),
    Mistake("layer_norm", "mutation", "dxhat = dout * gamma\n", "dout *= gamma\n    dxhat = dout\n"),
    Mistake("layer_norm", "sign / missing term / extra term", "(dxhat - s1 / D - xhat * s2 / D)", "(dxhat - s1 / D + xhat * s2 / D)"),
    Mistake("frozen_norm", "shape", "dbeta = dy.sum(0)", "dbeta = dy.sum(0, keepdims=True)"),
    Mistake("weight_norm_linear", "shape", "return dy @ w, dv, dg", "return dy @ w, dv, dg[:, None]"),
    # over the rows, as for the weight
    Mistake("rms_norm", "broadcast / missing term", "dot = (dxhat * xhat).mean(axis=-1, keepdims=True)",
            "dot = (dxhat * xhat).mean(axis=tuple(range(x.ndim - 1)), keepdims=True)"),
]
