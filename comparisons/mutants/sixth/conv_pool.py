"""Convolutions and pools: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit

from ..mistakes import Mistake, Subject, call, normal


def conv1d(x, weight, bias, stride=1, padding=0, dilation=1):
    """x (batch, channels, length), weight (out, channels, taps): a sum over the taps."""
    n, c, length = x.shape
    taps = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    size = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    reach = (size - 1) * stride + 1
    y = np.zeros((n, weight.shape[0], size), x.dtype)
    for k in range(taps):
        at = k * dilation
        y += np.einsum("ncl,oc->nol", padded[:, :, at : at + reach : stride], weight[:, :, k])
    y += bias[:, None]

    def pullback(dy):
        dpadded = np.zeros(padded.shape, x.dtype)
        dweight = np.zeros(weight.shape, weight.dtype)
        for k in range(taps):
            spot = slice(k * dilation, k * dilation + reach, stride)
            dweight[:, :, k] = np.einsum("nol,ncl->oc", dy, padded[:, :, spot])
            dpadded[:, :, spot] += np.einsum("nol,oc->ncl", dy, weight[:, :, k])
        dx = dpadded[:, :, padding : padding + length]
        return dx, dweight, dy.sum((0, 2))

    return y, pullback


def causal_conv_silu(x, weight, bias):
    """The short convolution of Mamba: x (batch, time, channels), weight (channels, taps), then SiLU."""
    taps, time = weight.shape[1], x.shape[1]
    padded = np.pad(x, ((0, 0), (taps - 1, 0), (0, 0)))
    pre = np.zeros(x.shape, x.dtype) + bias
    for k in range(taps):
        pre += padded[:, k : k + time] * weight[:, k]
    y = pre * expit(pre)
    saved = pre

    def pullback(dy):
        s = expit(saved)
        dpre = dy * s * (1 + saved * (1 - s))
        dpadded = np.zeros(padded.shape, x.dtype)
        dweight = np.zeros(weight.shape, weight.dtype)
        for k in range(taps):
            dweight[:, k] = (dpre * padded[:, k : k + time]).sum((0, 1))
            dpadded[:, k : k + time] += dpre * weight[:, k]
        return dpadded[:, taps - 1 :], dweight, dpre.sum((0, 1))

    return y, pullback


def causal_conv_silu_torch(x, weight, bias):
    taps = weight.shape[1]
    padded = F.pad(x.transpose(1, 2), (taps - 1, 0))
    pre = F.conv1d(padded, weight[:, None, :], bias, groups=weight.shape[0])
    return (pre * torch.sigmoid(pre)).transpose(1, 2)


class MaxPool:
    """Windows may overlap; of equal values the first one takes the gradient."""

    def forward(self, x, kernel_size=3, stride=2):
        self.x, self.k, self.s = x, kernel_size, stride
        n, c, h, w = x.shape
        y = np.zeros((n, c, (h - kernel_size) // stride + 1, (w - kernel_size) // stride + 1), x.dtype)
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                a, b = i * stride, j * stride
                y[:, :, i, j] = x[:, :, a : a + kernel_size, b : b + kernel_size].max((2, 3))
        return y

    def backward(self, dout):
        x, k, s = self.x, self.k, self.s
        dx = np.zeros(x.shape, x.dtype)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                rows, columns = slice(i * s, i * s + k), slice(j * s, j * s + k)
                flat = x[:, :, rows, columns].reshape(x.shape[:2] + (k * k,))
                mask = np.eye(k * k, dtype=x.dtype)[flat.argmax(-1)]
                part = mask * dout[:, :, i, j, None]
                dx[:, :, rows, columns] += part.reshape(x.shape[:2] + (k, k))
        return dx


def avg_pool_forward(x, size=2, stride=2, padding=1):
    """The mean over what lies inside of the picture (count_include_pad=False)."""
    n, c, h, w = x.shape
    wide = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded, inside = np.pad(x, wide), np.pad(np.ones((1, 1, h, w), x.dtype), wide)
    oh, ow = (h + 2 * padding - size) // stride + 1, (w + 2 * padding - size) // stride + 1
    total, counts = np.zeros((n, c, oh, ow), x.dtype), np.zeros((oh, ow), x.dtype)
    for i in range(size):
        for j in range(size):
            spot = np.s_[:, :, i : i + stride * (oh - 1) + 1 : stride, j : j + stride * (ow - 1) + 1 : stride]
            total += padded[spot]
            counts += inside[spot][0, 0]
    return total / counts, (counts, x.shape, size, stride, padding)


def avg_pool_backward(dout, cache):
    counts, (n, c, h, w), size, stride, padding = cache
    oh, ow = counts.shape
    share = dout / counts
    dpadded = np.zeros((n, c, h + 2 * padding, w + 2 * padding), dout.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * (oh - 1) + 1, stride)
            columns = slice(j, j + stride * (ow - 1) + 1, stride)
            dpadded[:, :, rows, columns] += share
    return dpadded[:, :, padding : padding + h, padding : padding + w]


avg_pool = (avg_pool_forward, avg_pool_backward)


def avg_pool_torch(x, size=2, stride=2, padding=1):
    return F.avg_pool2d(x, size, stride, padding, count_include_pad=False)


SUBJECTS = {
    "conv1d": Subject(
        against="torch.nn.functional.conv1d",
        calls=[
            call(normal(2, 3, 9), normal(4, 3, 3), normal(4), stride=2, padding=2, dilation=2),
            call(normal(2, 2, 6), normal(3, 2, 2), normal(3)),
        ],
    ),
    "causal_conv_silu": Subject(
        against=causal_conv_silu_torch,
        calls=[call(normal(2, 6, 3), normal(3, 4), normal(3)), call(normal(1, 2, 4), normal(4, 3), normal(4))],
    ),
    "MaxPool": Subject(
        against="torch.nn.functional.max_pool2d",
        calls=[
            call(normal(2, 2, 7, 5), kernel_size=3, stride=2),
            call(normal(1, 3, 6, 6), kernel_size=2, stride=2),
        ],
    ),
    "avg_pool": Subject(
        against=avg_pool_torch,
        calls=[call(normal(2, 3, 6, 4)), call(normal(1, 2, 5, 5), size=3, stride=2, padding=1)],
    ),
}

MISTAKES = [
    # nothing is left where padding is 0 (the second call)
    Mistake("conv1d", "shape", "dpadded[:, :, padding : padding + length]", "dpadded[:, :, padding:-padding]"),
    # the tap's place without the dilation, in the backward pass (the first call)
    Mistake(
        "conv1d",
        "misplaced",
        "spot = slice(k * dilation, k * dilation + reach, stride)",
        "spot = slice(k, k + reach, stride)",
    ),
    # the output is saved, where the slope wants the input of the activation
    Mistake("causal_conv_silu", "operand", "saved = pre", "saved = y"),
    # summed over time, not over the batch
    Mistake("causal_conv_silu", "broadcast / shape", "dweight, dpre.sum((0, 1))", "dweight, dpre.sum(1)"),
    # windows overlap (the first call)
    Mistake("MaxPool", "overwritten", "dx[:, :, rows, columns] += part", "dx[:, :, rows, columns] = part"),
    # ties: every equal value takes it all
    Mistake(
        "MaxPool",
        "kink",
        "mask = np.eye(k * k, dtype=x.dtype)[flat.argmax(-1)]",
        "mask = (flat == flat.max(-1, keepdims=True)).astype(x.dtype)",
    ),
    Mistake("avg_pool", "counts", "share = dout / counts", "share = dout / (size * size)"),
    # writes into dout
    Mistake("avg_pool", "mutation", "    share = dout / counts\n", "    share = dout\n    share /= counts\n"),
]
