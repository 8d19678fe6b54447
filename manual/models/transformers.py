"""Transformers of text: tokens (N, T) → logits (N, T, V), of what comes after each.

A block adds to its input x what attention makes of it, and to that what two linear layers make of
it, both of a normalized input; so the gradient of x is that of the sum, and what comes back through
each branch is added to it:

    h = x + a(x)        y = h + m(h)        dh = dy + mᵀ dy        dx = dh + aᵀ dh

The head is lm_head.weight, or where there is none the embedding, which then gets the sum of both
gradients: a tied head, whose one tensor torch's `state_dict` has under two names.

The models raise TypeError for tokens that are no whole numbers and for parameters of other dtypes,
IndexError for a token outside the table, ValueError for other entries, shapes and settings; the
message names the argument.
"""

import numpy as np

from ..activations import gelu, silu
from ..arguments import Constant, mapping, real, whole
from ..arrays import sum_to
from ..attention import scaled_dot_product_attention
from ..autocast import autocast
from ..dropout import dropout as dropped
from ..embedding import embedding
from ..linear import linear
from ..normalization import layer_norm, rms_norm
from .parts import expect, first_shape, inside, numbered, part, sequences


def gpt(parameters, tokens, heads, dropout=0.0, precision=None, *, masks: Constant = None):
    """Embeddings of tokens and positions, blocks of causal attention and of linear layers with gelu
    between them, each behind a layer norm, and a last layer norm before the head.

    Parameters are named as in GPT-2: transformer.wte.weight (V, C), transformer.wpe.weight (at
    least T, C), transformer.h.0.ln_1.weight, … In transformer.h.0.attn.c_attn.weight (3 C, C) the
    maps to queries, keys and values lie beneath one another, each of `heads` heads.

    With `dropout` there are `masks`, true where it keeps, by the names of the modules that drop:
    transformer.drop (N, T, C), and in each block attn.attn_dropout (N, heads, T, T),
    attn.resid_dropout and mlp.dropout (N, T, C). With `precision`, "bfloat16" or "float16", linear
    layers, attention and gelu run in 16 bits; see `autocast`. Raises ValueError for heads that do
    not part the width evenly.

    Radford, Wu, Child, Luan, Amodei & Sutskever, 2019, "Language Models are Unsupervised Multitask
    Learners"
    """
    blocks = _gpt_blocks(parameters, heads)
    masks = {} if masks is None else masks
    mapping(masks=masks)
    wpe = parameters["transformer.wpe.weight"]
    tokens = sequences(tokens, len(wpe))
    token, pull_token = embedding(tokens, parameters["transformer.wte.weight"])
    position, pull_position = embedding(np.arange(tokens.shape[1]), wpe)
    x, pull_drop = _dropped(token + position, dropout, masks.get("transformer.drop"))
    pulls = []
    for block in blocks:
        x, pull = _gpt_block(
            part(parameters, block), x, heads, dropout, part(masks, block), precision
        )
        pulls.append(pull)
    x, pull_norm = layer_norm(x, x.shape[-1:], *_pair(parameters, "transformer.ln_f"))
    head = _head(parameters, "transformer.wte.weight")
    logits, pull_head = autocast(linear, precision)(x, parameters[head])

    def pullback(dlogits):
        dx, dhead = pull_head(dlogits)
        dx, *dnorm = pull_norm(dx)
        found = _named("transformer.ln_f", dnorm)
        for block, pull in zip(reversed(blocks), reversed(pulls), strict=True):
            dx, dblock = pull(dx)
            found |= inside(block, dblock)
        dx = pull_drop(dx)
        found["transformer.wpe.weight"] = pull_position(sum_to(dx, position.shape))
        found["transformer.wte.weight"] = pull_token(dx)
        found[head] = found.get(head, 0) + dhead
        return {name: found[name] for name in parameters}

    return logits, pullback


def llama(parameters, tokens, heads, eps=1e-6, theta=10000.0):
    """An embedding, layers of causal attention with rotated queries and keys and of gated linear
    maps, each behind an RMS norm with ε = eps, and a last RMS norm before the head.

    Parameters are named as in Llama: model.embed_tokens.weight (V, C),
    model.layers.0.self_attn.q_proj.weight (heads · E, C), k_proj and v_proj of fewer heads where
    several queries share one, o_proj, mlp.gate_proj, up_proj and down_proj, …; there are no biases.
    The rotations have periods from 2π to nearly 2π theta. Raises ValueError for heads whose width
    is not even, and for theta of at most 0.

    Touvron et al., 2023, arXiv:2302.13971; rotations: Su, Lu, Pan, Murtadha, Wen & Liu, 2021,
    arXiv:2104.09864; gates: Shazeer, 2020, arXiv:2002.05202; shared keys: Ainslie et al., 2023,
    arXiv:2305.13245
    """
    layers, E = _llama_layers(parameters, heads)
    real(eps=eps, theta=theta)
    if E % 2:
        raise ValueError(f"heads: expected heads of even width, got {heads} of {E}")
    if not theta > 0:
        raise ValueError(f"theta: expected above 0, got {theta}")
    tokens = sequences(tokens)
    x, pull_token = embedding(tokens, parameters["model.embed_tokens.weight"])
    turn = _turn(tokens.shape[1], E, theta, x.dtype)
    pulls = []
    for layer in layers:
        x, pull = _llama_layer(part(parameters, layer), x, E, eps, turn)
        pulls.append(pull)
    x, pull_norm = rms_norm(x, x.shape[-1:], parameters["model.norm.weight"], eps)
    head = _head(parameters, "model.embed_tokens.weight")
    logits, pull_head = linear(x, parameters[head])

    def pullback(dlogits):
        dx, dhead = pull_head(dlogits)
        dx, dnorm = pull_norm(dx)
        found = {"model.norm.weight": dnorm}
        for layer, pull in zip(reversed(layers), reversed(pulls), strict=True):
            dx, dlayer = pull(dx)
            found |= inside(layer, dlayer)
        found["model.embed_tokens.weight"] = pull_token(dx)
        found[head] = found.get(head, 0) + dhead
        return {name: found[name] for name in parameters}

    return logits, pullback


