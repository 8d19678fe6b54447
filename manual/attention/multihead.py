"""Attention by many heads, between linear maps.

All arrays are in float16, float32 or float64 of one dtype, but for masks, which may be boolean. The
rule raises TypeError for any others and for a setting of the wrong type, ValueError for shapes that
do not fit and for a setting out of range; the message names the argument.
"""

import math

import numpy as np

from ..arguments import Constant, array, broadcastable, flag, floating, real, truth, whole, within
from ..arrays import pairwise_sum, room, sum_to, where
from ..linear import linear
from .scaled import attended, drawn, is_floating, scaled_dot_product_attention

_INPUTS = ("query", "key", "value")
_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_ARRAYS = (
    *(*_INPUTS, "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj_weight"),
    *("out_proj_bias", *_SEPARATE, "static_k", "static_v"),
)


def multi_head_attention_forward(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
    *,
    mask: Constant = None,
):
    """linear, attention of H = num_heads heads, linear: query (L, N, E), key (S, N, Ek) and value
    (S, N, Ev), or all three without N, → (L, N, out). With need_weights, the weights are a second
    output: their mean over the heads, (N, L, S), or all, (N, H, L, S), if not average_attn_weights.

    A rule of rules: every gradient goes back through the linear map that its array came through.

    The three maps of the inputs stand in in_proj_weight (3 E, E) beneath one another, or with
    use_separate_proj_weight in q_, k_ and v_proj_weight, E by Ek or Ev; in_proj_bias is (3 E). Then
    bias_k and bias_v, of E numbers, are put behind the keys and values of each sequence, and with
    add_zero_attn zeros behind these. static_k and static_v (N H, S, E / H) take their place.

    attn_mask (L, S) or (N H, L, S) and key_padding_mask (N, S) are added to the scores, or true
    where nothing is seen; a query that sees nothing has weights of NaN, and those that are not
    needed are 0. is_causal says what attn_mask is, which is looked at only beside a
    key_padding_mask or for weights. `mask` (N H, L, S) is what dropout keeps.

    It is long because torch's signature is. Raises ValueError for is_causal without attn_mask,
    TypeError for dropout without a mask, MemoryError for weights that do not fit.

    Vaswani et al., 2017, arXiv:1706.03762
    """
    given = locals()
    separate, needed, causal = _modes(given)
    H, N = num_heads, _check(given, separate)
    Ws = [given[name] for name in _SEPARATE] if separate else np.split(in_proj_weight, 3)
    bs = [None] * 3 if in_proj_bias is None else np.split(in_proj_bias, 3)
    more = truth(add_zero_attn=add_zero_attn)
    q, pull_q = _projected(query, N, H, Ws[0], bs[0])
    k, pull_k = _projected(key, N, H, Ws[1], bs[1], bias_k, static_k, more)
    v, pull_v = _projected(value, N, H, Ws[2], bs[2], bias_v, static_v, more)
    scores = (*q.shape[:3], k.shape[2])
    if v.shape[2] != k.shape[2]:
        raise ValueError(f"static_v: expected {k.shape[2]} values, one a key, got {v.shape[2]}")
    masked = not causal and (attn_mask is not None or key_padding_mask is not None)
    seen, pull_masks = _added(given, scores) if masked else (None, lambda *_: {})
    p = dropout_p if truth(training=training) else 0.0
    kept = _of_heads(mask, scores) if p else None
    attention = _with_weights if needed else scaled_dot_product_attention
    y, pull = attention(q, k, v, seen, p, causal, mask=kept)
    heads, weights = y if needed else (y, None)
    rows = heads.transpose(2, 0, 1, 3)
    flat, pull_out = linear(
        rows.reshape(len(query) * N, query.shape[-1]), out_proj_weight, out_proj_bias
    )
    out = flat.reshape(*query.shape[:-1], len(out_proj_weight))
    shown, pull_shown = _shown(weights, query.ndim == 3, average_attn_weights)

    def pullback(dy):
        dout, dshown = dy if needed else (dy, None)
        drows, *dmap = pull_out(dout.reshape(flat.shape))
        dheads = drows.reshape(rows.shape).transpose(1, 2, 0, 3)
        dq, dk, dv, *dseen = pull((dheads, pull_shown(dshown)) if needed else dheads)
        dx, dW, db, extra, static = zip(pull_q(dq), pull_k(dk), pull_v(dv), strict=True)
        found = dict(zip(_INPUTS, dx, strict=True)) | pull_masks(*dseen)
        found |= zip(_SEPARATE, dW, strict=True) if separate else {"in_proj_weight": _joined(dW)}
        found |= {"in_proj_bias": _joined(db), "bias_k": extra[1], "bias_v": extra[2]}
        found |= {"static_k": static[1], "static_v": static[2]}
        found |= zip(("out_proj_weight", "out_proj_bias"), dmap, strict=False)
        arrays = {name: a for name, a in given.items() if is_floating(a)}
        return tuple(found[n] if n in found else np.zeros_like(a) for n, a in arrays.items())

    return (out, shown) if needed else out, pullback


