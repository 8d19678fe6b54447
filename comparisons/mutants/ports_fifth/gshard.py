"""A GShard encoder: every other feed-forward a mixture with top-2 gating and capacity; rotary multi-query attention, load statistics."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


def settle(module, seed):
    """Move every vector parameter off its initial value, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.15 if p.dim() == 1 else 0.03))


def rotary(x, base=10000.0):
    """Rotate neighbours, as in GPT-J; x is (batch, heads, time, width)."""
    d = x.shape[-1]
    inv = base ** (-torch.arange(0, d, 2, dtype=x.dtype, device=x.device) / d)
    angle = torch.arange(x.shape[-2], dtype=x.dtype, device=x.device)[:, None] * inv
    sin, cos = angle.sin(), angle.cos()
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


class MultiQueryAttention(nn.Module):
    def __init__(self, dim=32, heads=4, groups=2):
        super().__init__()
        self.heads, self.groups, self.head_dim = heads, groups, dim // heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * groups * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, pad_bias):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 2, self.groups, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = rotary(q), rotary(k)
        k = k.repeat_interleave(self.heads // self.groups, dim=1)
        v = v.repeat_interleave(self.heads // self.groups, dim=1)
        w = (q @ k.transpose(2, 3) / math.sqrt(self.head_dim) + pad_bias).softmax(-1)
        return self.out((w @ v).transpose(1, 2).reshape(b, t, -1))


class FeedForward(nn.Module):
    def __init__(self, dim=32, hidden=48):
        super().__init__()
        self.wi = nn.Linear(dim, hidden, bias=False)
        self.wo = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.wo(F.relu(self.wi(x)))


class Top2Gate(nn.Module):
    """Dispatch and combine tensors over (tokens, experts, capacity)."""

    def __init__(self, dim, experts, factor=1.0, momentum=0.1):
        super().__init__()
        self.wg = nn.Linear(dim, experts, bias=False)
        self.experts, self.factor, self.momentum = experts, factor, momentum
        self.register_buffer("load", torch.full((experts,), 1.0 / experts))

    def forward(self, x, valid):
        s, e = x.shape[0], self.experts
        capacity = int(2 * math.ceil(s / e) * self.factor)
        gates = self.wg(x).softmax(dim=1)
        mask1 = F.one_hot(gates.argmax(dim=1), e) * valid[:, None]
        rest = gates.masked_fill(F.one_hot(gates.argmax(dim=1), e).bool(), float("-inf"))
        mask2 = F.one_hot(rest.argmax(dim=1), e) * valid[:, None]
        place1 = mask1.cumsum(0) - 1
        place2 = mask2.cumsum(0) - 1 + mask1.sum(0, keepdim=True)
        density = mask1.sum(0).to(x.dtype) / valid.sum()
        proxy = (gates * valid[:, None]).sum(0) / valid.sum()
        aux = (proxy * density).mean() * e * e
        with torch.no_grad():
            self.load.lerp_(density.to(self.load.dtype), self.momentum)
        mask1 = mask1 * (place1 < capacity)
        mask2 = mask2 * (place2 < capacity)
        g1 = (gates * mask1).sum(1)
        g2 = (gates * mask2).sum(1)
        total = (g1 + g2).clamp(min=torch.finfo(torch.float32).eps)
        g1, g2 = g1 / total, g2 / total
        slot1 = F.one_hot((place1 * mask1).sum(1), capacity).to(x.dtype)
        slot2 = F.one_hot((place2 * mask2).sum(1), capacity).to(x.dtype)
        combine = torch.einsum("se,sc->sec", g1[:, None] * mask1, slot1) + torch.einsum("se,sc->sec", g2[:, None] * mask2, slot2)
        return aux, combine, combine.bool()


class Experts(nn.Module):
    def __init__(self, dim, hidden, experts):
        super().__init__()
        self.experts = experts
        self.wi = nn.Parameter(torch.randn(experts * hidden, dim) / math.sqrt(dim))
        self.bi = nn.Parameter(torch.zeros(experts * hidden))
        self.wo = nn.Parameter(torch.randn(experts * dim, hidden) / math.sqrt(hidden))

    def forward(self, x):
        h = torch.einsum("ecd,ehd->ech", x, self.wi.unflatten(0, (self.experts, -1))) + self.bi.view(self.experts, 1, -1)
        return torch.einsum("ech,edh->ecd", F.gelu(h), self.wo.unflatten(0, (self.experts, -1)))


class MoELayer(nn.Module):
    def __init__(self, dim=32, hidden=24, experts=6):
        super().__init__()
        self.gate = Top2Gate(dim, experts)
        self.experts = Experts(dim, hidden, experts)

    def forward(self, x, valid):
        flat = x.flatten(0, 1)
        aux, combine, dispatch = self.gate(flat, valid.flatten())
        sent = torch.einsum("sec,sd->ecd", dispatch.to(x.dtype), flat)
        out = torch.einsum("sec,ecd->sd", combine, self.experts(sent))
        return out.view_as(x), aux


class Layer(nn.Module):
    def __init__(self, sparse, dim=32):
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiQueryAttention(dim)
        self.ffn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = MoELayer(dim) if sparse else FeedForward(dim)
        self.sparse = sparse

    def forward(self, x, valid, pad_bias):
        x = x + self.attn(self.attn_norm(x), pad_bias=pad_bias)
        if self.sparse:
            y, aux = self.ffn(self.ffn_norm(x), valid)
            return x + y, aux
        return x + self.ffn(self.ffn_norm(x)), x.new_zeros(())


class Original(nn.Module):
    def __init__(self, vocab=37, dim=32, layers=4):
        super().__init__()
        self.dim = dim
        self.embed = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList([Layer(i % 2 == 1, dim) for i in range(layers)])
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.aux_weight = 0.01
        nn.init.normal_(self.embed.weight, std=dim**-0.5)
        settle(self, 2)

    def forward(self, tokens, valid):
        x = self.embed(tokens) * math.sqrt(self.dim)
        bias = torch.zeros(valid.shape, dtype=x.dtype, device=x.device).masked_fill(~valid, -1e9)[:, None, None]
        total = 0.0
        for layer in self.layers:
            x, aux = layer(x, valid, bias)
            total = total + aux
        logits = F.linear(self.final_norm(x), self.embed.weight) / math.sqrt(self.dim)
        return {"logits": logits, "aux_loss": self.aux_weight * total / 2}


def inputs():
    g = torch.Generator().manual_seed(12)
    tokens = torch.randint(0, 37, (3, 11), generator=g)
    tokens[2, 5:] = 0
    valid = torch.arange(11)[None] < torch.tensor([11, 9, 8])[:, None]
    return tokens, valid


# The port ------------------------------------------------------------------------------------


class Turn:
    """Complex rotation of neighbouring pairs, (batch, time, heads, width)."""

    @staticmethod
    def apply(x, theta=10000.0):
        half = x.shape[-1] // 2
        steps = torch.arange(half, dtype=x.dtype) * (2.0 / x.shape[-1])
        freq = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / theta**steps
        unit = torch.polar(torch.ones_like(freq), freq)
        z = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous())
        return torch.view_as_real(z * unit[None, :, None]).flatten(-2)


class Attend(nn.Module):
    def __init__(self, width, n_head=4, n_kv=2):
        super().__init__()
        self.n_head, self.n_kv = n_head, n_kv
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width * n_kv // n_head, bias=False)
        self.v = nn.Linear(width, width * n_kv // n_head, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, keep, x):
        b, t, w = x.shape
        d = w // self.n_head
        q = Turn.apply(self.q(x).unflatten(-1, (self.n_head, d)))
        k = Turn.apply(self.k(x).unflatten(-1, (self.n_kv, d)))
        v = self.v(x).unflatten(-1, (self.n_kv, d))
        q = q.unflatten(2, (self.n_kv, -1))
        scores = torch.einsum("bqgrd,bkgd->bgrqk", q, k) * d**-0.5
        scores = scores.masked_fill(~keep[:, None, None, None, :], torch.finfo(scores.dtype).min)
        mixed = torch.einsum("bgrqk,bkgd->bqgrd", torch.softmax(scores, -1), v)
        return self.out(mixed.reshape(b, t, w))


class Dense(nn.Module):
    def __init__(self, width, inner=48):
        super().__init__()
        self.wi = nn.Linear(width, inner, bias=False)
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.wo(self.wi(x).clamp(min=0))


class Expert(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Gate(nn.Module):
    """Choices, weights and places as indices, not as one-hot tensors."""

    def __init__(self, width, n):
        super().__init__()
        self.wg = nn.Linear(width, n, bias=False)
        self.n = n
        self.register_buffer("load", torch.ones(n) / n)

    def forward(self, x, valid):
        room = 2 * -(-x.shape[0] // self.n)
        prob = torch.softmax(self.wg(x), dim=-1)
        weight, choice = prob.topk(2, dim=-1)
        hot = F.one_hot(choice, self.n) * valid[:, None, None]
        first, second = hot.unbind(1)
        count = first.sum(0)
        share = count.to(prob.dtype) / valid.sum()
        mean = prob[valid].mean(0)
        aux = self.n * (share * mean).sum()
        with torch.no_grad():
            self.load.mul_(0.9).add_(0.1 * share.to(self.load.dtype))
        place_first = (first.cumsum(0) - 1).gather(1, choice[:, :1])
        place_second = (second.cumsum(0) - 1 + count).gather(1, choice[:, 1:])
        place = torch.cat((place_first, place_second), 1)
        kept = (place < room) & valid[:, None]
        weight = weight * kept
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=1.1920928955078125e-07)
        return weight, choice, kept, aux


class Mixture(nn.Module):
    def __init__(self, width, inner=24, n=6):
        super().__init__()
        self.gate = Gate(width, n)
        self.pool = nn.ModuleList(Expert(width, inner) for _ in range(n))

    def forward(self, x, valid):
        tokens = x.reshape(-1, x.shape[-1])
        weight, choice, kept, aux = self.gate(tokens, valid.reshape(-1))
        out = torch.zeros_like(tokens)
        for i, expert in enumerate(self.pool):
            row, which = torch.where((choice == i) & kept)
            out = out.index_add(0, row, expert(tokens[row]) * weight[row, which, None])
        return out.reshape(x.shape), aux


class Block(nn.Module):
    def __init__(self, width, mixture):
        super().__init__()
        self.attn_norm = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attend(width)
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn = Mixture(width) if mixture else Dense(width)

    def forward(self, x, keep):
        a = self.attn(keep, self.attn_norm(x))
        x = x + a
        n = self.ffn_norm(x)
        if isinstance(self.ffn, Mixture):
            y, aux = self.ffn(n, keep)
        else:
            y, aux = self.ffn(n), 0
        return x + y, aux


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(37, 32)
        self.layers = nn.ModuleList(Block(32, mixture=odd) for odd in (False, True, False, True))
        self.final_norm = nn.LayerNorm(32, eps=1e-6)

    def forward(self, tokens, valid):
        x = self.embed(tokens) * 32**0.5
        losses = []
        for block in self.layers:
            x, aux = block(x, valid)
            losses.append(aux)
        h = self.final_norm(x)
        logits = (h @ self.embed.weight.T) * 32**-0.5
        return {"logits": logits, "aux_loss": 0.01 * sum(losses) / 2}


NAMES = {}
for _i in range(4):
    NAMES[f"layers.{_i}.attn.k.weight"] = f"layers.{_i}.attn.kv.weight[:16]"
    NAMES[f"layers.{_i}.attn.v.weight"] = f"layers.{_i}.attn.kv.weight[16:]"
for _i in (1, 3):
    for _e in range(6):
        NAMES[f"layers.{_i}.ffn.pool.{_e}.up.weight"] = f"layers.{_i}.ffn.experts.wi[{24 * _e}:{24 * _e + 24}]"
        NAMES[f"layers.{_i}.ffn.pool.{_e}.up.bias"] = f"layers.{_i}.ffn.experts.bi[{24 * _e}:{24 * _e + 24}]"
        NAMES[f"layers.{_i}.ffn.pool.{_e}.down.weight"] = f"layers.{_i}.ffn.experts.wo[{32 * _e}:{32 * _e + 32}]"

FAULTS = [
    Fault("eps_of_ffn_norm", "self.ffn_norm = nn.LayerNorm(width, eps=1e-6)", "self.ffn_norm = nn.LayerNorm(width)", "layers.0.ffn_norm", "output", "eps"),
    Fault("rope_base", "def apply(x, theta=10000.0):", "def apply(x, theta=50000.0):", "layers.0.attn", "output", "rope"),
    Fault("rope_halves", "z = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous())", "z = torch.view_as_complex(x.unflatten(-1, (2, half)).transpose(-1, -2).contiguous())", "layers.0.attn", "output", "rope"),
    Fault("rope_stretched", "freq = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / theta**steps", "freq = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * 1.001 / theta**steps", "layers.0.attn", "output", "rope"),
    Fault("rope_sign", "torch.polar(torch.ones_like(freq), freq)", "torch.polar(torch.ones_like(freq), -freq)", "layers.0.attn", "output", "rope"),
    Fault("groups_tiled", "q = q.unflatten(2, (self.n_kv, -1))", "q = q.unflatten(2, (-1, self.n_kv)).transpose(2, 3)", "layers.0.attn", "output", "repeat"),
    Fault("padding_not_masked", "scores = scores.masked_fill(~keep[:, None, None, None, :], torch.finfo(scores.dtype).min)", "scores = scores.masked_fill(~keep[:, None, None, None, :], 0.0)", "layers.0.attn", "output", "mask"),
    Fault("queries_masked", "~keep[:, None, None, None, :]", "~keep[:, None, None, :, None]", "layers.0.attn", "output", "mask"),
    Fault("second_places_from_zero", "place_second = (second.cumsum(0) - 1 + count)", "place_second = (second.cumsum(0) - 1)", "layers.1.ffn.gate", "output", "missing"),
    Fault("room_off", "room = 2 * -(-x.shape[0] // self.n)", "room = x.shape[0] // self.n", "layers.1.ffn.gate", "output", "count"),
    Fault("one_place_too_many", "kept = (place < room)", "kept = (place <= room)", "layers.1.ffn.gate", "output", "mask"),
    Fault("weights_not_normalised", "weight = weight / weight.sum(-1, keepdim=True).clamp(min=1.1920928955078125e-07)", "weight = weight / 1.0", "layers.1.ffn.gate", "output", "missing"),
    Fault("weights_normalised_before_dropping", "weight = weight * kept\n        weight = weight / weight.sum(-1, keepdim=True).clamp(min=1.1920928955078125e-07)", "weight = weight / weight.sum(-1, keepdim=True).clamp(min=1.1920928955078125e-07)\n        weight = weight * kept", "layers.1.ffn.gate", "output", "order"),
    Fault("clamp_of_total", "clamp(min=1.1920928955078125e-07)", "add(1e-6)", "layers.1.ffn.gate", "output", "eps"),
    Fault("weights_detached", "out = out.index_add(0, row, expert(tokens[row]) * weight[row, which, None])", "out = out.index_add(0, row, expert(tokens[row]) * weight.detach()[row, which, None])", "layers.1.ffn", "gradient", "detached"),
    Fault("aux_of_detached_mean", "mean = prob[valid].mean(0)", "mean = prob[valid].mean(0).detach()", "layers.1.ffn.gate", "gradient", "detached"),
    Fault("mean_over_padding_too", "mean = prob[valid].mean(0)", "mean = prob.mean(0)", "layers.1.ffn.gate", "output", "count"),
    Fault("load_momentum", "self.load.mul_(0.9).add_(0.1 * share.to(self.load.dtype))", "self.load.mul_(0.99).add_(0.01 * share.to(self.load.dtype))", "layers.1.ffn.gate", "buffer", "momentum"),
    Fault("load_of_mean", "self.load.mul_(0.9).add_(0.1 * share.to(self.load.dtype))", "self.load.mul_(0.9).add_(0.1 * mean.to(self.load.dtype))", "layers.1.ffn.gate", "buffer", "operand"),
    Fault("load_over_all_tokens", "self.load.mul_(0.9).add_(0.1 * share.to(self.load.dtype))", "self.load.mul_(0.9).add_(0.1 * (count / valid.numel()).to(self.load.dtype))", "layers.1.ffn.gate", "buffer", "count"),
    Fault("gelu_of_experts", "return self.down(F.gelu(self.up(x)))", "return self.down(F.gelu(self.up(x), approximate='tanh'))", "layers.1.ffn", "output", "approximate"),
    Fault("relu_of_experts", "return self.down(F.gelu(self.up(x)))", "return self.down(F.relu(self.up(x)))", "layers.1.ffn", "output", "activation"),
    Fault("mixture_of_unnormed", "y, aux = self.ffn(n, keep)", "y, aux = self.ffn(x, keep)", "layers.1", "output", "operand"),
    Fault("residual_of_normed", "return x + y, aux", "return n + y, aux", "layers.0", "output", "residual"),
    Fault("head_detached", "logits = (h @ self.embed.weight.T)", "logits = (h @ self.embed.weight.detach().T)", "", "gradient", "untied"),
    Fault("losses_not_halved", "0.01 * sum(losses) / 2", "0.01 * sum(losses) / 4", "", "output", "count"),
    Fault("keys_detached", "k = Turn.apply(self.k(x).unflatten(-1, (self.n_kv, d)))", "k = Turn.apply(self.k(x).unflatten(-1, (self.n_kv, d))).detach()", "layers.0.attn", "gradient", "detached"),
    Fault("residual_detached", "x = x + a", "x = x.detach() + a", "layers.0", "gradient", "residual"),
    Fault("mask_too_weak", "torch.finfo(scores.dtype).min", "-15.0", "layers.0.attn", "output", "mask"),
    Fault("rounded_embedding_scale", "x = self.embed(tokens) * 32**0.5", "x = self.embed(tokens) * 5.6569", "", "output", "scale"),
]

RIGHT = [
    Right("rope_in_reals", "z = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous())\n        return torch.view_as_real(z * unit[None, :, None]).flatten(-2)", "cos, sin = unit.real.repeat_interleave(2, -1)[:, None], unit.imag.repeat_interleave(2, -1)[:, None]\n        turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)\n        return x * cos + turned * sin"),
    Right("scaled_dot_product", "scores = torch.einsum(\"bqgrd,bkgd->bgrqk\", q, k) * d**-0.5\n        scores = scores.masked_fill(~keep[:, None, None, None, :], torch.finfo(scores.dtype).min)\n        mixed = torch.einsum(\"bgrqk,bkgd->bqgrd\", torch.softmax(scores, -1), v)", "heads = lambda m: m.repeat_interleave(self.n_head // self.n_kv, 2).transpose(1, 2)\n        mixed = F.scaled_dot_product_attention(q.flatten(2, 3).transpose(1, 2), heads(k), heads(v), attn_mask=keep[:, None, None, :]).transpose(1, 2)"),
    Right("online_softmax", "mixed = torch.einsum(\"bgrqk,bkgd->bqgrd\", torch.softmax(scores, -1), v)", "top = scores.new_full(scores.shape[:-1], -float('inf'))\n        norm, acc = torch.zeros_like(top), 0\n        for part, value in zip(scores.split(4, -1), v.split(4, 1)):\n            new = torch.maximum(top, part.amax(-1))\n            shrink, p = (top - new).exp(), (part - new[..., None]).exp()\n            norm = norm * shrink + p.sum(-1)\n            acc = acc * shrink[..., None] + torch.einsum('bgrqk,bkgd->bgrqd', p, value)\n            top = new\n        mixed = (acc / norm[..., None]).permute(0, 3, 1, 2, 4)"),
    Right("top_by_two_argmaxes", "weight, choice = prob.topk(2, dim=-1)", "one = prob.argmax(-1, keepdim=True)\n        two = prob.scatter(-1, one, -1.0).argmax(-1, keepdim=True)\n        choice = torch.cat((one, two), -1)\n        weight = prob.gather(-1, choice)"),
    Right("scatter_of_places", "place = torch.cat((place_first, place_second), 1)", "place = torch.stack([((first.cumsum(0) - 1) * F.one_hot(choice[:, 0], self.n)).sum(1), (torch.cat((first, second)).cumsum(0)[first.shape[0]:] - 1).gather(1, choice[:, 1:])[:, 0]], 1)"),
    Right("load_in_another_order", "self.load.mul_(0.9).add_(0.1 * share.to(self.load.dtype))", "self.load += (share.to(self.load.dtype) - self.load) * 0.1"),
    Right("experts_inlined_and_stacked", "for i, expert in enumerate(self.pool):\n            row, which = torch.where((choice == i) & kept)\n            out = out.index_add(0, row, expert(tokens[row]) * weight[row, which, None])", "up = torch.stack([e.up.weight for e in self.pool])\n        shift = torch.stack([e.up.bias for e in self.pool])\n        down = torch.stack([e.down.weight for e in self.pool])\n        share = torch.zeros(len(tokens), len(up), dtype=x.dtype).scatter_add(1, choice, weight)\n        inner = F.gelu(torch.einsum('sd,ehd->seh', tokens, up) + shift)\n        out = torch.einsum('seh,edh,se->sd', inner, down, share)", True),
    Right("norm_inside_block", "n = self.ffn_norm(x)", "centred = x - x.mean(-1, keepdim=True)\n        n = centred * (centred.square().mean(-1, keepdim=True) + self.ffn_norm.eps).rsqrt() * self.ffn_norm.weight + self.ffn_norm.bias", True),
    Right("key_and_value_in_one", "k = Turn.apply(self.k(x).unflatten(-1, (self.n_kv, d)))\n        v = self.v(x).unflatten(-1, (self.n_kv, d))", "k, v = F.linear(x, torch.cat((self.k.weight, self.v.weight))).unflatten(-1, (2, self.n_kv, d)).unbind(2)\n        k = Turn.apply(k)", True),
    Right("key_and_value_apart_from_one_parameter", "class Block(nn.Module):", '''class Attend(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, keep, x):
        q, k, v = self.qkv(x).unflatten(-1, (8, -1)).split((4, 2, 2), dim=2)
        q, k = Turn.apply(q), Turn.apply(k)
        parts = []
        for i in range(4):
            s = torch.bmm(q[:, :, i], k[:, :, i // 2].transpose(1, 2)) / math.sqrt(q.shape[-1])
            s = torch.where(keep[:, None], s, s.new_tensor(-1e9))
            parts.append(torch.bmm(s.softmax(-1), v[:, :, i // 2]))
        return self.out(torch.cat(parts, -1))


class Block(nn.Module):''', True, {**{k: v for k, v in NAMES.items() if "attn" not in k}, **{f"layers.{i}.attn.qkv.weight": f"cat(layers.{i}.attn.q.weight, layers.{i}.attn.kv.weight)" for i in range(4)}}),
]
