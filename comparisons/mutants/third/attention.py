"""Attention: right functions, and the mistakes that are made in them."""

import math

import numpy as np
import torch

from ..mistakes import Mistake, Subject, booleans, call, normal

BLOCK = 4


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return g.sum(axis=axes, keepdims=True)


# plain: a rule -------------------------------------------------------------------------------------------------------
def attention(q, k, v, is_causal=False, scale=None):
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = factor * (q @ k.swapaxes(-1, -2))
    if is_causal:
        hidden = np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)
        scores = np.where(hidden, -np.inf, scores)
    p = softmax(scores)
    y = p @ v

    def pullback(dy):
        dp = dy @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        dq = factor * (ds @ k)
        dk = factor * (ds.swapaxes(-1, -2) @ q)
        dv = p.swapaxes(-1, -2) @ dy
        return dq, dk, dv

    return y, pullback


# course: forward and backward with a cache, a bias that broadcasts -----------------------------------------------------
def biased_attention_forward(q, k, v, bias):
    d = q.shape[-1]
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(d) + bias
    probs = softmax(scores)
    out = probs @ v
    cache = (q, k, v, bias, probs)
    return out, cache


def biased_attention_backward(dout, cache):
    q, k, v, bias, probs = cache
    d = q.shape[-1]
    dv = probs.swapaxes(-1, -2) @ dout
    dprobs = dout @ v.swapaxes(-1, -2)
    dscores = probs * (dprobs - np.sum(dprobs * probs, axis=-1, keepdims=True))
    dbias = unbroadcast(dscores, bias.shape)
    draw = dscores / math.sqrt(d)
    dq = draw @ k
    dk = draw.swapaxes(-1, -2) @ q
    return dq, dk, dv, dbias


biased_attention = (biased_attention_forward, biased_attention_backward)


def biased_attention_torch(q, k, v, bias):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + bias, -1) @ v


# plain: the dropped weights are given ---------------------------------------------------------------------------------
def dropped_attention(q, k, v, keep, rate=0.25):
    scale = q.shape[-1] ** -0.5
    p = softmax(scale * (q @ k.swapaxes(-1, -2)))
    mask = keep.astype(p.dtype) / (1.0 - rate)
    pd = p * mask
    y = pd @ v

    def pullback(dy):
        dv = pd.swapaxes(-1, -2) @ dy
        dp = (dy @ v.swapaxes(-1, -2)) * mask
        delta = (dy * y).sum(-1, keepdims=True)
        ds = scale * p * (dp - delta)
        return ds @ k, ds.swapaxes(-1, -2) @ q, dv, None

    return y, pullback


def dropped_attention_torch(q, k, v, keep, rate=0.25):
    p = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1)
    return (p * keep / (1.0 - rate)) @ v


