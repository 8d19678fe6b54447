"""Convolutions: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def conv1d(x, w, b, stride=1, padding=0, dilation=1):
    """(n, c, length) * (o, c, k) + (o,), tap by tap."""
    n, c, length = x.shape
    o, _, k = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    out = (xp.shape[2] - dilation * (k - 1) - 1) // stride + 1
    y = np.zeros((n, o, out), x.dtype) + b[:, None]
    for tap in range(k):
        first = tap * dilation
        y += np.einsum("ncl,oc->nol", xp[:, :, first : first + stride * out : stride], w[:, :, tap])

    def pullback(dy):
        dxp = np.zeros_like(xp)
        dw = np.zeros_like(w)
        for tap in range(k):
            at = slice(tap * dilation, tap * dilation + stride * out, stride)
            dxp[:, :, at] += np.einsum("nol,oc->ncl", dy, w[:, :, tap])
            dw[:, :, tap] = np.einsum("nol,ncl->oc", dy, xp[:, :, at])
        dx = dxp[:, :, padding : padding + length]
        return dx, dw, dy.sum(axis=(0, 2))

    return y, pullback


def im2col_indices(c, h, w, kh, kw, stride):
    oh, ow = (h - kh) // stride + 1, (w - kw) // stride + 1
    i = np.repeat(np.arange(kh), kw)
    i = np.tile(i, c)[:, None] + stride * np.repeat(np.arange(oh), ow)[None]
    j = np.tile(np.arange(kw), kh * c)[:, None] + stride * np.tile(np.arange(ow), oh)[None]
    k = np.repeat(np.arange(c), kh * kw)[:, None]
    return k, i, j, oh, ow


def conv_forward_im2col(x, w, b, stride=1, padding=0):
    n, c = x.shape[:2]
    o, _, kh, kw = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    k, i, j, oh, ow = im2col_indices(c, xp.shape[2], xp.shape[3], kh, kw, stride)
    cols = xp[:, k, i, j].transpose(1, 2, 0).reshape(c * kh * kw, -1)
    out = w.reshape(o, -1) @ cols + b.reshape(-1, 1)
    out = out.reshape(o, oh, ow, n).transpose(3, 0, 1, 2)
    return out, (x, w, cols, (k, i, j), xp.shape, padding)


def conv_backward_im2col(dout, cache):
    x, w, cols, (k, i, j), padded, padding = cache
    o = w.shape[0]
    n, c, h, width = x.shape
    db = np.sum(dout, axis=(0, 2, 3))
    dout_flat = dout.transpose(1, 2, 3, 0).reshape(o, -1)
    dw = (dout_flat @ cols.T).reshape(w.shape)
    dcols = w.reshape(o, -1).T @ dout_flat
    dcols = dcols.reshape(cols.shape[0], -1, n).transpose(2, 0, 1)
    dxp = np.zeros(padded, dtype=x.dtype)
    np.add.at(dxp, (slice(None), k, i, j), dcols)
    dx = dxp[:, :, padding : padding + h, padding : padding + width]
    return dx, dw, db


conv2d_im2col = (conv_forward_im2col, conv_backward_im2col)


class ConvNaive:
    """A layer of a course: loops over the output's places; all layers share one pool of buffers."""

    pool = {}

    def forward(self, x, w, b, stride=1, padding=1):
        self.x, self.w, self.stride, self.padding = x, w, stride, padding
        self.xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        kh, kw = w.shape[2:]
        oh = 1 + (self.xp.shape[2] - kh) // stride
        ow = 1 + (self.xp.shape[3] - kw) // stride
        out = np.zeros((x.shape[0], w.shape[0], oh, ow), dtype=x.dtype)
        for i in range(oh):
            for j in range(ow):
                patch = self.xp[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
                out[:, :, i, j] = np.tensordot(patch, w, axes=((1, 2, 3), (1, 2, 3))) + b
        return out

    def backward(self, dout):
        kh, kw = self.w.shape[2:]
        s, p = self.stride, self.padding
        key = self.xp.shape, self.xp.dtype
        if key not in self.pool:
            self.pool[key] = np.zeros(*key)
        self.grad = self.pool[key]
        self.grad.fill(0)
        dw = np.zeros_like(self.w)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                patch = self.xp[:, :, i * s : i * s + kh, j * s : j * s + kw]
                d = dout[:, :, i, j]
                dw += np.tensordot(d, patch, axes=(0, 0))
                self.grad[:, :, i * s : i * s + kh, j * s : j * s + kw] += np.tensordot(d, self.w, axes=(1, 0))
        h, w = self.x.shape[2:]
        dx = self.grad[:, :, p : p + h, p : p + w].copy()
        return dx, dw, dout.sum(axis=(0, 2, 3))


def conv_transpose2d(x, w, b, stride=1, padding=0, output_padding=0):
    """(n, c, h, w) with (c, o, kh, kw): every pixel stamps its kernel."""
    n, c, h, width = x.shape
    _, o, kh, kw = w.shape
    fh = (h - 1) * stride + kh + output_padding
    fw = (width - 1) * stride + kw + output_padding
    full = np.zeros((n, o, fh, fw), x.dtype)
    for i in range(kh):
        for j in range(kw):
            full[:, :, i : i + stride * h : stride, j : j + stride * width : stride][:, :, :h, :width] += np.einsum("nchw,co->nohw", x, w[:, :, i, j])
    y = full[:, :, padding : fh - padding, padding : fw - padding] + b[:, None, None]

    def pullback(dy):
        dfull = np.zeros(full.shape, dy.dtype)
        dfull[:, :, padding : padding + dy.shape[2], padding : padding + dy.shape[3]] = dy
        dx = np.zeros_like(x)
        dw = np.zeros_like(w)
        for i in range(kh):
            for j in range(kw):
                seen = dfull[:, :, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
                dx += np.einsum("nohw,co->nchw", seen, w[:, :, i, j])
                dw[:, :, i, j] = np.einsum("nchw,nohw->co", x, seen)
        return dx, dw, dy.sum(axis=(0, 2, 3))

    return y, pullback


class DepthwiseConv(torch.autograd.Function):
    """(n, c, h, w) with (c, 1, kh, kw), padded by half the kernel; the gradients by unfolding."""

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, b, padding=(w.shape[2] // 2, w.shape[3] // 2), groups=x.shape[1])

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        n, c = x.shape[:2]
        kh, kw = w.shape[2:]
        flipped = w.flip(-1, -2)
        dx = F.conv2d(dy, flipped, padding=(kh - 1 - kh // 2, kw - 1 - kw // 2), groups=c)
        cols = F.unfold(x, (kh, kw), padding=(kh // 2, kw // 2)).reshape(n, c, kh * kw, -1)
        dw = torch.einsum("nckp,ncp->ck", cols, dy.reshape(n, c, -1))
        db = dy.sum(dim=(0, 2, 3))
        return dx, dw.reshape(w.shape), db


def depthwise_torch(x, w, b):
    return F.conv2d(x, w, b, padding=(w.shape[2] // 2, w.shape[3] // 2), groups=x.shape[1])


def causal_conv1d(x, w, b, block=4):
    """silu(sum over taps of w[tap] x[t - (k - 1) + tap] + b), as before a state space model: x (n, t, c), w (k, c);
    by tiles of time, z recomputed in the backward."""
    n, length, c = x.shape
    k = w.shape[0]

    def tile(start, stop):
        rows = np.zeros((n, stop - start + k - 1, c), x.dtype)
        low = max(start - (k - 1), 0)
        rows[:, low - start + k - 1 :] = x[:, low:stop]
        z = b + sum(w[i] * rows[:, i : i + stop - start] for i in range(k))
        return rows, z

    y = np.empty_like(x)
    for start in range(0, length, block):
        stop = min(start + block, length)
        _, z = tile(start, stop)
        y[:, start:stop] = z / (1 + np.exp(-z))

    def pullback(dy):
        dx = np.zeros((n, length + k - 1, c), x.dtype)
        dw, db = np.zeros_like(w), np.zeros_like(b)
        for begin in range(0, length, block):
            end = min(begin + block, length)
            rows, z = tile(begin, end)
            s = 1 / (1 + np.exp(-z))
            dz = dy[:, begin:end] * s * (1 + z * (1 - s))
            dtile = np.zeros_like(rows)
            for i in range(k):
                dtile[:, i : i + end - begin] += w[i] * dz
                dw[i] += (rows[:, i : i + end - begin] * dz).sum(axis=(0, 1))
            dx[:, begin : end + k - 1] += dtile
            db += dz.sum(axis=(0, 1))
        return dx[:, k - 1 :], dw, db

    return y, pullback


def causal_conv1d_torch(x, w, b, block=4):
    k, c = w.shape
    z = F.conv1d(F.pad(x.transpose(1, 2), (k - 1, 0)), w.t()[:, None], b, groups=c)
    return F.silu(z).transpose(1, 2)


SUBJECTS = {
    "conv1d": Subject(against="torch.nn.functional.conv1d", calls=[
        call(normal(2, 3, 9), normal(4, 3, 3), normal(4)),
        call(normal(2, 3, 11), normal(2, 3, 3), normal(2), stride=2, padding=2, dilation=2)]),
    "conv2d_im2col": Subject(against="torch.nn.functional.conv2d", calls=[
        call(normal(3, 2, 6, 5), normal(4, 2, 3, 3), normal(4)),
        call(normal(2, 3, 5, 7), normal(2, 3, 3, 2), normal(2), stride=2, padding=1)]),
    "ConvNaive": Subject(against="torch.nn.functional.conv2d", calls=[
        call(normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4), stride=1, padding=1),
        call(normal(2, 2, 6, 7), normal(3, 2, 3, 3), normal(3), stride=2, padding=1)]),
    "conv_transpose2d": Subject(against="torch.nn.functional.conv_transpose2d", calls=[
        call(normal(2, 3, 4, 3), normal(3, 2, 3, 3), normal(2), stride=2, padding=1, output_padding=1),
        call(normal(1, 2, 3, 4), normal(2, 3, 2, 3), normal(3))]),
    "DepthwiseConv": Subject(against=depthwise_torch, calls=[
        call(normal(2, 3, 5, 4), normal(3, 1, 3, 3), normal(3)),
        call(normal(1, 2, 6, 6), normal(2, 1, 5, 5), normal(2))]),
    "causal_conv1d": Subject(against=causal_conv1d_torch, calls=[
        call(normal(2, 10, 3), normal(4, 3), normal(3)),
        call(normal(1, 7, 2), normal(3, 2), normal(2), block=3)]),
}
MISTAKES = [
    # the padding is not cut off where it was put on: the first columns are returned
    Mistake("conv1d", "misplaced", "dxp[:, :, padding : padding + length]", "dxp[:, :, :length]"),
    # windows overlap, so it adds up
    Mistake("conv1d", "overwritten", "dxp[:, :, at] += np", "dxp[:, :, at] = np"),
    # the dilation was added to the forward later; the backward still has the taps side by side
    Mistake("conv1d", "variant / misplaced", "slice(tap * dilation, tap * dilation + stride * out, stride)", "slice(tap, tap + stride * out, stride)"),
    # cols are (place, image); dout is flattened image by image
    Mistake("conv2d_im2col", "misplaced / transpose", "dout.transpose(1, 2, 3, 0).reshape(o, -1)", "dout.transpose(1, 0, 2, 3).reshape(o, -1)"),
    # fancy-indexed += adds only once for what occurs twice
    Mistake("conv2d_im2col", "overwritten", "np.add.at(dxp, (slice(None), k, i, j), dcols)", "dxp[:, k, i, j] += dcols"),
    # the classic of padding = 0 (first call): an empty slice
    Mistake("conv2d_im2col", "shape", "dxp[:, :, padding : padding + h, padding : padding + width]", "dxp[:, :, padding:-padding, padding:-padding]"),
    # float64 for whatever came: seen in float32
    Mistake("conv2d_im2col", "dtype", "np.zeros(padded, dtype=x.dtype)", "np.zeros(padded)"),
    Mistake("ConvNaive", "state", "        self.grad.fill(0)\n", ""),  # zeros only when allocated: the second call of a shape adds to the first
    Mistake("ConvNaive", "overwritten", "dw += np.tensordot(d, patch, axes=(0, 0))", "dw = np.tensordot(d, patch, axes=(0, 0))"),
    # the buffer's window starts at the stride's step in the forward, but not here
    Mistake("ConvNaive", "misplaced", "self.grad[:, :, i * s : i * s + kh, j * s : j * s + kw] +=", "self.grad[:, :, i : i + kh, j : j + kw] +="),
    # "a transposed convolution is one with the flipped kernel" - so its backward is flipped once too often
    Mistake("conv_transpose2d", "misplaced / transpose", 'np.einsum("nohw,co->nchw", seen, w[:, :, i, j])', 'np.einsum("nohw,co->nchw", seen, w[:, :, kh - 1 - i, kw - 1 - j])'),
    # padding crops both sides; the cotangent is laid at the origin
    Mistake("conv_transpose2d", "misplaced", "dfull[:, :, padding : padding + dy.shape[2], padding : padding + dy.shape[3]] = dy", "dfull[:, :, : dy.shape[2], : dy.shape[3]] = dy"),
    # the correlation is the same correlation once more, not flipped
    Mistake("DepthwiseConv", "misplaced / transpose", "w.flip(-1, -2)", "w"),
    # all channels' cotangents against each channel's columns
    Mistake("DepthwiseConv", "broadcast / operand", '"nckp,ncp->ck", cols, dy', '"nckp,nap->ck", cols, dy'),
    # the last partial tile is left out, in the backward alone
    Mistake("causal_conv1d", "misplaced / missing term", "for begin in range(0, length, block)", "for begin in range(0, length - block + 1, block)"),
    # what reaches over the tile's edge into the tile before is lost
    Mistake("causal_conv1d", "overwritten", "dx[:, begin : end + k - 1] += dtile", "dx[:, begin : end + k - 1] = dtile"),
    # and once more: only the tile's own rows, without those before it
    Mistake("causal_conv1d", "missing term / misplaced", "dx[:, begin : end + k - 1] += dtile", "dx[:, begin + k - 1 : end + k - 1] += dtile[:, k - 1 :]"),
    # silu' without the path through the sigmoid
    Mistake("causal_conv1d", "missing term / elementwise factor", "* s * (1 + z * (1 - s))", "* s"),
    # tap 0 is the oldest; here it is taken for the newest
    Mistake("causal_conv1d", "misplaced", "dw[i] += (rows", "dw[k - 1 - i] += (rows"),
    # the cotangent read as if it were contiguous, as kernels do: seen on one that is not (a value inside the buffer all the same)
    Mistake("DepthwiseConv", "layout", "dy.reshape(n, c, -1)", "torch.as_strided(dy, (n, c, cols.shape[3]), (c * cols.shape[3], cols.shape[3], 1))"),
    # allocated with the forward: the pullback's second call adds to the first
    Mistake("conv1d", "state", "    def pullback(dy):\n        dxp = np.zeros_like(xp)\n", "    dxp = np.zeros_like(xp)\n\n    def pullback(dy):\n"),
]
