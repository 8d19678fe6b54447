"""Attention: right functions, and the mistakes that are made in them."""

import math

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal


def _softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _t(a):
    return np.swapaxes(a, -1, -2)


# --- grouped-query attention (Llama 2 and later): each head of k and v serves several heads of q


def grouped_query_attention(q, k, v, causal=True):
    B, Hq, S, D = q.shape
    Hkv, T = k.shape[1], k.shape[2]
    if Hq % Hkv:
        raise ValueError("the heads of q must be a multiple of those of k")
    r = Hq // Hkv
    scale = 1.0 / math.sqrt(D)
    kr = np.repeat(k, r, axis=1)
    vr = np.repeat(v, r, axis=1)
    s = (q @ _t(kr)) * scale
    if causal:
        s = np.where(np.tril(np.ones((S, T), bool)), s, -np.inf)
    p = _softmax(s)
    y = p @ vr

    def pullback(dy):
        dvr = _t(p) @ dy
        dp = dy @ _t(vr)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        dq = (ds @ kr) * scale
        dkr = (_t(ds) @ q) * scale
        dk = dkr.reshape(B, Hkv, r, T, D).sum(2)
        dv = dvr.reshape(B, Hkv, r, T, v.shape[-1]).sum(2)
        return dq, dk, dv

    return y, pullback


def grouped_query_attention_torch(q, k, v, causal=True):
    if q.shape[1] % k.shape[1]:
        raise ValueError("the heads of q must be a multiple of those of k")
    r = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return torch.softmax(s, -1) @ v


# --- attention with capped scores and a sliding window (Gemma 2)


def softcap_attention(q, k, v, cap=5.0, window=3):
    S, D = q.shape[-2:]
    T = k.shape[-2]
    if S != T:
        raise ValueError("self-attention has as many queries as keys")
    scale = 1.0 / math.sqrt(D)
    ahead = np.arange(S)[:, None] - np.arange(T)[None, :]
    seen = np.abs(ahead) < window
    t = np.tanh((q @ _t(k)) * scale / cap)
    capped = np.where(seen, cap * t, -np.inf)
    p = _softmax(capped)
    y = p @ v

    def pullback(dy):
        dv = _t(p) @ dy
        dp = dy @ _t(v)
        dcapped = p * (dp - (dp * p).sum(-1, keepdims=True))
        ds = dcapped * (1.0 - t * t)
        dq = ds @ k * scale
        dk = _t(ds) @ q * scale
        return dq, dk, dv

    return y, pullback


def softcap_attention_torch(q, k, v, cap=5.0, window=3):
    S, T = q.shape[-2], k.shape[-2]
    if S != T:
        raise ValueError("self-attention has as many queries as keys")
    s = cap * torch.tanh(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) / cap)
    far = (torch.arange(S)[:, None] - torch.arange(T)[None, :]).abs() >= window
    return torch.softmax(s.masked_fill(far, -torch.inf), -1) @ v


# --- cosine attention with a learned, clamped scale per head (Swin v2)


def cosine_attention(q, k, v, log_scale, eps=1e-6):
    limit = math.log(100.0)
    nq = np.sqrt((q * q).sum(-1, keepdims=True) + eps)
    nk = np.sqrt((k * k).sum(-1, keepdims=True) + eps)
    qn, kn = q / nq, k / nk
    tau = np.exp(np.minimum(log_scale, limit))[:, None, None]
    cos = qn @ _t(kn)
    p = _softmax(tau * cos)
    y = p @ v

    def pullback(dy):
        dv = _t(p) @ dy
        dp = dy @ _t(v)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        dcos = ds * tau
        dlog = (ds * cos * tau).sum((0, 2, 3)) * (log_scale <= limit)
        dqn = dcos @ kn
        dkn = _t(dcos) @ qn
        dq = (dqn - qn * (dqn * qn).sum(-1, keepdims=True)) / nq
        dk = (dkn - kn * (dkn * kn).sum(-1, keepdims=True)) / nk
        return dq, dk, dv, dlog

    return y, pullback


def cosine_attention_torch(q, k, v, log_scale, eps=1e-6):
    qn = q / torch.sqrt((q * q).sum(-1, keepdim=True) + eps)
    kn = k / torch.sqrt((k * k).sum(-1, keepdim=True) + eps)
    tau = torch.exp(torch.clamp(log_scale, max=math.log(100.0)))[:, None, None]
    return torch.softmax(tau * (qn @ kn.transpose(-1, -2)), -1) @ v


# --- multi-head self-attention, as in a course: one projection to q, k and v


def mha_forward(x, Wqkv, bqkv, Wo, bo, heads=2):
    B, S, E = x.shape
    if E % heads:
        raise ValueError("the width must be a multiple of the heads")
    d = E // heads
    qkv = x @ Wqkv + bqkv
    q, k, v = (a.reshape(B, S, heads, d).transpose(0, 2, 1, 3) for a in np.split(qkv, 3, axis=-1))
    s = q @ _t(k) / math.sqrt(d)
    p = _softmax(s)
    merged = (p @ v).transpose(0, 2, 1, 3).reshape(B, S, E)
    y = merged @ Wo + bo
    return y, (x, Wqkv, Wo, q, k, v, p, merged, heads)


def mha_backward(dout, cache):
    x, Wqkv, Wo, q, k, v, p, merged, heads = cache
    B, S, E = x.shape
    d = E // heads
    dbo = dout.sum(axis=(0, 1))
    dWo = merged.reshape(-1, E).T @ dout.reshape(-1, dout.shape[-1])
    dctx = (dout @ Wo.T).reshape(B, S, heads, d).transpose(0, 2, 1, 3)
    dv = _t(p) @ dctx
    dp = dctx @ _t(v)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / math.sqrt(d)
    dq = ds @ k
    dk = _t(ds) @ q
    flat = [a.transpose(0, 2, 1, 3).reshape(B, S, E) for a in (dq, dk, dv)]
    dqkv = np.concatenate(flat, axis=-1)
    dbqkv = dqkv.sum(axis=(0, 1))
    dWqkv = x.reshape(-1, E).T @ dqkv.reshape(-1, 3 * E)
    dx = dqkv @ Wqkv.T
    return dx, dWqkv, dbqkv, dWo, dbo


