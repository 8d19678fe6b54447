"""Convolutions, pools and upsampling: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, normal

# --- a convolution by columns, as in a course


def conv_forward(x, w, b, stride=1, pad=1):
    N, C, H, W = x.shape
    K, C2, R, S = w.shape
    if C != C2:
        raise ValueError("channels differ")
    Ho, Wo = (H + 2 * pad - R) // stride + 1, (W + 2 * pad - S) // stride + 1
    if Ho < 1 or Wo < 1:
        raise ValueError("the kernel is larger than the image")
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    cols = np.empty((N, C, R, S, Ho, Wo), x.dtype)
    for i in range(R):
        for j in range(S):
            cols[:, :, i, j] = xp[:, :, i : i + stride * Ho : stride, j : j + stride * Wo : stride]
    out = np.einsum("kcrs,ncrshw->nkhw", w, cols) + b[None, :, None, None]
    return out, (x.shape, xp.shape, w, cols, stride, pad)


def conv_backward(dout, cache):
    (N, C, H, W), padded, w, cols, stride, pad = cache
    K, _, R, S = w.shape
    Ho, Wo = dout.shape[2:]
    db = dout.sum(axis=(0, 2, 3))
    dw = np.einsum("nkhw,ncrshw->kcrs", dout, cols)
    dcols = np.einsum("kcrs,nkhw->ncrshw", w, dout)
    dxp = np.zeros(padded, dout.dtype)
    for i in range(R):
        for j in range(S):
            dxp[:, :, i : i + stride * Ho : stride, j : j + stride * Wo : stride] += dcols[:, :, i, j]
    dx = dxp[:, :, pad : pad + H, pad : pad + W]
    return dx, dw, db


conv = (conv_forward, conv_backward)


def conv_torch(x, w, b, stride=1, pad=1):
    return F.conv2d(x, w, b, stride=stride, padding=pad)


# --- max pooling by windows that do not overlap, a layer's class


class MaxPool:
    def forward(self, x, size=2):
        N, C, H, W = x.shape
        h, w = H // size, W // size
        if h < 1 or w < 1:
            raise ValueError("no window fits")
        self.shape, self.size = x.shape, size
        win = x[:, :, : h * size, : w * size].reshape(N, C, h, size, w, size)
        win = win.transpose(0, 1, 2, 4, 3, 5).reshape(N, C, h, w, size * size)
        self.win = win
        self.where = win.argmax(axis=-1)
        return win.max(axis=-1)

    def backward(self, dout):
        N, C, H, W = self.shape
        h, w = dout.shape[2:]
        s = self.size
        hit = np.arange(s * s) == self.where[..., None]
        dwin = hit * dout[..., None]
        dwin = dwin.reshape(N, C, h, w, s, s)
        dx = np.zeros(self.shape, dout.dtype)
        dx[:, :, : h * s, : w * s] = dwin.transpose(0, 1, 2, 4, 3, 5).reshape(N, C, h * s, w * s)
        return dx


def maxpool_torch(x, size=2):
    return F.max_pool2d(x, size)


# --- average pooling that does not count the padding


def avg_pool(x, k=3, stride=2, pad=1):
    N, C, L = x.shape
    out = (L + 2 * pad - k) // stride + 1
    if out < 1:
        raise ValueError("no window fits")
    start = np.arange(out) * stride - pad
    lo, hi = np.maximum(start, 0), np.minimum(start + k, L)
    y = np.stack([x[..., a:b].sum(-1) / int(b - a) for a, b in zip(lo, hi)], axis=-1)

    def pullback(dy):
        dx = np.zeros((N, C, L), dy.dtype)
        for o in range(out):
            share = dy[..., o] / int(hi[o] - lo[o])
            dx[..., lo[o] : hi[o]] += share[..., None]
        return (dx,)

    return y, pullback


def avg_pool_torch(x, k=3, stride=2, pad=1):
    return F.avg_pool1d(x, k, stride, pad, count_include_pad=False)


# --- the short causal convolution of each channel in Mamba, and SiLU behind it


def causal_conv(x, w, b):
    B, C, L = x.shape
    K = w.shape[1]
    if w.shape[0] != C:
        raise ValueError("one filter per channel")
    xp = np.pad(x, ((0, 0), (0, 0), (K - 1, 0)))
    z = sum(w[:, k, None] * xp[:, :, k : k + L] for k in range(K)) + b[:, None]
    sig = 1.0 / (1.0 + np.exp(-z))
    y = z * sig

    def pullback(dy):
        dz = dy * sig * (1.0 + z * (1.0 - sig))
        dw = np.stack([(dz * xp[:, :, k : k + L]).sum((0, 2)) for k in range(K)], axis=1)
        dxp = np.zeros_like(xp)
        for k in range(K):
            dxp[:, :, k : k + L] += w[:, k, None] * dz
        dx = dxp[:, :, K - 1 :]
        return dx, dw, dz.sum((0, 2))

    return y, pullback


def causal_conv_torch(x, w, b):
    C, K = w.shape
    return F.silu(F.conv1d(F.pad(x, (K - 1, 0)), w[:, None, :], b, groups=C))


# --- linear upsampling of a signal, half-pixel centres; the backward computes its places again


def upsample(x, scale=2):
    N, C, L = x.shape
    M = L * scale
    if L < 1:
        raise ValueError("no signal")
    pos = np.maximum((np.arange(M) + 0.5) / scale - 0.5, 0.0)
    i0 = np.minimum(pos.astype(int), L - 1)
    i1 = np.minimum(i0 + 1, L - 1)
    w1 = (pos - i0).astype(x.dtype)
    y = x[..., i0] * (1 - w1) + x[..., i1] * w1

    def pullback(dy):
        at = (np.arange(M) + 0.5) / scale - 0.5
        at = np.maximum(at, 0.0)
        left = np.minimum(np.floor(at).astype(int), L - 1)
        right = np.minimum(left + 1, L - 1)
        frac = (at - left).astype(dy.dtype)
        dx = np.zeros((L, N, C), dy.dtype)
        np.add.at(dx, left, np.moveaxis(dy * (1 - frac), -1, 0))
        np.add.at(dx, right, np.moveaxis(dy * frac, -1, 0))
        return (np.moveaxis(dx, 0, -1),)

    return y, pullback


def upsample_torch(x, scale=2):
    return F.interpolate(x, scale_factor=scale, mode="linear", align_corners=False)


SUBJECTS = {
    "conv": Subject(
        against=conv_torch,
        calls=[
            call(normal(2, 2, 4, 5), normal(3, 2, 3, 3), normal(3)),
            call(normal(1, 2, 5, 5), normal(2, 2, 2, 3), normal(2), stride=2, pad=0),
        ],
    ),
    "MaxPool": Subject(against=maxpool_torch, calls=[call(normal(2, 2, 4, 6)), call(normal(1, 2, 7, 6), size=3)]),
    "avg_pool": Subject(against=avg_pool_torch, calls=[call(normal(2, 2, 7)), call(normal(1, 3, 6), k=4, stride=1, pad=2)]),
    "causal_conv": Subject(
        against=causal_conv_torch,
        calls=[call(normal(2, 3, 6), normal(3, 4), normal(3)), call(normal(1, 2, 5), normal(2, 2), normal(2))],
    ),
    "upsample": Subject(against=upsample_torch, calls=[call(normal(2, 2, 4)), call(normal(1, 2, 3), scale=3)]),
}
MISTAKES = [
    # columns folded back where they overlap
    Mistake("conv", "overwritten", "j : j + stride * Wo : stride] += dcols[:, :, i, j]", "j : j + stride * Wo : stride] = dcols[:, :, i, j]"),
    # with pad=0 (the second call) nothing is left of 0:-0
    Mistake("conv", "shape", "dxp[:, :, pad : pad + H, pad : pad + W]", "dxp[:, :, pad:-pad, pad:-pad]"),
    # the mean over the batch, the sum over the places
    Mistake("conv", "factor / broadcast", "db = dout.sum(axis=(0, 2, 3))", "db = dout.mean(axis=0).sum(axis=(1, 2))"),
    # every maximum of a window gets all of it: at ties alone
    Mistake("MaxPool", "kink", "hit = np.arange(s * s) == self.where[..., None]", "hit = self.win == self.win.max(axis=-1, keepdims=True)"),
    # the windows put back without moving the axes
    Mistake("MaxPool", "misplaced", "dwin.transpose(0, 1, 2, 4, 3, 5).reshape(N, C, h * s, w * s)", "dwin.reshape(N, C, h * s, w * s)"),
    # the window's full size at the edges
    Mistake("avg_pool", "counts / variant", "dy[..., o] / int(hi[o] - lo[o])", "dy[..., o] / k"),
    # the filter not turned around for x
    Mistake("causal_conv", "misplaced", "+= w[:, k, None] * dz", "+= w[:, K - 1 - k, None] * dz"),
    # the slope of SiLU at its value
    Mistake("causal_conv", "operand", "(1.0 + z * (1.0 - sig))", "(1.0 + y * (1.0 - sig))"),
    # places with aligned corners in the backward
    Mistake("upsample", "variant", "at = (np.arange(M) + 0.5) / scale - 0.5", "at = np.arange(M) * ((L - 1) / max(M - 1, 1))"),
    # += with repeated indices keeps the last one
    Mistake("upsample", "overwritten", "np.add.at(dx, left, np.moveaxis(dy * (1 - frac), -1, 0))", "dx[left] += np.moveaxis(dy * (1 - frac), -1, 0)"),
]
