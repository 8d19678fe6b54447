"""Kernels over blocks, tiles and chunks: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, integers, normal, uniform


# kernel: the head of a language model and its loss, blocks of classes, no logits kept ---------------------------------------
def fused_cross_entropy(x, w, target, ignore_index=-100, block=4):
    """Returns (loss, gradients): x (N, D), w (C, D); the mean over the rows that are not ignored."""
    n, c = x.shape[0], w.shape[0]
    valid = target != ignore_index
    count = int(valid.sum())
    top = np.full(n, -np.inf, x.dtype)
    total, hit = np.zeros(n, x.dtype), np.zeros(n, x.dtype)
    for start in range(0, c, block):
        logits = x @ w[start : start + block].T
        new = np.maximum(top, logits.max(1))
        total = total * np.exp(top - new) + np.exp(logits - new[:, None]).sum(1)
        top = new
        rows = np.flatnonzero((target >= start) & (target < start + block))
        hit[rows] = logits[rows, target[rows] - start]
    lse = top + np.log(total)
    loss = np.where(valid, lse - hit, 0.0).sum() / count

    dx, dw = np.zeros(x.shape, x.dtype), np.empty(w.shape, w.dtype)
    share = valid.astype(x.dtype) / max(count, 1)
    for start in range(0, c, block):
        wb = w[start : start + block]
        d = np.exp(x @ wb.T - lse[:, None])
        rows = np.flatnonzero((target >= start) & (target < start + block))
        d[rows, target[rows] - start] -= 1.0
        d *= share[:, None]
        dx += d @ wb
        dw[start : start + block] = d.T @ x
    return loss, (dx, dw)


def fused_cross_entropy_torch(x, w, target, ignore_index=-100, block=4):
    return F.cross_entropy(x @ w.T, target, ignore_index=ignore_index)


# kernel: softmax over tiles of a row, two passes ---------------------------------------------------------------------------
def softmax_tiles(x, tile=3):
    n = x.shape[-1]
    top = np.full(x.shape[:-1] + (1,), -np.inf, x.dtype)
    total = np.zeros(top.shape, x.dtype)
    for j in range(0, n, tile):
        part = x[..., j : j + tile]
        new = np.maximum(top, part.max(-1, keepdims=True))
        total = total * np.exp(top - new) + np.exp(part - new).sum(-1, keepdims=True)
        top = new
    y = np.exp(x - top) / total

    def pullback(dy):
        dot = np.zeros(top.shape, x.dtype)
        for j in range(0, n, tile):
            cols = slice(j, j + tile)
            dot += (dy[..., cols] * y[..., cols]).sum(-1, keepdims=True)
        dx = np.zeros(x.shape, x.dtype)
        for j in range(0, n, tile):
            cols = slice(j, j + tile)
            dx[..., cols] = y[..., cols] * (dy[..., cols] - dot)
        return (dx,)

    return y, pullback


def softmax_tiles_torch(x, tile=3):
    return torch.softmax(x, -1)


# kernel: logsumexp over tiles, a pair ---------------------------------------------------------------------------------------
def logsumexp_tiles_forward(x, temperature=1.0):
    tile = 4
    m = x[..., :tile].max(-1)
    for j in range(tile, x.shape[-1], tile):
        m = np.maximum(m, x[..., j : j + tile].max(-1))
    s = np.exp((x - m[..., None]) / temperature).sum(-1)
    lse = m + temperature * np.log(s)
    cache = (x, lse, temperature)
    return lse, cache


def logsumexp_tiles_backward(cache, dout):
    x, lse, temperature = cache
    p = np.exp((x - lse[..., None]) / temperature)
    return p * dout[..., None]


logsumexp_tiles = (logsumexp_tiles_forward, logsumexp_tiles_backward)


def logsumexp_tiles_torch(x, temperature=1.0):
    return temperature * torch.logsumexp(x / temperature, -1)


# kernel: cumsum by blocks, the carry from block to block ---------------------------------------------------------------------
def cumsum_blocks(x, block=4):
    def inclusive(t):
        out, carry = np.empty(t.shape, t.dtype), np.zeros(t.shape[:-1] + (1,), t.dtype)
        for j in range(0, t.shape[-1], block):
            out[..., j : j + block] = np.cumsum(t[..., j : j + block], -1) + carry
            carry = out[..., j : j + block][..., -1:]
        return out

    def pullback(dy):
        dx, after = np.empty(dy.shape, dy.dtype), np.zeros(dy.shape[:-1] + (1,), dy.dtype)
        for j in reversed(range(0, dy.shape[-1], block)):
            part = dy[..., j : j + block]
            dx[..., j : j + block] = np.cumsum(part[..., ::-1], -1)[..., ::-1] + after
            after = after + part.sum(-1, keepdims=True)
        return (dx,)

    return inclusive(x), pullback


def cumsum_blocks_torch(x, block=4):
    return torch.cumsum(x, -1)


# course: a linear recurrence as a layer ------------------------------------------------------------------------------------
class GatedScan:
    """h[t] = a[t] · h[t - 1] + b[t] over axis 1, from zero."""

    def forward(self, a, b):
        self.a, self.h = a, np.zeros(b.shape, b.dtype)
        state = np.zeros(b[:, 0].shape, b.dtype)
        for t in range(b.shape[1]):
            state = a[:, t] * state + b[:, t]
            self.h[:, t] = state
        return self.h.copy()

    def backward(self, dh):
        da, db = np.zeros(dh.shape, dh.dtype), np.zeros(dh.shape, dh.dtype)
        g = np.zeros(dh[:, 0].shape, dh.dtype)
        for t in reversed(range(dh.shape[1])):
            g = g + dh[:, t]
            db[:, t] = g
            if t > 0:
                da[:, t] = g * self.h[:, t - 1]
            g = self.a[:, t] * g
        return da, db


def gated_scan_torch(a, b):
    h, out = torch.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return torch.stack(out, 1)


# kernel: causal linear attention, chunks with a state between them --------------------------------------------------------------
def linear_attention(q, k, v, chunk=3):
    n = q.shape[-2]
    lower = np.tril(np.ones((chunk, chunk), dtype=q.dtype))
    state = np.zeros(q.shape[:-2] + (k.shape[-1], v.shape[-1]), q.dtype)
    states, y = [], np.empty(q.shape[:-1] + v.shape[-1:], q.dtype)
    for i in range(0, n, chunk):
        qi, ki, vi = (t[..., i : i + chunk, :] for t in (q, k, v))
        m = lower[: qi.shape[-2], : qi.shape[-2]]
        states.append(state)
        y[..., i : i + chunk, :] = qi @ state + (qi @ ki.swapaxes(-1, -2) * m) @ vi
        state = state + ki.swapaxes(-1, -2) @ vi

    def pullback(dy):
        dq, dk, dv = (np.empty(t.shape, t.dtype) for t in (q, k, v))
        dstate = np.zeros(state.shape, state.dtype)
        for c in reversed(range(len(states))):
            rows = slice(c * chunk, (c + 1) * chunk)
            qi, ki, vi, di = (t[..., rows, :] for t in (q, k, v, dy))
            m = lower[: qi.shape[-2], : qi.shape[-2]]
            within = (di @ vi.swapaxes(-1, -2)) * m
            scores = (qi @ ki.swapaxes(-1, -2)) * m
            dq[..., rows, :] = di @ states[c].swapaxes(-1, -2) + within @ ki
            dk[..., rows, :] = within.swapaxes(-1, -2) @ qi + vi @ dstate.swapaxes(-1, -2)
            dv[..., rows, :] = scores.swapaxes(-1, -2) @ di + ki @ dstate
            dstate = dstate + qi.swapaxes(-1, -2) @ di
        return dq, dk, dv

    return y, pullback


def linear_attention_torch(q, k, v, chunk=3):
    return (q @ k.mT).tril() @ v


# kernel: the largest of a row, tile by tile; ties share, as in torch.amax --------------------------------------------------------
def amax_tiles(x, tile=4):
    best = np.full(x.shape[:-1], -np.inf, x.dtype)
    for j in range(0, x.shape[-1], tile):
        best = np.maximum(best, x[..., j : j + tile].max(-1))

    def pullback(dy):
        ties = np.zeros(best.shape, x.dtype)
        for j in range(0, x.shape[-1], tile):
            ties += (x[..., j : j + tile] == best[..., None]).sum(-1)
        dx = np.empty(x.shape, x.dtype)
        for j in range(0, x.shape[-1], tile):
            hit = x[..., j : j + tile] == best[..., None]
            dx[..., j : j + tile] = hit * (dy / ties)[..., None]
        return (dx,)

    return best, pullback


def amax_tiles_torch(x, tile=4):
    return torch.amax(x, -1)


# kernel: a linear layer with clipping and ReLU at the end, tiles of rows and of the inner dimension ---------------------------------
class LinearClip(torch.autograd.Function):
    """relu(x @ w + b), held below 2: x (N, K), w (K, M), b (M,)."""

    @staticmethod
    def forward(ctx, x, w, b):
        pre = b.expand(x.shape[0], -1).clone()
        for k in range(0, x.shape[1], 4):
            pre += x[:, k : k + 4] @ w[k : k + 4]
        open_ = (pre > 0) & (pre <= 2)
        ctx.save_for_backward(x, w, open_)
        return pre.clamp(0, 2)

    @staticmethod
    def backward(ctx, dy):
        x, w, open_ = ctx.saved_tensors
        d = dy * open_
        dx, dw = torch.zeros_like(x), torch.zeros_like(w)
        for i in range(0, x.shape[0], 2):
            rows = slice(i, i + 2)
            dx[rows] = d[rows] @ w.T
            dw += x[rows].T @ d[rows]
        return dx, dw, d.sum(0)


def linear_clip_torch(x, w, b):
    return torch.clamp_max(torch.relu(x @ w + b), 2.0)


# plain: every segment's mean, rows in one list, segments of unequal length ------------------------------------------------------------
def segment_mean_loss(x, weight, segment, segments=3):
    """The mean over segments of the mean over rows of (x · weight)²; segment (N,) of integers below segments."""
    counts = np.bincount(segment, minlength=segments).astype(x.dtype)
    full = counts > 0
    z = x @ weight
    sums = np.zeros(segments, x.dtype)
    np.add.at(sums, segment, z * z)
    share = np.where(full, 1.0, 0.0).astype(x.dtype) / np.maximum(counts, 1.0) / full.sum().astype(x.dtype)
    y = (sums * share).sum()

    def pullback(dy):
        dz = dy * 2.0 * z * share[segment]
        dx = dz[:, None] * weight
        dweight = x.T @ dz
        return dx, dweight, None

    return y, pullback


def segment_mean_loss_torch(x, weight, segment, segments=3):
    z = (x @ weight) ** 2
    return torch.stack([z[segment == s].mean() for s in range(segments) if bool((segment == s).any())]).mean()


SUBJECTS = {
    "fused_cross_entropy": Subject(
        against=fused_cross_entropy_torch,
        calls=[
            call(normal(5, 3), normal(10, 3), integers(5, below=10)),
            call(normal(8, 4), normal(6, 4), integers(8, below=6), ignore_index=2),
            call(normal(12, 4), normal(4, 4), integers(12, below=4), ignore_index=0, block=3),
        ],
    ),
    "softmax_tiles": Subject(against=softmax_tiles_torch, calls=[call(normal(2, 7)), call(normal(2, 3, 8), tile=4)]),
    "logsumexp_tiles": Subject(
        against=logsumexp_tiles_torch, calls=[call(normal(3, 10)), call(normal(2, 2, 6), temperature=2.5)]
    ),
    "cumsum_blocks": Subject(against=cumsum_blocks_torch, calls=[call(normal(2, 10)), call(normal(3, 2, 7), block=3)]),
    "GatedScan": Subject(against=gated_scan_torch, calls=[call(uniform(2, 5, 3), normal(2, 5, 3)), call(normal(3, 6), normal(3, 6))]),
    "linear_attention": Subject(
        against=linear_attention_torch,
        calls=[
            call(normal(2, 7, 4), normal(2, 7, 4), normal(2, 7, 4)),
            call(normal(1, 2, 6, 3), normal(1, 2, 6, 3), normal(1, 2, 6, 5), chunk=2),
        ],
    ),
    "amax_tiles": Subject(against=amax_tiles_torch, calls=[call(normal(3, 10)), call(normal(2, 3, 7), tile=3)]),
    "LinearClip": Subject(against=linear_clip_torch, calls=[call(normal(5, 6), normal(6, 4), normal(4)), call(normal(3, 3), normal(3, 3), normal(3))]),
    "segment_mean_loss": Subject(
        against=segment_mean_loss_torch,
        calls=[call(normal(9, 4), normal(4), integers(9, below=3)), call(normal(7, 3), normal(3), integers(7, below=4), segments=4)],
    ),
}
MISTAKES = [
    # by all rows, ignored ones too, in the gradient: second and third call
    Mistake("fused_cross_entropy", "counts / factor", "share = valid.astype(x.dtype) / max(count, 1)", "share = valid.astype(x.dtype) / n"),
    # ignored rows pull all the same
    Mistake("fused_cross_entropy", "elementwise factor", "share = valid.astype(x.dtype) / max(count, 1)", "share = np.ones(n, x.dtype) / max(count, 1)"),
    # of several blocks the last one
    Mistake("fused_cross_entropy", "overwritten", "dx += d @ wb", "dx = d @ wb"),
    # one off at the edge of a block: its first class has no target
    Mistake("fused_cross_entropy", "misplaced / missing term",
            "        d[rows, target[rows] - start] -= 1.0", "        rows = rows[target[rows] > start]\n        d[rows, target[rows] - start] -= 1.0"),
    # the block's weights are kept the other way round: the same number of elements
    Mistake("fused_cross_entropy", "transpose / shape", "= d.T @ x", "= (x.T @ d).reshape(wb.shape)"),
    # where a tile begins the sum begins
    Mistake("softmax_tiles", "overwritten / missing term", "dot += (dy[..., cols] * y[..., cols])", "dot[...] = (dy[..., cols] * y[..., cols])"),
    Mistake("softmax_tiles", "misplaced / missing term",
            "        dx = np.zeros(x.shape, x.dtype)\n        for j in range(0, n, tile):",
            "        dx = np.zeros(x.shape, x.dtype)\n        for j in range(0, n // tile * tile, tile):"),
    # through the correction the upstream gradient is taken for ones
    Mistake("softmax_tiles", "cotangent / missing term", "dy[..., cols] - dot)", "dy[..., cols] - y[..., cols])"),
    Mistake("softmax_tiles", "precision", "dot = np.zeros(top.shape, x.dtype)", "dot = np.zeros(top.shape, np.float32)"),
    # temperature in the weights and once more in front
    Mistake("logsumexp_tiles", "factor", "return p * dout[..., None]", "return p * dout[..., None] / temperature"),
    Mistake("logsumexp_tiles", "variant / elementwise factor", "p = np.exp((x - lse[..., None]) / temperature)", "p = np.exp(x - lse[..., None])"),
    # what is saved is the maximum, the sum is lost
    Mistake("logsumexp_tiles", "operand / elementwise factor", "cache = (x, lse, temperature)", "cache = (x, m, temperature)"),
    Mistake("logsumexp_tiles", "cotangent", "return p * dout[..., None]", "return p * dout.sum()"),
    Mistake("logsumexp_tiles", "range", "p = np.exp((x - lse[..., None]) / temperature)",
            "e = np.exp(x / temperature)\n    p = e / e.sum(-1, keepdims=True)"),
    # forwards for backwards, in the block or among blocks
    Mistake("cumsum_blocks", "misplaced / transpose", "np.cumsum(part[..., ::-1], -1)[..., ::-1] + after", "np.cumsum(part, -1) + after"),
    Mistake("cumsum_blocks", "misplaced", "for j in reversed(range(0, dy.shape[-1], block)):", "for j in range(0, dy.shape[-1], block):"),
    Mistake("cumsum_blocks", "overwritten / missing term", "after = after + part.sum(-1, keepdims=True)", "after = part.sum(-1, keepdims=True)"),
    # exclusive
    Mistake("cumsum_blocks", "missing term / misplaced", "np.cumsum(part[..., ::-1], -1)[..., ::-1] + after",
            "np.cumsum(part[..., ::-1], -1)[..., ::-1] - part + after"),
    # h[t - 1] goes into h[t] with a[t]
    Mistake("GatedScan", "operand / misplaced", "da[:, t] = g * self.h[:, t - 1]", "da[:, t] = g * self.h[:, t]"),
    Mistake("GatedScan", "misplaced / operand", "g = self.a[:, t] * g", "g = self.a[:, t - 1] * g"),
    Mistake("GatedScan", "missing term", "g = self.a[:, t] * g", "g = np.zeros_like(g)"),
    # accumulated in the cotangent itself, as autograd's buffers may be
    Mistake("GatedScan", "mutation", "g = g + dh[:, t]\n", "g = np.add(dh[:, t], g, out=dh[:, t])\n"),
    Mistake("GatedScan", "swapped", "return da, db", "return db, da"),
    # the default dtype of np.zeros: float32 alone
    Mistake("GatedScan", "dtype", "da, db = np.zeros(dh.shape, dh.dtype), np.zeros(dh.shape, dh.dtype)",
            "da, db = np.zeros(dh.shape), np.zeros(dh.shape)"),
    # the state after the chunk, for the one before it
    Mistake("linear_attention", "misplaced / operand / extra term", "states[c].swapaxes", "(states[c] + ki.swapaxes(-1, -2) @ vi).swapaxes"),
    Mistake("linear_attention", "elementwise factor / extra term", "within = (di @ vi.swapaxes(-1, -2)) * m", "within = di @ vi.swapaxes(-1, -2)"),
    Mistake("linear_attention", "overwritten / missing term", "dstate = dstate + qi.swapaxes(-1, -2) @ di", "dstate = qi.swapaxes(-1, -2) @ di"),
    Mistake("linear_attention", "transpose", "dk[..., rows, :] = within.swapaxes(-1, -2) @ qi", "dk[..., rows, :] = within @ qi"),
    # what chunks after this one ask of its values
    Mistake("linear_attention", "missing term", "scores.swapaxes(-1, -2) @ di + ki @ dstate", "scores.swapaxes(-1, -2) @ di"),
    # every tie takes all
    Mistake("amax_tiles", "kink", "hit * (dy / ties)[..., None]", "hit * dy[..., None]"),
    # ties counted in a tile each
    Mistake("amax_tiles", "kink / counts", "dx[..., j : j + tile] = hit * (dy / ties)[..., None]",
            "dx[..., j : j + tile] = hit * dy[..., None] / np.maximum(hit.sum(-1, keepdims=True), 1)"),
    Mistake("amax_tiles", "misplaced / missing term", "dx = np.empty(x.shape, x.dtype)\n        for j in range(0, x.shape[-1], tile):",
            "dx = np.zeros(x.shape, x.dtype)\n        for j in range(0, x.shape[-1] - tile + 1, tile):"),
    # another slope at 0, and at the upper bound
    Mistake("LinearClip", "kink", "open_ = (pre > 0) & (pre <= 2)", "open_ = (pre >= 0) & (pre <= 2)"),
    Mistake("LinearClip", "elementwise factor / missing term", "open_ = (pre > 0) & (pre <= 2)", "open_ = pre > 0"),
    Mistake("LinearClip", "elementwise factor / operand", "return dx, dw, d.sum(0)", "return dx, dw, dy.sum(0)"),
    # averaged over the batch as the loss is
    Mistake("LinearClip", "factor", "return dx, dw, d.sum(0)", "return dx, dw, d.mean(0)"),
    Mistake("LinearClip", "overwritten", "dw += x[rows].T @ d[rows]", "dw = x[rows].T @ d[rows]"),
    Mistake("segment_mean_loss", "counts", "share[segment]", "np.full(len(x), 1.0 / len(x))"),
    Mistake("segment_mean_loss", "cotangent", "dz = dy * 2.0 * z * share[segment]", "dz = 2.0 * z * share[segment]"),
    Mistake("segment_mean_loss", "factor", "dz = dy * 2.0 * z", "dz = dy * z"),
    Mistake("segment_mean_loss", "misplaced", "share[segment]", "share[np.sort(segment)]"),
    # the sum is made once, outside of the pullback: a second pullback of the same call adds to it
    Mistake("softmax_tiles", "state", "    def pullback(dy):\n        dot = np.zeros(top.shape, x.dtype)\n",
            "    dot = np.zeros(top.shape, x.dtype)\n\n    def pullback(dy):\n        nonlocal dot\n"),
    # torch.max(dim) gives all to one
    Mistake("amax_tiles", "kink / variant", "        return (dx,)",
            "        dx = np.eye(x.shape[-1], dtype=x.dtype)[x.argmax(-1)] * dy[..., None]\n        return (dx,)"),
    Mistake("amax_tiles", "cotangent", "hit * (dy / ties)[..., None]", "hit / ties[..., None]"),
    Mistake("LinearClip", "kink", "open_ = (pre > 0) & (pre <= 2)", "open_ = (pre > 0) & (pre < 2)"),
    # whole tiles of rows alone
    Mistake("LinearClip", "misplaced / missing term", "for i in range(0, x.shape[0], 2):", "for i in range(0, x.shape[0] - 1, 2):"),
    # the share of the first segment for all
    Mistake("segment_mean_loss", "counts / operand", "dweight = x.T @ dz", "dweight = x.T @ (dy * 2.0 * z * share[0])"),
]
