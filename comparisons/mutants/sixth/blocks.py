"""Embeddings and modern blocks: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, integers, normal


def embedding_bag_forward(table, ids, padding_idx=0):
    """The mean of each bag's rows, without the padding."""
    keep = ids != padding_idx
    counts = np.maximum(keep.sum(1), 1).astype(table.dtype)
    y = (table[ids] * keep[:, :, None]).sum(1) / counts[:, None]
    return y, (table.shape, ids, keep, counts)


def embedding_bag_backward(dout, cache):
    shape, ids, keep, counts = cache
    dtable = np.zeros(shape, dout.dtype)
    share = dout / counts[:, None]
    spread = share[:, None, :] * keep[:, :, None]
    np.add.at(dtable, ids, spread)
    return dtable, None


embedding_bag = (embedding_bag_forward, embedding_bag_backward)


def embedding_bag_torch(table, ids, padding_idx=0):
    keep = (ids != padding_idx).to(table.dtype)
    return (table[ids] * keep[:, :, None]).sum(1) / keep.sum(1).clamp(min=1)[:, None]


def partial_rope(x, rotary=4, base=10000.0):
    """The first `rotary` features are turned in halves, the others pass: x (batch, time, heads, size)."""
    half = rotary // 2
    frequencies = base ** (-np.arange(half) / half)
    angles = np.arange(x.shape[1])[:, None, None] * frequencies
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    x1, x2 = x[..., :half], x[..., half:rotary]
    y = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, x[..., rotary:]], -1)

    def pullback(dy):
        d1, d2 = dy[..., :half], dy[..., half:rotary]
        dx = np.zeros(x.shape, x.dtype)
        dx[..., :half] = d1 * cos + d2 * sin
        dx[..., half:rotary] = d2 * cos - d1 * sin
        dx[..., rotary:] = dy[..., rotary:]
        return dx

    return y, pullback


def partial_rope_torch(x, rotary=4, base=10000.0):
    half = rotary // 2
    frequencies = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1])[:, None, None] * frequencies
    cos, sin = torch.cos(angles).to(x.dtype), torch.sin(angles).to(x.dtype)
    x1, x2 = x[..., :half], x[..., half:rotary]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin, x[..., rotary:]], -1)


class SwiGLU(torch.autograd.Function):
    """(silu(x Wgᵀ) · x Wuᵀ) Wdᵀ; gate and up are computed again in the backward pass."""

    @staticmethod
    def forward(ctx, x, w_gate, w_up, w_down):
        ctx.save_for_backward(x, w_gate, w_up, w_down)
        gate, up = x @ w_gate.T, x @ w_up.T
        return (gate * torch.sigmoid(gate) * up) @ w_down.T

    @staticmethod
    def backward(ctx, dy):
        x, w_gate, w_up, w_down = ctx.saved_tensors
        gate, up = x @ w_gate.T, x @ w_up.T
        s = torch.sigmoid(gate)
        silu = gate * s
        hidden = silu * up
        dhidden = dy @ w_down
        dup = dhidden * silu
        dgate = dhidden * up * (s + silu * (1 - s))
        rows = x.reshape(-1, x.shape[-1])
        dw_gate = dgate.reshape(-1, dgate.shape[-1]).T @ rows
        dw_up = dup.reshape(-1, dup.shape[-1]).T @ rows
        dw_down = dy.reshape(-1, dy.shape[-1]).T @ hidden.reshape(-1, hidden.shape[-1])
        return dgate @ w_gate + dup @ w_up, dw_gate, dw_up, dw_down


def swiglu_torch(x, w_gate, w_up, w_down):
    gate = x @ w_gate.T
    return (gate * torch.sigmoid(gate) * (x @ w_up.T)) @ w_down.T