def _modes(given):
    """Whether there are separate maps of the inputs, whether weights are needed, and whether it is
    is_causal alone that says what is seen."""
    separate = truth(use_separate_proj_weight=given["use_separate_proj_weight"])
    needed = truth(need_weights=given["need_weights"])
    causal = truth(is_causal=given["is_causal"])
    if causal and given["attn_mask"] is None:
        raise ValueError("attn_mask: expected a mask beside is_causal, got None")
    if needed or given["key_padding_mask"] is not None:
        return separate, needed, False
    flag(is_causal=given["is_causal"])
    return separate, needed, causal


def _check(given, separate):
    """The number of sequences, 1 where there is no axis of them. Raises unless all arrays fit."""
    unused = {"in_proj_weight"} if separate else {*_SEPARATE}
    always = {"query", "key", "value", "in_proj_weight", *_SEPARATE, "out_proj_weight"} - unused
    used = {n: given[n] for n in _ARRAYS if n not in unused}
    floating(**used, optional=" ".join({*used} - always))
    query, key, value, H = (given[name] for name in (*_INPUTS, "num_heads"))
    if query.ndim not in (2, 3):
        raise ValueError(f"query: expected (L, E) or (L, N, E), got shape {query.shape}")
    *batch, E = query.shape[1:]
    real(embed_dim_to_check=given["embed_dim_to_check"])
    if given["embed_dim_to_check"] != E:
        got = given["embed_dim_to_check"]
        raise ValueError(f"embed_dim_to_check: expected the features of query, {E}, got {got!r}")
    whole(num_heads=H)
    if H < 1 or E % H:
        raise ValueError(f"num_heads: expected a divisor of {E}, got {H}")
    within(0, 1, dropout_p=given["dropout_p"])
    N = math.prod(batch)
    shapes = {
        "key": (None, *batch, None if separate else E),
        "value": (*key.shape[:1], *batch, None if separate else E),
        "in_proj_weight": (3 * E, E),
        "q_proj_weight": (E, E),
        "k_proj_weight": (E, *key.shape[-1:]),
        "v_proj_weight": (E, *value.shape[-1:]),
        "in_proj_bias": (3 * E,),
        "static_k": (N * H, None, E // H),
        "static_v": (N * H, None, E // H),
        "out_proj_weight": (None, E),
    }
    for name, shape in shapes.items():
        if used.get(name) is not None:
            _has_shape(shape, **{name: used[name]})
    for name, other in (("bias_k", "bias_v"), ("bias_v", "bias_k")):
        a = given[name]
        if a is not None and (a.ndim > 3 or a.shape[-1:] != (E,) or a.size != E):
            raise ValueError(f"{name}: expected shape (1, 1, {E}), got {a.shape}")
        if (a is None) != (given[other] is None):
            raise ValueError(f"{name}: expected an array beside {other}, got None")
        if a is not None and not given["static_k"] is given["static_v"] is None:
            raise ValueError(f"{name}: expected None beside static_k or static_v, got an array")
    lengths = [
        len(x) + (bias is not None) if static is None else static.shape[1]
        for x, bias, static in (
            (key, given["bias_k"], given["static_k"]),
            (value, given["bias_v"], given["static_v"]),
        )
    ]
    if lengths[0] != lengths[1]:
        name = "static_k" if given["static_k"] is not None else "static_v"
        raise ValueError(f"{name}: expected as many keys as values, got {lengths}")
    rows = (math.prod(query.shape[:-1]), len(given["out_proj_weight"]))
    broadcastable(rows, out_proj_bias=given["out_proj_bias"])
    return N


def _has_shape(shape, **array):
    """Raises ValueError unless the named array has this shape, None being any number."""
    ((name, a),) = array.items()
    if len(shape) != a.ndim or any(n not in (None, m) for n, m in zip(shape, a.shape, strict=True)):
        text = ", ".join("…" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({text}), got {a.shape}")


def _projected(x, N, heads, weight, bias, extra=None, static=None, more=False):
    """x (L, N, …) → (N, heads, L, E / heads): a linear map, behind which one vector more is put, or
    which `static` replaces; then, with `more`, zeros."""
    flat, pull_linear = linear(_rows(x), weight, bias)
    y = flat.reshape(len(x), N, len(weight))
    if extra is not None:
        y = np.concatenate([y, np.broadcast_to(extra, (1, *y.shape[1:]))])
    of_heads = y.reshape(len(y), N, heads, len(weight) // heads).transpose(1, 2, 0, 3)
    if static is not None:
        of_heads = static.reshape(N, heads, *static.shape[1:])
    if more:
        of_heads = np.concatenate([of_heads, np.zeros_like(of_heads[:, :, :1])], axis=2)

    def pullback(d):
        d = d[:, :, :-1] if more else d
        dy, dstatic, dextra = np.zeros_like(y), None, None
        if static is None:
            dy = d.transpose(2, 0, 1, 3).reshape(y.shape)
        else:
            dstatic = d.reshape(static.shape)
        if extra is not None:
            dextra = sum_to(dy[-1], extra.shape[-1:]).reshape(extra.shape)
        dx, dweight, *dbias = pull_linear(_rows(dy[: len(x)]))
        return dx.reshape(x.shape), dweight, dbias[0] if dbias else None, dextra, dstatic

    return of_heads, pullback


def _added(given, scores):
    """What the masks add to the scores, −∞ where a boolean one is true, and a function that makes
    of its gradient those of the floating ones, by name."""
    N, H, L, S = scores
    query, n = given["query"], len(given["key"])
    layouts = {
        "attn_mask": {(L, n): (1, 1, L, n), (N * H, L, n): (N, H, L, n)},
        "key_padding_mask": {(*query.shape[1:-1], n): (N, 1, 1, n)},
    }
    masks = {name: given[name] for name in layouts if given[name] is not None}
    terms = {}
    for name, mask in masks.items():
        if array(**{name: mask}).dtype != bool:
            floating(query=query, **{name: mask})
        if mask.shape not in layouts[name]:
            known = " or ".join(map(str, layouts[name]))
            raise ValueError(f"{name}: expected shape {known}, got {mask.shape}")
        term = mask.reshape(layouts[name][mask.shape])
        terms[name] = term if is_floating(term) else where(term, -math.inf, 0).astype(query.dtype)
    added = sum(terms.values())

    def pullback(dadded):
        floats = {name: mask for name, mask in masks.items() if is_floating(mask)}
        return {
            name: sum_to(dadded[..., :n], terms[name].shape).reshape(mask.shape)
            for name, mask in floats.items()
        }

    return np.pad(added, [(0, 0)] * 3 + [(0, S - n)]), pullback


def _with_weights(q, k, v, seen, p, is_causal, *, mask):
    """Attention whose weights are an output too: y = (P V, P), whose dy is a pair."""
    scale, scores = 1 / math.sqrt(q.shape[-1]), (*q.shape[:-1], k.shape[-2])
    room(q.dtype, attn_output_weights=scores)
    kept, share = drawn(mask, scores, p)
    y, pull = attended(q * scale, k, v, seen, kept, share, math.nan)

    def pullback(dy):
        dq, *others = pull(*dy)
        return scale * dq, *others

    return y, pullback


def _of_heads(mask, scores):
    """What dropout keeps, for each sequence and head; None as it is."""
    if mask is None:
        return None
    N, H, L, S = scores
    if array(mask=mask).shape != (N * H, L, S):
        raise ValueError(f"mask: expected shape {(N * H, L, S)}, got {mask.shape}")
    return mask.reshape(scores)


def _shown(P, batched, average):
    """The weights as they are returned: their mean over the heads, or all."""
    if P is None:
        return None, None
    average = truth(average_attn_weights=average)
    w = pairwise_sum(P, (1,)) / P.shape[1] if average else P

    def pullback(dw):
        dw = dw if batched else dw[np.newaxis]
        return np.broadcast_to(dw[:, np.newaxis] / P.shape[1], P.shape) if average else dw

    return w if batched else w[0], pullback


def _rows(a):
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def _joined(parts):
    return None if parts[0] is None else np.concatenate(parts)
