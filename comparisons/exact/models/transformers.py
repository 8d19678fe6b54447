import mpmath
import numpy as np

from ..activations import gelu, silu
from ..attention import scaled_dot_product_attention
from ..dropout import dropout as dropped
from ..linear import linear
from ..normalization import layer_norm, rms_norm


def gpt(parameters, tokens, heads, dropout=0.0, *, masks=None):
    def affine(x, name):
        return linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def normed(x, name):
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias)

    def left(x, name):
        return dropped(x, dropout, mask=masks[name]) if dropout else x

    table, T = parameters["transformer.wte.weight"], tokens.shape[1]
    x = left(table[tokens] + parameters["transformer.wpe.weight"][:T], "transformer.drop")
    for i in range(sum(name.endswith("ln_1.weight") for name in parameters)):
        block = f"transformer.h.{i}"
        qkv = np.split(affine(normed(x, f"{block}.ln_1"), f"{block}.attn.c_attn"), 3, axis=-1)
        kept = masks[f"{block}.attn.attn_dropout"] if dropout else None
        q, k, v = (_by_heads(a, a.shape[-1] // heads) for a in qkv)
        y = scaled_dot_product_attention(q, k, v, None, dropout, True, mask=kept)
        y = affine(_side_by_side(y), f"{block}.attn.c_proj")
        x = x + left(y, f"{block}.attn.resid_dropout")
        y = gelu(affine(normed(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + left(affine(y, f"{block}.mlp.c_proj"), f"{block}.mlp.dropout")
    return linear(normed(x, "transformer.ln_f"), parameters.get("lm_head.weight", table))


def llama(parameters, tokens, heads, eps=1e-6, theta=10000.0):
    def normed(x, name):
        return rms_norm(x, x.shape[-1:], parameters[f"{name}.weight"], eps)

    def mapped(x, name):
        return linear(x, parameters[f"{name}.weight"])

    table = parameters["model.embed_tokens.weight"]
    x = table[tokens]
    for i in range(sum(name.endswith("input_layernorm.weight") for name in parameters)):
        layer = f"model.layers.{i}"
        E = len(parameters[f"{layer}.self_attn.q_proj.weight"]) // heads
        h = normed(x, f"{layer}.input_layernorm")
        q, k, v = (_by_heads(mapped(h, f"{layer}.self_attn.{n}_proj"), E) for n in "qkv")
        q, k = _rotated(q, theta), _rotated(k, theta)
        y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + mapped(_side_by_side(y), f"{layer}.self_attn.o_proj")
        h = normed(x, f"{layer}.post_attention_layernorm")
        gate, up = (mapped(h, f"{layer}.mlp.{name}_proj") for name in ("gate", "up"))
        x = x + mapped(silu(gate) * up, f"{layer}.mlp.down_proj")
    return linear(normed(x, "model.norm"), parameters.get("lm_head.weight", table))


def _rotated(x, theta):
    """As complex numbers are: coordinates i and i + E / 2 are one."""
    T, E = x.shape[-2:]
    half = E // 2
    y = x.copy()
    for t in range(T):
        for i in range(half):
            angle = t * mpmath.mpf(theta) ** (-mpmath.mpf(2 * i) / E)
            a, b = x[..., t, i], x[..., t, i + half]
            y[..., t, i] = a * mpmath.cos(angle) - b * mpmath.sin(angle)
            y[..., t, i + half] = b * mpmath.cos(angle) + a * mpmath.sin(angle)
    return y


def _by_heads(x, E):
    return x.reshape(*x.shape[:2], x.shape[-1] // E, E).swapaxes(1, 2)


def _side_by_side(x):
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
