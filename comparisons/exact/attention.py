import mpmath
import numpy as np

from .linear import linear
from .numbers import exp


def _weights(z, nothing):
    """e^z as shares of their sum over the last axis; `nothing` where all of them are 0."""
    e = exp(z)
    total = e.sum(axis=-1, keepdims=True)
    return np.where(total == 0, nothing, e / np.where(total == 0, mpmath.mpf(1), total))


def _left(weights, p, mask):
    return weights if not p else np.where(mask, weights / (1 - mpmath.mpf(p) if p < 1 else 1), 0)


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
    mask=None,
):
    if enable_gqa:
        key, value = (np.repeat(a, query.shape[-3] // a.shape[-3], axis=-3) for a in (key, value))
    scale = 1 / mpmath.sqrt(max(query.shape[-1], 1)) if scale is None else mpmath.mpf(scale)
    z = scale * (query @ key.swapaxes(-1, -2))
    if is_causal:
        attn_mask = np.tri(*z.shape[-2:], dtype=bool)
    if attn_mask is not None:
        z = np.where(attn_mask, z, -mpmath.inf) if attn_mask.dtype == bool else z + attn_mask
    return _left(_weights(z, mpmath.mpf(0)), dropout_p, mask) @ value


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
    mask=None,
):
    batched = query.ndim == 3
    query, key, value = (a if batched else a[:, np.newaxis] for a in (query, key, value))
    padding = (
        key_padding_mask if batched or key_padding_mask is None else key_padding_mask[np.newaxis]
    )
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = weights if use_separate_proj_weight else np.split(in_proj_weight, 3)
    biases = [None] * 3 if in_proj_bias is None else np.split(in_proj_bias, 3)
    q, k, v = map(linear, (query, key, value), weights, biases)
    if bias_k is not None:
        k, v = (
            np.concatenate([a, np.broadcast_to(b, (1, *a.shape[1:]))])
            for a, b in ((k, bias_k), (v, bias_v))
        )
    d = query.shape[2] // num_heads
    p = dropout_p if training else 0

    def of_head(n, h):
        """Its result and its weights."""
        at, row = np.s_[:, n, h * d : (h + 1) * d], n * num_heads + h
        keys = k[at] if static_k is None else static_k[row]
        values = v[at] if static_v is None else static_v[row]
        if add_zero_attn:
            keys, values = (np.concatenate([a, a[:1] * 0]) for a in (keys, values))
        z = q[at] @ keys.T / mpmath.sqrt(d)
        if is_causal and not need_weights and padding is None:
            z = np.where(np.tri(*z.shape, dtype=bool), z, -mpmath.inf)
        elif attn_mask is not None:
            z[:, : len(key)] += _added(attn_mask if attn_mask.ndim == 2 else attn_mask[row])
        if padding is not None:
            z[:, : len(key)] += _added(padding[n])
        shares = _weights(z, mpmath.nan if need_weights else mpmath.mpf(0))
        left = _left(shares, p, None if mask is None else mask[row])
        return left @ values, left

    L, N, E = query.shape
    S = (len(k) if static_k is None else static_k.shape[1]) + bool(add_zero_attn)
    y, shown = np.empty((L, N, E), object), np.empty((N, num_heads, L, S), object)
    for n, h in np.ndindex(N, num_heads):
        y[:, n, h * d : (h + 1) * d], shown[n, h] = of_head(n, h)
    y = linear(y if batched else y[:, 0], out_proj_weight, out_proj_bias)
    if not need_weights:
        return y
    shown = shown.sum(axis=1) / num_heads if average_attn_weights else shown
    return y, shown if batched else shown[0]


def _added(mask):
    return np.where(mask, -mpmath.inf, mpmath.mpf(0)) if mask.dtype == bool else mask
