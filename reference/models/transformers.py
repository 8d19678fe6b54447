"""Transformers of text."""

from functools import partial

import torch
import torch.nn.functional as F

from ..adapters import rule, written_out


@partial(rule, constant="masks", algorithm="precision")
def gpt(parameters, tokens, heads, dropout=0.0, precision=None, *, masks=None):
    if precision is None:
        return _gpt(parameters, tokens, heads, dropout, masks)
    with torch.autocast(tokens.device.type, getattr(torch, precision)):
        return _gpt(parameters, tokens, heads, dropout, masks)


def _gpt(parameters, tokens, heads, dropout, masks):
    table = parameters["transformer.wte.weight"]
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    x = F.embedding(tokens, table) + F.embedding(positions, parameters["transformer.wpe.weight"])
    x = _dropped(x, "transformer.drop", dropout, masks)
    for block in _numbered(parameters, "transformer.h."):
        p = _part(parameters, block)
        kept = _part(masks or {}, block)
        h = _normed(x, p, "ln_1")
        q, k, v = F.linear(h, p["attn.c_attn.weight"], p["attn.c_attn.bias"]).chunk(3, dim=-1)
        h = _attended(*(_by_heads(a, heads) for a in (q, k, v)), dropout, kept)
        h = F.linear(_side_by_side(h), p["attn.c_proj.weight"], p["attn.c_proj.bias"])
        x = x + _dropped(h, "attn.resid_dropout", dropout, kept)
        h = _normed(x, p, "ln_2")
        h = F.gelu(F.linear(h, p["mlp.c_fc.weight"], p["mlp.c_fc.bias"]))
        h = F.linear(h, p["mlp.c_proj.weight"], p["mlp.c_proj.bias"])
        x = x + _dropped(h, "mlp.dropout", dropout, kept)
    x = _normed(x, parameters, "transformer.ln_f")
    return F.linear(x, parameters.get("lm_head.weight", table))


@rule
def llama(parameters, tokens, heads, eps=1e-6, theta=10000.0):
    table = parameters["model.embed_tokens.weight"]
    x = F.embedding(tokens, table)
    for layer in _numbered(parameters, "model.layers."):
        p = _part(parameters, layer)
        h = F.rms_norm(x, x.shape[-1:], p["input_layernorm.weight"], eps)
        E = p["self_attn.q_proj.weight"].shape[0] // heads
        q, k, v = (
            _by_heads(F.linear(h, weight), weight.shape[0] // E)
            for weight in (p[f"self_attn.{name}_proj.weight"] for name in "qkv")
        )
        q, k = _rotated(q, theta), _rotated(k, theta)
        k, v = (a.repeat_interleave(q.shape[1] // a.shape[1], dim=1) for a in (k, v))
        h = _attended(q, k, v)
        x = x + F.linear(_side_by_side(h), p["self_attn.o_proj.weight"])
        h = F.rms_norm(x, x.shape[-1:], p["post_attention_layernorm.weight"], eps)
        gate, up = (F.linear(h, p[f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        x = x + F.linear(F.silu(gate) * up, p["mlp.down_proj.weight"])
    x = F.rms_norm(x, x.shape[-1:], parameters["model.norm.weight"], eps)
    return F.linear(x, parameters.get("lm_head.weight", table))


def _numbered(parameters, prefix):
    names = [name.removeprefix(prefix) for name in parameters if name.startswith(prefix)]
    return [f"{prefix}{i}." for i in range(len({name.partition(".")[0] for name in names}))]


def _part(tree, prefix):
    return {n.removeprefix(prefix): a for n, a in tree.items() if n.startswith(prefix)}


def _normed(x, p, name):
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def _by_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _side_by_side(x):
    return x.transpose(1, 2).flatten(2)


@written_out("scaled_dot_product_attention")
def _attended(q, k, v, dropout=0.0, kept=None):
    """Written out, for torch's kernels have backward passes of their own, which lose digits where
    scores are large; and they cannot be given what dropout keeps."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)
    return _dropped(weights, "attn.attn_dropout", dropout, kept) @ v


def _dropped(x, name, p, masks):
    return _kept(x, p, masks[name]) if p else x


@written_out("dropout")
def _kept(x, p, mask):
    """As torch.nn.functional.dropout, but of what the mask does not keep."""
    return torch.where(mask, x / (1 - p), 0)


@written_out("_rotated")
def _rotated(x, theta):
    T, E = x.shape[-2:]
    halves = torch.arange(0, E, 2, dtype=torch.float64, device=x.device) / E
    angles = torch.arange(T, dtype=torch.float64, device=x.device).outer(theta**-halves)
    cos, sin = (f(angles).repeat(1, 2).to(x.dtype) for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin
