"""Kernels in tiles: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, integers, normal


def fused_linear_cross_entropy(x, weight, labels, chunk=3):
    """Head and loss in one, some rows at a time: the logits are never there all at once. loss, (dx, dweight)."""
    n = len(x)
    chunks = -(-n // chunk)
    loss = np.zeros((), x.dtype)
    dx, dweight = np.zeros(x.shape, x.dtype), np.zeros(weight.shape, weight.dtype)
    for k in range(chunks):
        rows = slice(k * chunk, min(n, (k + 1) * chunk))
        xc, yc = x[rows], labels[rows]
        at = np.arange(len(xc))
        logits = xc @ weight.T
        shifted = logits - logits.max(1, keepdims=True)
        p = np.exp(shifted)
        total = p.sum(1, keepdims=True)
        loss = loss + (np.log(total[:, 0]) - shifted[at, yc]).sum() / n
        p /= total
        p[at, yc] -= 1
        p /= n
        dx[rows] = p @ weight
        dweight += p.T @ xc
    return loss, (dx, dweight)


def fused_linear_cross_entropy_torch(x, weight, labels, chunk=3):
    return F.cross_entropy(x @ weight.T, labels)


def tiled_logsumexp(x, tile=4):
    """Over the last axis, online; the pullback computes exp(x - logsumexp) tile by tile."""
    size = x.shape[-1]
    rows = x.reshape(-1, size)
    top = np.full(len(rows), -np.inf, x.dtype)
    total = np.zeros(len(rows), x.dtype)
    for j in range(0, size, tile):
        part = rows[:, j : j + tile]
        new = np.maximum(top, part.max(1))
        total = total * np.exp(top - new) + np.exp(part - new[:, None]).sum(1)
        top = new
    lse = top + np.log(total)
    saved = lse

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        out, drows = dx.reshape(-1, size), dy.reshape(-1, 1)
        for j in range(0, size, tile):
            out[:, j : j + tile] = drows * np.exp(rows[:, j : j + tile] - saved[:, None])
        return dx

    return lse.reshape(x.shape[:-1]), pullback


def tiled_logsumexp_torch(x, tile=4):
    return torch.logsumexp(x, -1)


SUBJECTS = {
    "fused_linear_cross_entropy": Subject(
        against=fused_linear_cross_entropy_torch,
        calls=[
            call(normal(7, 4), normal(6, 4), integers(7, below=6)),
            call(normal(5, 3), normal(4, 3), integers(5, below=4), chunk=2),
        ],
    ),
    "tiled_logsumexp": Subject(
        against=tiled_logsumexp_torch,
        calls=[call(normal(2, 3, 10)), call(normal(5, 6), tile=5)],
    ),
}

MISTAKES = [
    # the mean within each chunk, and the mean of these (the last chunk is shorter)
    Mistake("fused_linear_cross_entropy", "counts", "p /= n\n", "p /= len(xc) * chunks\n"),
    # the logsumexp is kept in float32 "as in the kernel" (float64 arguments)
    Mistake("tiled_logsumexp", "precision", "saved = lse\n", "saved = lse.astype(np.float32)\n"),
    # where x is not contiguous the rows are a copy, and dx stays zero (three axes, transposed in memory)
    Mistake("tiled_logsumexp", "layout", "dx = np.zeros(x.shape, x.dtype)", "dx = np.zeros_like(x)"),
]
