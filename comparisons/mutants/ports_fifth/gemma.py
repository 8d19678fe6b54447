"""Gemma 2 after Hugging Face (soft caps, four norms a layer, alternating windows), ported from the JAX einsums."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def settle(module, seed):
    """Move every vector parameter off its initial value, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.2 if p.dim() == 1 else 0.1))


class GemmaConfig:
    vocab_size = 41
    hidden_size = 32
    intermediate_size = 56
    num_hidden_layers = 3
    num_attention_heads = 4
    num_key_value_heads = 2
    head_dim = 12
    query_pre_attn_scalar = 8
    sliding_window = 4
    attn_logit_softcapping = 5.0
    final_logit_softcapping = 3.0
    rms_norm_eps = 1e-6
    rope_theta = 10000.0


class GemmaRMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        h = x.to(torch.promote_types(x.dtype, torch.float32))
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)
        return (h * (1.0 + self.weight)).type_as(x)


def rotate_half(x):
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((-x2, x1), dim=-1)


def repeat_kv(x, n):
    b, h, t, d = x.shape
    return x[:, :, None].expand(b, h, n, t, d).reshape(b, h * n, t, d)


class GemmaAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        self.sliding_window = config.sliding_window if layer_idx % 2 == 0 else None
        h = config.hidden_size
        self.q_proj = nn.Linear(h, config.num_attention_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(h, config.num_key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(h, config.num_key_value_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, h, bias=False)

    def forward(self, hidden_states, position_embeddings, attention_mask):
        b, t, _ = hidden_states.shape
        q, k, v = (p(hidden_states).view(b, t, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        cos, sin = position_embeddings
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        k, v = repeat_kv(k, self.groups), repeat_kv(v, self.groups)
        scores = torch.matmul(q, k.transpose(2, 3)) * self.config.query_pre_attn_scalar**-0.5
        cap = self.config.attn_logit_softcapping
        scores = torch.tanh(scores / cap) * cap
        if self.sliding_window is not None:
            far = torch.tril(torch.ones_like(attention_mask, dtype=torch.bool), diagonal=-self.sliding_window)
            attention_mask = torch.where(far, torch.finfo(scores.dtype).min, attention_mask)
        scores = scores + attention_mask
        out = torch.matmul(F.softmax(scores, dim=-1), v)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1))


class GemmaMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class GemmaDecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = GemmaAttention(config, layer_idx)
        self.mlp = GemmaMLP(config)
        self.input_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states, position_embeddings, attention_mask):
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states = self.self_attn(hidden_states=hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask)
        hidden_states = residual + self.post_attention_layernorm(hidden_states)
        residual = hidden_states
        hidden_states = self.mlp(self.pre_feedforward_layernorm(hidden_states))
        return residual + self.post_feedforward_layernorm(hidden_states)


class GemmaModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([GemmaDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, input_ids):
        h = self.embed_tokens(input_ids)
        h = h * torch.tensor(self.config.hidden_size**0.5, dtype=h.dtype)
        t, d = input_ids.shape[1], self.config.head_dim
        inv_freq = 1.0 / self.config.rope_theta ** (torch.arange(0, d, 2, dtype=h.dtype) / d)
        freqs = torch.outer(torch.arange(t, dtype=h.dtype), inv_freq)
        emb = torch.cat((freqs, freqs), dim=-1)
        mask = torch.full((t, t), torch.finfo(h.dtype).min, dtype=h.dtype).triu(1)[None, None]
        for layer in self.layers:
            h = layer(h, (emb.cos(), emb.sin()), mask)
        return self.norm(h)


class Original(nn.Module):
    def __init__(self, config=GemmaConfig()):
        super().__init__()
        self.config = config
        self.model = GemmaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.2)
        self.lm_head.weight = self.model.embed_tokens.weight
        settle(self, 4)

    def forward(self, input_ids):
        logits = self.lm_head(self.model(input_ids))
        logits = logits / self.config.final_logit_softcapping
        return torch.tanh(logits) * self.config.final_logit_softcapping


def inputs():
    g = torch.Generator().manual_seed(14)
    return (torch.randint(0, 41, (2, 10), generator=g),)


# The port ------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x):
        var = torch.square(x).mean(-1, keepdim=True)
        return x / torch.sqrt(var + self.epsilon) * (self.weight + 1)


class Embedder(nn.Module):
    """Looks up and, with the same table, scores."""

    def __init__(self, n, width):
        super().__init__()
        self.input_embedding = nn.Parameter(torch.zeros(n, width))
        self.width = width

    def encode(self, tokens):
        return self.input_embedding[tokens] * self.width**0.5

    def decode(self, x):
        return torch.einsum("btd,vd->btv", x, self.input_embedding)


def softcap(x, cap):
    return cap * torch.tanh(x / cap)


def apply_rope(x, positions, base=10_000):
    half = x.shape[-1] // 2
    timescale = float(base) ** (torch.arange(half, dtype=x.dtype) * 2 / x.shape[-1])
    angle = positions[:, None, None] / timescale
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()), -1)


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads, head_dim, window):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.window = heads, kv_heads, head_dim, window
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.kv_einsum = nn.Linear(width, 2 * kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x, visible):
        b, t, _ = x.shape
        where = torch.arange(t, dtype=x.dtype)
        q = apply_rope(self.q_proj(x).view(b, t, self.heads, self.head_dim), where)
        k, v = self.kv_einsum(x).view(b, t, 2, self.kv_heads, self.head_dim).unbind(2)
        k = apply_rope(k, where)
        q = q.view(b, t, self.kv_heads, self.heads // self.kv_heads, self.head_dim) * 8**-0.5
        logits = torch.einsum("btkgh,bskh->bkgts", q, k)
        logits = softcap(logits, 5.0)
        if self.window:
            ago = where[:, None] - where[None, :]
            visible = visible & (ago < self.window)
        logits = torch.where(visible, logits, torch.finfo(x.dtype).min)
        probs = logits.softmax(-1)
        encoded = torch.einsum("bkgts,bskh->btkgh", probs, v)
        return self.o_proj(encoded.reshape(b, t, self.heads * self.head_dim))


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        return self.down_proj(gate * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.self_attn = Attention(32, 4, 2, 12, window)
        self.mlp = FeedForward(32, 56)
        self.input_layernorm = RMSNorm(32)
        self.post_attention_layernorm = RMSNorm(32)
        self.pre_feedforward_layernorm = RMSNorm(32)
        self.post_feedforward_layernorm = RMSNorm(32)

    def forward(self, x, visible):
        attn = self.self_attn(self.input_layernorm(x), visible)
        x = x + self.post_attention_layernorm(attn)
        out = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(out)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedder = Embedder(41, 32)
        self.layers = nn.ModuleList(Block(window) for window in (4, None, 4))
        self.norm = RMSNorm(32)

    def forward(self, tokens):
        x = self.embedder.encode(tokens)
        t = tokens.shape[1]
        visible = torch.ones(t, t).tril().bool()
        for block in self.layers:
            x = block(x, visible)
        return self.norm(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Transformer()

    def forward(self, input_ids):
        x = self.model(input_ids)
        return softcap(self.model.embedder.decode(x), 3.0)


NAMES = {"model.embedder.input_embedding": "model.embed_tokens.weight"}
for _i in range(3):
    NAMES[f"model.layers.{_i}.self_attn.kv_einsum.weight"] = f"cat(model.layers.{_i}.self_attn.k_proj.weight, model.layers.{_i}.self_attn.v_proj.weight)"

_QKV = {"model.embedder.input_embedding": "model.embed_tokens.weight"}
for _i in range(3):
    _a = f"model.layers.{_i}.self_attn"
    _QKV[f"{_a}.qkv.weight"] = f"cat({_a}.q_proj.weight, {_a}.k_proj.weight, {_a}.v_proj.weight)"

_MLP = dict(NAMES)
for _i in range(3):
    _a = f"model.layers.{_i}.mlp"
    _MLP[f"{_a}.gate_up.weight"] = f"cat({_a}.gate_proj.weight, {_a}.up_proj.weight)"
    _MLP[f"{_a}.linear"] = f"{_a}.down_proj.weight.T"

FAULTS = [
    Fault("eps_of_norms", "def __init__(self, width, epsilon=1e-6):", "def __init__(self, width, epsilon=1e-5):", "model.layers.0.input_layernorm", "output", "eps"),
    Fault("eps_outside_of_root", "x / torch.sqrt(var + self.epsilon)", "x / (torch.sqrt(var) + self.epsilon)", "model.layers.0.input_layernorm", "output", "eps"),
    Fault("weight_without_one", "* (self.weight + 1)", "* self.weight", "model.layers.0.input_layernorm", "output", "missing"),
    Fault("statistic_detached", "var = torch.square(x).mean(-1, keepdim=True)", "var = torch.square(x.detach()).mean(-1, keepdim=True)", "model.layers.0.input_layernorm", "gradient", "detached"),
    Fault("unbiased_variance", "var = torch.square(x).mean(-1, keepdim=True)", "var = torch.square(x).sum(-1, keepdim=True) / (x.shape[-1] - 1)", "model.layers.0.input_layernorm", "output", "variance"),
    Fault("centred_variance", "var = torch.square(x).mean(-1, keepdim=True)", "var = x.var(-1, keepdim=True, unbiased=False)", "model.layers.0.input_layernorm", "output", "variance"),
    Fault("embedding_not_scaled", "return self.input_embedding[tokens] * self.width**0.5", "return self.input_embedding[tokens]", "model", "output", "scale"),
    Fault("embedding_scale_in_half", "return self.input_embedding[tokens] * self.width**0.5", "return self.input_embedding[tokens] * float(torch.tensor(self.width**0.5, dtype=torch.bfloat16))", "model", "output", "scale"),
    Fault("query_scale_of_head", "* 8**-0.5", "* self.head_dim**-0.5", "model.layers.0.self_attn", "output", "scale"),
    Fault("scores_not_capped", "logits = softcap(logits, 5.0)", "pass", "model.layers.0.self_attn", "output", "missing"),
    Fault("capped_after_mask", "logits = torch.where(visible, logits, torch.finfo(x.dtype).min)", "logits = softcap(torch.where(visible, logits, -30.0), 5.0)", "model.layers.0.self_attn", "output", "order"),
    Fault("logits_not_capped", "return softcap(self.model.embedder.decode(x), 3.0)", "return self.model.embedder.decode(x)", "", "output", "missing"),
    Fault("logits_capped_wide", "return softcap(self.model.embedder.decode(x), 3.0)", "return softcap(self.model.embedder.decode(x), 30.0)", "", "output", "scale"),
    Fault("window_one_more", "visible = visible & (ago < self.window)", "visible = visible & (ago <= self.window)", "model.layers.0.self_attn", "output", "mask"),
    Fault("window_in_other_layers", "for window in (4, None, 4)", "for window in (None, 4, None)", "model.layers.0.self_attn", "output", "mask"),
    Fault("window_of_future", "ago = where[:, None] - where[None, :]", "ago = where[None, :] - where[:, None]", "model.layers.0.self_attn", "output", "mask"),
    Fault("rope_by_pairs", "left, right = x[..., :half], x[..., half:]\n    return torch.cat((left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()), -1)", "left, right = x[..., ::2], x[..., 1::2]\n    return torch.stack((left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()), -1).flatten(-2)", "model.layers.0.self_attn", "output", "rope"),
    Fault("rope_exponent", "torch.arange(half, dtype=x.dtype) * 2 / x.shape[-1]", "torch.arange(half, dtype=x.dtype) * 2 / half", "model.layers.0.self_attn", "output", "rope"),
    Fault("rope_of_keys_missing", "k = apply_rope(k, where)", "k = k", "model.layers.0.self_attn", "output", "rope"),
    Fault("groups_interleaved", "q = q.view(b, t, self.kv_heads, self.heads // self.kv_heads, self.head_dim) * 8**-0.5", "q = q.view(b, t, self.heads // self.kv_heads, self.kv_heads, self.head_dim).transpose(2, 3) * 8**-0.5", "model.layers.0.self_attn", "output", "repeat"),
    Fault("groups_come_back_tiled", "encoded = torch.einsum(\"bkgts,bskh->btkgh\", probs, v)", "encoded = torch.einsum(\"bkgts,bskh->btgkh\", probs, v)", "model.layers.0.self_attn", "output", "repeat"),
    Fault("values_of_other_group", "encoded = torch.einsum(\"bkgts,bskh->btkgh\", probs, v)", "encoded = torch.einsum(\"bkgts,bskh->btkgh\", probs, v.flip(2))", "model.layers.0.self_attn", "output", "repeat"),
    Fault("keys_and_values_woven", "self.kv_einsum(x).view(b, t, 2, self.kv_heads, self.head_dim).unbind(2)", "self.kv_einsum(x).view(b, t, self.kv_heads, 2, self.head_dim).unbind(3)", "model.layers.0.self_attn", "output", "heads"),
    Fault("probabilities_transposed", "encoded = torch.einsum(\"bkgts,bskh->btkgh\", probs, v)", "encoded = torch.einsum(\"bkgst,bskh->btkgh\", probs, v)", "model.layers.0.self_attn", "output", "transposed"),
    Fault("exact_gelu", "gate = F.gelu(self.gate_proj(x), approximate=\"tanh\")", "gate = F.gelu(self.gate_proj(x))", "model.layers.0.mlp", "output", "approximate"),
    Fault("silu_gate", "gate = F.gelu(self.gate_proj(x), approximate=\"tanh\")", "gate = F.silu(self.gate_proj(x))", "model.layers.0.mlp", "output", "activation"),
    Fault("gate_and_up_swapped", "return self.down_proj(gate * self.up_proj(x))", "return self.down_proj(F.gelu(self.up_proj(x), approximate=\"tanh\") * self.gate_proj(x))", "model.layers.0.mlp", "output", "operand"),
    Fault("mlp_of_unnormed", "out = self.mlp(self.pre_feedforward_layernorm(x))", "out = self.mlp(x)", "model.layers.0", "output", "missing"),
    Fault("llama_residual", "x = x + self.post_attention_layernorm(attn)", "x = self.post_attention_layernorm(x + attn)", "model.layers.0", "output", "residual"),
    Fault("norms_exchanged", "return x + self.post_feedforward_layernorm(out)", "return x + self.post_attention_layernorm(out)", "model.layers.0", "output", "operand"),
    Fault("lookup_detached", "return self.input_embedding[tokens] * self.width**0.5", "return self.input_embedding.detach()[tokens] * self.width**0.5", "model", "gradient", "untied"),
    Fault("quick_gelu", 'gate = F.gelu(self.gate_proj(x), approximate="tanh")', "gate = self.gate_proj(x)\n        gate = gate * torch.sigmoid(1.702 * gate)", "model.layers.0.mlp", "output", "approximate"),
    Fault("mask_too_weak", "torch.finfo(x.dtype).min", "-20.0", "model.layers.0.self_attn", "output", "mask"),
    Fault("values_detached", '"bkgts,bskh->btkgh", probs, v)', '"bkgts,bskh->btkgh", probs, v.detach())', "model.layers.0.self_attn", "gradient", "detached"),
    Fault("residual_detached", "return x + self.post_feedforward_layernorm(out)", "return x.detach() + self.post_feedforward_layernorm(out)", "model.layers.0", "gradient", "residual"),
]

RIGHT = [
    Right("norm_by_functional", "var = torch.square(x).mean(-1, keepdim=True)\n        return x / torch.sqrt(var + self.epsilon) * (self.weight + 1)", "return F.rms_norm(x, x.shape[-1:], 1 + self.weight, self.epsilon)"),
    Right("norm_with_own_backward", "class Embedder(nn.Module):", '''class Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        r = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(x, weight, r)
        return x * r * (1 + weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight, r = ctx.saved_tensors
        n = x * r
        g = grad * (1 + weight)
        return r * (g - n * (g * n).mean(-1, keepdim=True)), (grad * n).flatten(0, -2).sum(0), None


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return Normalise.apply(x, self.weight, 1e-6)


class Embedder(nn.Module):'''),
    Right("rope_in_complex", "left, right = x[..., :half], x[..., half:]\n    return torch.cat((left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()), -1)", "turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)\n    return torch.cat((turned.real, turned.imag), -1)"),
    Right("cap_in_place", "return cap * torch.tanh(x / cap)", "return (x / cap).tanh_().mul(cap)"),
    Right("cap_by_sigmoid", "return cap * torch.tanh(x / cap)", "return 2 * cap * torch.sigmoid(2 * x / cap) - cap"),
    Right("gelu_by_hand", "gate = F.gelu(self.gate_proj(x), approximate=\"tanh\")", "g = self.gate_proj(x)\n        gate = g * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (g + 0.044715 * g**3))"),
    Right("attention_by_queries", "logits = torch.where(visible, logits, torch.finfo(x.dtype).min)\n        probs = logits.softmax(-1)\n        encoded = torch.einsum(\"bkgts,bskh->btkgh\", probs, v)", "rows = []\n        for i in range(t):\n            seen = torch.nonzero(visible[i])[:, 0]\n            p = torch.softmax(logits[:, :, :, i, seen], -1)\n            rows.append(torch.einsum('bkgs,bskh->bkgh', p, v[:, seen]))\n        encoded = torch.stack(rows, 1)"),
    Right("packed_attention", "class FeedForward(nn.Module):", '''class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads, head_dim, window):
        super().__init__()
        self.sizes, self.window = (heads, kv_heads, kv_heads), window
        self.qkv = nn.Linear(width, sum(self.sizes) * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def forward(self, x, visible):
        q, k, v = self.qkv(x).unflatten(-1, (sum(self.sizes), -1)).split(self.sizes, 2)
        where = torch.arange(x.shape[1], dtype=x.dtype)
        q, k = apply_rope(q, where), apply_rope(k, where)
        k, v = (m.repeat_interleave(2, dim=2).transpose(1, 2) for m in (k, v))
        logits = softcap(q.transpose(1, 2) @ k.mT / 8**0.5, 5.0)
        if self.window:
            visible = visible.triu(1 - self.window)
        logits = logits.masked_fill(~visible, -torch.inf)
        top = logits.amax(-1, keepdim=True).detach()
        p = (logits - top).exp()
        out = (p @ v) / p.sum(-1, keepdim=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):''', True, _QKV),
    Right("gate_and_up_in_one", "class Block(nn.Module):", '''class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.linear = nn.Parameter(torch.zeros(hidden, width))

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return (up * F.gelu(gate, approximate="tanh")) @ self.linear


class Block(nn.Module):''', True, _MLP),
    Right("norm_folded_into_projection", "out = self.mlp(self.pre_feedforward_layernorm(x))", "norm = self.pre_feedforward_layernorm\n        bare = x * (x.square().mean(-1, keepdim=True) + norm.epsilon) ** -0.5\n        gate, up = (F.linear(bare, p.weight * (1 + norm.weight)) for p in (self.mlp.gate_proj, self.mlp.up_proj))\n        out = self.mlp.down_proj(F.gelu(gate, approximate='tanh') * up)", True),
    Right("checkpointed_blocks", "x = block(x, visible)", "x = torch.utils.checkpoint.checkpoint(block, x, visible, use_reentrant=True)"),
]
