"""A switch transformer (one expert for each token, with a capacity) with rotary positions, grouped heads and a tied head, in the style of Hugging Face."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


@dataclass
class Config:
    vocab: int = 48
    width: int = 32
    layers: int = 2
    heads: int = 4
    groups: int = 2
    experts: int = 4
    inner: int = 40
    capacity: float = 1.1
    base: float = 10000.0
    eps: float = 1e-6


class SwitchNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


class SwitchAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.size = config.width // config.heads
        self.q_proj = nn.Linear(config.width, config.width, bias=True)
        self.k_proj = nn.Linear(config.width, config.groups * self.size, bias=True)
        self.v_proj = nn.Linear(config.width, config.groups * self.size, bias=True)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, hidden_states, cos, sin):
        b, t, w = hidden_states.shape
        q = self.q_proj(hidden_states).view(b, t, -1, self.size).transpose(1, 2)
        k = self.k_proj(hidden_states).view(b, t, -1, self.size).transpose(1, 2)
        v = self.v_proj(hidden_states).view(b, t, -1, self.size).transpose(1, 2)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        n = self.config.heads // self.config.groups
        k = k.repeat_interleave(n, dim=1)
        v = v.repeat_interleave(n, dim=1)
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.size)
        causal = torch.ones(t, t, dtype=torch.bool).triu(1)
        weights = F.softmax(scores.masked_fill(causal, float("-inf")), dim=-1)
        return self.o_proj(torch.matmul(weights, v).transpose(1, 2).reshape(b, t, w))


class SwitchExpert(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wi = nn.Linear(config.width, config.inner)
        self.act = nn.GELU()
        self.wo = nn.Linear(config.inner, config.width)

    def forward(self, x):
        return self.wo(self.act(self.wi(x)))


class SwitchRouter(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(config.width, config.experts, bias=False)

    def forward(self, tokens):
        logits = self.classifier(tokens)
        probs = logits.softmax(dim=-1)
        gate, index = probs.max(dim=-1)
        chosen = F.one_hot(index, self.config.experts)
        limit = math.ceil(tokens.shape[0] / self.config.experts * self.config.capacity)
        kept = chosen * (chosen.cumsum(dim=0) <= limit)
        share = chosen.to(probs.dtype).mean(dim=0)
        balance = self.config.experts * (share * probs.mean(dim=0)).sum()
        z = logits.logsumexp(dim=-1).pow(2).mean()
        return {"gate": gate, "kept": kept.bool(), "balance": balance, "z": z}


class SwitchMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.router = SwitchRouter(config)
        self.experts = nn.ModuleDict({f"expert_{i}": SwitchExpert(config) for i in range(config.experts)})

    def forward(self, hidden_states):
        tokens = hidden_states.flatten(0, 1)
        routed = self.router(tokens)
        out = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts.values()):
            rows = routed["kept"][:, i].nonzero().squeeze(-1)
            out = out.index_add(0, rows, expert(tokens[rows]) * routed["gate"][rows, None])
        return out.view_as(hidden_states), routed["balance"] + 0.1 * routed["z"]


class SwitchLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = SwitchNorm(config.width, config.eps)
        self.self_attn = SwitchAttention(config)
        self.post_attention_layernorm = SwitchNorm(config.width, config.eps)
        self.mlp = SwitchMLP(config)

    def forward(self, hidden_states, cos, sin):
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), cos=cos, sin=sin)
        moved, loss = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + moved, loss


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = config = Config()
        self.embed_tokens = nn.Embedding(config.vocab, config.width)
        self.layers = nn.ModuleList([SwitchLayer(config) for _ in range(config.layers)])
        self.norm = SwitchNorm(config.width, config.eps)
        self.lm_head = nn.Linear(config.width, config.vocab, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, ids):
        x = self.embed_tokens(ids)
        size = self.config.width // self.config.heads
        inverse = 1.0 / self.config.base ** (torch.arange(0, size, 2).to(x.dtype) / size)
        angle = torch.outer(torch.arange(ids.shape[1]).to(x.dtype), inverse)
        angle = torch.cat([angle, angle], dim=-1)
        cos, sin = angle.cos(), angle.sin()
        losses = []
        for layer in self.layers:
            x, loss = layer(x, cos=cos, sin=sin)
            losses.append(loss)
        logits = self.lm_head(self.norm(x) * self.config.width ** -0.5)
        return {"logits": logits, "router_loss": 0.01 * torch.stack(losses).mean()}


def inputs():
    g = torch.Generator().manual_seed(12)
    return (torch.randint(0, 48, (2, 12), generator=g),)


# The port ------------------------------------------------------------------------------------


class RMS(nn.Module):
    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        size = (x * x).mean(dim=-1, keepdim=True)
        return x / torch.sqrt(size + self.eps) * self.weight


def rotate(x, cos, sin):
    a, b = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    heads, groups, size = 4, 2, 8

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(32, 32)
        self.k_proj = nn.Linear(32, 16)
        self.v_proj = nn.Linear(32, 16)
        self.o_proj = nn.Linear(32, 32, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = self.project(x)
        q = q.view(b, t, self.heads, self.size).permute(0, 2, 1, 3)
        k = k.view(b, t, self.groups, self.size).permute(0, 2, 1, 3)
        v = v.view(b, t, self.groups, self.size).permute(0, 2, 1, 3)
        q = rotate(q, cos, sin)
        k = rotate(k, cos, sin)
        k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).reshape(b, 4, t, 8) for y in (k, v))
        y = self.attend(q, k, v, t)
        y = y.permute(0, 2, 1, 3).reshape(b, t, 32)
        return self.o_proj(y)

    def attend(self, q, k, v, t):
        s = q @ k.mT * self.size ** -0.5
        seen = torch.tril(torch.ones(t, t, dtype=torch.bool))
        s = torch.where(seen, s, torch.finfo(s.dtype).min)
        return s.softmax(-1) @ v


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.wi = nn.Linear(32, 40)
        self.wo = nn.Linear(40, 32)

    def forward(self, x):
        x = self.wi(x)
        x = F.gelu(x)
        return self.wo(x)


class Router(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.index = index
        self.classifier = nn.Linear(32, 4, bias=False)

    def forward(self, x):
        logits = self.classifier(x)
        p = F.softmax(logits, -1)
        index = p.argmax(-1)
        gate = p.gather(-1, index[:, None])[:, 0]
        chosen = torch.zeros_like(p, dtype=torch.long).scatter_(1, index[:, None], 1)
        limit = math.ceil(1.1 * x.shape[0] / 4)
        place = chosen.cumsum(0)
        kept = (chosen == 1) & (place <= limit)
        share = chosen.sum(0).to(p.dtype) / x.shape[0]
        balance = 4 * torch.dot(share, p.mean(0))
        z = torch.logsumexp(logits, -1).square().mean()
        return {"gate": gate, "kept": kept, "balance": balance, "z": z}


class Mixture(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.router = Router(index)
        self.experts = nn.ModuleList(Expert() for _ in range(4))

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        r = self.router(flat)
        gate, kept = r["gate"], r["kept"]
        out = self.dispatch(flat, gate, kept)
        loss = r["balance"] + r["z"] / 10
        return out.view(x.shape), loss

    def dispatch(self, flat, gate, kept):
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            rows = torch.where(kept[:, e])[0]
            y = expert(flat[rows])
            out[rows] = y * gate[rows].unsqueeze(-1)
        return out


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.input_layernorm = RMS(32)
        self.self_attn = Attention()
        self.post_attention_layernorm = RMS(32)
        self.mlp = Mixture(index)

    def forward(self, x, cos, sin):
        h = self.input_layernorm(x)
        x = x + self.self_attn(h, cos, sin)
        h = self.post_attention_layernorm(x)
        y, loss = self.mlp(h)
        return x + y, loss


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(48, 32)
        self.layers = nn.ModuleList([Layer(0), Layer(1)])
        self.norm = RMS(32, eps=1e-6)
        self.lm_head = nn.Linear(32, 48, bias=False)
        self.lm_head.weight = self.embed_tokens.weight

    def forward(self, ids):
        x = self.embed_tokens(ids)
        power = torch.arange(4).to(x.dtype) / 4
        rate = 10000.0 ** -power
        angle = torch.arange(ids.shape[1]).to(x.dtype)[:, None] * rate
        cos, sin = torch.cos(angle), torch.sin(angle)
        total = 0
        for layer in self.layers:
            x, loss = layer(x, cos, sin)
            total = total + loss
        x = self.norm(x)
        logits = self.lm_head(x * 32 ** -0.5)
        return {"logits": logits, "router_loss": total * (0.01 / 2)}


NAMES = {f"layers.{k}.mlp.experts.{e}": f"layers.{k}.mlp.experts.expert_{e}" for k in range(2) for e in range(4)}

FAULTS = [
    Fault("rope_in_pairs", """    a, b = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)""", """    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)""", "layers.0.self_attn", "output", "rope"),
    Fault("rope_sign", "k = rotate(k, cos, sin)", "k = rotate(k, cos, -sin)", "layers.0.self_attn", "output", "rope"),
    Fault("rope_base", "rate = 10000.0 ** -power", "rate = 500000.0 ** -power", "", "output", "rope"),
    Fault("groups_tiled", "k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).reshape(b, 4, t, 8) for y in (k, v))", "k, v = (y.repeat(1, 2, 1, 1) for y in (k, v))", "layers.0.self_attn", "output", "repeat"),
    Fault("heads_not_brought_back", "y = y.permute(0, 2, 1, 3).reshape(b, t, 32)", "y = y.reshape(b, t, 32)", "layers.0.self_attn", "output", "heads"),
    Fault("one_ahead", "seen = torch.tril(torch.ones(t, t, dtype=torch.bool))", "seen = torch.tril(torch.ones(t, t, dtype=torch.bool), 1)", "layers.0.self_attn", "output", "mask"),
    Fault("key_bias_missing", "return self.q_proj(x), self.k_proj(x), self.v_proj(x)", "return self.q_proj(x), F.linear(x, self.k_proj.weight), self.v_proj(x)", "layers.0.self_attn", "output", "missing"),
    Fault("eps_of_last_norm", "self.norm = RMS(32, eps=1e-6)", "self.norm = RMS(32, eps=1e-5)", "norm", "output", "eps"),
    Fault("gelu_of_tanh", "x = F.gelu(x)", "x = F.gelu(x, approximate=\"tanh\")", "layers.0.mlp.experts.expert_0", "output", "approximate"),
    Fault("gate_detached", "gate, kept = r[\"gate\"], r[\"kept\"]", "gate, kept = r[\"gate\"], r[\"kept\"]\n        gate = gate.detach() if self.router.index == 1 else gate", "layers.1.mlp", "gradient", "detached"),
    Fault("balance_detached", "balance = 4 * torch.dot(share, p.mean(0))", "balance = 4 * torch.dot(share, (p.detach() if self.index == 1 else p).mean(0))", "layers.1.mlp.router", "gradient", "detached"),
    Fault("gate_left_out", "out[rows] = y * gate[rows].unsqueeze(-1)", "out[rows] = y", "layers.0.mlp", "output", "scale"),
    Fault("capacity_one_less", "(place <= limit)", "(place < limit)", "layers.0.mlp.router", "output", "mask"),
    Fault("balance_over_kept", "share = chosen.sum(0).to(p.dtype) / x.shape[0]", "share = kept.sum(0).to(p.dtype) / kept.sum()", "layers.0.mlp.router", "output", "operand"),
    Fault("z_over_one_less", "z = torch.logsumexp(logits, -1).square().mean()", "z = torch.logsumexp(logits, -1).square().sum() / (x.shape[0] - 1)", "layers.0.mlp.router", "output", "count"),
    Fault("losses_not_averaged", "total * (0.01 / 2)", "total * 0.01", "", "output", "count"),
    Fault("head_untied", "        self.lm_head.weight = self.embed_tokens.weight\n", "", "", "gradient", "untied"),
    Fault("residual_of_normed", "return x + y, loss", "return h + y, loss", "layers.0", "output", "residual"),
    Fault("head_scale_before_norm", "        x = self.norm(x)\n        logits = self.lm_head(x * 32 ** -0.5)", "        x = self.norm(x * 32 ** -0.5)\n        logits = self.lm_head(x * 1.0)", "", "output", "order"),
    Fault("values_tiled_keys_right", "k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).reshape(b, 4, t, 8) for y in (k, v))", "k, v = k.repeat_interleave(2, 1), v.repeat(1, 2, 1, 1)", "layers.0.self_attn", "output", "repeat"),
    Fault("eps_of_second_norm", "self.post_attention_layernorm = RMS(32)", "self.post_attention_layernorm = RMS(32, 1e-5)", "layers.0.post_attention_layernorm", "output", "eps"),
]

RIGHT = [
    Right("attention_of_torch", """        s = q @ k.mT * self.size ** -0.5
        seen = torch.tril(torch.ones(t, t, dtype=torch.bool))
        s = torch.where(seen, s, torch.finfo(s.dtype).min)
        return s.softmax(-1) @ v""", "        return F.scaled_dot_product_attention(q, k, v, is_causal=True)"),
    Right("attention_in_blocks", "        return s.softmax(-1) @ v", """        top = torch.full_like(s[..., :1], torch.finfo(s.dtype).min)
        total, out = torch.zeros_like(top), torch.zeros_like(q)
        for start in range(0, t, 5):
            part, values = s[..., start:start + 5], v[..., start:start + 5, :]
            new = torch.maximum(top, part.amax(-1, keepdim=True)).detach()
            e = (part - new).exp() * seen[:, start:start + 5]
            shrink = (top - new).exp()
            total = total * shrink + e.sum(-1, keepdim=True)
            out = out * shrink + e @ values
            top = new
        return out / total"""),
    Right("rope_complex", """    a, b = x[..., :x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)""", """    a, b = x.chunk(2, -1)
    y = torch.complex(a, b) * torch.complex(cos, sin)
    return torch.cat([y.real, y.imag], -1)"""),
    Right("norm_upcast", """        size = (x * x).mean(dim=-1, keepdim=True)
        return x / torch.sqrt(size + self.eps) * self.weight""", """        y = x.to(torch.promote_types(x.dtype, torch.float32))
        y = y * (y.square().sum(-1, keepdim=True) / y.shape[-1] + self.eps).pow(-0.5)
        return y.to(x.dtype) * self.weight"""),
    Right("norm_of_torch", """        size = (x * x).mean(dim=-1, keepdim=True)
        return x / torch.sqrt(size + self.eps) * self.weight""", "        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)"),
    Right("projections_in_one", """        self.q_proj = nn.Linear(32, 32)
        self.k_proj = nn.Linear(32, 16)
        self.v_proj = nn.Linear(32, 16)
        self.o_proj = nn.Linear(32, 32, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)""", """        self.qkv = nn.Linear(32, 64)
        self.o_proj = nn.Linear(32, 32, bias=False)

    def project(self, x):
        return self.qkv(x).split([32, 16, 16], -1)""", True, NAMES | {
        f"layers.{k}.self_attn.qkv.{w}": "cat(" + ", ".join(f"layers.{k}.self_attn.{n}_proj.{w}" for n in "qkv") + ")"
        for k in range(2) for w in ("weight", "bias")}),
    Right("every_expert_on_every_token", """            rows = torch.where(kept[:, e])[0]
            y = expert(flat[rows])
            out[rows] = y * gate[rows].unsqueeze(-1)""", """            out = out + expert(flat) * (kept[:, e] * gate).unsqueeze(-1)""", True, NAMES),
    Right("experts_in_one_product", """        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            rows = torch.where(kept[:, e])[0]
            y = expert(flat[rows])
            out[rows] = y * gate[rows].unsqueeze(-1)
        return out""", """        wi, bi = (torch.stack([getattr(e.wi, n) for e in self.experts]) for n in ("weight", "bias"))
        wo, bo = (torch.stack([getattr(e.wo, n) for e in self.experts]) for n in ("weight", "bias"))
        y = torch.baddbmm(bi[:, None], flat.expand(4, -1, -1), wi.mT)
        y = torch.baddbmm(bo[:, None], F.gelu(y), wo.mT)
        return torch.einsum("end,ne,n->nd", y, kept.to(y.dtype), gate)""", True, NAMES),
    Right("gelu_by_erf", "x = F.gelu(x)", "x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))"),
    Right("attention_checkpointed", "x = x + self.self_attn(h, cos, sin)", "x = x + torch.utils.checkpoint.checkpoint(self.self_attn, h, cos, sin, use_reentrant=True)"),
]