def mixture(x, router, experts, top=2):
    """Softmax over the `top` experts of each token: x (tokens, size), router (experts, size), experts (experts, size, out)."""
    logits = x @ router.T
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    chosen = np.take_along_axis(logits, order, 1)
    e = np.exp(chosen - chosen.max(1, keepdims=True))
    gates = e / e.sum(1, keepdims=True)
    y = np.zeros((len(x), experts.shape[2]), x.dtype)
    for k in range(len(experts)):
        token, slot = np.nonzero(order == k)
        y[token] += gates[token, slot, None] * (x[token] @ experts[k])

    def pullback(dy):
        dx, dgates = np.zeros(x.shape, x.dtype), np.zeros(gates.shape, x.dtype)
        dexperts = np.zeros(experts.shape, experts.dtype)
        for k in range(len(experts)):
            token, slot = np.nonzero(order == k)
            dgates[token, slot] = (dy[token] * (x[token] @ experts[k])).sum(1)
            dout = gates[token, slot, None] * dy[token]
            dexperts[k] = x[token].T @ dout
            dx[token] += dout @ experts[k].T
        dchosen = gates * (dgates - (gates * dgates).sum(1, keepdims=True))
        dlogits = np.zeros(logits.shape, x.dtype)
        np.put_along_axis(dlogits, order, dchosen, 1)
        dx += dlogits @ router
        return dx, dlogits.T @ x, dexperts

    return y, pullback


def mixture_torch(x, router, experts, top=2):
    logits, order = torch.sort(x @ router.T, dim=1, descending=True, stable=True)
    gates, order = torch.softmax(logits[:, :top], 1), order[:, :top]
    each = (x[:, None, None, :] @ experts[order])[:, :, 0]
    return (gates[:, :, None] * each).sum(1)


SUBJECTS = {
    "embedding_bag": Subject(
        against=embedding_bag_torch,
        calls=[call(normal(5, 4), integers(3, 6, below=5)), call(normal(7, 2), integers(4, 3, below=7), padding_idx=3)],
    ),
    "partial_rope": Subject(
        against=partial_rope_torch,
        calls=[call(normal(2, 5, 2, 7)), call(normal(1, 4, 3, 6), rotary=6, base=100.0)],
    ),
    "SwiGLU": Subject(
        against=swiglu_torch,
        calls=[call(normal(2, 3, 4), normal(5, 4), normal(5, 4), normal(4, 5))],
    ),
    "mixture": Subject(
        against=mixture_torch,
        calls=[call(normal(6, 4), normal(4, 4), normal(4, 4, 3)), call(normal(5, 3), normal(3, 3), normal(3, 3, 2), top=1)],
    ),
}

MISTAKES = [
    # of ids that occur twice only one counts
    Mistake("embedding_bag", "overwritten", "np.add.at(dtable, ids, spread)", "dtable[ids] += spread"),
    # by the length of the bag, padding and all
    Mistake("embedding_bag", "counts", "share = dout / counts[:, None]", "share = dout / ids.shape[1]"),
    # turned on, where it is to be turned back
    Mistake(
        "partial_rope",
        "rotation",
        "dx[..., :half] = d1 * cos + d2 * sin\n        dx[..., half:rotary] = d2 * cos - d1 * sin",
        "dx[..., :half] = d1 * cos - d2 * sin\n        dx[..., half:rotary] = d2 * cos + d1 * sin",
    ),
    # what passes (the first call)
    Mistake("partial_rope", "misplaced / missing term", "        dx[..., rotary:] = dy[..., rotary:]\n", ""),
    Mistake("SwiGLU", "swapped", "dup @ w_up, dw_gate, dw_up, dw_down", "dup @ w_up, dw_up, dw_gate, dw_down"),
    # the down projection's input is the product, not the gate
    Mistake("SwiGLU", "operand / elementwise factor", ".T @ hidden.reshape(-1, hidden.shape[-1])", ".T @ silu.reshape(-1, silu.shape[-1])"),
    # in the order of rank, not of the experts
    Mistake("mixture", "misplaced", "np.put_along_axis(dlogits, order, dchosen, 1)", "dlogits[:, : dchosen.shape[1]] = dchosen"),
    # float64 whatever comes (float32 arguments)
    Mistake("mixture", "dtype", "dexperts = np.zeros(experts.shape, experts.dtype)", "dexperts = np.zeros(experts.shape)"),
]
