"""A JAX-flavoured bidirectional transformer: experts choose tokens, one shared expert, rotary grouped-query attention, a z-loss."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..ports.kinds import Fault, Right

CONFIG = dict(vocab=40, width=32, layers=2, heads=4, kv_heads=2, experts=4, hidden=24, shared_hidden=32, capacity=1.5, cap=5.0)


class ScaleNorm(nn.Module):
    """RMSNorm with one plus the scale, as in Gemma."""

    def __init__(self, width, eps=1e-6):
        super().__init__()
        self.scale = nn.Parameter(0.1 * torch.randn(width))
        self.eps = eps

    def forward(self, x):
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed * (1 + self.scale)


def rotate(x, positions, base=10000.0):
    """x: (batch, time, heads, dim); the halves are rotated."""
    half = x.shape[-1] // 2
    timescale = base ** (torch.arange(half, dtype=torch.float64) / half)
    angle = (positions[:, None].double() / timescale).to(x)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, width // heads
        self.q_proj = nn.Linear(width, heads * self.dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(heads * self.dim, width, bias=False)

    def forward(self, hidden, *, valid):
        b, t, _ = hidden.shape
        pos = torch.arange(t)
        q = rotate(self.q_proj(hidden).view(b, t, self.heads, self.dim), pos)
        k = rotate(self.k_proj(hidden).view(b, t, self.kv_heads, self.dim), pos)
        v = self.v_proj(hidden).view(b, t, self.kv_heads, self.dim)
        k = k.repeat_interleave(self.heads // self.kv_heads, dim=2)
        v = v.repeat_interleave(self.heads // self.kv_heads, dim=2)
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(self.dim)
        logits = logits.masked_fill(~valid[:, None, None, :], torch.finfo(logits.dtype).min)
        out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
        return self.o_proj(out.reshape(b, t, -1))


class Expert(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wi = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.wo(F.relu(self.wi(x)).square())


class SharedExpert(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.act = nn.SiLU()
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.gate = nn.Linear(width, 1, bias=False)

    def forward(self, x):
        y = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return torch.sigmoid(self.gate(x)) * y


class MoE(nn.Module):
    def __init__(self, width, hidden, shared_hidden, experts, capacity):
        super().__init__()
        self.capacity = capacity
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, hidden) for _ in range(experts))
        self.shared = SharedExpert(width, shared_hidden)

    def forward(self, x, *, valid):
        b, t, c = x.shape
        flat = x.reshape(b * t, c)
        keep = valid.reshape(-1)
        logits = self.router(flat)
        probs = torch.softmax(logits, dim=-1)
        probs = torch.where(keep[:, None], probs, torch.zeros_like(probs))
        k = math.ceil(b * t * self.capacity / len(self.experts))
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            gate, index = probs[:, e].topk(k)
            out = out.index_add(0, index, gate[:, None] * expert(flat[index]))
        z = torch.logsumexp(logits, dim=-1).square()
        z_loss = (z * keep).sum() / keep.sum()
        return {"hidden": out.view(b, t, c) + self.shared(x), "z_loss": z_loss}


class Layer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.norm1 = ScaleNorm(cfg["width"])
        self.attn = Attention(cfg["width"], cfg["heads"], cfg["kv_heads"])
        self.norm2 = ScaleNorm(cfg["width"])
        self.moe = MoE(cfg["width"], cfg["hidden"], cfg["shared_hidden"], cfg["experts"], cfg["capacity"])

    def forward(self, x, *, valid):
        x = x + self.attn(self.norm1(x), valid=valid)
        y = self.moe(self.norm2(x), valid=valid)
        return {"hidden": x + y["hidden"], "z_loss": y["z_loss"]}


class Original(nn.Module):
    def __init__(self, cfg=CONFIG):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg["vocab"], cfg["width"])
        nn.init.normal_(self.embed.weight, std=0.2)
        self.layers = nn.ModuleList(Layer(cfg) for _ in range(cfg["layers"]))
        self.final_norm = ScaleNorm(cfg["width"])

    def forward(self, tokens, valid):
        x = self.embed(tokens) * math.sqrt(self.cfg["width"])
        z_loss = 0.0
        for layer in self.layers:
            y = layer(x, valid=valid)
            x, z_loss = y["hidden"], z_loss + y["z_loss"]
        logits = self.final_norm(x) @ self.embed.weight.T
        logits = self.cfg["cap"] * torch.tanh(logits / self.cfg["cap"])
        return {"logits": logits, "z_loss": 0.1 * z_loss}


def inputs():
    g = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 40, (2, 13), generator=g)
    valid = torch.ones(2, 13, dtype=torch.bool)
    valid[1, 9:] = False
    return tokens, valid


# The port ------------------------------------------------------------------------------------


class RMS(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        ms = (x * x).mean(dim=-1, keepdim=True)
        y = x / torch.sqrt(ms + 1e-6)
        return y + y * self.scale


class Rotary:
    def __init__(self, length, dim, base=10000):
        inverse = torch.pow(base, -torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angle = torch.arange(length)[:, None] * inverse
        self.cos = torch.cat((angle, angle), -1).cos()
        self.sin = torch.cat((angle, angle), -1).sin()

    def __call__(self, x):
        # x: (batch, heads, time, dim)
        cos, sin = self.cos.to(x), self.sin.to(x)
        left, right = x.chunk(2, -1)
        turned = torch.cat((-right, left), -1)
        return x * cos + turned * sin


class GroupedAttention(nn.Module):
    def __init__(self, width, heads, groups):
        super().__init__()
        self.heads, self.groups, self.dim = heads, groups, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.v_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(self, x, bias):
        n, length, width = x.shape
        q, k, v = self.project(x)
        q = q.view(n, length, self.heads, self.dim).transpose(1, 2)
        k = k.view(n, length, self.groups, self.dim).transpose(1, 2)
        v = v.view(n, length, self.groups, self.dim).transpose(1, 2)
        rotary = Rotary(length, self.dim)
        q, k = rotary(q), rotary(k)
        times = self.heads // self.groups
        k = k[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, self.dim)
        v = v[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, self.dim)
        weights = (q @ k.mT * self.dim ** -0.5 + bias).softmax(-1)
        out = (weights @ v).transpose(1, 2).reshape(n, length, width)
        return self.o_proj(out)


class Shared(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.act = nn.SiLU()
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.gate = nn.Linear(width, 1, bias=False)

    def inner(self, x):
        return self.act(self.gate_proj(x)) * self.up_proj(x)

    def forward(self, x):
        strength = self.gate(x).sigmoid()
        return self.down_proj(self.inner(x)) * strength


class ExpertChoice(nn.Module):
    def __init__(self, width, hidden, shared, experts, capacity):
        super().__init__()
        self.n, self.hidden, self.capacity = experts, hidden, capacity
        self.router = nn.Linear(width, experts, bias=False)
        self.wi = nn.Parameter(torch.zeros(experts * hidden, width))
        self.wo = nn.Parameter(torch.zeros(experts * width, hidden))
        self.shared = Shared(width, shared)

    def run(self, chosen):
        # chosen: (experts, taken, width)
        wi = self.wi.view(self.n, self.hidden, -1)
        wo = self.wo.view(self.n, -1, self.hidden)
        inner = torch.bmm(chosen, wi.transpose(1, 2))
        inner = inner.relu() ** 2
        return torch.bmm(inner, wo.transpose(1, 2))

    def forward(self, x, valid):
        # x: (tokens, width), valid: (tokens,)
        logits = self.router(x)
        probs = logits.softmax(1) * valid[:, None]
        taken = math.ceil(len(x) * self.capacity / self.n)
        gates, index = torch.topk(probs.t(), taken, dim=1)
        outs = self.run(x[index]) * gates.unsqueeze(-1)
        mixed = torch.zeros_like(x).index_add(0, index.reshape(-1), outs.flatten(0, 1))
        z = logits.logsumexp(1) ** 2
        loss = z[valid].mean()
        return mixed + self.shared(x), loss


class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.norm1 = RMS(width)
        self.norm2 = RMS(width)
        self.attn = GroupedAttention(width, 4, 2)
        self.moe = ExpertChoice(width, 24, 32, 4, 1.5)

    def forward(self, x, bias, valid):
        x = x + self.attn(self.norm1(x), bias)
        mixed, loss = self.moe(self.norm2(x).flatten(0, 1), valid.flatten())
        return x + mixed.view_as(x), loss


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.layers = nn.ModuleList([Block(), Block()])
        self.final_norm = RMS(32)

    def forward(self, ids, valid):
        table = self.embed.weight
        x = self.embed(ids) * 32 ** 0.5
        bias = torch.zeros(valid.shape, dtype=x.dtype).masked_fill(~valid, float("-inf"))[:, None, None]
        losses = []
        for block in self.layers:
            x, loss = block(x, bias, valid)
            losses.append(loss)
        logits = F.linear(self.final_norm(x), table)
        logits = torch.tanh(logits / 5.0) * 5.0
        return {"logits": logits, "z_loss": sum(losses) * 0.1}


NAMES = {
    f"layers.{i}.moe.{w}": "cat(" + ", ".join(f"layers.{i}.moe.experts.{e}.{w}.weight" for e in range(4)) + ")"
    for i in range(2) for w in ("wi", "wo")
}

_QKV = dict(NAMES)
_UP = dict(NAMES)
for _i in range(2):
    _QKV[f"layers.{_i}.attn.qkv.weight"] = "cat(" + ", ".join(f"layers.{_i}.attn.{_n}_proj.weight" for _n in "qkv") + ")"
    _UP[f"layers.{_i}.moe.shared.gate_up.weight"] = f"cat(layers.{_i}.moe.shared.gate_proj.weight, layers.{_i}.moe.shared.up_proj.weight)"

FAULTS = [
    Fault("eps_of_rms", "torch.sqrt(ms + 1e-6)", "torch.sqrt(ms + 1e-5)", "layers.0.norm1", "output", "eps"),
    Fault("variance_for_square", "ms = (x * x).mean(dim=-1, keepdim=True)", "ms = x.var(dim=-1, keepdim=True, unbiased=False)",
          "layers.0.norm1", "output", "variance"),
    Fault("scale_without_one", "return y + y * self.scale", "return y * self.scale", "layers.0.norm1", "output", "missing"),
    Fault("statistic_detached", "ms = (x * x).mean(dim=-1, keepdim=True)", "ms = (x * x).mean(dim=-1, keepdim=True).detach()",
          "layers.0.norm1", "gradient", "detached"),
    Fault("rotated_in_pairs", """        left, right = x.chunk(2, -1)
        turned = torch.cat((-right, left), -1)
