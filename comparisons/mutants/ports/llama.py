"""A Llama of two layers: RMSNorm, RoPE by halves, grouped-query attention, SwiGLU; the port has the names of the first release."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

WIDTH, HEADS, GROUPS, DIM, HIDDEN, VOCAB, LAYERS = 64, 4, 2, 16, 112, 96, 2


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(noise * p[0].numel() ** -0.5 if p.dim() > 1 else 1 + 0.2 * noise)


class LlamaRMSNorm(nn.Module):
    def __init__(self, size, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.variance_epsilon))


def rotate_half(x):
    return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), dim=-1)


class LlamaAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * DIM, bias=False)
        self.k_proj = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.v_proj = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, HEADS, DIM).transpose(1, 2)
        k = self.k_proj(x).view(b, t, GROUPS, DIM).transpose(1, 2)
        v = self.v_proj(x).view(b, t, GROUPS, DIM).transpose(1, 2)
        inv = 10000.0 ** -(torch.arange(0, DIM, 2, dtype=x.dtype, device=x.device) / DIM)
        angle = torch.outer(torch.arange(t, dtype=x.dtype, device=x.device), inv)
        angle = torch.cat((angle, angle), -1)
        cos, sin = angle.cos(), angle.sin()
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        k = k[:, :, None].expand(b, GROUPS, HEADS // GROUPS, t, DIM).reshape(b, HEADS, t, DIM)
        v = v[:, :, None].expand(b, GROUPS, HEADS // GROUPS, t, DIM).reshape(b, HEADS, t, DIM)
        w = q @ k.transpose(2, 3) / math.sqrt(DIM)
        w = w + torch.full((t, t), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        y = F.softmax(w, dim=-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class LlamaMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = LlamaAttention()
        self.mlp = LlamaMLP()
        self.input_layernorm = LlamaRMSNorm(WIDTH)
        self.post_attention_layernorm = LlamaRMSNorm(WIDTH)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(LlamaLayer() for _ in range(LAYERS))
        self.norm = LlamaRMSNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        fill(self, 2)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


def inputs():
    g = torch.Generator().manual_seed(12)
    return (torch.randint(0, VOCAB, (2, 14), generator=g),)


# The port ------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, dim, eps, place=""):
        super().__init__()
        self.eps, self.place = eps, place
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        power = (x * x).mean(-1, keepdim=True)
        root = torch.sqrt(power + self.eps)
        return x / root * self.weight


def rotary(x, base=10000.0):
    """x: (batch, time, heads, dim)"""
    half = x.shape[-1] // 2
    where = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
    freq = base ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    theta = where[:, None, None] * freq
    cos, sin = theta.cos(), theta.sin()
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.wq = nn.Linear(WIDTH, HEADS * DIM, bias=False)
        self.wk = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.wv = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.wo = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        q = rotary(q.view(b, t, HEADS, DIM))
        k = rotary(k.view(b, t, GROUPS, DIM))
        v = v.view(b, t, GROUPS, DIM)
        k = torch.repeat_interleave(k, HEADS // GROUPS, dim=2)
        v = torch.repeat_interleave(v, HEADS // GROUPS, dim=2)
        s = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(DIM)
        hidden = torch.arange(t)[None, :] > torch.arange(t)[:, None]
        s = s.masked_fill(hidden.to(x.device), float("-inf"))
        p = torch.softmax(s, dim=-1)
        y = torch.einsum("bhqk,bkhd->bqhd", p, v)
        return self.wo(y.flatten(2))


class FeedForward(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x):
        gate, up = self.w1(x), self.w3(x)
        return self.w2(F.silu(gate) * up)


class TransformerBlock(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.attention = Attention(index)
        self.feed_forward = FeedForward(index)
        self.attention_norm = RMSNorm(WIDTH, 1e-5, f"a{index}")
        self.ffn_norm = RMSNorm(WIDTH, 1e-5, f"f{index}")

    def forward(self, x):
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(TransformerBlock(i) for i in range(LAYERS))
        self.norm = RMSNorm(WIDTH, 1e-5)
        self.output = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h)
        return self.output(self.norm(h))


NAMES = {"tok_embeddings": "embed_tokens", "output": "lm_head"}
for _i in range(LAYERS):
    for _port, _original in {
        "attention": "self_attn", "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
        "feed_forward": "mlp", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }.items():
        NAMES[f"layers.{_i}.{_port}"] = f"layers.{_i}.{_original}"

FAULTS = [
    Fault("eps_of_ffn_norm", 'RMSNorm(WIDTH, 1e-5, f"f{index}")', 'RMSNorm(WIDTH, 1e-6, f"f{index}")', "layers.0.post_attention_layernorm", "output", "eps"),
    Fault("eps_outside", "torch.sqrt(power + self.eps)", "torch.sqrt(power) + self.eps", "layers.0.input_layernorm", "output", "eps"),
    Fault("eps_large_in_last", "self.norm = RMSNorm(WIDTH, 1e-5)", "self.norm = RMSNorm(WIDTH, 1e-3)", "norm", "output", "eps"),
    Fault("centred", "(x * x).mean(-1, keepdim=True)", 'x.var(-1, correction=0, keepdim=True) if self.place == "f1" else (x * x).mean(-1, keepdim=True)', "layers.1.post_attention_layernorm", "output", "variance"),
    Fault("power_over_less", "(x * x).mean(-1, keepdim=True)", "(x * x).sum(-1, keepdim=True) / (x.shape[-1] - 1)", "layers.0.input_layernorm", "output", "count"),
    Fault("detached_root", "return x / root", 'return x / (root.detach() if self.place == "a1" else root)', "layers.1.input_layernorm", "gradient", "detached"),
    Fault("rope_pairs", '''    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)''', '''    one, two = x[..., 0::2], x[..., 1::2]
    return torch.stack([one * cos - two * sin, two * cos + one * sin], dim=-1).flatten(-2)''', "layers.0.self_attn", "output", "rope"),
    Fault("rope_base", "base=10000.0", "base=500000.0", "layers.0.self_attn", "output", "rope"),
    Fault("rope_sign", "[one * cos - two * sin, two * cos + one * sin]", "[one * cos + two * sin, two * cos - one * sin]", "layers.0.self_attn", "output", "rope"),
    Fault("rope_denominator", "device=x.device) / half)", "device=x.device) / (half - 1))", "layers.0.self_attn", "output", "rope"),
    Fault("rope_near_base", "q = rotary(q.view(b, t, HEADS, DIM))", "q = rotary(q.view(b, t, HEADS, DIM), 10000.0 if self.index < 1 else 10010.0)", "layers.1.self_attn", "output", "rope"),
    Fault("repeat_keys_whole", "torch.repeat_interleave(k, HEADS // GROUPS, dim=2)", "k.repeat(1, 1, HEADS // GROUPS, 1)", "layers.0.self_attn", "output", "repeat"),
    Fault("repeat_both_whole", '''        k = torch.repeat_interleave(k, HEADS // GROUPS, dim=2)
        v = torch.repeat_interleave(v, HEADS // GROUPS, dim=2)''', '''        if self.index == 1:
            k, v = torch.cat([k, k], 2), torch.cat([v, v], 2)
        else:
            k, v = k.repeat_interleave(2, 2), v.repeat_interleave(2, 2)''', "layers.1.self_attn", "output", "repeat"),
    Fault("detached_copies", "        v = torch.repeat_interleave(v, HEADS // GROUPS, dim=2)", "        v = torch.stack([v, v if self.index == 0 else v.detach()], 3).flatten(2, 3)", "layers.1.self_attn", "gradient", "detached"),
    Fault("detached_keys", "        p = torch.softmax(s, dim=-1)", "        p = torch.softmax(s if self.index else torch.einsum('bqhd,bkhd->bhqk', q, k.detach()).masked_fill(hidden, -float('inf')) / math.sqrt(DIM), dim=-1)", "layers.0.self_attn", "gradient", "detached"),
    Fault("values_turned", "        v = v.view(b, t, GROUPS, DIM)\n", "        v = rotary(v.view(b, t, GROUPS, DIM))\n", "layers.0.self_attn", "output", "operand"),
    Fault("mask_strict", "torch.arange(t)[None, :] > torch.arange(t)[:, None]", "(torch.arange(t)[None, :] >= torch.arange(t)[:, None]) & (torch.arange(t)[:, None] > 0)", "layers.0.self_attn", "output", "mask"),
    Fault("mask_wrong_side", "torch.arange(t)[None, :] > torch.arange(t)[:, None]", "torch.arange(t)[None, :] < torch.arange(t)[:, None]", "layers.0.self_attn", "output", "mask"),
    Fault("scale_of_groups", "/ math.sqrt(DIM)", "/ math.sqrt(WIDTH // GROUPS)", "layers.0.self_attn", "output", "scale"),
    Fault("gelu_for_silu", "F.silu(gate)", "F.gelu(gate)", "layers.0.mlp", "output", "activation"),
    Fault("silu_of_up", "F.silu(gate) * up", "F.silu(up) * gate", "layers.0.mlp", "output", "operand"),
    Fault("detached_gate", "F.silu(gate) * up", "gate * (torch.sigmoid(gate).detach() if self.index else torch.sigmoid(gate)) * up", "layers.1.mlp", "gradient", "detached"),
    Fault("residual_of_input", "return h + self.feed_forward(self.ffn_norm(h))", "return (x if self.index else h) + self.feed_forward(self.ffn_norm(h))", "layers.1", "output", "residual"),
    Fault("mean_of_half", "power = (x * x).mean(-1, keepdim=True)", "power = (x * x).mean(-1, keepdim=True) if self.place else (x * x).mean((-2, -1), keepdim=True)", "norm", "output", "order"),
]

RIGHT = [
    Right("complex_rope", '''    cos, sin = theta.cos(), theta.sin()
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)''', '''    turn = torch.polar(torch.ones_like(theta), theta)
    z = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous()) * turn
    return torch.cat([z.real, z.imag], dim=-1)'''),
    Right("rope_by_matrix", "    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)", '''    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    y = torch.einsum("tcfij,bthfj->bthif", turn, torch.stack([one, two], -1))
    return y.reshape(x.shape)'''),
    Right("rope_in_place", "    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)", '''    y = torch.empty_like(x)
    y[..., :half] = one * cos
    y[..., half:] = two * cos
    y[..., :half].sub_(two * sin)
    y[..., half:].addcmul_(one, sin)
    return y'''),
    Right("grouped_without_repeat", '''        k = torch.repeat_interleave(k, HEADS // GROUPS, dim=2)
        v = torch.repeat_interleave(v, HEADS // GROUPS, dim=2)
        s = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(DIM)
''', '''        q = q.unflatten(2, (GROUPS, HEADS // GROUPS))
        s = torch.einsum("bqgrd,bkgd->bgrqk", q, k).flatten(1, 2) / math.sqrt(DIM)
        v = v[:, :, :, None].expand(-1, -1, -1, HEADS // GROUPS, -1).flatten(2, 3)
'''),
    Right("sdpa_grouped", '''        k = torch.repeat_interleave(k, HEADS // GROUPS, dim=2)
        v = torch.repeat_interleave(v, HEADS // GROUPS, dim=2)
        s = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(DIM)
        hidden = torch.arange(t)[None, :] > torch.arange(t)[:, None]
        s = s.masked_fill(hidden.to(x.device), float("-inf"))
        p = torch.softmax(s, dim=-1)
        y = torch.einsum("bhqk,bkhd->bqhd", p, v)
''', '''        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
'''),
    Right("loop_over_rows", '''        p = torch.softmax(s, dim=-1)
        y = torch.einsum("bhqk,bkhd->bqhd", p, v)
''', '''        rows = []
        for i in range(t):
            p = (s[:, :, i, : i + 1] - s[:, :, i, : i + 1].logsumexp(-1, keepdim=True)).exp()
            rows.append((p.transpose(1, 2)[..., None] * v[:, : i + 1]).sum(1))
        y = torch.stack(rows, 1)
'''),
    Right("upcast_norm", '''        power = (x * x).mean(-1, keepdim=True)
        root = torch.sqrt(power + self.eps)
        return x / root * self.weight
''', '''        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.type_as(x)
'''),
    Right("norm_by_vector_norm", '''        power = (x * x).mean(-1, keepdim=True)
        root = torch.sqrt(power + self.eps)
''', '''        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        root = (length**2 / x.shape[-1] + self.eps) ** 0.5
'''),
    Right("norm_by_library", '''        power = (x * x).mean(-1, keepdim=True)
        root = torch.sqrt(power + self.eps)
        return x / root * self.weight
''', '''        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
'''),
    Right("swiglu_by_function", '''    def forward(self, x):
        gate, up = self.w1(x), self.w3(x)
        return self.w2(F.silu(gate) * up)
''', '''    class Gated(torch.autograd.Function):
        @staticmethod
        def forward(ctx, gate, up):
            ctx.save_for_backward(gate, up)
            return gate * torch.sigmoid(gate) * up

        @staticmethod
        def backward(ctx, grad):
            gate, up = ctx.saved_tensors
            s = torch.sigmoid(gate)
            return grad * up * s * (1 + gate * (1 - s)), grad * gate * s

    def forward(self, x):
        return self.w2(self.Gated.apply(self.w1(x), self.w3(x)))
'''),
    Right("fused_gate_up", '''        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x):
        gate, up = self.w1(x), self.w3(x)
''', '''        self.w13 = nn.Linear(WIDTH, 2 * HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        gate, up = self.w13(x).chunk(2, dim=-1)
''', True, {**{k: v for k, v in NAMES.items() if not k.endswith(("w1", "w3"))}, **{f"layers.{i}.feed_forward.w13.weight": f"cat(layers.{i}.mlp.gate_proj.weight, layers.{i}.mlp.up_proj.weight)" for i in range(LAYERS)}}),
    Right("fused_qkv", '''        self.wq = nn.Linear(WIDTH, HEADS * DIM, bias=False)
        self.wk = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.wv = nn.Linear(WIDTH, GROUPS * DIM, bias=False)
        self.wo = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
''', '''        self.wqkv = nn.Linear(WIDTH, (HEADS + 2 * GROUPS) * DIM, bias=False)
        self.wo = nn.Linear(HEADS * DIM, WIDTH, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.wqkv(x).split([HEADS * DIM, GROUPS * DIM, GROUPS * DIM], dim=-1)
''', True, {**{k: v for k, v in NAMES.items() if not k.endswith(("wq", "wk", "wv"))}, **{f"layers.{i}.attention.wqkv.weight": f"cat(layers.{i}.self_attn.q_proj.weight, layers.{i}.self_attn.k_proj.weight, layers.{i}.self_attn.v_proj.weight)" for i in range(LAYERS)}}),
    Right("split_down", '''        return self.w2(F.silu(gate) * up)
''', '''        h, w = F.silu(gate) * up, self.w2.weight
        return sum(a @ b.T for a, b in zip(h.split(28, -1), w.split(28, 1)))
''', True),
    Right("checkpointed", "            h = layer(h)\n", "            h = torch.utils.checkpoint.checkpoint(layer, h, use_reentrant=True)\n"),
]
