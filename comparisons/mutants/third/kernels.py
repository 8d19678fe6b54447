"""Fused and blocked kernels over sequences and parameters: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def info_nce(q, k, temperature=0.5, block=3):
    """Row i of q (n, d) belongs to row i of k (m, d), m >= n, the others are negatives; tiles of keys, an online
    logsumexp; only that is saved."""
    n, m = len(q), len(k)
    top = np.full(n, -np.inf, q.dtype)
    total = np.zeros(n, q.dtype)
    for start in range(0, m, block):
        s = q @ k[start : start + block].T / temperature
        new = np.maximum(top, s.max(axis=1))
        total = total * np.exp(top - new) + np.exp(s - new[:, None]).sum(axis=1)
        top = new
    lse = top + np.log(total)
    y = (lse - (q * k[:n]).sum(axis=1) / temperature).mean()

    def pullback(dy):
        dq, dk = np.zeros_like(q), np.zeros_like(k)
        scale = dy / (n * temperature)
        for start in range(0, m, block):
            stop = min(start + block, m)
            p = np.exp(q @ k[start:stop].T / temperature - lse[:, None])
            own = np.arange(start, min(stop, n))
            p[own, own - start] -= 1
            dq += scale * (p @ k[start:stop])
            dk[start:stop] = scale * (p.T @ q)
        return dq, dk

    return y, pullback


def info_nce_torch(q, k, temperature=0.5, block=3):
    return F.cross_entropy(q @ k.t() / temperature, torch.arange(len(q)))


def conv_relu_pool(x, w, b, block=2):
    """A convolution without padding (n, c, t) * (o, c, k), relu, a maximum of every two places, in one: by tiles of
    `block` results; the backward makes the tile again and keeps which of the two it was."""
    n, c, length = x.shape
    k = w.shape[2]
    out = (length - k + 1) // 2

    def tile(start, stop):
        cols = np.stack([x[:, :, 2 * start + i : 2 * stop + i] for i in range(k)], axis=-1)
        return cols, np.einsum("nctk,ock->not", cols, w) + b[:, None]

    y = np.zeros((n, len(w), out), x.dtype)
    for start in range(0, out, block):
        stop = min(start + block, out)
        z = tile(start, stop)[1]
        y[:, :, start:stop] = np.maximum(np.maximum(z[:, :, 0::2], z[:, :, 1::2]), 0)

    def pullback(dy):
        dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
        for start in range(0, out, block):
            stop = min(start + block, out)
            cols, z = tile(start, stop)
            even, odd = z[:, :, 0::2], z[:, :, 1::2]
            d = dy[:, :, start:stop] * (np.maximum(even, odd) > 0)
            dz = np.zeros_like(z)
            dz[:, :, 0::2] = d * (even >= odd)
            dz[:, :, 1::2] = d * (even < odd)
            dw += np.einsum("not,nctk->ock", dz, cols)
            db += dz.sum(axis=(0, 2))
            for i in range(k):
                dx[:, :, 2 * start + i : 2 * stop + i] += np.einsum("not,oc->nct", dz, w[:, :, i])
        return dx, dw, db

    return y, pullback


def conv_relu_pool_torch(x, w, b, block=2):
    return F.max_pool1d(F.relu(F.conv1d(x, w, b)), 2)


def retention(q, k, v, decay=0.8, chunk=3):
    """S[t] = decay S[t - 1] + k[t] v[t]^T, o[t] = q[t] S[t]; by chunks: inside a chunk as attention with a mask of
    powers, between the chunks by the state."""
    length = len(q)
    starts = range(0, length, chunk)

    def powers(size):
        i = np.arange(size)
        lag = i[:, None] - i[None]
        inside = np.where(lag >= 0, decay ** np.maximum(lag, 0), 0).astype(q.dtype)
        return inside, (decay ** (i + 1))[:, None].astype(q.dtype), (decay ** (size - 1 - i))[:, None].astype(q.dtype)

    state = np.zeros((q.shape[1], v.shape[1]), q.dtype)
    states = []
    o = np.empty(v.shape, q.dtype)
    for start in starts:
        at = slice(start, min(start + chunk, length))
        mask, arrive, leave = powers(at.stop - start)
        states.append(state)
        o[at] = (q[at] @ k[at].T * mask) @ v[at] + (arrive * q[at]) @ state
        state = decay ** (at.stop - start) * state + (leave * k[at]).T @ v[at]

    def pullback(do):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        dstate = np.zeros_like(state)
        for number in reversed(range(len(starts))):
            at = slice(starts[number], min(starts[number] + chunk, length))
            inside, arrive, leave = powers(at.stop - at.start)
            da = do[at] @ v[at].T * inside
            dq[at] = da @ k[at] + arrive * (do[at] @ states[number].T)
            dk[at] = da.T @ q[at] + leave * (v[at] @ dstate.T)
            dv[at] = (q[at] @ k[at].T * inside).T @ do[at] + leave * (k[at] @ dstate)
            dstate = decay ** (at.stop - at.start) * dstate + (arrive * q[at]).T @ do[at]
        return dq, dk, dv

    return o, pullback


def retention_torch(q, k, v, decay=0.8, chunk=3):
    state, out = 0, []
    for t in range(len(q)):
        state = decay * state + k[t][:, None] * v[t]
        out.append(q[t] @ state)
    return torch.stack(out)


class LSTMPointwise(torch.autograd.Function):
    """What follows the product in an LSTM cell, fused: gates (n, 4 h) in torch's order i, f, g, o, and c -> [h', c']."""

    @staticmethod
    def forward(ctx, gates, c):
        i, f, g, o = gates.chunk(4, dim=1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        new = f * c + i * g
        ctx.save_for_backward(i, f, g, o, c, new)
        return torch.cat([o * torch.tanh(new), new], dim=1)

    @staticmethod
    def backward(ctx, dy):
        i, f, g, o, c, new = ctx.saved_tensors
        dh, dnew = dy.chunk(2, dim=1)
        t = torch.tanh(new)
        dnew = dnew + dh * o * (1 - t * t)
        di, df, dg, do = dnew * g, dnew * c, dnew * i, dh * t
        dgates = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]
        return torch.cat(dgates, dim=1), dnew * f


