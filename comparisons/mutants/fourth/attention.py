"""Attention: right functions, and the mistakes that are made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal


def flash_attention(q, k, v, causal=False, block=4):
    """Attention by tiles: the forward saves the logsumexp of each row, the backward computes the weights again."""
    L, S = q.shape[-2], k.shape[-2]
    scale = q.shape[-1] ** -0.5
    visible = np.arange(L)[:, None] >= np.arange(S) if causal else np.ones((L, S), bool)
    o = np.zeros(q.shape[:-1] + v.shape[-1:], q.dtype)
    lse = np.zeros(q.shape[:-1] + (1,), q.dtype)
    for i in range(0, L, block):
        rows = slice(i, i + block)
        top = np.full_like(lse[..., rows, :], -np.inf)
        total, acc = np.zeros_like(top), np.zeros_like(o[..., rows, :])
        for j in range(0, S, block):
            cols = slice(j, j + block)
            s = scale * (q[..., rows, :] @ np.swapaxes(k[..., cols, :], -1, -2))
            s = np.where(visible[rows, cols], s, -np.inf)
            new = np.maximum(top, s.max(-1, keepdims=True))
            p = np.exp(s - new)
            shrink = np.exp(top - new)
            total = total * shrink + p.sum(-1, keepdims=True)
            acc = acc * shrink + p @ v[..., cols, :]
            top = new
        o[..., rows, :] = acc / total
        lse[..., rows, :] = top + np.log(total)

    def pullback(do):
        delta = (do * o).sum(-1, keepdims=True)
        dq, dk, dv = np.zeros(q.shape, q.dtype), np.zeros(k.shape, k.dtype), np.zeros(v.shape, v.dtype)
        for j in range(0, S, block):
            cols = slice(j, j + block)
            first = (j // block) * block if causal else 0
            for i in range(first, L, block):
                rows = slice(i, i + block)
                s = scale * (q[..., rows, :] @ np.swapaxes(k[..., cols, :], -1, -2))
                p = np.where(visible[rows, cols], np.exp(s - lse[..., rows, :]), 0)
                dv[..., cols, :] += np.swapaxes(p, -1, -2) @ do[..., rows, :]
                dp = do[..., rows, :] @ np.swapaxes(v[..., cols, :], -1, -2)
                ds = p * (dp - delta[..., rows, :])
                dq[..., rows, :] += scale * (ds @ k[..., cols, :])
                dk[..., cols, :] += scale * (np.swapaxes(ds, -1, -2) @ q[..., rows, :])
        return dq, dk, dv

    return o, pullback


def flash_attention_torch(q, k, v, causal=False, block=4):
    s = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    return torch.softmax(s, -1) @ v


def grouped_query_attention(q, k, v):
    """q of (B, H, T, D), keys and values of (B, G, T, D): each of the G heads serves H // G heads of queries, in torch."""
    B, H, T, D = q.shape
    G = k.shape[1]
    scale = D**-0.5
    qg = q.reshape(B, G, H // G, T, D)
    p = torch.softmax(scale * torch.einsum("bgrtd,bgsd->bgrts", qg, k), -1)
    o = torch.einsum("bgrts,bgsd->bgrtd", p, v).reshape(B, H, T, v.shape[-1])

    def pullback(do):
        dog = do.reshape(B, G, H // G, T, v.shape[-1])
        dv = torch.einsum("bgrts,bgrtd->bgsd", p, dog)
        dp = torch.einsum("bgrtd,bgsd->bgrts", dog, v)
        ds = scale * p * (dp - (dp * p).sum(-1, keepdim=True))
        dq = torch.einsum("bgrts,bgsd->bgrtd", ds, k).reshape(q.shape)
        dk = torch.einsum("bgrts,bgrtd->bgrsd", ds, qg).sum(2)
        return dq, dk, dv

    return o, pullback


def grouped_query_attention_torch(q, k, v):
    r = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


_TABLES = {}


def rotary(x, rotate=4, base=10000.0, offset=0):
    """Neighbouring pairs of the first `rotate` channels of (…, T, D) are turned; the others pass."""
    T = x.shape[-2]
    key = (T, rotate, base, offset)
    if key not in _TABLES:
        _TABLES[key] = np.outer(np.arange(offset, offset + T), base ** (-np.arange(0, rotate, 2) / rotate))
    angle = np.outer(np.arange(offset, offset + T), base ** (-np.arange(0, rotate, 2) / rotate))
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    even, odd = x[..., 0:rotate:2], x[..., 1:rotate:2]
    y = x.copy()
    y[..., 0:rotate:2] = even * cos - odd * sin
    y[..., 1:rotate:2] = odd * cos + even * sin

    def pullback(dy):
        a = _TABLES[key]
        c, s = np.cos(a).astype(dy.dtype), np.sin(a).astype(dy.dtype)
        dx = dy.copy()
        dx[..., 0:rotate:2] = dy[..., 0:rotate:2] * c + dy[..., 1:rotate:2] * s
        dx[..., 1:rotate:2] = dy[..., 1:rotate:2] * c - dy[..., 0:rotate:2] * s
        return (dx,)

    return y, pullback


def rotary_torch(x, rotate=4, base=10000.0, offset=0):
    t = torch.arange(offset, offset + x.shape[-2], dtype=torch.float64)
    f = base ** (-torch.arange(0, rotate, 2, dtype=torch.float64) / rotate)
    c, s = torch.cos(torch.outer(t, f)).to(x.dtype), torch.sin(torch.outer(t, f)).to(x.dtype)
    a, b = x[..., 0:rotate:2], x[..., 1:rotate:2]
    turned = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    return torch.cat([turned, x[..., rotate:]], -1)


def softmax_with_sink(s, sink):
    """Weights of scores (B, H, T, S) where each head has one more score, learnt, that takes weight and gives nothing."""
    m = np.maximum(s.max(-1, keepdims=True), sink[:, None, None])
    e = np.exp(s - m)
    rest = np.exp(sink[:, None, None] - m)
    p = e / (e.sum(-1, keepdims=True) + rest)
    p_sink = rest / (e.sum(-1, keepdims=True) + rest)

    def pullback(dp):
        inner = (p * dp).sum(-1, keepdims=True)
        ds = p * (dp - inner)
        dsink = (-p_sink * inner).sum((0, 2, 3))
        return ds, dsink

    return p, pullback


def softmax_with_sink_torch(s, sink):
    full = torch.cat([s, sink[None, :, None, None].expand(*s.shape[:-1], 1)], -1)
    return torch.softmax(full, -1)[..., :-1]


def additive_forward(q, keys, Wq, Wk, v):
    """Bahdanau's attention: q (N, D), keys (N, T, E) → contexts (N, E)."""
    h = np.tanh((q @ Wq)[:, None] + keys @ Wk)
    e = h @ v
    a = np.exp(e - e.max(1, keepdims=True))
    a = a / a.sum(1, keepdims=True)
    context = np.einsum("nt,nte->ne", a, keys)
    return context, (q, keys, Wq, Wk, v, h, a)


def additive_backward(dout, cache):
    q, keys, Wq, Wk, v, h, a = cache
    da = np.einsum("ne,nte->nt", dout, keys)
    dkeys = a[:, :, None] * dout[:, None]
    de = a * (da - np.sum(a * da, axis=1, keepdims=True))
    dv = np.einsum("nt,nth->h", de, h)
    dz = de[:, :, None] * v * (1 - h**2)
    dWk = np.einsum("nte,nth->eh", keys, dz)
    dkeys = dkeys + dz @ Wk.T
    dzq = dz.sum(1)
    dWq = q.T @ dzq
    dq = dzq @ Wq.T
    return dq, dkeys, dWq, dWk, dv


additive = (additive_forward, additive_backward)


def additive_torch(q, keys, Wq, Wk, v):
    a = torch.softmax(torch.tanh((q @ Wq)[:, None] + keys @ Wk) @ v, 1)
    return (a[..., None] * keys).sum(1)


SUBJECTS = {
    "flash_attention": Subject(
        against=flash_attention_torch,
        calls=[
            call(normal(2, 2, 7, 3), normal(2, 2, 7, 3), normal(2, 2, 7, 3), causal=True, block=4),
            call(normal(1, 2, 5, 4), normal(1, 2, 9, 4), normal(1, 2, 9, 2), causal=False, block=4),
        ],
    ),
    "grouped_query_attention": Subject(
        against=grouped_query_attention_torch, calls=[call(normal(2, 6, 4, 3), normal(2, 2, 4, 3), normal(2, 2, 4, 3))]
    ),
    "rotary": Subject(
        against=rotary_torch, calls=[call(normal(2, 3, 5, 6)), call(normal(2, 5, 8), rotate=8, base=100.0, offset=3), call(normal(1, 5, 4), base=50.0)]
    ),
    "softmax_with_sink": Subject(against=softmax_with_sink_torch, calls=[call(normal(2, 3, 4, 5), normal(3))]),
    "additive": Subject(
        against=additive_torch, calls=[call(normal(3, 4), normal(3, 5, 2), normal(4, 6), normal(2, 6), normal(6))]
    ),
}
MISTAKES = [
    # each tile centres its own weights: right with one block of keys only
    Mistake("flash_attention", "missing term / operand / misplaced", "ds = p * (dp - delta[..., rows, :])",
            "ds = p * (dp - (p * dp).sum(-1, keepdims=True))"),
    # the diagonal tile is skipped
    Mistake("flash_attention", "misplaced / missing term", "first = (j // block) * block if causal",
            "first = (j // block + 1) * block if causal"),
    # the last, partial block of queries is left out
    Mistake("flash_attention", "misplaced / missing term", "for i in range(first, L, block):",
            "for i in range(first, L - L % block, block):"),
    # the statistics are kept in single precision, whatever q is
    Mistake("flash_attention", "precision", "lse = np.zeros(q.shape[:-1] + (1,), q.dtype)", "lse = np.zeros(q.shape[:-1] + (1,), np.float32)"),
    Mistake("flash_attention", "factor", "dk[..., cols, :] += scale * (np", "dk[..., cols, :] += (np"),
    # neighbouring heads of queries belong to one head of keys: here those G apart are taken
    Mistake("grouped_query_attention", "misplaced", "dog = do.reshape(B, G, H // G, T, v.shape[-1])",
            "dog = do.reshape(B, H // G, G, T, v.shape[-1]).transpose(1, 2)"),
    Mistake("grouped_query_attention", "factor / counts", "ds, qg).sum(2)", "ds, qg).mean(2)"),
    # the table is found again by its length alone: the third call (another base) after the first is turned back wrongly
    Mistake("rotary", "state", "key = (T, rotate, base, offset)", "key = (T, rotate)"),
    # only of the second call: the offset is forgotten in the backward's table
    Mistake("rotary", "variant", "a = _TABLES[key]", "a = np.outer(np.arange(T), base ** (-np.arange(0, rotate, 2) / rotate))"),
    # turned on, not back
    Mistake("rotary", "rotation / sign", "np.sin(a).astype(dy.dtype)", "np.sin(-a).astype(dy.dtype)"),
    # only of the first call: the channels that pass
    Mistake("rotary", "missing term / misplaced", "dx = dy.copy()", "dx = np.zeros_like(dy)"),
    Mistake("softmax_with_sink", "variant / elementwise factor / operand / missing term", "ds = p * (dp - inner)",
            "ds = p * (dp - inner / p.sum(-1, keepdims=True))"),
    Mistake("softmax_with_sink", "sign", "dsink = (-p_sink", "dsink = (p_sink"),
    Mistake("softmax_with_sink", "factor / broadcast", "(-p_sink * inner).sum((0, 2, 3))", "(-p_sink * inner).mean(0).sum((1, 2))"),
    # the keys are scores and values both: only one of the two
    Mistake("additive", "overwritten / missing term", "dkeys = dkeys + dz @ Wk.T", "dkeys = dz @ Wk.T"),
    Mistake("additive", "broadcast / missing term / misplaced / operand", "dzq = dz.sum(1)", "dzq = dz[:, -1]"),
]
