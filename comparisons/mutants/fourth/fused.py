"""Scans, transforms and fused kernels: right functions, and the mistakes that are made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, booleans, call, normal


def cumulative_product(x):
    """Along the last axis; zeros among x are welcome."""
    T = x.shape[-1]
    y = np.cumprod(x, -1)

    def pullback(dy):
        before = np.concatenate([np.ones_like(y[..., :1]), y[..., :-1]], -1)
        dx = np.empty(x.shape, x.dtype)
        tail = np.zeros(x.shape[:-1], x.dtype)
        for t in reversed(range(T)):
            tail = dy[..., t] + (x[..., t + 1] * tail if t + 1 < T else 0)
            dx[..., t] = before[..., t] * tail
        return (dx,)

    return y, pullback


def cumulative_product_torch(x):
    return torch.cumprod(x, -1)


class CumLogSumExp:
    """log of the running sum of exp(x), along the last axis."""

    def forward(self, x):
        y = np.logaddexp.accumulate(x, axis=-1)
        self.x, self.y = x, y
        return y

    def backward(self, dout):
        x, y = self.x, self.y
        T = x.shape[-1]
        dx = np.zeros(x.shape, x.dtype)
        for t in range(T):
            dx[..., : t + 1] += dout[..., t : t + 1] * np.exp(x[..., : t + 1] - y[..., t : t + 1])
        return (dx,)


def cum_logsumexp_torch(x):
    return torch.logcumsumexp(x, -1)


def fft_conv_forward(x, w):
    """Causal convolution of x (N, T) with one long kernel w (T,), by transforms of twice the length."""
    n = 2 * x.shape[-1]
    X, W = np.fft.rfft(x, n), np.fft.rfft(w, n)
    y = np.fft.irfft(X * W, n)[..., : x.shape[-1]]
    return y.astype(x.dtype), (X, W, x.dtype)


def fft_conv_backward(dout, cache):
    X, W, dtype = cache
    T = dout.shape[-1]
    D = np.fft.rfft(dout, 2 * T)
    dx = np.fft.irfft(D * np.conj(W), 2 * T)[..., :T]
    dw = np.fft.irfft((D * np.conj(X)).sum(0), 2 * T)[:T]
    return dx.astype(dtype), dw.astype(dtype)


fft_conv = (fft_conv_forward, fft_conv_backward)


def fft_conv_torch(x, w):
    T = x.shape[-1]
    gap = torch.arange(T)[:, None] - torch.arange(T)
    return x @ (w[gap.clamp(min=0)] * (gap >= 0).to(w.dtype)).T


class ScaledMaskedSoftmaxDropout:
    """One kernel: scores (B, H, L, S) · scale, a mask of keys (B, S) of which the first is always seen, softmax, dropout by `keep`."""

    def forward(self, scores, seen, keep, scale=0.3, p=0.2):
        seen = seen.copy()
        seen[:, 0] = True
        z = np.where(seen[:, None, None, :], scores * scale, -np.inf)
        e = np.exp(z - z.max(-1, keepdims=True))
        self.probs = e / e.sum(-1, keepdims=True)
        self.keep, self.scale, self.up = keep, scale, 1 / (1 - p)
        return np.where(keep, self.probs * self.up, 0)

    def backward(self, dout):
        dprobs = np.where(self.keep, dout * self.up, 0)
        inner = (dprobs * self.probs).sum(-1, keepdims=True)
        dz = self.probs * (dprobs - inner)
        return dz * self.scale, None, None


def scaled_masked_softmax_dropout_torch(scores, seen, keep, scale=0.3, p=0.2):
    seen = torch.cat([torch.ones_like(seen[:, :1]), seen[:, 1:]], 1)
    probs = torch.softmax((scores * scale).masked_fill(~seen[:, None, None, :], -torch.inf), -1)
    return probs * keep.to(probs.dtype) / (1 - p)


class NormLinear(torch.autograd.Function):
    """rmsnorm(x) · g, then Wᵀ; x (N, D), g (D,), W (O, D). Saved are x and the inverse roots; the rest is computed again by blocks."""

    @staticmethod
    def forward(ctx, x, g, W):
        r = ((x * x).mean(-1, keepdim=True) + 1e-6).rsqrt()
        ctx.save_for_backward(x, r, g, W)
        return (x * r * g) @ W.t()

    @staticmethod
    def backward(ctx, dy):
        x, r, g, W = ctx.saved_tensors
        dx, dg, dW = torch.empty(x.shape, dtype=x.dtype), torch.zeros(g.shape, dtype=g.dtype), torch.zeros(W.shape, dtype=W.dtype)
        for a in range(0, x.shape[0], 4):
            rows = slice(a, a + 4)
            n = x[rows] * r[rows]
            dh = dy[rows] @ W
            dW += dy[rows].t() @ (n * g)
            dg += (dh * n).sum(0)
            dn = dh * g
            dx[rows] = r[rows] * (dn - n * (dn * n).mean(-1, keepdim=True))
        return dx, dg, dW


def norm_linear_torch(x, g, W):
    return (x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * g) @ W.T


class MaskedMeanPool:
    """Per sequence the mean over the tokens that count: x (N, T, D), mask (N, T)."""

    def forward(self, x, mask):
        self.mask = mask
        self.count = np.maximum(mask.sum(1), 1).astype(x.dtype)
        return np.where(mask[..., None], x, 0).sum(1) / self.count[:, None]

    def backward(self, dout):
        each = dout / self.count[:, None]
        dx = np.where(self.mask[..., None], each[:, None, :], 0)
        return dx, None


def masked_mean_pool_torch(x, mask):
    m = mask.to(x.dtype)[..., None]
    return (x * m).sum(1) / m.sum(1).clamp(min=1)


def pixel_shuffle_forward(x, r=2):
    """(N, C r², H, W) → (N, C, H r, W r)."""
    N, C, H, W = x.shape
    y = x.reshape(N, C // (r * r), r, r, H, W).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(N, C // (r * r), H * r, W * r), (x.shape, r)


def pixel_shuffle_backward(cache, dout):
    (N, C, H, W), r = cache
    d = dout.reshape(N, C // (r * r), H, r, W, r)
    return (d.transpose(0, 1, 3, 5, 2, 4).reshape(N, C, H, W),)


pixel_shuffle = (pixel_shuffle_forward, pixel_shuffle_backward)


def pixel_shuffle_torch(x, r=2):
    return torch.nn.functional.pixel_shuffle(x, r)


def online_logsumexp(x, block=3):
    """Over the last axis, in one pass by blocks; the backward by the same blocks."""
    top = np.full(x.shape[:-1] + (1,), -np.inf, x.dtype)
    total = np.zeros(top.shape, x.dtype)
    for j in range(0, x.shape[-1], block):
        part = x[..., j : j + block]
        new = np.maximum(top, part.max(-1, keepdims=True))
        total = total * np.exp(top - new) + np.exp(part - new).sum(-1, keepdims=True)
        top = new
    y = top + np.log(total)

    def pullback(dy):
        dx = np.empty(x.shape, x.dtype)
        for j in range(0, x.shape[-1], block):
            cols = slice(j, j + block)
            dx[..., cols] = dy[..., None] * np.exp(x[..., cols] - y)
        return (dx,)

    return y[..., 0], pullback


def online_logsumexp_torch(x, block=3):
    return torch.logsumexp(x, -1)


SUBJECTS = {
    "cumulative_product": Subject(against=cumulative_product_torch, calls=[call(normal(3, 5))]),
    "CumLogSumExp": Subject(against=cum_logsumexp_torch, calls=[call(normal(3, 5))]),
    "fft_conv": Subject(against=fft_conv_torch, calls=[call(normal(3, 6), normal(6))]),
    "ScaledMaskedSoftmaxDropout": Subject(against=scaled_masked_softmax_dropout_torch,
                                          calls=[call(normal(2, 2, 3, 5), booleans(2, 5), booleans(2, 2, 3, 5))]),
    "NormLinear": Subject(against=norm_linear_torch, calls=[call(normal(6, 4), normal(4), normal(3, 4))]),
    "MaskedMeanPool": Subject(against=masked_mean_pool_torch, calls=[call(normal(3, 5, 2), booleans(3, 5))]),
    "pixel_shuffle": Subject(against=pixel_shuffle_torch, calls=[call(normal(2, 8, 3, 2))]),
    "online_logsumexp": Subject(against=online_logsumexp_torch, calls=[call(normal(3, 7)), call(normal(2, 3, 5))]),
}
MISTAKES = [
    # the short formula: sums of dy · y over x, which is 0/0 where an element is zero
    Mistake("cumulative_product", "kink / range", "dx[..., t] = before[..., t] * tail", "dx[..., t] = (dy * y)[..., t:].sum(-1) / x[..., t]"),
    Mistake("cumulative_product", "misplaced / operand", "(x[..., t + 1] * tail if t + 1 < T else 0)", "(x[..., t] * tail if t + 1 < T else 0)"),
    Mistake("cumulative_product", "operand / misplaced", "dx[..., t] = before[..., t] * tail", "dx[..., t] = y[..., t] * tail"),
    # exp(x) · Σ dy exp(−y): overflows far out
    Mistake("CumLogSumExp", "range", "dout[..., t : t + 1] * np.exp(x[..., : t + 1] - y[..., t : t + 1])", "np.exp(x[..., : t + 1]) * (dout[..., t : t + 1] * np.exp(-y[..., t : t + 1]))"),
    # kept by the class: two layers share it
    Mistake("CumLogSumExp", "state", "self.x, self.y = x, y", "type(self).x, type(self).y = x, y"),
    # the last of the sum: each has all of it
    Mistake("CumLogSumExp", "misplaced / operand", "np.exp(x[..., : t + 1] - y[..., t : t + 1])", "np.exp(x[..., : t + 1] - y[..., -1:])"),
    Mistake("CumLogSumExp", "misplaced / missing term", "dx[..., : t + 1] += dout[..., t : t + 1] * np.exp(x[..., : t + 1]", "dx[..., :t] += dout[..., t : t + 1] * np.exp(x[..., :t]"),
    Mistake("fft_conv", "misplaced / rotation / transpose / sign", "D * np.conj(W)", "D * W"),
    # not padded to twice the length (every second frequency): the end comes round to the beginning
    Mistake("fft_conv", "misplaced / extra term", "dw = np.fft.irfft((D * np.conj(X)).sum(0), 2 * T)[:T]",
            "dw = np.fft.irfft((D * np.conj(X)).sum(0)[::2], T)"),
    Mistake("fft_conv", "broadcast / factor", "(D * np.conj(X)).sum(0)", "(D * np.conj(X)).mean(0)"),
    Mistake("fft_conv", "precision", "D = np.fft.rfft(dout, 2 * T)", "D = np.fft.rfft(dout.astype(np.float32), 2 * T)"),
    # of the dropped ones: the probabilities that come out, for those of the softmax
    Mistake("ScaledMaskedSoftmaxDropout", "operand / elementwise factor", "inner = (dprobs * self.probs).sum(-1, keepdims=True)", "inner = (dout * self.probs).sum(-1, keepdims=True)"),
    Mistake("ScaledMaskedSoftmaxDropout", "factor", "return dz * self.scale, None, None", "return dz, None, None"),
    Mistake("ScaledMaskedSoftmaxDropout", "elementwise factor / missing term", "dprobs = np.where(self.keep, dout * self.up, 0)", "dprobs = dout * self.up"),
    Mistake("ScaledMaskedSoftmaxDropout", "mutation", "dprobs = np.where(self.keep, dout * self.up, 0)", "dprobs = dout\n        dprobs *= self.keep * self.up"),
    Mistake("NormLinear", "operand / elementwise factor", "dW += dy[rows].t() @ (n * g)", "dW += dy[rows].t() @ n"),
    Mistake("NormLinear", "elementwise factor / operand", "dg += (dh * n).sum(0)", "dg += (dh * x[rows]).sum(0)"),
    Mistake("NormLinear", "elementwise factor / operand", "(dn * n).mean(-1, keepdim=True)", "(dh * n).mean(-1, keepdim=True)"),
    # the last block of the rows alone
    Mistake("NormLinear", "overwritten", "dg += (dh * n).sum(0)", "dg = (dh * n).sum(0)"),
    Mistake("MaskedMeanPool", "counts / factor / variant", "each = dout / self.count[:, None]", "each = dout / self.mask.shape[1]"),
    Mistake("MaskedMeanPool", "elementwise factor / broadcast", "np.where(self.mask[..., None], each[:, None, :], 0)", "np.repeat(each[:, None, :], self.mask.shape[1], axis=1)"),
    # float32 over integers of 64 bits
    Mistake("MaskedMeanPool", "dtype", "each = dout / self.count[:, None]", "each = dout / np.maximum(self.mask.sum(1), 1)[:, None]"),
    Mistake("pixel_shuffle", "misplaced / transpose", "d.transpose(0, 1, 3, 5, 2, 4)", "d.transpose(0, 1, 5, 3, 2, 4)"),
    Mistake("pixel_shuffle", "misplaced", "d = dout.reshape(N, C // (r * r), H, r, W, r)\n    return (d.transpose(0, 1, 3, 5, 2, 4)", "d = dout.reshape(N, C // (r * r), r, H, r, W)\n    return (d.transpose(0, 1, 2, 4, 3, 5)"),
    # the largest so far is not subtracted in the backward
    Mistake("online_logsumexp", "range", "np.exp(x[..., cols] - y)", "np.exp(x[..., cols]) / np.exp(y)"),
    # the statistics of the last block for those of all: total is read where y belongs
    Mistake("online_logsumexp", "misplaced / variant / operand", "np.exp(x[..., cols] - y)", "np.exp(x[..., cols] - x[..., cols].max(-1, keepdims=True)) / total"),
    # the last, partial block
    Mistake("online_logsumexp", "misplaced / missing term", "        dx = np.empty(x.shape, x.dtype)\n        for j in range(0, x.shape[-1], block):", "        dx = np.zeros(x.shape, x.dtype)\n        for j in range(0, x.shape[-1] - block + 1, block):"),
    # of three axes, not contiguous: the reshaped array is a copy, what is written there is lost
    Mistake("online_logsumexp", "layout", "        dx = np.empty(x.shape, x.dtype)\n        for j in range(0, x.shape[-1], block):\n            cols = slice(j, j + block)\n            dx[..., cols] = dy[..., None] * np.exp(x[..., cols] - y)",
            "        dx = np.zeros_like(x)\n        out = dx.reshape(-1, x.shape[-1])\n        for j in range(0, x.shape[-1], block):\n            cols = slice(j, j + block)\n            out[:, cols] = (dy[..., None] * np.exp(x[..., cols] - y)).reshape(-1, len(range(x.shape[-1])[cols]))"),
]