def lstm_pointwise_torch(gates, c):
    i, f, g, o = gates.chunk(4, dim=1)
    new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(new), new], dim=1)


def moving_average(x, window=3):
    """The mean of the last `window` values of each row (of fewer at its beginning), by prefix sums."""
    length = x.shape[-1]
    high = np.arange(1, length + 1)
    low = np.maximum(high - window, 0)
    count = (high - low).astype(x.dtype)
    prefix = np.concatenate([np.zeros(x.shape[:-1] + (1,), x.dtype), np.cumsum(x, axis=-1)], axis=-1)
    y = (prefix[..., high] - prefix[..., low]) / count

    def pullback(dy):
        d = dy / count
        suffix = np.cumsum(d[..., ::-1], axis=-1)[..., ::-1]
        last = np.minimum(np.arange(length) + window, length)
        suffix = np.concatenate([suffix, np.zeros(x.shape[:-1] + (1,), x.dtype)], axis=-1)
        return (suffix[..., :length] - suffix[..., last],)

    return y, pullback


def moving_average_torch(x, window=3):
    return torch.stack([x[..., max(t + 1 - window, 0) : t + 1].mean(-1) for t in range(x.shape[-1])], -1)


def fused_sgd(p, g, buf, lr=0.1, momentum=0.9, weight_decay=0.1, max_norm=2.0, block=4):
    """One pass for the norm, one for the step, both by blocks of the flat arrays: g is clipped to max_norm, momentum,
    the decay decoupled: p' = p - lr (buf' + weight_decay p)."""
    shape, size = p.shape, p.size
    fp, fg, fb = p.reshape(-1), g.reshape(-1), buf.reshape(-1)
    square = sum(((fg[s : s + block] ** 2).sum() for s in range(0, size, block)), p.dtype.type(0))
    norm = np.sqrt(square)
    over = norm > max_norm
    scale = max_norm / norm if over else p.dtype.type(1)
    y = np.empty(size, p.dtype)
    for s in range(0, size, block):
        at = slice(s, s + block)
        y[at] = fp[at] - lr * (momentum * fb[at] + scale * fg[at] + weight_decay * fp[at])

    def pullback(dy):
        d = dy.reshape(-1)
        dp, dg, db = np.zeros(size, p.dtype), np.zeros(size, p.dtype), np.zeros(size, p.dtype)
        inner = sum(((fg[s : s + block] * d[s : s + block]).sum() for s in range(0, size, block)), p.dtype.type(0))
        along = scale * inner / square if over else 0
        for s in range(0, size, block):
            at = slice(s, s + block)
            dp[at] = (1 - lr * weight_decay) * d[at]
            dg[at] = -lr * (scale * d[at] - along * fg[at])
            db[at] = -lr * momentum * d[at]
        return dp.reshape(shape), dg.reshape(shape), db.reshape(shape)

    return y.reshape(shape), pullback


