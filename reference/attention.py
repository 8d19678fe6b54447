"""Attention."""

import functools
import inspect

import torch
import torch.nn.functional as F

from .adapters import drawing, refusing


def _attend(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    """A builtin has no signature."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _kept(attend, query, key, value, attn_mask=None, dropout_p=0.0, *_, enable_gqa=False, **__):
    """Where all weights are alike and the values are those of the unit matrix, the result is what
    dropout has left of the weights."""
    if not dropout_p:
        return None
    unit = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device)
    units = unit.expand(*key.shape[:-1], key.shape[-2])
    alike = (torch.zeros_like(query), torch.zeros_like(key))
    return attend(*alike, units, dropout_p=dropout_p, enable_gqa=enable_gqa) != 0


def _differs(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *_, **__):
    """Whether its kernels take different views of a call: the fused one reads beyond keys of
    another length than values, ignores a mask that is_causal has made superfluous and wants two
    axes of it; and only it refuses dropout below 0."""
    return (
        key.shape[-2:-1] != value.shape[-2:-1]
        or (attn_mask is not None and (is_causal or attn_mask.ndim < 2))
        or not 0 <= dropout_p <= 1
    )


def _without_none(attend):
    """The function, which returns its first output alone where there is no second."""

    @functools.wraps(attend)
    def bare(*args, **kwargs):
        y, weights = attend(*args, **kwargs)
        return y if weights is None else (y, weights)

    return bare


_heads = _without_none(F.multi_head_attention_forward)
_signature = inspect.signature(F.multi_head_attention_forward)


def _kept_by_heads(attend, *args, **kwargs):
    """As _kept: of keys that are 0 all weights are alike, and are shown as dropout leaves them."""
    bound = _signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if not (given["dropout_p"] and given["training"]):
        return None
    still = {n: torch.zeros_like(a) for n, a in given.items() if isinstance(a, torch.Tensor)}
    shown = {"need_weights": True, "average_attn_weights": False, "is_causal": False}
    unmasked = {"attn_mask": None, "key_padding_mask": None}
    _, weights = attend(**{**given, **still, **shown, **unmasked})
    return weights.flatten(0, -3) != 0


def _differs_by_heads(*args, **kwargs):
    """As _differs, of what is made of the keys and the values."""
    bound = _signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments

    def length(x, bias, static):
        more = 0 if bias is None else bias.shape[0] if bias.ndim == 3 else 1
        return x.shape[0] + more if static is None else static.shape[1]

    lengths = {
        length(given[x], given[f"bias_{x[0]}"], given[f"static_{x[0]}"]) for x in ("key", "value")
    }
    return len(lengths) > 1 or not 0 <= given["dropout_p"] <= 1


_WHY = "torch's kernels do not agree on it"
scaled_dot_product_attention = drawing(refusing(_attend, _differs, _WHY), "mask", _kept)
multi_head_attention_forward = drawing(
    refusing(_heads, _differs_by_heads, _WHY),
    "mask",
    _kept_by_heads,
    within="nn.MultiheadAttention",
)
