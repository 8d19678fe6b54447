"""Embeddings, gathers, scatters, segments: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, integers, normal


def embedding_forward(W, idx, padding=0):
    """Rows of W (V, D); the row of the padding has no gradient."""
    return W[idx], (W.shape, W.dtype, idx, padding)


def embedding_backward(dout, cache):
    shape, dtype, idx, padding = cache
    idx = np.ravel(idx)
    d = dout.reshape(-1, shape[1])
    use = idx != padding
    dW = np.zeros(shape, dtype)
    np.add.at(dW, idx[use], d[use])
    return dW, None


embedding = (embedding_forward, embedding_backward)


def embedding_torch(W, idx, padding=0):
    return F.embedding(idx, W, padding_idx=padding)


def embedding_mean(W, idx, padding=0):
    """Bags (N, L) of words without the padding, their mean; an empty bag gives zeros."""
    keep = idx != padding
    count = np.maximum(keep.sum(1), 1)
    weight = (keep / count[:, None]).astype(W.dtype)
    y = np.einsum("nl,nld->nd", weight, W[idx])

    def pullback(dy):
        dW = np.zeros(W.shape, W.dtype)
        for j in range(idx.shape[1]):
            np.add.at(dW, idx[:, j], weight[:, j, None] * dy)
        return dW, None

    return y, pullback


def embedding_mean_torch(W, idx, padding=0):
    keep = (idx != padding).to(W.dtype)
    return (W[idx] * keep[..., None]).sum(1) / keep.sum(1).clamp(min=1)[:, None]


class TokenAndPosition:
    """tokens[idx] · √D + positions[:T]; tokens (V, D), positions (P, D), idx (N, T)."""

    def forward(self, tokens, positions, idx):
        self.shapes, self.idx, self.dtype = (tokens.shape, positions.shape), idx, tokens.dtype
        return tokens[idx] * tokens.shape[1] ** 0.5 + positions[: idx.shape[1]]

    def backward(self, dout):
        T = self.idx.shape[1]
        dtokens, dpositions = (np.zeros(s, self.dtype) for s in self.shapes)
        np.add.at(dtokens, self.idx, dout * dout.shape[-1] ** 0.5)
        dpositions[:T] = dout.sum(axis=0)
        return dtokens, dpositions, None


def token_and_position_torch(tokens, positions, idx):
    return F.embedding(idx, tokens) * tokens.shape[1] ** 0.5 + positions[: idx.shape[1]]


def take_flat(x, idx):
    """x seen as one row, the elements idx of it; indices may repeat, negative ones count from the end."""
    y = x.reshape(-1)[idx]

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        np.add.at(dx.reshape(-1), idx, dy)
        return dx, None

    return y, pullback


def take_flat_torch(x, idx):
    flat = x.reshape(-1)
    return flat[idx]


def segment_softmax(score, value, segment, n=4):
    """Edges (E,) with scores and values (E, D): softmax within each segment, weighted sums (n, D); segments unsorted."""
    top = np.full(n, -np.inf, score.dtype)
    np.maximum.at(top, segment, score)
    e = np.exp(score - top[segment])
    total = np.zeros(n, score.dtype)
    np.add.at(total, segment, e)
    p = e / total[segment]
    y = np.zeros((n, value.shape[1]), value.dtype)
    np.add.at(y, segment, p[:, None] * value)

    def pullback(dy):
        mine = dy[segment]
        dvalue = p[:, None] * mine
        dp = (mine * value).sum(1)
        inner = np.zeros(n, score.dtype)
        np.add.at(inner, segment, p * dp)
        dscore = p * (dp - inner[segment])
        return dscore, dvalue, None

    return y, pullback


def segment_softmax_torch(score, value, segment, n=4):
    member = segment[None] == torch.arange(n)[:, None]
    logits = score[None].expand(n, -1).masked_fill(~member, -torch.inf)
    p = torch.softmax(torch.where(member.any(1, keepdim=True), logits, torch.zeros_like(logits)), 1)
    return (p * member.to(p.dtype)) @ value


def mixture_of_experts(x, logits, experts, k=2):
    """x (N, D), logits (N, E), experts (E, D, H): the k best of each token, weights renormalized; expert by expert, in torch."""
    top, chosen = logits.topk(k, dim=1)
    gate = torch.softmax(top, 1)
    N, H = len(x), experts.shape[2]
    y = torch.zeros(N, H, dtype=x.dtype)
    lists = []
    for e in range(len(experts)):
        token, slot = torch.where(chosen == e)
        out = x[token] @ experts[e]
        y.index_add_(0, token, gate[token, slot][:, None] * out)
        lists.append((token, slot, out))

    def pullback(dy):
        dx = torch.zeros(x.shape, dtype=x.dtype)
        dexperts = torch.zeros(experts.shape, dtype=x.dtype)
        dgate = torch.zeros(gate.shape, dtype=x.dtype)
        for e, (token, slot, out) in enumerate(lists):
            g = dy[token]
            dgate[token, slot] = (g * out).sum(1)
            dout = gate[token, slot][:, None] * g
            dexperts[e] = x[token].T @ dout
            dx.index_add_(0, token, dout @ experts[e].T)
        dtop = gate * (dgate - (gate * dgate).sum(1, keepdim=True))
        dlogits = torch.zeros(logits.shape, dtype=x.dtype).scatter(1, chosen, dtop)
        return dx, dlogits, dexperts

    return y, pullback


def mixture_of_experts_torch(x, logits, experts, k=2):
    top, chosen = logits.topk(k, dim=1)
    out = torch.einsum("nd,edh->neh", x, experts).gather(1, chosen[..., None].expand(-1, -1, experts.shape[2]))
    return (torch.softmax(top, 1)[..., None] * out).sum(1)


def graph_conv(x, W, src, dst):
    """Messages x[src] W to dst, divided by √(degree out · degree in): x (N, D), the edges by two arrays."""
    n = len(x)
    d_out = np.maximum(np.bincount(src, minlength=n), 1)
    d_in = np.maximum(np.bincount(dst, minlength=n), 1)
    w = ((d_out[src] * d_in[dst]) ** -0.5).astype(x.dtype)
    agg = np.zeros(x.shape, x.dtype)
    np.add.at(agg, dst, w[:, None] * x[src])
    y = agg @ W

    def pullback(dy):
        dW = agg.T @ dy
        dagg = dy @ W.T
        dx = np.zeros(x.shape, x.dtype)
        np.add.at(dx, src, w[:, None] * dagg[dst])
        return dx, dW, None, None

    return y, pullback


def graph_conv_torch(x, W, src, dst):
    n = len(x)
    A = torch.zeros(n, n, dtype=x.dtype).index_put((dst, src), torch.ones(len(src), dtype=x.dtype), accumulate=True)
    A = A / A.sum(0, keepdim=True).clamp(min=1).sqrt() / A.sum(1, keepdim=True).clamp(min=1).sqrt()
    return A @ x @ W


def relative_bias(scores, table):
    """scores (H, T, T) + table (H, 2T − 1) by the distance of query and key, T5's way without buckets."""
    T = scores.shape[-1]
    distance = np.arange(T)[None, :] - np.arange(T)[:, None] + T - 1
    y = scores + table[:, distance]

    def pullback(dy):
        dtable = np.zeros(table.shape, table.dtype)
        for k in range(-(T - 1), T):
            dtable[:, k + T - 1] = np.trace(dy, offset=k, axis1=1, axis2=2)
        return dy.copy(), dtable

    return y, pullback


