"""Fused kernels, element by element and over rows: right functions, and the mistakes that are made in them."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import erf, expit

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform

C0, C1 = math.sqrt(2.0 / math.pi), 0.044715


# kernel: bias and GELU in one ------------------------------------------------------------------------------------------
def bias_gelu(x, bias, approximate="none"):
    u = x + bias
    if approximate == "tanh":
        t = np.tanh(C0 * (u + C1 * u * u * u))
        y = 0.5 * u * (1.0 + t)
    else:
        cdf = 0.5 * (1.0 + erf(u / math.sqrt(2.0)))
        y = u * cdf

    def pullback(dy):
        if approximate == "tanh":
            slope = 0.5 * (1.0 + t) + 0.5 * u * (1.0 - t * t) * C0 * (1.0 + 3.0 * C1 * u * u)
        else:
            slope = cdf + u * np.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
        dx = dy * slope
        dbias = dx.reshape(-1, bias.shape[0]).sum(axis=0)
        return dx, dbias

    return y, pullback


def bias_gelu_torch(x, bias, approximate="none"):
    return F.gelu(x + bias, approximate=approximate)


# course: a gated unit, gate and value side by side ----------------------------------------------------------------------
def swiglu_forward(x):
    gate, up = np.split(x, 2, axis=-1)
    sig = expit(gate)
    act = gate * sig
    return act * up, (gate, up, sig, act)


def swiglu_backward(cache, dout):
    gate, up, sig, act = cache
    dup = dout * act
    dact = dout * up
    dgate = dact * (sig + act * (1.0 - sig))
    return np.concatenate([dgate, dup], axis=-1)


swiglu = (swiglu_forward, swiglu_backward)


def swiglu_torch(x):
    gate, up = x.chunk(2, -1)
    return gate * torch.sigmoid(gate) * up


# kernel: the whole gated MLP, products recomputed in the backward ---------------------------------------------------------
class SwigluMLP(torch.autograd.Function):
    """x (..., D), w1 and w3 (H, D), w2 (D, H), as in Llama."""

    @staticmethod
    def forward(ctx, x, w1, w2, w3):
        ctx.save_for_backward(x, w1, w2, w3)
        return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T

    @staticmethod
    def backward(ctx, dy):
        x, w1, w2, w3 = ctx.saved_tensors
        rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        e, g = rows @ w1.T, rows @ w3.T
        sig = torch.sigmoid(e)
        f = e * sig
        h = f * g
        dw2 = drows.T @ h
        dh = drows @ w2
        df = dh * g
        dg = dh * f
        de = df * sig * (1.0 + e * (1.0 - sig))
        dx = de @ w1 + dg @ w3
        return dx.reshape(x.shape), de.T @ rows, dw2, dg.T @ rows


def swiglu_mlp_torch(x, w1, w2, w3):
    e = x @ w1.T
    return (e * torch.sigmoid(e) * (x @ w3.T)) @ w2.T


# course: dropout, the mask given, a layer ---------------------------------------------------------------------------------
class MaskedDropout:
    def forward(self, x, keep, p=0.3):
        self.scale = 1.0 / (1.0 - p)
        self.keep = keep
        return np.where(keep, x * self.scale, 0.0)

    def backward(self, dout):
        dx = np.where(self.keep, dout, 0.0)
        dx *= self.scale
        return dx


def masked_dropout_torch(x, keep, p=0.3):
    return x * keep / (1.0 - p)


# kernel: bias, dropout and the residual in one -----------------------------------------------------------------------------
def bias_dropout_add(x, bias, residual, keep, p=0.1):
    scale = 1.0 / (1.0 - p)
    mask = keep.astype(x.dtype)
    y = residual + (x + bias) * mask * scale

    def pullback(dy):
        dx = dy * mask * scale
        dbias = dx.sum(axis=tuple(range(x.ndim - 1)))
        dresidual = dy.copy()
        return dx, dbias, dresidual, None

    return y, pullback


def bias_dropout_add_torch(x, bias, residual, keep, p=0.1):
    return residual + (x + bias) * keep / (1.0 - p)


# kernel: the sum goes on and is normalised --------------------------------------------------------------------------------
def add_norm(x, residual, weight, eps=1e-5):
    """h = x + residual; y = h + weight · h / rms(h)."""
    h = x + residual
    rstd = 1.0 / np.sqrt((h * h).mean(-1, keepdims=True) + eps)
    y = h + h * rstd * weight

    def pullback(dy):
        wdy = dy * weight
        hhat = h * rstd
        dnorm = rstd * (wdy - hhat * (wdy * hhat).mean(-1, keepdims=True))
        dh = dnorm + dy
        dweight = (dy * hhat).sum(axis=tuple(range(dy.ndim - 1)))
        return dh, dh.copy(), dweight

    return y, pullback


def add_norm_torch(x, residual, weight, eps=1e-5):
    h = x + residual
    return h + h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps) * weight


# plain: a post-norm residual, with a scale of its own, layer norm -----------------------------------------------------------
def scaled_residual_norm(x, residual, alpha, gamma):
    """gamma · normalised(alpha · residual + x), as in DeepNorm; alpha (1,)."""
    h = alpha * residual + x
    c = h - h.mean(-1, keepdims=True)
    rstd = 1.0 / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-6)
    hhat = c * rstd

    def pullback(dy):
        g = dy * gamma
        dh = rstd * (g - g.mean(-1, keepdims=True) - hhat * (g * hhat).mean(-1, keepdims=True))
        dalpha = (dh * residual).sum().reshape(1)
        dgamma = (dy * hhat).reshape(-1, gamma.shape[0]).sum(0)
        return dh, alpha * dh, dalpha, dgamma

    return gamma * hhat, pullback


def scaled_residual_norm_torch(x, residual, alpha, gamma):
    h = alpha * residual + x
    c = h - h.mean(-1, keepdim=True)
    return gamma * c / torch.sqrt((c * c).mean(-1, keepdim=True) + 1e-6)


# kernel: weights in integers, a scale and a zero for every group of inputs --------------------------------------------------
class DequantMatmul(torch.autograd.Function):
    """x (N, K), codes (K, M) of integers, scale and zero (K / 4, M)."""

    @staticmethod
    def forward(ctx, x, codes, scale, zero):
        size = codes.shape[0] // scale.shape[0]
        centred = codes.to(x.dtype) - zero.repeat_interleave(size, 0)
        w = centred * scale.repeat_interleave(size, 0)
        ctx.save_for_backward(x, centred, scale, w)
        ctx.size = size
        return x @ w

    @staticmethod
    def backward(ctx, dy):
        x, centred, scale, w = ctx.saved_tensors
        dx = dy @ w.T
        dw = x.T @ dy
        groups = (scale.shape[0], ctx.size, scale.shape[1])
        dscale = (dw * centred).reshape(groups).sum(1)
        dzero = -(dw.reshape(groups).sum(1) * scale)
        return dx, None, dscale, dzero


def dequant_matmul_torch(x, codes, scale, zero):
    size = codes.shape[0] // scale.shape[0]
    return x @ ((codes - zero.repeat_interleave(size, 0)) * scale.repeat_interleave(size, 0))


# course: a loss with its gradients, labels smoothed ---------------------------------------------------------------------------
def smoothed_loss(scores, labels, smoothing=0.1):
    """Returns (loss, gradients) of the mean cross-entropy."""
    N, C = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(N)
    loss = -((1.0 - smoothing) * logp[rows, labels] + smoothing * logp.mean(axis=1)).mean()
    dscores = np.exp(logp)
    dscores[rows, labels] -= 1.0 - smoothing
    dscores -= smoothing / C
    dscores /= N
    return loss, (dscores,)


def smoothed_loss_torch(scores, labels, smoothing=0.1):
    logp = scores - torch.logsumexp(scores, 1, keepdim=True)
    hit = logp.gather(1, labels[:, None])[:, 0]
    return -((1.0 - smoothing) * hit + smoothing * logp.mean(1)).mean()


SUBJECTS = {
    "bias_gelu": Subject(
        against=bias_gelu_torch,
        calls=[call(normal(2, 3, 5), normal(5)), call(normal(4, 6), normal(6), approximate="tanh")],
    ),
    "swiglu": Subject(against=swiglu_torch, calls=[call(normal(3, 8)), call(normal(2, 3, 4, scale=2.0))]),
    "SwigluMLP": Subject(
        against=swiglu_mlp_torch,
        calls=[call(normal(2, 3, 4), normal(5, 4), normal(4, 5), normal(5, 4)), call(normal(3, 4), normal(4, 4), normal(4, 4), normal(4, 4))],
    ),
    "MaskedDropout": Subject(
        against=masked_dropout_torch, calls=[call(normal(4, 6), booleans(4, 6)), call(normal(2, 3, 4), booleans(2, 3, 4), p=0.6)]
    ),
    "bias_dropout_add": Subject(
        against=bias_dropout_add_torch,
        calls=[
            call(normal(2, 3, 4), normal(4), normal(2, 3, 4), booleans(2, 3, 4)),
            call(normal(5, 3), normal(3), normal(5, 3), booleans(5, 3), p=0.5),
        ],
    ),
    "add_norm": Subject(
        against=add_norm_torch,
        calls=[call(normal(2, 3, 5), normal(2, 3, 5), normal(5)), call(normal(4, 4), normal(4, 4), normal(4), eps=0.1)],
    ),
    "scaled_residual_norm": Subject(
        against=scaled_residual_norm_torch,
        calls=[call(normal(2, 3, 5), normal(2, 3, 5), normal(1, shift=2.0), normal(5))],
    ),
    "DequantMatmul": Subject(
        against=dequant_matmul_torch,
        calls=[
            call(normal(3, 8), integers(8, 5, below=16), normal(2, 5), uniform(2, 5)),
            call(normal(2, 6), integers(6, 3, below=16), normal(2, 3), normal(2, 3, shift=8.0)),
        ],
    ),
    "smoothed_loss": Subject(
        against=smoothed_loss_torch,
        calls=[call(normal(5, 4), integers(5, below=4)), call(normal(3, 6), integers(3, below=6), smoothing=0.3)],
    ),
}
MISTAKES = [
    # tanh's slope for the exact function, as where one backward serves both: first call
    Mistake("bias_gelu", "variant", "slope = cdf + u * np.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)",
            "t = np.tanh(C0 * (u + C1 * u * u * u))\n"
            "            slope = 0.5 * (1.0 + t) + 0.5 * u * (1.0 - t * t) * C0 * (1.0 + 3.0 * C1 * u * u)"),
    # before the bias
    Mistake("bias_gelu", "operand", "slope = cdf + u * np.exp(", "slope = cdf + x * np.exp("),
    # exp(-u²), the density without its half
    Mistake("bias_gelu", "factor / variant / elementwise factor", "np.exp(-0.5 * u * u)", "np.exp(-u * u)"),
    # 3 · 0.044715 forgotten: the inner derivative
    Mistake("bias_gelu", "missing term / variant / factor", "(1.0 + 3.0 * C1 * u * u)", "(1.0 + C1 * u * u)"),
    Mistake("bias_gelu", "elementwise factor / operand", "dbias = dx.reshape", "dbias = dy.reshape"),
    # halves in the order of another checkpoint
    Mistake("swiglu", "swapped / misplaced", "np.concatenate([dgate, dup], axis=-1)", "np.concatenate([dup, dgate], axis=-1)"),
    # interleaved
    Mistake("swiglu", "misplaced", "np.concatenate([dgate, dup], axis=-1)",
            "np.stack([dgate, dup], axis=-1).reshape(dout.shape[:-1] + (-1,))"),
    Mistake("swiglu", "missing term", "(sig + act * (1.0 - sig))", "sig"),
    # sigmoid for silu
    Mistake("swiglu", "operand / elementwise factor", "dup = dout * act", "dup = dout * sig"),
    # the sigmoid made again, of a form that overflows: gates above 710
    Mistake("swiglu", "range", "dup = dout * act", "sig = np.exp(gate) / (1.0 + np.exp(gate))\n    dup = dout * act"),
    Mistake("SwigluMLP", "overwritten / missing term", "dx = de @ w1 + dg @ w3", "dx = de @ w1"),
    Mistake("SwigluMLP", "operand", "dw2 = drows.T @ h", "dw2 = drows.T @ f"),
    # w1 and w3 stand in the state dict as w1, w2, w3
    Mistake("SwigluMLP", "swapped", "return dx.reshape(x.shape), de.T @ rows, dw2, dg.T @ rows",
            "return dx.reshape(x.shape), dg.T @ rows, dw2, de.T @ rows"),
    Mistake("SwigluMLP", "operand / missing term / variant", "de = df * sig * (1.0 + e * (1.0 - sig))", "de = df * sig * (1.0 + f * (1.0 - sig))"),
    Mistake("MaskedDropout", "factor", "dx *= self.scale\n", "pass\n"),
    Mistake("MaskedDropout", "elementwise factor", "dx = np.where(self.keep, dout, 0.0)", "dx = dout.copy()"),
    # in place, on what came in
    Mistake("MaskedDropout", "mutation", "dx = np.where(self.keep, dout, 0.0)", "dout[~self.keep] = 0.0\n        dx = dout.copy()"),
    # by the share that was kept in fact
    Mistake("MaskedDropout", "factor / variant", "dx *= self.scale\n", "dx /= self.keep.mean()\n"),
    Mistake("bias_dropout_add", "elementwise factor / operand", "dbias = dx.sum(", "dbias = dy.sum("),
    Mistake("bias_dropout_add", "mutation", "dx = dy * mask * scale\n", "dx = np.multiply(dy, mask * scale, out=dy)\n"),
    Mistake("bias_dropout_add", "elementwise factor / factor", "dresidual = dy.copy()", "dresidual = dx.copy()"),
    Mistake("bias_dropout_add", "factor", "dx = dy * mask * scale\n", "dx = dy * mask * (1.0 - p)\n"),
    # the branch alone: dh without what passes by
    Mistake("add_norm", "missing term", "dh = dnorm + dy\n", "dh = dnorm\n"),
    Mistake("add_norm", "extra term / missing term", "return dh, dh.copy(), dweight", "return dh, dh + dy, dweight"),
    Mistake("add_norm", "missing term", "return dh, dh.copy(), dweight", "return dnorm, dh.copy(), dweight"),
    # before the sum
    Mistake("add_norm", "operand", "hhat = h * rstd\n", "hhat = x * rstd\n"),
    Mistake("add_norm", "variant", "wdy = dy * weight\n",
            "rstd = 1.0 / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-6)\n        wdy = dy * weight\n"),
    Mistake("scaled_residual_norm", "elementwise factor / factor", "return dh, alpha * dh, dalpha, dgamma", "return dh, dh, dalpha, dgamma"),
    Mistake("scaled_residual_norm", "operand", "dalpha = (dh * residual)", "dalpha = (dh * x)"),
    Mistake("scaled_residual_norm", "operand / elementwise factor", "dalpha = (dh * residual)", "dalpha = (dy * residual)"),
    Mistake("DequantMatmul", "sign", "dzero = -(dw.reshape", "dzero = (dw.reshape"),
    # the codes before their zero is taken off
    Mistake("DequantMatmul", "operand / missing term", "ctx.save_for_backward(x, centred, scale, w)",
            "ctx.save_for_backward(x, codes.to(x.dtype), scale, w)"),
    Mistake("DequantMatmul", "elementwise factor", "dzero = -(dw.reshape(groups).sum(1) * scale)", "dzero = -dw.reshape(groups).sum(1)"),
    # groups at a stride
    Mistake("DequantMatmul", "misplaced", "dscale = (dw * centred).reshape(groups).sum(1)",
            "dscale = (dw * centred).reshape(ctx.size, scale.shape[0], -1).sum(0)"),
    # kept in half the memory
    Mistake("DequantMatmul", "precision", "dx = dy @ w.T", "dx = (dy.bfloat16() @ w.T.bfloat16()).to(dy.dtype)"),
    Mistake("smoothed_loss", "factor", "dscores /= N\n", "pass\n"),
    Mistake("smoothed_loss", "missing term", "dscores -= smoothing / C\n", "pass\n"),
    # over the wrong classes
    Mistake("smoothed_loss", "variant / missing term", "dscores -= smoothing / C\n", "dscores -= smoothing / (C - 1)\n"),
    Mistake("smoothed_loss", "factor / counts", "dscores /= N\n", "dscores /= N * C\n"),
    # the probabilities made from the scores as they are: above 710
    Mistake("smoothed_loss", "range", "dscores = np.exp(logp)\n",
            "e = np.exp(scores)\n    dscores = e / e.sum(axis=1, keepdims=True)\n"),
    # NumPy's square root is a float64 that does not give way: float32 alone
    Mistake("bias_gelu", "dtype", "/ math.sqrt(2.0 * math.pi)", "/ np.sqrt(2.0 * np.pi)"),
    # sech² by exponentials: far out, approximate="tanh" (second call)
    Mistake("bias_gelu", "range", "(1.0 - t * t)",
            "(4.0 * np.exp(2.0 * C0 * (u + C1 * u**3)) / (1.0 + np.exp(2.0 * C0 * (u + C1 * u**3))) ** 2)"),
    Mistake("bias_gelu", "broadcast / shape", "dbias = dx.reshape(-1, bias.shape[0]).sum(axis=0)", "dbias = dx.sum(axis=0)"),
    # over the memory in its order: arrays that are not contiguous alone
    Mistake("MaskedDropout", "layout", "dx = np.where(self.keep, dout, 0.0)",
            'dx = np.where(self.keep.ravel(), dout.ravel(order="K"), 0.0).reshape(dout.shape)'),
    # view: a cotangent that is not contiguous raises
    Mistake("SwigluMLP", "layout", "dy.reshape(-1, dy.shape[-1])", "dy.view(-1, dy.shape[-1])"),
    # the sum in the place of the residual, as kernels of inference do
    Mistake("add_norm", "mutation", "h = x + residual\n", "h = np.add(x, residual, out=residual)\n"),
    Mistake("add_norm", "cotangent / missing term", "dh = dnorm + dy\n", "dh = dnorm + 1.0\n"),
    Mistake("bias_dropout_add", "cotangent", "dresidual = dy.copy()", "dresidual = np.ones_like(dy)"),
    Mistake("scaled_residual_norm", "shape", "(dh * residual).sum().reshape(1)", "(dh * residual).sum()"),
]