""", """        turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        cos, sin = (t[:, :t.shape[1] // 2].repeat_interleave(2, -1) for t in (cos, sin))
""", "layers.0.attn", "output", "rope"),
    Fault("rotated_backwards", "turned = torch.cat((-right, left), -1)", "turned = torch.cat((right, -left), -1)",
          "layers.0.attn", "output", "rope"),
    Fault("rotary_base", "base=10000):", "base=10500):", "layers.0.attn", "output", "rope"),
    Fault("groups_tiled", "v = v[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, self.dim)",
          "v = v.repeat(1, times, 1, 1)", "layers.0.attn", "output", "repeat"),
    Fault("heads_not_moved_back", "(weights @ v).transpose(1, 2).reshape(n, length, width)", "(weights @ v).reshape(n, length, width)",
          "layers.0.attn", "output", "heads"),
    Fault("unnormalised_logits", "q @ k.mT * self.dim ** -0.5 + bias", "(q @ k.mT + bias)", "layers.0.attn", "output", "scale"),
    Fault("padding_attended", "weights = (q @ k.mT * self.dim ** -0.5 + bias)", "weights = (q @ k.mT * self.dim ** -0.5)", "layers.0.attn", "output", "mask"),
    Fault("softmax_over_tokens", "logits.softmax(1) *", "logits.softmax(0) *", "layers.0.moe", "output", "order"),
    Fault("padding_chosen", "probs = logits.softmax(1) * valid[:, None]", "probs = logits.softmax(1)", "layers.0.moe", "output", "mask"),
    Fault("capacity_rounded_down", "taken = math.ceil(len(x) * self.capacity / self.n)", "taken = int(len(x) * self.capacity / self.n)",
          "layers.0.moe", "output", "count"),
    Fault("z_loss_over_padding", "loss = z[valid].mean()", "loss = (z * valid).mean()", "layers.0.moe", "output", "count"),
    Fault("z_loss_detached", "z = logits.logsumexp(1) ** 2", "z = logits.detach().logsumexp(1) ** 2", "layers.0.moe", "gradient", "detached"),
    Fault("gates_detached", "gates.unsqueeze(-1)", "gates.detach().unsqueeze(-1)", "layers.0.moe", "gradient", "detached"),
    Fault("last_writer_wins", """        mixed = torch.zeros_like(x).index_add(0, index.reshape(-1), outs.flatten(0, 1))
""", """        mixed = torch.zeros_like(x)
        for e in range(self.n):
            mixed = mixed.index_copy(0, index[e], outs[e])
""", "layers.0.moe", "output", "missing"),
    Fault("silu_squared", "inner = inner.relu() ** 2", "inner = F.silu(inner) ** 2", "layers.0.moe", "output", "activation"),
    Fault("expert_transposed", "wi = self.wi.view(self.n, self.hidden, -1)", "wi = self.wi.view(self.n, -1, self.hidden).transpose(1, 2)",
          "layers.0.moe", "output", "transposed"),
    Fault("shared_gelu", "self.act = nn.SiLU()", "self.act = nn.GELU()", "layers.0.moe.shared.act", "output", "activation"),
    Fault("shared_ungated", "strength = self.gate(x).sigmoid()", "strength = self.gate(x)", "layers.0.moe.shared", "output", "activation"),
    Fault("moe_of_unnormed", "self.moe(self.norm2(x).flatten(0, 1)", "self.moe(x.flatten(0, 1)", "layers.0", "output", "operand"),
    Fault("head_untied", "table = self.embed.weight", "table = self.embed.weight.detach()", "", "gradient", "untied"),
    Fault("embedding_unscaled", "self.embed(ids) * 32 ** 0.5", "self.embed(ids)", "", "output", "scale"),
    Fault("cap_a_little_wide", "torch.tanh(logits / 5.0) * 5.0", "torch.tanh(logits / 5.01) * 5.01", "", "output", "scale"),
]

RIGHT = [
    Right("experts_in_a_loop", """        inner = torch.bmm(chosen, wi.transpose(1, 2))
        inner = inner.relu() ** 2
        return torch.bmm(inner, wo.transpose(1, 2))
""", """        return torch.stack([F.linear(F.linear(c, a).clamp(min=0).square(), b) for c, a, b in zip(chosen, wi, wo)])
"""),
    Right("one_hot_dispatch", """        outs = self.run(x[index]) * gates.unsqueeze(-1)
        mixed = torch.zeros_like(x).index_add(0, index.reshape(-1), outs.flatten(0, 1))
""", """        hot = F.one_hot(index, len(x)).to(x)
        outs = self.run(torch.einsum("ekt,tc->ekc", hot, x))
        mixed = torch.einsum("ekt,ek,ekc->tc", hot, gates, outs)
"""),
    Right("every_expert_on_every_token", """        outs = self.run(x[index]) * gates.unsqueeze(-1)
        mixed = torch.zeros_like(x).index_add(0, index.reshape(-1), outs.flatten(0, 1))
""", """        weight = torch.zeros_like(probs).t().scatter(1, index, gates)
        mixed = (self.run(x.expand(self.n, -1, -1)) * weight[..., None]).sum(0)
"""),
    Right("logsumexp_by_hand", "z = logits.logsumexp(1) ** 2",
          "top = logits.amax(1).detach()\n        z = (top + (logits - top[:, None]).exp().sum(1).log()).pow(2)"),
    Right("rms_upcast", """        ms = (x * x).mean(dim=-1, keepdim=True)
        y = x / torch.sqrt(ms + 1e-6)
        return y + y * self.scale
""", """        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        y = wide * (wide.norm(dim=-1, keepdim=True).square() / x.shape[-1] + 1e-6).rsqrt()
        return (y * (self.scale + 1)).to(x.dtype)
"""),
    Right("complex_rotation", """        left, right = x.chunk(2, -1)
        turned = torch.cat((-right, left), -1)
        return x * cos + turned * sin
""", """        half = x.shape[-1] // 2
        number = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos[:, :half], sin[:, :half])
        return torch.cat((number.real, number.imag), -1)
"""),
    Right("grouped_product", """        k = k[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, self.dim)
        v = v[:, :, None].expand(-1, -1, times, -1, -1).reshape(n, self.heads, length, self.dim)
        weights = (q @ k.mT * self.dim ** -0.5 + bias).softmax(-1)
        out = (weights @ v).transpose(1, 2).reshape(n, length, width)
""", """        q = q.unflatten(1, (self.groups, times))
        weights = torch.einsum("bgrqd,bgkd->bgrqk", q, k).mul(self.dim ** -0.5).add(bias[:, None]).softmax(-1)
        out = torch.einsum("bgrqk,bgkd->bqgrd", weights, v).reshape(n, length, width)
"""),
    Right("packed_qkv", """        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.v_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)
""", """        self.qkv = nn.Linear(width, width + 2 * groups * self.dim, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        inner = self.groups * self.dim
        return self.qkv(x).split((self.heads * self.dim, inner, inner), -1)
""", True, _QKV),
    Right("packed_shared", """        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.act = nn.SiLU()
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.gate = nn.Linear(width, 1, bias=False)

    def inner(self, x):
        return self.act(self.gate_proj(x)) * self.up_proj(x)
""", """        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.act = nn.SiLU()
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.gate = nn.Linear(width, 1, bias=False)

    def inner(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.act(gate) * up
""", True, _UP),
    Right("checkpointed_reentrant", "x, loss = block(x, bias, valid)", "x, loss = checkpoint(block, x, bias, valid, use_reentrant=True)"),
]
