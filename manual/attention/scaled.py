"""Attention by one set of weights.

All arrays are in float16, float32 or float64 of one dtype, but for masks, which may be boolean. The
rule raises TypeError for any others and for a setting of the wrong type, ValueError for shapes that
do not fit and for a setting out of range; the message names the argument.
"""

import math

import numpy as np

from ..arguments import Constant, array, broadcast, broadcastable, flag, floating, real, within
from ..arrays import BLOCK, along, pairwise_sum, room, sum_to, where


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    mask: Constant = None,
):
    """P V, where the rows of P are softmax(s Q Kᵀ + M): query (…, L, E), key (…, S, E) and value
    (…, S, Ev) → (…, L, Ev), with axes in front that broadcast and s = 1 / √E unless scale is given.

    With dP = dY Vᵀ, a softmax has dZ = P (dP − Σ P dP), and the products around it

        dQ = s dZ K        dK = s dZᵀ Q        dV = Pᵀ dY        dM = dZ

    attn_mask, with at least two axes, broadcasts to (…, L, S); it is M, or true where a query sees
    a key. With is_causal that is where key j ≤ query i. A query that sees none gets 0. With
    enable_gqa, neighbours on axis −3 of the query share a key and a value. With dropout_p > 0, what
    `mask` (…, L, S) keeps of P is divided by 1 − dropout_p.

    Raises ValueError for an attn_mask beside is_causal, TypeError for dropout without a mask,
    MemoryError where the gradient of a mask does not fit.

    Vaswani et al., 2017, arXiv:1706.03762; Ainslie et al., 2023, arXiv:2305.13245
    """
    query, key, value = floating(query=query, key=key, value=value)
    real(scale=1.0 if scale is None else scale)
    flag(is_causal=is_causal, enable_gqa=enable_gqa)
    k, v = _shared(query, key=key, value=value) if enable_gqa else (key, value)
    scores = _fitting(query, key=k, value=v)
    _fits(attn_mask, scores, query, is_causal)
    kept, share = drawn(mask, scores, dropout_p)
    scale = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    y, pull = _in_blocks(query, k, v, scale, attn_mask, is_causal, kept, share)

    def pullback(dy):
        dquery, dk, dv, *dmask = pull(dy)
        return dquery, _gathered(dk, key.shape), _gathered(dv, value.shape), *dmask

    return y, pullback


def attended(q, k, v, mask=None, kept=None, share=1, lost=1):
    """y = P v and P, for queries that are scaled already; a row of P that sees no key is 0 / lost.

    dP is measured from that of the largest score, so that nothing cancels when that has won.
    """
    scores = q @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype == bool else scores + mask
    most = scores.argmax(axis=-1, keepdims=True)
    at_most = along(most)
    top = scores[at_most]
    scores -= where(top == -math.inf, 0, top)
    soft = np.exp(scores, out=scores)
    total = soft.sum(axis=-1, keepdims=True)
    soft /= where(total == 0, lost, total)
    P = soft if kept is None else where(kept, soft / share, 0)
    y = P @ v

    def pullback(dy, dP=0):
        dv = P.swapaxes(-1, -2) @ dy
        dsoft = dy @ v.swapaxes(-1, -2)
        dsoft += dP
        if kept is not None:
            dsoft = where(kept, dsoft / share, 0)
        dsoft -= dsoft[at_most]
        dsoft -= np.vecdot(soft, dsoft)[..., np.newaxis]
        dscores = np.multiply(dsoft, soft, out=dsoft)
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv, dscores

    return (y, P), pullback


def _in_blocks(query, k, v, scale, mask, is_causal, kept, share):
    """attended, a block of rows at a time, which is made again for the pullback: no row needs
    another, and so all scores together are never there.

    Milakov & Gimelshein, 2018, arXiv:1805.02867; Rabe & Staats, 2021, arXiv:2112.05682
    """
    batch = np.broadcast_shapes(*(a.shape[:-2] for a in (query, k, v)))
    L, S = query.shape[-2], k.shape[-2]
    queries, keys, values = (_flat(a, batch) for a in (query * scale, k, v))
    blocks = list(_blocks(len(queries), L, S, is_causal))
    if is_floating(mask):
        room(v.dtype, attn_mask=(len(queries), L, S))  # of the gradient, before it is summed
    y = np.zeros((*queries.shape[:2], v.shape[-1]), v.dtype)

    def of_block(heads, rows, ahead):
        given = queries[heads, rows], keys[heads, ahead], values[heads, ahead]
        masks = [_part(a, (1, *batch, L, S), heads, rows, ahead) for a in (mask, kept)]
        if is_causal:
            masks[0] = np.tri(rows.stop - rows.start, ahead.stop, rows.start, dtype=bool)
        return attended(*given, *masks, share)

    for block in blocks:
        (y[block[:2]], _), pull_last = of_block(*block)

    def pullback(dy):
        rows_of_dy = _flat(dy, batch)
        dqueries, dkeys, dvalues = map(np.zeros_like, (queries, keys, values))
        dmask = np.zeros((len(queries), L, S), v.dtype) if is_floating(mask) else None
        for heads, rows, ahead in blocks:
            last = (heads, rows, ahead) == blocks[-1]
            pull = pull_last if last else of_block(heads, rows, ahead)[1]
            dqueries[heads, rows], dk, dv, dscores = pull(rows_of_dy[heads, rows])
            dkeys[heads, ahead] += dk
            dvalues[heads, ahead] += dv
            if dmask is not None:
                dmask[heads, rows] = dscores
        dqueries *= scale
        pairs = [(dqueries, query), (dkeys, k), (dvalues, v), (dmask, mask)]
        return [sum_to(d.reshape(*batch, *d.shape[1:]), a.shape) for d, a in pairs if d is not None]

    return y.reshape(*batch, *y.shape[1:]), pullback


def _blocks(heads, L, S, is_causal):
    """Which heads, which rows and which keys make a block of about BLOCK scores: several heads as a
    whole, or some rows of one. Causal rows see no key beyond the last of them."""
    several, some = max(1, BLOCK // max(L * S, 1)), min(max(1, BLOCK // max(S, 1)), max(L, 1))
    for head in range(0, heads if S else 0, several):
        for row in range(0, L, some):
            stop = min(row + some, L)
            ahead = slice(0, min(stop, S) if is_causal else S)
            yield slice(head, min(head + several, heads)), slice(row, stop), ahead


def _flat(a, batch):
    """(…, n, m) with the axes in front, broadcast to `batch`, as one."""
    return np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(math.prod(batch), *a.shape[-2:])


def _part(a, shape, heads, rows, ahead):
    """That part of a mask, broadcast to `shape`; None where there is none."""
    if a is None:
        return None
    which = np.unravel_index(np.arange(heads.start, heads.stop), shape[:-2])
    return np.broadcast_to(a, shape)[..., rows, ahead][which]


def _shared(query, **two):
    """The named arrays, each of their heads, on axis −3, as often as queries share it."""
    found = []
    for name, a in {"query": query, **two}.items():
        if a.ndim < 3:
            raise ValueError(f"{name}: expected heads on axis −3, got shape {a.shape}")
        heads = query.shape[-3]
        if not a.shape[-3] or heads % a.shape[-3]:
            raise ValueError(f"{name}: expected heads that divide {heads}, got {a.shape[-3]}")
        found.append(np.repeat(a, heads // a.shape[-3], axis=-3))
    return found[1:]


def _gathered(d, shape):
    """The adjoint of _shared: the sum over those that share a head."""
    if d.shape == shape:
        return d
    times = d.shape[-3] // shape[-3]
    return pairwise_sum(d.reshape(*shape[:-2], times, *shape[-2:]), (len(shape) - 2,))


def _fitting(query, key, value):
    """The shape of the scores, (…, L, S)."""
    front = {}
    for name, a in (("query", query), ("key", key), ("value", value)):
        if a.ndim < 2:
            raise ValueError(f"{name}: expected at least 2 axes, got shape {a.shape}")
        front[name] = np.empty(a.shape[:-2], bool)
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"key: expected {query.shape[-1]} features, got shape {key.shape}")
    if value.shape[-2] != key.shape[-2]:
        raise ValueError(f"value: expected one for each of {key.shape[-2]} keys, got {value.shape}")
    broadcast(**front)
    batch = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    return *batch, query.shape[-2], key.shape[-2]


def _fits(attn_mask, scores, query, is_causal):
    """Raises unless there is no mask, or it can be added to the scores or says which are seen."""
    if attn_mask is None:
        return
    if is_causal:
        raise ValueError("attn_mask: expected None beside is_causal, got a mask")
    if array(attn_mask=attn_mask).dtype != bool:
        floating(query=query, attn_mask=attn_mask)
    if attn_mask.ndim < 2:
        raise ValueError(f"attn_mask: expected at least 2 axes, got shape {attn_mask.shape}")
    broadcastable(scores, attn_mask=attn_mask)


def drawn(mask, scores, dropout_p):
    """What is kept, and the share of it; without dropout nothing is drawn. Raises TypeError for
    dropout without a boolean mask."""
    within(0, 1, dropout_p=dropout_p)
    if not dropout_p:
        return None, 1
    if mask is None:
        raise TypeError("mask: expected a boolean array of what dropout keeps, got None")
    if array(mask=mask).dtype != bool:
        raise TypeError(f"mask: expected a boolean array of what dropout keeps, got {mask.dtype}")
    broadcastable(scores, mask=mask)
    return mask & (dropout_p < 1), 1 - dropout_p or 1


def is_floating(a):
    """Whether it is a floating array."""
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"
