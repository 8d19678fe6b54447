"""Kernels in tiles: right functions, and the mistakes that are made in them."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, integers, normal

# --- flash attention: an online softmax over blocks of keys, the log of the sum saved, all else computed again


def flash_attention(q, k, v, block=3, causal=False):
    H, S, D = q.shape
    T = k.shape[1]
    if S < 1 or T < 1 or (causal and S != T):
        raise ValueError("lengths")
    scale = 1.0 / math.sqrt(D)
    y, lse = np.zeros((H, S, v.shape[2]), q.dtype), np.zeros((H, S, 1), q.dtype)
    for i in range(0, S, block):
        qi = q[:, i : i + block] * scale
        m = np.full((H, qi.shape[1], 1), -np.inf, q.dtype)
        l, acc = np.zeros_like(m), np.zeros((H, qi.shape[1], v.shape[2]), q.dtype)
        for j in range(0, T, block):
            s = qi @ k[:, j : j + block].swapaxes(1, 2)
            if causal:
                s = np.where(i + np.arange(s.shape[1])[:, None] >= j + np.arange(s.shape[2]), s, -np.inf)
            new = np.maximum(m, s.max(-1, keepdims=True))
            p, alpha = np.exp(s - new), np.exp(m - new)
            l = l * alpha + p.sum(-1, keepdims=True)
            acc = acc * alpha + p @ v[:, j : j + block]
            m = new
        y[:, i : i + block] = acc / l
        lse[:, i : i + block] = m + np.log(l)

    def pullback(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        delta = (dy * y).sum(-1, keepdims=True)
        for j in range(0, T, block):
            kj, vj = k[:, j : j + block], v[:, j : j + block]
            for i in range(0, S, block):
                qi, di = q[:, i : i + block] * scale, dy[:, i : i + block]
                s = qi @ kj.swapaxes(1, 2)
                if causal:
                    s = np.where(i + np.arange(s.shape[1])[:, None] >= j + np.arange(s.shape[2]), s, -np.inf)
                p = np.exp(s - lse[:, i : i + block])
                dv[:, j : j + block] += p.swapaxes(1, 2) @ di
                ds = p * (di @ vj.swapaxes(1, 2) - delta[:, i : i + block])
                dq[:, i : i + block] += (ds @ kj) * scale
                dk[:, j : j + block] += ds.swapaxes(1, 2) @ qi
        return dq, dk, dv

    return y, pullback


def flash_attention_torch(q, k, v, block=3, causal=False):
    if causal and q.shape[1] != k.shape[1]:
        raise ValueError("lengths")
    s = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return torch.softmax(s, -1) @ v


# --- a projection and cross entropy in chunks of tokens, the gradients made on the way (Liger)


def linear_cross_entropy(h, W, targets, chunk=3):
    N = h.shape[0]
    if len(targets) != N:
        raise ValueError("one target per token")
    loss = 0.0
    dh, dW = np.zeros_like(h), np.zeros_like(W)
    for i in range(0, N, chunk):
        hi, ti = h[i : i + chunk], targets[i : i + chunk]
        n = len(ti)
        logits = hi @ W.T
        logits = logits - logits.max(-1, keepdims=True)
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss = loss - logp[np.arange(n), ti].sum() / N
        d = np.exp(logp)
        d[np.arange(n), ti] -= 1.0
        d = d / N
        dh[i : i + chunk] = d @ W
        dW += d.T @ hi
    return loss, (dh, dW)


def linear_cross_entropy_torch(h, W, targets, chunk=3):
    return F.cross_entropy(h @ W.T, targets)


# --- layer norm by blocks of rows: partial sums for weight and bias, in Triton's manner over flat memory


def layernorm_rows(x, weight, bias, rows=2, eps=1e-5):
    N, D = x.shape
    y, mean, rstd = np.empty((N, D), x.dtype), np.empty((N, 1), x.dtype), np.empty((N, 1), x.dtype)
    for i in range(0, N, rows):
        b = x[i : i + rows]
        mean[i : i + rows] = b.mean(-1, keepdims=True)
        rstd[i : i + rows] = 1.0 / np.sqrt(b.var(-1, keepdims=True) + eps)
        y[i : i + rows] = (b - mean[i : i + rows]) * rstd[i : i + rows] * weight + bias

    def pullback(dy):
        flat = dy.ravel()
        programs = -(-N // rows)
        dx = np.empty((N, D), x.dtype)
        part_w, part_b = np.zeros((programs, D), x.dtype), np.zeros((programs, D), x.dtype)
        for pid in range(programs):
            lo, hi = pid * rows, min((pid + 1) * rows, N)
            d = flat[lo * D : hi * D].reshape(hi - lo, D)
            xhat = (x[lo:hi] - mean[lo:hi]) * rstd[lo:hi]
            wd = d * weight
            c1 = (wd * xhat).sum(-1, keepdims=True) / D
            c2 = wd.sum(-1, keepdims=True) / D
            dx[lo:hi] = (wd - xhat * c1 - c2) * rstd[lo:hi]
            part_w[pid] += (d * xhat).sum(0)
            part_b[pid] += d.sum(0)
        return dx, part_w.sum(0), part_b.sum(0)

    return y, pullback


def layernorm_rows_torch(x, weight, bias, rows=2, eps=1e-5):
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


# --- retention in chunks: inside a chunk all pairs, before it a decayed state


def retention(q, k, v, gamma=0.9, chunk=3):
    S = q.shape[0]
    if k.shape[0] != S or v.shape[0] != S:
        raise ValueError("lengths")
    y = np.zeros((S, v.shape[1]), q.dtype)
    state = np.zeros((k.shape[1], v.shape[1]), q.dtype)
    saved = []
    for i in range(0, S, chunk):
        n = min(chunk, S - i)
        qi, ki, vi = q[i : i + n], k[i : i + n], v[i : i + n]
        lag = np.arange(n)[:, None] - np.arange(n)
        mask = np.where(lag >= 0, gamma ** np.maximum(lag, 0), 0.0).astype(q.dtype)
        ahead = (gamma ** np.arange(1, n + 1)).astype(q.dtype)[:, None]
        behind = (gamma ** np.arange(n - 1, -1, -1)).astype(q.dtype)[:, None]
        y[i : i + n] = ((qi @ ki.T) * mask) @ vi + (qi * ahead) @ state
        saved.append((i, n, mask, ahead, behind, state))
        state = gamma**n * state + (ki * behind).T @ vi

    def pullback(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        dstate = np.zeros_like(state)
        for i, n, mask, ahead, behind, before in reversed(saved):
            qi, ki, vi, di = q[i : i + n], k[i : i + n], v[i : i + n], dy[i : i + n]
            ds = (di @ vi.T) * mask
            dq[i : i + n] = ds @ ki + (di @ before.T) * ahead
            dk[i : i + n] = ds.T @ qi + (vi @ dstate.T) * behind
            dv[i : i + n] = ((qi @ ki.T) * mask).T @ di + (ki * behind) @ dstate
            dstate = gamma**n * dstate + (qi * ahead).T @ di
        return dq, dk, dv

    return y, pullback


def retention_torch(q, k, v, gamma=0.9, chunk=3):
    if k.shape[0] != q.shape[0]:
        raise ValueError("lengths")
    lag = torch.arange(q.shape[0])[:, None] - torch.arange(q.shape[0])
    mask = torch.where(lag >= 0, gamma ** lag.clamp(min=0).to(q.dtype), 0.0)
    return ((q @ k.T) * mask) @ v


SUBJECTS = {
    "flash_attention": Subject(
        against=flash_attention_torch,
        calls=[
            call(normal(2, 5, 4), normal(2, 7, 4), normal(2, 7, 3)),
            call(normal(1, 5, 2), normal(1, 5, 2), normal(1, 5, 2), block=2, causal=True),
        ],
    ),
    "linear_cross_entropy": Subject(
        against=linear_cross_entropy_torch,
        calls=[call(normal(7, 3), normal(4, 3), integers(7, below=4)), call(normal(5, 2), normal(3, 2), integers(5, below=3), chunk=2)],
    ),
    "layernorm_rows": Subject(
        against=layernorm_rows_torch,
        calls=[call(normal(5, 4), normal(4), normal(4)), call(normal(4, 6), normal(6), normal(6), rows=3, eps=1e-3)],
    ),
    "retention": Subject(
        against=retention_torch,
        calls=[
            call(normal(7, 3), normal(7, 3), normal(7, 2)),
            call(normal(6, 2), normal(6, 2), normal(6, 4), gamma=0.5, chunk=2),
        ],
    ),
}
MISTAKES = [
    # whole blocks of keys alone: the last, partial one has no gradient
    Mistake("flash_attention", "misplaced", "for j in range(0, T, block):\n            kj, vj", "for j in range(0, T // block * block, block):\n            kj, vj"),
    # the running maximum saved in place of the log of the sum
    Mistake("flash_attention", "operand / elementwise factor", "lse[:, i : i + block] = m + np.log(l)", "lse[:, i : i + block] = m"),
    # each chunk's own mean: the last chunk is shorter
    Mistake("linear_cross_entropy", "counts", "d = d / N\n", "d = d / (n * -(-N // chunk))\n"),
    # as it lies in memory, to save a copy: wrong for a dy in Fortran's order
    Mistake("layernorm_rows", "layout", "flat = dy.ravel()", 'flat = dy.ravel("K")'),
    # the values' way through the state that later chunks read, forgotten for k
    Mistake("retention", "missing term", "ds.T @ qi + (vi @ dstate.T) * behind", "ds.T @ qi"),
]
