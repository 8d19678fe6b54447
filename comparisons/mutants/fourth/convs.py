"""Convolutions, pooling, resampling: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, normal


def conv_forward(x, w, b, stride=1, pad=0):
    N, C, H, W = x.shape
    K, _, R, S = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    oh, ow = (H + 2 * pad - R) // stride + 1, (W + 2 * pad - S) // stride + 1
    cols = np.empty((N, C, R, S, oh, ow), x.dtype)
    for r in range(R):
        for s in range(S):
            cols[:, :, r, s] = xp[:, :, r : r + stride * oh : stride, s : s + stride * ow : stride]
    out = np.einsum("kcrs,ncrsyx->nkyx", w, cols) + b[:, None, None]
    return out, (x, w, cols, stride, pad)


def conv_backward(dout, cache):
    x, w, cols, stride, pad = cache
    N, C, H, W = x.shape
    R, S = w.shape[2:]
    oh, ow = dout.shape[2:]
    db = dout.sum(axis=(0, 2, 3))
    dw = np.einsum("nkyx,ncrsyx->kcrs", dout, cols)
    dcols = np.einsum("kcrs,nkyx->ncrsyx", w, dout)
    dxp = np.zeros((N, C, H + 2 * pad, W + 2 * pad), x.dtype)
    for r in range(R):
        for s in range(S):
            dxp[:, :, r : r + stride * oh : stride, s : s + stride * ow : stride] += dcols[:, :, r, s]
    dx = dxp[:, :, pad : pad + H, pad : pad + W]
    return dx, dw, db


conv = (conv_forward, conv_backward)


def conv_torch(x, w, b, stride=1, pad=0):
    return F.conv2d(x, w, b, stride=stride, padding=pad)


def causal_conv_silu(x, w, b, tile=4):
    """silu of a causal depthwise convolution, x (B, C, T), w (C, K): in tiles of time with a halo, z computed again."""
    B, C, T = x.shape
    K = w.shape[1]
    xp = np.concatenate([np.zeros((B, C, K - 1), x.dtype), x], -1)

    def before(t0, t1):
        z = np.zeros((B, C, t1 - t0), x.dtype) + b[:, None]
        for k in range(K):
            z += w[:, k, None] * xp[..., t0 + k : t1 + k]
        return z

    y = np.empty((B, C, T), x.dtype)
    for t0 in range(0, T, tile):
        t1 = min(t0 + tile, T)
        z = before(t0, t1)
        y[..., t0:t1] = z / (1 + np.exp(-z))

    def pullback(dy):
        dxp = np.zeros(xp.shape, x.dtype)
        dw, db = np.zeros((C, K), w.dtype), np.zeros((C,), b.dtype)
        for t0 in range(0, T, tile):
            t1 = min(t0 + tile, T)
            z = before(t0, t1)
            sig = 1 / (1 + np.exp(-z))
            dz = dy[..., t0:t1] * sig * (1 + z * (1 - sig))
            db += dz.sum((0, 2))
            halo = np.zeros((B, C, t1 - t0 + K - 1), x.dtype)
            for k in range(K):
                dw[:, k] += (dz * xp[..., t0 + k : t1 + k]).sum((0, 2))
                halo[..., k : k + t1 - t0] += w[:, k, None] * dz
            dxp[..., t0 : t1 + K - 1] += halo
        return dxp[..., K - 1 :], dw, db

    return y, pullback


def causal_conv_silu_torch(x, w, b, tile=4):
    z = F.conv1d(F.pad(x, (w.shape[1] - 1, 0)), w[:, None], b, groups=w.shape[0])
    return F.silu(z)


class MaxPool:
    """The first of equal values has the gradient, as in torch."""

    def forward(self, x, size=2, stride=2):
        N, C, H, W = x.shape
        oh, ow = (H - size) // stride + 1, (W - size) // stride + 1
        self.shape, self.size, self.stride, self.dtype = x.shape, size, stride, x.dtype
        self.where = np.zeros((N, C, oh, ow), int)
        out = np.empty((N, C, oh, ow), x.dtype)
        for i in range(oh):
            for j in range(ow):
                window = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size].reshape(N, C, -1)
                self.where[:, :, i, j] = window.argmax(-1)
                out[:, :, i, j] = window.max(-1)
        return out

    def backward(self, dout):
        dx = np.zeros(self.shape, self.dtype)
        n, c = np.indices(self.shape[:2])
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                di, dj = np.divmod(self.where[:, :, i, j], self.size)
                dx[n, c, i * self.stride + di, j * self.stride + dj] += dout[:, :, i, j]
        return (dx,)


def maxpool_torch(x, size=2, stride=2):
    return F.max_pool2d(x, size, stride)


def avg_pool(x, size=3, stride=2, pad=1):
    """x (…, T); the padding is not counted."""
    T = x.shape[-1]
    out = (T + 2 * pad - size) // stride + 1
    starts = np.arange(out) * stride - pad
    lo, hi = np.maximum(starts, 0), np.minimum(starts + size, T)
    y = np.stack([x[..., a:b].mean(-1) for a, b in zip(lo, hi)], -1)

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        for t, (a, b) in enumerate(zip(lo, hi)):
            dx[..., a:b] += dy[..., t, None] / float(b - a)
        return (dx,)

    return y, pullback


def avg_pool_torch(x, size=3, stride=2, pad=1):
    flat = x.reshape(1, -1, x.shape[-1])
    return F.avg_pool1d(flat, size, stride, pad, count_include_pad=False).reshape(*x.shape[:-1], -1)


def conv_transpose(x, w, b, stride=2):
    """x (N, C, T), w (C, K, R): each step is written, times w, at its place of the output; in torch."""
    N, C, T = x.shape
    K, R = w.shape[1:]
    y = x.new_zeros(N, K, (T - 1) * stride + R)
    for r in range(R):
        y[..., r : r + (T - 1) * stride + 1 : stride] += torch.einsum("nct,ck->nkt", x, w[..., r])
    y = y + b[:, None]

    def pullback(dy):
        dx = torch.zeros_like(x)
        dw = torch.zeros_like(w)
        for r in range(R):
            part = dy[..., r : r + (T - 1) * stride + 1 : stride]
            dx += torch.einsum("nkt,ck->nct", part, w[..., r])
            dw[..., r] = torch.einsum("nct,nkt->ck", x, part)
        return dx, dw, dy.sum((0, 2))

    return y, pullback


def conv_transpose_torch(x, w, b, stride=2):
    return F.conv_transpose1d(x, w, b, stride=stride)


def resample_linear(x, size=7, align_corners=False):
    """(N, C, T) → (N, C, size), linearly."""
    T = x.shape[-1]
    i = np.arange(size)
    pos = i * ((T - 1) / max(size - 1, 1)) if align_corners else np.maximum((i + 0.5) * (T / size) - 0.5, 0)
    lo = np.minimum(pos.astype(int), T - 1)
    hi = np.minimum(lo + 1, T - 1)
    frac = (pos - lo).astype(x.dtype)
    y = x[..., lo] * (1 - frac) + x[..., hi] * frac

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        np.add.at(dx, (..., lo), dy * (1 - frac))
        np.add.at(dx, (..., hi), dy * frac)
        return (dx,)

    return y, pullback


def resample_linear_torch(x, size=7, align_corners=False):
    return F.interpolate(x, size=size, mode="linear", align_corners=align_corners)


def patch_embed(images, w, pos, patch=2):
    """(N, C, H, W) → tokens (N, L, D) of patches, with positions added; w (C · patch², D), pos (L, D)."""
    N, C, H, W = images.shape
    gh, gw = H // patch, W // patch
    p = images.reshape(N, C, gh, patch, gw, patch).transpose(0, 2, 4, 1, 3, 5).reshape(N, gh * gw, -1)
    y = p @ w + pos

    def pullback(dy):
        dpos = dy.sum(0)
        dw = np.einsum("nlp,nld->pd", p, dy)
        dp = (dy @ w.T).reshape(N, gh, gw, C, patch, patch)
        dimages = dp.transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)
        return dimages, dw, dpos

    return y, pullback


def patch_embed_torch(images, w, pos, patch=2):
    return F.unfold(images, patch, stride=patch).transpose(1, 2) @ w + pos


SUBJECTS = {
    "conv": Subject(against=conv_torch, calls=[call(normal(2, 3, 6, 5), normal(4, 3, 3, 3), normal(4), stride=2, pad=1),
                                               call(normal(1, 2, 5, 5), normal(3, 2, 2, 2), normal(3))]),
    "causal_conv_silu": Subject(against=causal_conv_silu_torch, calls=[call(normal(2, 3, 10), normal(3, 3), normal(3))]),
    "MaxPool": Subject(against=maxpool_torch, calls=[call(normal(2, 2, 6, 4)), call(normal(2, 1, 5, 5), size=3, stride=1)]),
    "avg_pool": Subject(against=avg_pool_torch, calls=[call(normal(2, 3, 7))]),
    "conv_transpose": Subject(against=conv_transpose_torch, calls=[call(normal(2, 3, 4), normal(3, 2, 3), normal(2))]),
    "resample_linear": Subject(against=resample_linear_torch, calls=[call(normal(2, 3, 4)), call(normal(2, 3, 4), align_corners=True)]),
    "patch_embed": Subject(against=patch_embed_torch, calls=[call(normal(2, 3, 4, 6), normal(12, 5), normal(6, 5))]),
}
MISTAKES = [
    # windows overlap: the last one wins
    Mistake("conv", "overwritten", "s : s + stride * ow : stride] += dcols", "s : s + stride * ow : stride] = dcols"),
    # the stride is forgotten as it is written back: only of the first call (the slices have the same size)
    Mistake("conv", "misplaced", "dxp[:, :, r : r + stride * oh : stride,", "dxp[:, :, r : r + oh,"),
    Mistake("conv", "misplaced / transpose", '"nkyx,ncrsyx->kcrs", dout', '"nkyx,ncsryx->kcrs", dout'),
    # the padding is cut at the wrong end: only of the first call
    Mistake("conv", "misplaced", "dx = dxp[:, :, pad : pad + H, pad : pad + W]", "dx = dxp[:, :, :H, :W]"),
    # the halo of a tile is overwritten by the next tile
    Mistake("causal_conv_silu", "overwritten / misplaced / missing term", "dxp[..., t0 : t1 + K - 1] += halo", "dxp[..., t0 : t1 + K - 1] = halo"),
    # silu's slope with the value after where the one before belongs
    Mistake("causal_conv_silu", "operand / elementwise factor", "sig * (1 + z * (1 - sig))", "sig * (1 + z * sig * (1 - sig))"),
    # a correlation for a convolution: the taps in the other order
    Mistake("causal_conv_silu", "misplaced", "+= w[:, k, None] * dz", "+= w[:, K - 1 - k, None] * dz"),
    # windows that overlap (second call)
    Mistake("MaxPool", "overwritten", "j * self.stride + dj] += dout", "j * self.stride + dj] = dout"),
    Mistake("MaxPool", "misplaced / transpose", "di, dj = np.divmod", "dj, di = np.divmod"),
    # at ties: the last of equals
    Mistake("MaxPool", "kink", "self.where[:, :, i, j] = window.argmax(-1)",
            "self.where[:, :, i, j] = size * size - 1 - window[:, :, ::-1].argmax(-1)"),
    # rows of one array, which is a copy where x is not contiguous (and has three axes)
    Mistake("avg_pool", "layout", "dx = np.zeros(x.shape, x.dtype)\n        for t, (a, b) in enumerate(zip(lo, hi)):\n            dx[..., a:b] += dy[..., t, None] / float(b - a)",
            "dx = np.zeros_like(x)\n        rows, d = dx.reshape(-1, T), dy.reshape(-1, out)\n        for t, (a, b) in enumerate(zip(lo, hi)):\n            rows[:, a:b] += d[:, t, None] / float(b - a)"),
    # at the edge, where the window has fewer
    Mistake("avg_pool", "variant / counts / factor", "/ float(b - a)", "/ size"),
    Mistake("conv_transpose", "overwritten", "            dx += torch.einsum", "            dx = torch.einsum"),
    Mistake("conv_transpose", "misplaced", "part = dy[..., r : r + (T - 1) * stride + 1 : stride]", "part = dy[..., R - 1 - r : R - 1 - r + (T - 1) * stride + 1 : stride]"),
    # indices that repeat: += of a fancy index writes once
    Mistake("resample_linear", "overwritten", "np.add.at(dx, (..., lo), dy * (1 - frac))", "dx[..., lo] += dy * (1 - frac)"),
    # float64 for everything
    Mistake("resample_linear", "dtype", "dx = np.zeros(x.shape, x.dtype)", "dx = np.zeros(x.shape)"),
    Mistake("resample_linear", "swapped / operand / misplaced", "(..., hi), dy * frac)", "(..., lo), dy * frac)"),
    Mistake("patch_embed", "misplaced / transpose", "dp.transpose(0, 3, 1, 4, 2, 5)", "dp.transpose(0, 3, 1, 5, 2, 4)"),
    Mistake("patch_embed", "misplaced", "(dy @ w.T).reshape(N, gh, gw, C, patch, patch)",
            "(dy @ w.T).reshape(N, gh, gw, patch, patch, C).transpose(0, 1, 2, 5, 3, 4)"),
]