# kernel: queries' heads share keys ------------------------------------------------------------------------------------
def grouped_attention(q, k, v):
    """q (B, H, L, D), k and v (B, G, S, D): H // G query heads per key head, neighbours together."""
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[-1])
    weights = np.empty((q.shape[0], heads, q.shape[2], k.shape[2]), q.dtype)
    y = np.empty(q.shape[:-1] + v.shape[-1:], q.dtype)
    for h in range(heads):
        weights[:, h] = softmax(scale * (q[:, h] @ k[:, h // group].swapaxes(1, 2)))
        y[:, h] = weights[:, h] @ v[:, h // group]

    def pullback(dy):
        dq = np.empty(q.shape, q.dtype)
        dk, dv = np.zeros(k.shape, k.dtype), np.zeros(v.shape, v.dtype)
        for h in range(heads):
            g = h // group
            p = weights[:, h]
            dv[:, g] += p.swapaxes(1, 2) @ dy[:, h]
            dp = dy[:, h] @ v[:, g].swapaxes(1, 2)
            ds = scale * p * (dp - (dp * p).sum(-1, keepdims=True))
            dq[:, h] = ds @ k[:, g]
            dk[:, g] += ds.swapaxes(1, 2) @ q[:, h]
        return dq, dk, dv

    return y, pullback


def grouped_attention_torch(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


# kernel: causal, blocks of queries and keys, the logsumexp saved -------------------------------------------------------
class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        n, s, scale = q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5
        out, lse = q.new_empty(q.shape[:-1] + v.shape[-1:]), q.new_empty(q.shape[:-1])
        for i in range(0, n, BLOCK):
            qi = q[..., i : i + BLOCK, :]
            rows = torch.arange(i, i + qi.shape[-2])
            top = q.new_full(qi.shape[:-1], -math.inf)
            total, acc = torch.zeros_like(top), q.new_zeros(qi.shape[:-1] + v.shape[-1:])
            for j in range(0, min(i + BLOCK, s), BLOCK):
                kj, vj = k[..., j : j + BLOCK, :], v[..., j : j + BLOCK, :]
                cols = torch.arange(j, j + kj.shape[-2])
                scores = (scale * qi @ kj.mT).masked_fill(cols > rows[:, None], -math.inf)
                new = torch.maximum(top, scores.amax(-1))
                p, shrink = torch.exp(scores - new[..., None]), torch.exp(top - new)
                total = shrink * total + p.sum(-1)
                acc = shrink[..., None] * acc + p @ vj
                top = new
            out[..., i : i + BLOCK, :] = acc / total[..., None]
            lse[..., i : i + BLOCK] = top + total.log()
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse = ctx.saved_tensors
        n, s, scale = q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        delta = (dout * out).sum(-1)
        for j in range(0, s, BLOCK):
            kj, vj = k[..., j : j + BLOCK, :], v[..., j : j + BLOCK, :]
            cols = torch.arange(j, j + kj.shape[-2])
            for i in range(j, n, BLOCK):
                qi, di = q[..., i : i + BLOCK, :], dout[..., i : i + BLOCK, :]
                rows = torch.arange(i, i + qi.shape[-2])
                p = torch.exp(scale * qi @ kj.mT - lse[..., i : i + BLOCK, None])
                p = p.masked_fill(cols > rows[:, None], 0.0)
                dv[..., j : j + BLOCK, :] += p.mT @ di
                ds = scale * p * (di @ vj.mT - delta[..., i : i + BLOCK, None])
                dq[..., i : i + BLOCK, :] += ds @ kj
                dk[..., j : j + BLOCK, :] += ds.mT @ qi
        return dq, dk, dv


def flash_torch(q, k, v):
    hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    return torch.softmax((q @ k.mT * q.shape[-1] ** -0.5).masked_fill(hidden, -math.inf), -1) @ v


# kernel: exponentials to the base 2, blocks of keys, weights recomputed -------------------------------------------------
def flash_log2(q, k, v, block=3):
    scale = 1.0 / math.sqrt(q.shape[-1])
    qk_scale = scale * math.log2(math.e)
    starts = range(0, k.shape[-2], block)
    m, l, acc = None, 0.0, 0.0
    for j in starts:
        s = qk_scale * (q @ k[..., j : j + block, :].swapaxes(-1, -2))
        top = s.max(-1, keepdims=True)
        new = top if m is None else np.maximum(m, top)
        alpha = np.zeros_like(new) if m is None else np.exp2(m - new)
        p = np.exp2(s - new)
        l = alpha * l + p.sum(-1, keepdims=True)
        acc = alpha * acc + p @ v[..., j : j + block, :]
        m = new
    y = acc / l
    lse2 = m + np.log2(l)

    def pullback(dy):
        dk, dv = np.empty(k.shape, k.dtype), np.empty(v.shape, v.dtype)
        dq = np.zeros(q.shape, q.dtype)
        delta = (dy * y).sum(-1, keepdims=True)
        for j in starts:
            kj, vj = k[..., j : j + block, :], v[..., j : j + block, :]
            p = np.exp2(qk_scale * (q @ kj.swapaxes(-1, -2)) - lse2)
            dv[..., j : j + block, :] = p.swapaxes(-1, -2) @ dy
            ds = p * (dy @ vj.swapaxes(-1, -2) - delta)
            dk[..., j : j + block, :] = scale * (ds.swapaxes(-1, -2) @ q)
            dq += scale * (ds @ kj)
        return dq, dk, dv

    return y, pullback


def flash_log2_torch(q, k, v, block=3):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


# course: a layer of several heads, projections in one matrix --------------------------------------------------------------
def multihead_forward(x, w_qkv, b_qkv, w_o, b_o, heads=2):
    N, L, E = x.shape
    qkv = x @ w_qkv + b_qkv
    q, k, v = qkv.reshape(N, L, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scale = 1.0 / math.sqrt(q.shape[-1])
    attn = softmax(scale * (q @ k.transpose(0, 1, 3, 2)))
    ctx = (attn @ v).transpose(0, 2, 1, 3).reshape(N, L, -1)
    out = ctx @ w_o + b_o
    return out, (x, w_qkv, w_o, q, k, v, attn, ctx, scale)


def multihead_backward(dout, cache):
    x, w_qkv, w_o, q, k, v, attn, ctx, scale = cache
    N, L, E = x.shape
    H, D = q.shape[1], q.shape[-1]
    db_o = dout.sum(axis=(0, 1))
    dw_o = ctx.reshape(N * L, H * D).T @ dout.reshape(N * L, -1)
    dctx = dout @ w_o.T
    dheads = dctx.reshape(N, L, H, D).transpose(0, 2, 1, 3)
    dv = attn.transpose(0, 1, 3, 2) @ dheads
    dattn = dheads @ v.transpose(0, 1, 3, 2)
    ds = attn * (dattn - (dattn * attn).sum(axis=-1, keepdims=True)) * scale
    dq = ds @ k
    dk = ds.transpose(0, 1, 3, 2) @ q
    dqkv = np.stack([dq, dk, dv]).transpose(1, 3, 0, 2, 4).reshape(N, L, -1)
    db_qkv = dqkv.sum(axis=(0, 1))
    dw_qkv = x.reshape(N * L, E).T @ dqkv.reshape(N * L, -1)
    dx = dqkv @ w_qkv.T
    return dx, dw_qkv, db_qkv, dw_o, db_o


multihead = (multihead_forward, multihead_backward)


def multihead_torch(x, w_qkv, b_qkv, w_o, b_o, heads=2):
    N, L, _ = x.shape
    q, k, v = (t.view(N, L, heads, -1).transpose(1, 2) for t in (x @ w_qkv + b_qkv).chunk(3, -1))
    attn = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
    return (attn @ v).transpose(1, 2).flatten(2) @ w_o + b_o


SUBJECTS = {
    "attention": Subject(
        against="torch.nn.functional.scaled_dot_product_attention",
        calls=[
            call(normal(2, 2, 4, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 3)),
            call(normal(2, 5, 4), normal(2, 5, 4), normal(2, 5, 4), is_causal=True),
            call(normal(2, 4, 3), normal(2, 4, 3), normal(2, 4, 3), scale=0.3),
        ],
    ),
    "biased_attention": Subject(
        against=biased_attention_torch,
        calls=[
            call(normal(2, 3, 4, 5), normal(2, 3, 6, 5), normal(2, 3, 6, 5), normal(3, 4, 6)),
            call(normal(2, 3, 4, 5), normal(2, 3, 6, 5), normal(2, 3, 6, 5), normal(2, 1, 1, 6)),
        ],
    ),
    "dropped_attention": Subject(
        against=dropped_attention_torch,
        calls=[
            call(normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 3), booleans(2, 4, 5)),
            call(normal(3, 4, 4), normal(3, 4, 4), normal(3, 4, 4), booleans(3, 4, 4), rate=0.5),
        ],
    ),
    "grouped_attention": Subject(
        against=grouped_attention_torch,
        calls=[
            call(normal(2, 4, 3, 5), normal(2, 2, 4, 5), normal(2, 2, 4, 5)),
            call(normal(1, 6, 3, 4), normal(1, 2, 3, 4), normal(1, 2, 3, 4)),
        ],
    ),
    "FlashAttention": Subject(
        against=flash_torch,
        calls=[
            call(normal(2, 10, 3), normal(2, 10, 3), normal(2, 10, 3)),
            call(normal(1, 2, 6, 4), normal(1, 2, 6, 4), normal(1, 2, 6, 4)),
        ],
    ),
    "flash_log2": Subject(
        against=flash_log2_torch,
        calls=[
            call(normal(2, 4, 3), normal(2, 7, 3), normal(2, 7, 3)),
            call(normal(2, 2, 5, 4), normal(2, 2, 8, 4), normal(2, 2, 8, 4), block=4),
        ],
    ),
    "multihead": Subject(
        against=multihead_torch,
        calls=[
            call(normal(2, 3, 4), normal(4, 12), normal(12), normal(4, 4), normal(4)),
            call(normal(2, 4, 6), normal(6, 18), normal(18), normal(6, 6), normal(6), heads=3),
        ],
    ),
}
MISTAKES = [
    # the scale was moved into the query, the key's gradient kept none
    Mistake("attention", "factor / missing term", "dk = factor * (ds.swapaxes", "dk = (ds.swapaxes"),
    # the default scale, whatever was asked for: third call alone
    Mistake("attention", "variant / factor", "dq = factor * (ds @ k)", "dq = (ds @ k) / math.sqrt(q.shape[-1])"),
    Mistake("attention", "broadcast", "(dp * p).sum(-1, keepdims=True)", "(dp * p).sum(-2, keepdims=True)"),
    # np.sqrt of an int is a float64 that does not give way: float32 alone
    Mistake("attention", "dtype", "dq = factor * (ds @ k)", "dq = np.float64(factor) * (ds @ k)"),
    # scaled in place before the bias took its share
    Mistake("biased_attention", "factor", "dbias = unbroadcast(dscores, bias.shape)",
            "dbias = unbroadcast(dscores / math.sqrt(d), bias.shape)"),
    # summed over the batch only: second call
    Mistake("biased_attention", "broadcast / shape", "dbias = unbroadcast(dscores, bias.shape)",
            "dbias = dscores.sum(0).reshape(bias.shape) if bias.ndim == 3 else dscores"),
    # the scores saved, not what softmax made of them
    Mistake("biased_attention", "operand", "cache = (q, k, v, bias, probs)", "cache = (q, k, v, bias, scores)"),
    Mistake("biased_attention", "missing term",
            "probs * (dprobs - np.sum(dprobs * probs, axis=-1, keepdims=True))",
            "probs * (1.0 - probs) * dprobs"),
    Mistake("dropped_attention", "operand / elementwise factor", "dv = pd.swapaxes(-1, -2) @ dy",
            "dv = p.swapaxes(-1, -2) @ dy"),
    Mistake("dropped_attention", "elementwise factor", "dp = (dy @ v.swapaxes(-1, -2)) * mask",
            "dp = dy @ v.swapaxes(-1, -2)"),
    # the softmax that was multiplied by the mask already: one mask too many, and its square of the factor
    Mistake("dropped_attention", "operand / elementwise factor", "ds = scale * p * (dp - delta)",
            "ds = scale * pd * (dp - delta)"),
    # several query heads write to one key head
    Mistake("grouped_attention", "overwritten", "dk[:, g] += ds.swapaxes", "dk[:, g] = ds.swapaxes"),
    # tile's order for repeat's
    Mistake("grouped_attention", "misplaced", "g = h // group\n", "g = h % k.shape[1]\n"),
    # averaged over the heads of a group, as in the conversion of a checkpoint
    Mistake("grouped_attention", "factor", "return dq, dk, dv", "return dq, dk / group, dv"),
    # the mask only where none is needed: the condition turned round
    Mistake("FlashAttention", "elementwise factor / extra term", "p = p.masked_fill(cols > rows[:, None], 0.0)",
            "p = p.masked_fill(cols > rows[:, None], 0.0) if i > j else p"),
    Mistake("FlashAttention", "misplaced / elementwise factor", "p = p.masked_fill(cols > rows[:, None], 0.0)",
            "p = p.masked_fill(cols >= rows[:, None], 0.0)"),
    # whole blocks only: the last partial block of queries left out
    Mistake("FlashAttention", "misplaced / missing term", "for i in range(j, n, BLOCK):",
            "for i in range(j, n - BLOCK + 1, BLOCK):"),
    Mistake("FlashAttention", "overwritten", "dq[..., i : i + BLOCK, :] += ds @ kj", "dq[..., i : i + BLOCK, :] = ds @ kj"),
    # the logsumexp is saved in float32, as kernels do
    Mistake("FlashAttention", "precision", "ctx.save_for_backward(q, k, v, out, lse)",
            "ctx.save_for_backward(q, k, v, out, lse.float().to(q.dtype))"),
    # the sum of the output alone
    Mistake("FlashAttention", "cotangent / missing term", "delta = (dout * out).sum(-1)", "delta = out.sum(-1)"),
    # the scale with log2(e) in it
    Mistake("flash_log2", "factor", "dq += scale * (ds @ kj)", "dq += qk_scale * (ds @ kj)"),
    Mistake("flash_log2", "factor", "ds = p * (dy @ vj.swapaxes(-1, -2) - delta)",
            "ds = p * (dy @ vj.swapaxes(-1, -2) - delta) * math.log(2.0)"),
    # natural and binary logarithm
    Mistake("flash_log2", "variant / elementwise factor", "lse2 = m + np.log2(l)", "lse2 = m + np.log(l)"),
    # the logsumexp without its maximum, and a maximum per block again: far out and in the first block
    Mistake("flash_log2", "range", "p = np.exp2(qk_scale * (q @ kj.swapaxes(-1, -2)) - lse2)",
            "p = np.exp2(qk_scale * (q @ kj.swapaxes(-1, -2))) / np.exp2(lse2)"),
    # heads not brought back beside their channels
    Mistake("multihead", "misplaced", "dheads = dctx.reshape(N, L, H, D).transpose(0, 2, 1, 3)",
            "dheads = dctx.reshape(N, H, L, D)"),
    Mistake("multihead", "misplaced", ".transpose(1, 3, 0, 2, 4).reshape(N, L, -1)",
            ".transpose(1, 3, 2, 0, 4).reshape(N, L, -1)"),
    Mistake("multihead", "swapped / misplaced", "np.stack([dq, dk, dv])", "np.stack([dk, dq, dv])"),
    Mistake("multihead", "transpose", "dctx = dout @ w_o.T", "dctx = dout @ w_o"),
    Mistake("multihead", "broadcast / shape", "db_qkv = dqkv.sum(axis=(0, 1))", "db_qkv = dqkv.sum(axis=0)"),
    # the weights of the softmax are no longer needed, it was thought: the gradient of v comes after
    Mistake("attention", "operand / mutation / overwritten", "ds = p * (dp - (dp * p).sum(-1, keepdims=True))",
            "ds = np.multiply(p, dp - (dp * p).sum(-1, keepdims=True), out=p)"),
    Mistake("biased_attention", "dtype", "draw = dscores / math.sqrt(d)", "draw = dscores / np.sqrt(d)"),
    Mistake("multihead", "transpose", "dk = ds.transpose(0, 1, 3, 2) @ q", "dk = ds @ q"),
    # the output's bias is added per token, its gradient is averaged over them
    Mistake("multihead", "factor", "db_o = dout.sum(axis=(0, 1))", "db_o = dout.mean(axis=1).sum(axis=0)"),
    # the context of the layer below: x where the attention's output goes in (of the same shape)
    Mistake("multihead", "operand", "dw_o = ctx.reshape(N * L, H * D)", "dw_o = x.reshape(N * L, E)"),
    Mistake("grouped_attention", "misplaced / operand", "ds = scale * p * (dp - (dp * p).sum(-1, keepdims=True))",
            "ds = scale * weights[:, g] * (dp - (dp * weights[:, g]).sum(-1, keepdims=True))"),
]