def _gpt_block(p, x, heads, dropout, masks, precision):
    """A block, as a rule of its parameters and x: (N, T, C) → (N, T, C)."""
    width = x.shape[-1:]
    affine, attention, bent = (
        autocast(rule, precision) for rule in (linear, scaled_dot_product_attention, gelu)
    )
    a, pull_norm_a = layer_norm(x, width, *_pair(p, "ln_1"))
    qkv, pull_qkv = affine(a, *_pair(p, "attn.c_attn"))
    q, k, v = (_by_heads(part, width[0] // heads) for part in np.split(qkv, 3, axis=-1))
    kept = masks.get("attn.attn_dropout")
    y, pull_attention = attention(q, k, v, None, dropout, True, mask=kept)
    a, pull_a = affine(_side_by_side(y), *_pair(p, "attn.c_proj"))
    a, pull_drop_a = _dropped(a, dropout, masks.get("attn.resid_dropout"))
    h = x + a
    m, pull_norm_m = layer_norm(h, width, *_pair(p, "ln_2"))
    m, pull_fc = affine(m, *_pair(p, "mlp.c_fc"))
    m, pull_gelu = bent(m)
    m, pull_m = affine(m, *_pair(p, "mlp.c_proj"))
    m, pull_drop_m = _dropped(m, dropout, masks.get("mlp.dropout"))

    def pullback(dy):
        dm, *d_m = pull_m(pull_drop_m(dy))
        dm, *d_fc = pull_fc(pull_gelu(dm))
        dh, *d_norm_m = pull_norm_m(dm)
        dh = dh + dy
        da, *d_a = pull_a(pull_drop_a(dh))
        dqkv = map(_side_by_side, pull_attention(_by_heads(da, q.shape[-1])))
        da, *d_qkv = pull_qkv(np.concatenate([*dqkv], axis=-1))
        dx, *d_norm_a = pull_norm_a(da)
        found = _named("ln_1", d_norm_a) | _named("attn.c_attn", d_qkv)
        found |= _named("attn.c_proj", d_a) | _named("ln_2", d_norm_m)
        return dx + dh, found | _named("mlp.c_fc", d_fc) | _named("mlp.c_proj", d_m)

    return h + m, pullback


def _llama_layer(p, x, E, eps, turn):
    """A layer, as a rule of its parameters and x: (N, T, C) → (N, T, C), with heads of E numbers
    each."""
    width = x.shape[-1:]
    a, pull_norm_a = rms_norm(x, width, p["input_layernorm.weight"], eps)
    projected = [linear(a, p[f"self_attn.{name}_proj.weight"]) for name in "qkv"]
    q, k, v = (_by_heads(part, E) for part, _ in projected)
    (q, pull_q), (k, pull_k) = _rotated(q, *turn), _rotated(k, *turn)
    shared = q.shape != k.shape
    y, pull_attention = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
    a, pull_a = linear(_side_by_side(y), p["self_attn.o_proj.weight"])
    h = x + a
    m, pull_norm_m = rms_norm(h, width, p["post_attention_layernorm.weight"], eps)
    gate, pull_gate = linear(m, p["mlp.gate_proj.weight"])
    up, pull_up = linear(m, p["mlp.up_proj.weight"])
    opened, pull_silu = silu(gate)
    m, pull_m = linear(opened * up, p["mlp.down_proj.weight"])

    def pullback(dy):
        found = {}
        dboth, found["mlp.down_proj.weight"] = pull_m(dy)
        dm, found["mlp.gate_proj.weight"] = pull_gate(pull_silu(dboth * up))
        dm_up, found["mlp.up_proj.weight"] = pull_up(dboth * opened)
        dh, found["post_attention_layernorm.weight"] = pull_norm_m(dm + dm_up)
        dh = dh + dy
        dheads, found["self_attn.o_proj.weight"] = pull_a(dh)
        dq, dk, dv = pull_attention(_by_heads(dheads, E))
        da = 0
        for name, (_, pull), d in zip("qkv", projected, (pull_q(dq), pull_k(dk), dv), strict=True):
            da_of_one, found[f"self_attn.{name}_proj.weight"] = pull(_side_by_side(d))
            da = da + da_of_one
        dx, found["input_layernorm.weight"] = pull_norm_a(da)
        return dx + dh, found

    return h + m, pullback


def _turn(T, E, theta, dtype):
    """cos and sin, (T, E), by which positions are rotated: the two halves of a head hold the two
    coordinates of each of E / 2 points, and point i turns by t θ^(−2 i / E) at position t."""
    angles = np.outer(np.arange(T), theta ** -(np.arange(0, E, 2) / E))
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def _rotated(x, cos, sin):
    """Every point of x, (…, T, E), turned; what comes back is turned back."""
    y = x * cos + _quarter(x) * sin

    def pullback(dy):
        return dy * cos - _quarter(dy * sin)

    return y, pullback


def _quarter(x):
    """Every point turned by a quarter: (a, b) → (−b, a)."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([-b, a], axis=-1)


def _by_heads(x, E):
    """(N, T, heads · E) → (N, heads, T, E)."""
    return x.reshape(*x.shape[:2], x.shape[-1] // E, E).swapaxes(1, 2)


def _side_by_side(x):
    """(N, heads, T, E) → (N, T, heads · E)."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _dropped(x, p, mask):
    return dropped(x, p, mask=mask) if p else (x, np.positive)


def _pair(parameters, name):
    return parameters[f"{name}.weight"], parameters[f"{name}.bias"]


def _named(name, gradients):
    """The gradients of a weight and a bias."""
    return dict(zip((f"{name}.weight", f"{name}.bias"), gradients, strict=True))


def _head(parameters, table):
    """The name of the head's weight: a tied one is that of the embedding."""
    return "lm_head.weight" if "lm_head.weight" in parameters else table


def _gpt_blocks(parameters, heads):
    """What the names of each block begin with; all parameters are checked."""
    V, C = first_shape(parameters, "transformer.wte.weight")
    _divided(C, heads)
    blocks = numbered(parameters, "transformer.h.")
    shapes = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (None, C)}
    for block in blocks:
        F = _rows(parameters, f"{block}mlp.c_fc.weight")
        of_block = {
            "ln_1.weight": (C,),
            "ln_1.bias": (C,),
            "attn.c_attn.weight": (3 * C, C),
            "attn.c_attn.bias": (3 * C,),
            "attn.c_proj.weight": (C, C),
            "attn.c_proj.bias": (C,),
            "ln_2.weight": (C,),
            "ln_2.bias": (C,),
            "mlp.c_fc.weight": (F, C),
            "mlp.c_fc.bias": (F,),
            "mlp.c_proj.weight": (C, F),
            "mlp.c_proj.bias": (C,),
        }
        shapes |= inside(block, of_block)
    shapes |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,)}
    expect(parameters, shapes | _of_head(parameters, C))
    return blocks


