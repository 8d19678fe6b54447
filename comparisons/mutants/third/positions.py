"""Positions in attention: rotary embeddings, ALiBi, and the mistakes that are made in them."""

import math

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal

_TABLES = {}


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# plain: rotary embedding, halves --------------------------------------------------------------------------------------
def rope_halves(x, base=10000.0, offset=0):
    """x (..., length, dim); the table of cosines is kept for the next call."""
    n, half = x.shape[-2], x.shape[-1] // 2
    key = (n, half, base, offset)
    if key not in _TABLES:
        angle = (offset + np.arange(n))[:, None] * base ** (-np.arange(half) / half)
        _TABLES[key] = np.cos(angle), np.sin(angle)
    cos, sin = (t.astype(x.dtype) for t in _TABLES[key])
    x1, x2 = x[..., :half], x[..., half:]
    y = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)

    def pullback(dy):
        d1, d2 = dy[..., :half], dy[..., half:]
        return (np.concatenate([d1 * cos + d2 * sin, d2 * cos - d1 * sin], -1),)

    return y, pullback


def rope_halves_torch(x, base=10000.0, offset=0):
    n, half = x.shape[-2], x.shape[-1] // 2
    freq = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (offset + torch.arange(n, dtype=torch.float64))[:, None] * freq
    cos, sin = torch.cat([angle.cos()] * 2, -1).to(x.dtype), torch.cat([angle.sin()] * 2, -1).to(x.dtype)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


# course: rotary embedding, neighbouring pairs ---------------------------------------------------------------------------
def rope_pairs_forward(x, start=0):
    seq, dim = x.shape[-2:]
    theta = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.outer(np.arange(start, start + seq), theta)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    out = np.empty(x.shape, x.dtype)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out, (cos, sin)


def rope_pairs_backward(dout, cache):
    cos, sin = cache
    even, odd = dout[..., 0::2], dout[..., 1::2]
    deven = even * cos + odd * sin
    dodd = odd * cos - even * sin
    return np.stack([deven, dodd], axis=-1).reshape(dout.shape)


rope_pairs = (rope_pairs_forward, rope_pairs_backward)


def rope_pairs_torch(x, start=0):
    seq, dim = x.shape[-2:]
    theta = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.outer(torch.arange(start, start + seq, dtype=torch.float64), theta)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


# plain: ALiBi with slopes that are learnt -------------------------------------------------------------------------------
def alibi(q, k, v, slopes):
    """q, k, v (B, H, L, D), slopes (H,); causal."""
    n, s = q.shape[-2], k.shape[-2]
    scale = 1.0 / math.sqrt(q.shape[-1])
    distance = np.arange(n)[:, None] - np.arange(s)
    ramp = distance.astype(q.dtype)
    scores = scale * (q @ k.swapaxes(-1, -2)) - slopes[:, None, None] * ramp
    p = softmax(np.where(distance < 0, -np.inf, scores))
    y = p @ v

    def pullback(dy):
        dv = p.swapaxes(-1, -2) @ dy
        dp = dy @ v.swapaxes(-1, -2)
        ds = p * (dp - (dy * y).sum(-1, keepdims=True))
        dslopes = -(ds * ramp).sum((0, 2, 3))
        return scale * (ds @ k), scale * (ds.swapaxes(-1, -2) @ q), dv, dslopes

    return y, pullback


def alibi_torch(q, k, v, slopes):
    distance = torch.arange(q.shape[-2])[:, None] - torch.arange(k.shape[-2])
    scores = q @ k.mT / math.sqrt(q.shape[-1]) - slopes[:, None, None] * distance
    return torch.softmax(scores.masked_fill(distance < 0, -math.inf), -1) @ v


SUBJECTS = {
    "rope_halves": Subject(
        against=rope_halves_torch,
        calls=[call(normal(2, 3, 8, 6)), call(normal(1, 2, 5, 4), base=100.0), call(normal(5, 4), offset=3)],
    ),
    "rope_pairs": Subject(
        against=rope_pairs_torch, calls=[call(normal(2, 5, 6)), call(normal(2, 2, 4, 4), start=7)]
    ),
    "alibi": Subject(
        against=alibi_torch,
        calls=[call(normal(2, 3, 5, 4), normal(2, 3, 5, 4), normal(2, 3, 5, 4), normal(3, scale=0.5))],
    ),
}
MISTAKES = [
    Mistake("rope_halves", "rotation", "[d1 * cos + d2 * sin, d2 * cos - d1 * sin]",
            "[d1 * cos - d2 * sin, d2 * cos + d1 * sin]"),
    # the table that is kept was made for another base or offset (calls one after another)
    Mistake("rope_halves", "state", "key = (n, half, base, offset)", "key = (n, half)"),
    # turned back from position 0, not from the offset: third call alone
    Mistake("rope_halves", "variant / misplaced", "d1, d2 = dy[..., :half], dy[..., half:]",
            "d1, d2 = dy[..., :half], dy[..., half:]\n"
            "        angle = np.arange(n)[:, None] * base ** (-np.arange(half) / half)\n"
            "        cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)"),
    Mistake("rope_pairs", "misplaced", "np.stack([deven, dodd], axis=-1).reshape(dout.shape)",
            "np.concatenate([deven, dodd], axis=-1)"),
    # one of the two signs
    Mistake("rope_pairs", "sign / rotation", "deven = even * cos + odd * sin", "deven = even * cos - odd * sin"),
    # half precision's neighbour: the tables in float32 for all
    Mistake("rope_pairs", "precision", "cos, sin = cache\n",
            "cos, sin = (t.astype(np.float32).astype(dout.dtype) for t in cache)\n"),
    Mistake("alibi", "sign", "dslopes = -(ds * ramp).sum((0, 2, 3))", "dslopes = (ds * ramp).sum((0, 2, 3))"),
    Mistake("alibi", "broadcast / factor", "dslopes = -(ds * ramp).sum((0, 2, 3))",
            "dslopes = -(ds * ramp).mean(0).sum((1, 2))"),
    # the bias comes before the scale, so its gradient is thought to be scaled
    Mistake("alibi", "factor", "dslopes = -(ds * ramp)", "dslopes = -scale * (ds * ramp)"),
    Mistake("rope_pairs", "rotation", "deven = even * cos + odd * sin\n    dodd = odd * cos - even * sin",
            "deven = even * cos - odd * sin\n    dodd = odd * cos + even * sin"),
    Mistake("alibi", "transpose", "dv = p.swapaxes(-1, -2) @ dy", "dv = p @ dy"),
    # the position of the key, not its distance: the same for the softmax, but for its slope
    Mistake("alibi", "sign", "dslopes = -(ds * ramp).sum((0, 2, 3))", "dslopes = -(ds * np.arange(s)).sum((0, 2, 3))"),
    Mistake("rope_pairs", "misplaced", "even, odd = dout[..., 0::2], dout[..., 1::2]", "even, odd = np.split(dout, 2, axis=-1)"),
]