def relative_bias_torch(scores, table):
    T = scores.shape[-1]
    d = torch.arange(T)[None, :] - torch.arange(T)[:, None] + T - 1
    return scores + table[:, d]


SUBJECTS = {
    "embedding": Subject(against=embedding_torch, calls=[call(normal(5, 3), integers(2, 6, below=5))]),
    "embedding_mean": Subject(against=embedding_mean_torch, calls=[call(normal(4, 3), integers(5, 6, below=4))]),
    "TokenAndPosition": Subject(against=token_and_position_torch, calls=[call(normal(6, 4), normal(8, 4), integers(3, 5, below=6))]),
    "take_flat": Subject(against=take_flat_torch, calls=[call(normal(3, 4), integers(7, below=12, low=-12))]),
    "segment_softmax": Subject(against=segment_softmax_torch, calls=[call(normal(9), normal(9, 3), integers(9, below=4))]),
    "mixture_of_experts": Subject(against=mixture_of_experts_torch, calls=[call(normal(6, 3), normal(6, 4), normal(4, 3, 2))]),
    "graph_conv": Subject(against=graph_conv_torch, calls=[call(normal(5, 3), normal(3, 2), integers(9, below=5), integers(9, below=5))]),
    "relative_bias": Subject(against=relative_bias_torch, calls=[call(normal(2, 4, 4), normal(2, 7))]),
}
MISTAKES = [
    # words that repeat count once
    Mistake("embedding", "overwritten", "np.add.at(dW, idx[use], d[use])", "dW[idx[use]] += d[use]"),
    Mistake("embedding", "elementwise factor / extra term / variant", "use = idx != padding", "use = idx >= 0"),
    # of a dout that is not contiguous: in the order of memory
    Mistake("embedding", "layout / misplaced", "d = dout.reshape(-1, shape[1])", 'd = dout.ravel(order="K").reshape(-1, shape[1])'),
    Mistake("embedding", "dtype", "dW = np.zeros(shape, dtype)", "dW = np.zeros(shape)"),
    # (T, N) for (N, T): the indices in the order of columns
    Mistake("embedding", "misplaced", "idx = np.ravel(idx)", 'idx = np.ravel(idx, order="F")'),
    # every bag by its length, not by the words that count
    Mistake("embedding_mean", "counts / elementwise factor / variant", "np.add.at(dW, idx[:, j], weight[:, j, None] * dy)",
            "np.add.at(dW, idx[:, j], keep[:, j, None] * dy / idx.shape[1])"),
    Mistake("embedding_mean", "overwritten", "np.add.at(dW, idx[:, j], weight[:, j, None] * dy)", "dW[idx[:, j]] += weight[:, j, None] * dy"),
    Mistake("TokenAndPosition", "factor", "np.add.at(dtokens, self.idx, dout * dout.shape[-1] ** 0.5)", "np.add.at(dtokens, self.idx, dout)"),
    Mistake("TokenAndPosition", "misplaced", "dpositions[:T] = dout.sum(axis=0)", "dpositions[-T:] = dout.sum(axis=0)"),
    Mistake("TokenAndPosition", "broadcast / overwritten", "dpositions[:T] = dout.sum(axis=0)", "dpositions[:T] = dout[-1]"),
    # an array whose memory is in another order: zeros_like keeps the order, reshape copies, nothing arrives
    Mistake("take_flat", "layout", "dx = np.zeros(x.shape, x.dtype)", "dx = np.zeros_like(x)"),
    # negative indices: counted from the beginning
    Mistake("take_flat", "misplaced", "np.add.at(dx.reshape(-1), idx, dy)", "np.add.at(dx.reshape(-1), np.abs(idx) % x.size, dy)"),
    Mistake("segment_softmax", "missing term", "dscore = p * (dp - inner[segment])", "dscore = p * dp"),
    # one softmax over all edges
    Mistake("segment_softmax", "broadcast / misplaced / missing term", "dscore = p * (dp - inner[segment])", "dscore = p * (dp - inner.sum())"),
    # += over indices that repeat
    Mistake("segment_softmax", "overwritten", "np.add.at(inner, segment, p * dp)", "inner[segment] += p * dp"),
    # a token's two experts: the second overwrites
    Mistake("mixture_of_experts", "overwritten", "dx.index_add_(0, token, dout @ experts[e].T)", "dx[token] = dout @ experts[e].T"),
    Mistake("mixture_of_experts", "operand / elementwise factor", "dexperts[e] = x[token].T @ dout", "dexperts[e] = x[token].T @ g"),
    # slots of the k for experts
    Mistake("mixture_of_experts", "misplaced", ".scatter(1, chosen, dtop)", ".scatter(1, chosen.sort(1).values, dtop)"),
    Mistake("mixture_of_experts", "missing term", "dtop = gate * (dgate - (gate * dgate).sum(1, keepdim=True))", "dtop = gate * dgate"),
    # back along the edge: source and destination
    Mistake("graph_conv", "swapped / misplaced / transpose", "np.add.at(dx, src, w[:, None] * dagg[dst])", "np.add.at(dx, dst, w[:, None] * dagg[src])"),
    Mistake("graph_conv", "operand", "dW = agg.T @ dy", "dW = x.T @ dy"),
    Mistake("graph_conv", "variant / elementwise factor", "np.add.at(dx, src, w[:, None] * dagg[dst])", "np.add.at(dx, src, dagg[dst] / d_in[dst, None].astype(x.dtype))"),
    Mistake("relative_bias", "misplaced", "dtable[:, k + T - 1] =", "dtable[:, T - 1 - k] ="),
    # the last diagonal is left out
    Mistake("relative_bias", "misplaced / missing term", "for k in range(-(T - 1), T):", "for k in range(-(T - 1), T - 1):"),
    Mistake("relative_bias", "factor / counts", "axis1=1, axis2=2)", "axis1=1, axis2=2) / float(T - abs(k))"),
]