def fused_sgd_torch(p, g, buf, lr=0.1, momentum=0.9, weight_decay=0.1, max_norm=2.0, block=4):
    square = (g * g).sum()
    if square > max_norm**2:
        g = g * max_norm / torch.sqrt(square)
    return p - lr * (momentum * buf + g + weight_decay * p)


SUBJECTS = {
    "info_nce": Subject(against=info_nce_torch, calls=[
        call(normal(4, 3), normal(7, 3)), call(normal(5, 4), normal(5, 4), temperature=0.2, block=2)]),
    "conv_relu_pool": Subject(against=conv_relu_pool_torch, calls=[
        call(normal(2, 3, 12), normal(4, 3, 3), normal(4)), call(normal(1, 2, 9), normal(3, 2, 2), normal(3), block=3)]),
    "retention": Subject(against=retention_torch, calls=[
        call(normal(8, 2), normal(8, 2), normal(8, 3)), call(normal(6, 3), normal(6, 3), normal(6, 3), decay=0.5, chunk=4)]),
    "LSTMPointwise": Subject(against=lstm_pointwise_torch, calls=[call(normal(3, 8), normal(3, 2)), call(normal(2, 12), normal(2, 3))]),
    "moving_average": Subject(against=moving_average_torch, calls=[call(normal(2, 7)), call(normal(2, 2, 6), window=4)]),
    "fused_sgd": Subject(against=fused_sgd_torch, calls=[
        call(normal(3, 3), normal(3, 3), normal(3, 3), max_norm=0.5), call(normal(6), normal(6), normal(6), max_norm=100.0, lr=0.5)]),
}
MISTAKES = [
    # the saved number is the last block's maximum, not the logsumexp
    Mistake("info_nce", "operand / factor / elementwise factor", "/ temperature - lse[:, None])", "/ temperature - top[:, None])"),
    # the label's column counts from the block's start
    Mistake("info_nce", "misplaced", "own = np.arange(start, min(stop, n))\n            p[own, own - start] -= 1", "own = np.arange(max(min(stop, n) - start, 0))\n            p[own, own] -= 1"),
    Mistake("info_nce", "overwritten", "dq += scale * (p", "dq = scale * (p"),
    Mistake("info_nce", "missing term", "            p[own, own - start] -= 1\n            dq += scale * (p @ k[start:stop])\n", "            dq += scale * (p @ k[start:stop])\n            p[own, own - start] -= 1\n"),
    Mistake("info_nce", "factor", "scale = dy / (n * temperature)", "scale = dy / n"),
    # a tile's columns reach over its edge: they add up there
    Mistake("conv_relu_pool", "overwritten", "dx[:, :, 2 * start + i : 2 * stop + i] += np", "dx[:, :, 2 * start + i : 2 * stop + i] = np"),
    # the relu's mask from the first of the two, not of the larger one
    Mistake("conv_relu_pool", "elementwise factor / operand", "(np.maximum(even, odd) > 0)", "(even > 0)"),
    # of two equal ones both get it: at ties only
    Mistake("conv_relu_pool", "kink", "d * (even < odd)", "d * (even <= odd)"),
    # relu was fused in later
    Mistake("conv_relu_pool", "elementwise factor", "dy[:, :, start:stop] * (np.maximum(even, odd) > 0)", "dy[:, :, start:stop]"),
    Mistake("conv_relu_pool", "misplaced", "dz[:, :, 0::2] = d * (even >= odd)\n            dz[:, :, 1::2] = d * (even < odd)", "dz[:, :, : stop - start] = d * (even >= odd)\n            dz[:, :, stop - start :] = d * (even < odd)"),
    # the mask was in the forward's scores, and is not in their gradient
    Mistake("retention", "elementwise factor", "da = do[at] @ v[at].T * inside", "da = do[at] @ v[at].T * (inside > 0)"),
    Mistake("retention", "transpose", "dk[at] = da.T @ q[at]", "dk[at] = da @ q[at]"),
    # what later chunks read of k is lost
    Mistake("retention", "missing term", "dk[at] = da.T @ q[at] + leave * (v[at] @ dstate.T)", "dk[at] = da.T @ q[at]"),
    # the state after the chunk, not before it
    Mistake("retention", "operand / misplaced", "(do[at] @ states[number].T)", "(do[at] @ (states + [state])[number + 1].T)"),
    # the last chunk is shorter (8 = 3 + 3 + 2)
    Mistake("retention", "variant / factor", "dstate = decay ** (at.stop - at.start) * dstate", "dstate = decay * dstate"),
    Mistake("retention", "elementwise factor / misplaced", "leave * (k[at] @ dstate)", "arrive * (k[at] @ dstate)"),  # the powers the wrong way round
    # torch's order of gates is i, f, g, o; here that of a course, i, f, o, g
    Mistake("LSTMPointwise", "misplaced / swapped", "dg * (1 - g * g), do * o * (1 - o)]", "do * o * (1 - o), dg * (1 - g * g)]"),
    Mistake("LSTMPointwise", "missing term", "dnew = dnew + dh * o * (1 - t * t)", "dnew = dh * o * (1 - t * t)"),
    Mistake("LSTMPointwise", "operand", "ctx.save_for_backward(i, f, g, o, c, new)", "ctx.save_for_backward(i, f, g, o, new, new)"),
    Mistake("LSTMPointwise", "elementwise factor", "torch.cat(dgates, dim=1), dnew * f", "torch.cat(dgates, dim=1), dnew"),
    Mistake("LSTMPointwise", "elementwise factor / missing term", "dh * o * (1 - t * t)", "dh * o"),
    # all windows taken for whole ones
    Mistake("moving_average", "counts", "d = dy / count", "d = dy / window"),
    # the same window looking back, where the gradient looks ahead
    Mistake("moving_average", "misplaced / transpose", "return (suffix[..., :length] - suffix[..., last],)", "back = np.concatenate([np.zeros(x.shape[:-1] + (1,), x.dtype), np.cumsum(d, axis=-1)], axis=-1)\n        return (back[..., high] - back[..., low],)"),
    Mistake("moving_average", "misplaced", "np.minimum(np.arange(length) + window, length)", "np.minimum(np.arange(length) + window - 1, length)"),
    Mistake("moving_average", "precision", "np.cumsum(d[..., ::-1], axis=-1)", "np.cumsum(d[..., ::-1], axis=-1, dtype=np.float32)"),
    # the norm taken for a constant
    Mistake("fused_sgd", "missing term", "(scale * d[at] - along * fg[at])", "(scale * d[at])"),
    # the inner product of the block alone
    Mistake("fused_sgd", "counts / misplaced / missing term", "- along * fg[at])", "- (scale * (fg[at] * d[at]).sum() / square if over else 0) * fg[at])"),
    # the last block only if it is whole
    Mistake("fused_sgd", "misplaced / missing term", "for s in range(0, size, block):\n            at = slice(s, s + block)\n            dp[at]", "for s in range(0, size - block + 1, block):\n            at = slice(s, s + block)\n            dp[at]"),
    # the decay taken for a part of what the momentum scales
    Mistake("fused_sgd", "variant / factor", "(1 - lr * weight_decay) * d[at]", "(1 - lr * momentum * weight_decay) * d[at]"),
    # the clipping's scale is missing in the inner part
    Mistake("fused_sgd", "variant / factor", "along = scale * inner / square", "along = inner / square"),
]