def _llama_layers(parameters, heads):
    """What the names of each layer begin with, and the width of a head; all parameters are
    checked."""
    V, C = first_shape(parameters, "model.embed_tokens.weight")
    layers = numbered(parameters, "model.layers.")
    Q = _rows(parameters, f"{layers[0]}self_attn.q_proj.weight") if layers else 2 * heads
    E = _divided(Q, heads)
    shapes = {"model.embed_tokens.weight": (V, C)}
    for layer in layers:
        K = _rows(parameters, f"{layer}self_attn.k_proj.weight")
        F = _rows(parameters, f"{layer}mlp.gate_proj.weight")
        of_layer = {
            "self_attn.q_proj.weight": (Q, C),
            "self_attn.k_proj.weight": (K, C),
            "self_attn.v_proj.weight": (K, C),
            "self_attn.o_proj.weight": (C, Q),
            "mlp.gate_proj.weight": (F, C),
            "mlp.up_proj.weight": (F, C),
            "mlp.down_proj.weight": (C, F),
            "input_layernorm.weight": (C,),
            "post_attention_layernorm.weight": (C,),
        }
        shapes |= inside(layer, of_layer)
        if K % E:
            name = f"parameters.{layer}self_attn.k_proj.weight"
            raise ValueError(f"{name}: expected heads of {E} rows, got {K} rows")
    expect(parameters, shapes | {"model.norm.weight": (C,)} | _of_head(parameters, C))
    return layers, E


def _of_head(parameters, C):
    """The shape of a head that is not tied."""
    return {"lm_head.weight": (None, C)} if "lm_head.weight" in parameters else {}


def _rows(parameters, name):
    """The length of a parameter's first axis; 0 where there is none, which is found later."""
    return (*np.shape(parameters.get(name, ())), 0)[0]


def _divided(width, heads):
    """The width of each head. Raises ValueError unless they are equally wide."""
    whole(heads=heads)
    if heads < 1 or width % heads:
        raise ValueError(f"heads: expected a divisor of {width}, got {heads}")
    return width // heads