mha = (mha_forward, mha_backward)


def mha_torch(x, Wqkv, bqkv, Wo, bo, heads=2):
    B, S, E = x.shape
    q, k, v = (a.reshape(B, S, heads, E // heads).transpose(1, 2) for a in (x @ Wqkv + bqkv).chunk(3, -1))
    p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(E // heads), -1)
    return (p @ v).transpose(1, 2).reshape(B, S, E) @ Wo + bo


# --- rotary embedding of the first dimensions of each head (GPT-NeoX), the rest passes


def partial_rotary(x, rotary=4, base=10000.0):
    S, D = x.shape[-2:]
    if rotary > D or rotary % 2:
        raise ValueError("rotary must be even and fit")
    half = rotary // 2
    angles = np.arange(S)[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    x1, x2, rest = x[..., :half], x[..., half:rotary], x[..., rotary:]
    y = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], axis=-1)

    def pullback(dy):
        d1, d2, drest = dy[..., :half], dy[..., half:rotary], dy[..., rotary:]
        g1 = d1 * cos + d2 * sin
        g2 = d2 * cos - d1 * sin
        return (np.concatenate([g1, g2, drest], axis=-1),)

    return y, pullback


def partial_rotary_torch(x, rotary=4, base=10000.0):
    if rotary > x.shape[-1] or rotary % 2:
        raise ValueError("rotary must be even and fit")
    half = rotary // 2
    power = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * power
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    x1, x2 = x[..., :half], x[..., half:rotary]
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin, x[..., rotary:]], -1)


SUBJECTS = {
    "grouped_query_attention": Subject(
        against=grouped_query_attention_torch,
        calls=[
            call(normal(2, 4, 5, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 3)),
            call(normal(1, 6, 3, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 4), causal=False),
        ],
    ),
    "softcap_attention": Subject(
        against=softcap_attention_torch,
        calls=[
            call(normal(2, 5, 4), normal(2, 5, 4), normal(2, 5, 4)),
            call(normal(1, 4, 3, scale=2.0), normal(1, 4, 3), normal(1, 4, 2), cap=2.0, window=2),
        ],
    ),
    "cosine_attention": Subject(
        against=cosine_attention_torch,
        calls=[
            call(normal(2, 3, 4, 3), normal(2, 3, 5, 3), normal(2, 3, 5, 2), normal(3, shift=1.0)),
            call(normal(1, 2, 3, 4), normal(1, 2, 3, 4), normal(1, 2, 3, 4), normal(2), eps=1e-3),
        ],
    ),
    "mha": Subject(
        against=mha_torch,
        calls=[
            call(normal(2, 3, 4), normal(4, 12), normal(12), normal(4, 4), normal(4)),
            call(normal(1, 5, 6, scale=0.5), normal(6, 18), normal(18), normal(6, 6), normal(6), heads=3),
        ],
    ),
    "partial_rotary": Subject(
        against=partial_rotary_torch,
        calls=[call(normal(2, 2, 5, 6)), call(normal(1, 2, 4, 8), rotary=8, base=100.0)],
    ),
}
MISTAKES = [
    # the heads folded as if k had been tiled, not repeated
    Mistake("grouped_query_attention", "misplaced", "dkr.reshape(B, Hkv, r, T, D).sum(2)", "dkr.reshape(B, r, Hkv, T, D).sum(1)"),
    # the group averaged, for v alone
    Mistake("grouped_query_attention", "factor", "T, v.shape[-1]).sum(2)", "T, v.shape[-1]).mean(2)"),
    # the slope of the cap forgotten
    Mistake("softcap_attention", "elementwise factor", "ds = dcapped * (1.0 - t * t)", "ds = dcapped"),
    # the chain through / cap forgotten: cap * (1 - t²), a constant factor in q and k
    Mistake("softcap_attention", "factor", "dcapped * (1.0 - t * t)", "dcapped * cap * (1.0 - t * t)"),
    # the projection of the normalization left out, for k alone
    Mistake("cosine_attention", "missing term", "(dkn - kn * (dkn * kn).sum(-1, keepdims=True)) / nk", "dkn / nk"),
    # the exponential's own slope, per head
    Mistake("cosine_attention", "elementwise factor", "(ds * cos * tau)", "(ds * cos)"),
    # the bias summed over the batch alone: (S, E) comes back
    Mistake("mha", "broadcast / shape", "dbo = dout.sum(axis=(0, 1))", "dbo = dout.sum(axis=0)"),
    # heads not moved back before they are merged
    Mistake("mha", "misplaced", "[a.transpose(0, 2, 1, 3).reshape(B, S, E) for a", "[a.reshape(B, S, E) for a"),
    # the forward's rotation taken again in the backward
    Mistake("partial_rotary", "rotation", "g1 = d1 * cos + d2 * sin\n        g2 = d2 * cos - d1 * sin", "g1 = d1 * cos - d2 * sin\n        g2 = d2 * cos + d1 * sin"),
    # GPT-J's interleaved pairs where NeoX has halves
    Mistake("partial_rotary", "misplaced", "np.concatenate([g1, g2, drest], axis=-1)", "np.concatenate([np.stack([g1, g2], -1).reshape(*dy.shape[:-1], rotary), drest], axis=-1)"),
]
