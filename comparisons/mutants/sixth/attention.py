"""Attention: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal


def swap(a):
    return np.swapaxes(a, -1, -2)


def tile_scores(qi, kj, i, j, scale, causal):
    s = qi @ swap(kj) * scale
    if causal:
        rows = i + np.arange(qi.shape[-2])[:, None]
        columns = j + np.arange(kj.shape[-2])[None, :]
        s = np.where(columns > rows, np.asarray(-np.inf, s.dtype), s)
    return s


def flash_attention(q, k, v, block=3, causal=True):
    """Tiles of keys under tiles of queries; the backward pass recomputes p from the saved logsumexp."""
    n, m = q.shape[-2], k.shape[-2]
    scale = q.shape[-1] ** -0.5
    out = np.zeros(q.shape[:-1] + v.shape[-1:], q.dtype)
    lse = np.zeros(q.shape[:-1], q.dtype)
    for i in range(0, n, block):
        qi = q[..., i : i + block, :]
        top = np.full(qi.shape[:-1], -np.inf, q.dtype)
        total = np.zeros(qi.shape[:-1], q.dtype)
        acc = np.zeros(qi.shape[:-1] + v.shape[-1:], q.dtype)
        for j in range(0, min(m, i + block) if causal else m, block):
            s = tile_scores(qi, k[..., j : j + block, :], i, j, scale, causal)
            new = np.maximum(top, s.max(-1))
            shrink = np.exp(top - new)
            p = np.exp(s - new[..., None])
            total = total * shrink + p.sum(-1)
            acc = acc * shrink[..., None] + p @ v[..., j : j + block, :]
            top = new
        out[..., i : i + block, :] = acc / total[..., None]
        lse[..., i : i + block] = top + np.log(total)

    def pullback(dout):
        dq, dk, dv = (np.zeros(a.shape, a.dtype) for a in (q, k, v))
        delta = (dout * out).sum(-1)
        for j in range(0, m, block):
            kj, vj = k[..., j : j + block, :], v[..., j : j + block, :]
            start = j if causal else 0
            for i in range(start, n, block):
                qi, doi = q[..., i : i + block, :], dout[..., i : i + block, :]
                s = tile_scores(qi, kj, i, j, scale, causal)
                p = np.exp(s - lse[..., i : i + block, None])
                dv[..., j : j + block, :] += swap(p) @ doi
                dp = doi @ swap(vj)
                ds = p * (dp - delta[..., i : i + block, None]) * scale
                dq[..., i : i + block, :] += ds @ kj
                dk[..., j : j + block, :] += swap(ds) @ qi
        return dq, dk, dv

    return out, pullback


def attention_torch(q, k, v, block=3, causal=True):
    s = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
        s = s.masked_fill(hidden, float("-inf"))
    return torch.softmax(s, -1) @ v


def gqa_forward(q, k, v, cap=5.0):
    """Grouped queries, logits capped by tanh: q (batch, time, heads, size), k and v (batch, time, fewer heads, size)."""
    batch, time, heads, size = q.shape
    few = k.shape[2]
    qg = q.reshape(batch, time, few, heads // few, size)
    s = np.einsum("bthgd,bshd->bhgts", qg, k) * size**-0.5
    t = np.tanh(s / cap)
    seen = np.tril(np.ones((time, k.shape[1]), bool))
    s = np.where(seen, cap * t, np.asarray(-np.inf, t.dtype))
    e = np.exp(s - s.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    y = np.einsum("bhgts,bshd->bthgd", p, v).reshape(batch, time, heads, v.shape[-1])
    return y, (qg, k, v, p, t, q.shape)


def gqa_backward(dout, cache):
    qg, k, v, p, t, shape = cache
    batch, time, few, groups, size = qg.shape
    dog = dout.reshape(batch, time, few, groups, v.shape[-1])
    dv = np.einsum("bhgts,bthgd->bshd", p, dog)
    dp = np.einsum("bthgd,bshd->bhgts", dog, v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    ds = ds * (1 - t * t)
    ds = ds * size**-0.5
    dq = np.einsum("bhgts,bshd->bthgd", ds, k).reshape(shape)
    dk = np.einsum("bhgts,bthgd->bshd", ds, qg)
    return dq, dk, dv


gqa = (gqa_forward, gqa_backward)


def gqa_torch(q, k, v, cap=5.0):
    times = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(times, 2), v.repeat_interleave(times, 2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    s = cap * torch.tanh(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 / cap)
    hidden = torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)
    p = torch.softmax(s.masked_fill(hidden, float("-inf")), -1)
    return (p @ v).transpose(1, 2)


class AdditiveAttention:
    """Bahdanau: one query a sample; the encoder's states are keys and values at once."""

    def forward(self, query, states, wq, wk, v):
        pre = (query @ wq)[:, None, :] + states @ wk
        act = np.tanh(pre)
        s = act @ v
        e = np.exp(s - s.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        self.cache = query, states, wq, wk, v, pre, act, p
        return np.einsum("bs,bsd->bd", p, states)

    def backward(self, dout):
        query, states, wq, wk, v, pre, act, p = self.cache
        dp = np.einsum("bd,bsd->bs", dout, states)
        ds = p * (dp - (p * dp).sum(1, keepdims=True))
        dv = np.einsum("bs,bsh->h", ds, act)
        dpre = ds[:, :, None] * v * (1 - act**2)
        dstates = dpre @ wk.T
        dstates += p[:, :, None] * dout[:, None, :]
        dwk = np.einsum("bsd,bsh->dh", states, dpre)
        dh = dpre.sum(1)
        return dh @ wq.T, dstates, query.T @ dh, dwk, dv


def additive_torch(query, states, wq, wk, v):
    act = torch.tanh((query @ wq)[:, None, :] + states @ wk)
    p = torch.softmax(act @ v, 1)
    return (p[:, :, None] * states).sum(1)


SUBJECTS = {
    "flash_attention": Subject(
        against=attention_torch,
        calls=[
            call(normal(2, 2, 7, 4), normal(2, 2, 7, 4), normal(2, 2, 7, 4)),
            call(normal(2, 5, 3), normal(2, 8, 3), normal(2, 8, 2), block=4, causal=False),
        ],
    ),
    "gqa": Subject(
        against=gqa_torch,
        calls=[
            call(normal(2, 5, 6, 4), normal(2, 5, 2, 4), normal(2, 5, 2, 4)),
            call(normal(1, 4, 4, 3), normal(1, 4, 2, 3), normal(1, 4, 2, 3), cap=2.0),
        ],
    ),
    "AdditiveAttention": Subject(
        against=additive_torch,
        calls=[call(normal(3, 4), normal(3, 5, 6), normal(4, 7), normal(6, 7), normal(7))],
    ),
}

MISTAKES = [
    # each tile of keys overwrites what the one before gave to the queries
    Mistake(
        "flash_attention",
        "overwritten",
        "dq[..., i : i + block, :] += ds @ kj",
        "dq[..., i : i + block, :] = ds @ kj",
    ),
    # the tiles on the diagonal are skipped, as if they were masked entirely
    Mistake("flash_attention", "misplaced", "start = j if causal else 0", "start = j + block if causal else 0"),
    # the row's sum of p·dp is taken within the tile
    Mistake(
        "flash_attention",
        "missing term / misplaced",
        "ds = p * (dp - delta[..., i : i + block, None]) * scale",
        "ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale",
    ),
    Mistake("gqa", "elementwise factor", "    ds = ds * (1 - t * t)\n", ""),
    # heads in the order of repeat, where the forward has that of repeat_interleave
    Mistake(
        "gqa",
        "misplaced",
        "dout.reshape(batch, time, few, groups, v.shape[-1])",
        "dout.reshape(batch, time, groups, few, v.shape[-1]).swapaxes(2, 3)",
    ),
    # the states are values too
    Mistake("AdditiveAttention", "missing term", "        dstates += p[:, :, None] * dout[:, None, :]\n", ""),
    Mistake("AdditiveAttention", "operand", '"bs,bsh->h", ds, act)', '"bs,bsh->h", ds, pre)'),
]
