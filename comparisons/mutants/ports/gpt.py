"""A GPT-2 of three layers: learned positions, tied head, tanh GELU, Conv1D weights in the feed-forward part."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

WIDTH, HEADS, LENGTH, VOCAB = 64, 4, 24, 128


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.1 * noise)


class Conv1D(nn.Module):
    """A linear layer whose weight is kept as (in, out)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.c_attn(x).split(WIDTH, dim=2)
        q = q.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        k = k.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        v = v.view(b, t, HEADS, c // HEADS).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) / math.sqrt(c // HEADS)
        keep = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        att = att.masked_fill(~keep, float("-inf"))
        y = att.softmax(-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc = Conv1D(WIDTH, 4 * WIDTH)
        self.c_proj = Conv1D(4 * WIDTH, WIDTH)

    def forward(self, x):
        h = self.c_fc(x)
        h = 0.5 * h * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))))
        return self.c_proj(h)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = MLP()

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCAB, WIDTH)
        self.wpe = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.wte.weight
        fill(self, 1)

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1], device=idx.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


def inputs():
    g = torch.Generator().manual_seed(11)
    return (torch.randint(0, VOCAB, (2, 16), generator=g),)


# The port ------------------------------------------------------------------------------------


class LayerNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        var = (centred * centred).mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(var + self.eps)) + self.bias


class CausalAttention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.n, self.d = HEADS, WIDTH // HEADS
        self.c_attn = nn.Linear(WIDTH, 3 * self.n * self.d)
        self.c_proj = nn.Linear(self.n * self.d, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (z.reshape(b, t, self.n, self.d).permute(0, 2, 1, 3) for z in (q, k, v))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.d**-0.5
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        scores = torch.where(later, float("-inf"), scores)
        weights = F.softmax(scores, dim=-1)
        y = torch.einsum("bhqk,bhkd->bqhd", weights, v)
        return self.c_proj(y.reshape(b, t, -1))


class FeedForward(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH)
        self.layer = layer

    def forward(self, x):
        return self.c_proj(self.act(self.c_fc(x)))


class Layer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = CausalAttention(layer)
        self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.mlp = FeedForward(layer)

    def forward(self, x):
        residual = x
        x = self.attn(self.ln_1(x)) + residual
        residual = x
        return self.mlp(self.ln_2(x)) + residual


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCAB, WIDTH)
        self.wpe = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Layer(0), Layer(1), Layer(2)])
        self.ln_f = LayerNorm(WIDTH, eps=1e-5)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens):
        b, t = tokens.shape
        places = torch.arange(t, device=tokens.device).expand(b, t)
        h = self.wte(tokens)
        h = h + self.wpe(places)
        for block in self.blocks:
            h = block(h)
        h = self.ln_f(h)
        return self.head(h)


NAMES = {f"blocks.{i}.mlp.{n}.weight": f"blocks.{i}.mlp.{n}.weight.T" for i in range(3) for n in ("c_fc", "c_proj")}

FAULTS = [
    Fault("eps_of_ln_2", "self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-5)", "self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-5 if layer != 1 else 1e-6)", "blocks.1.ln_2", "output", "eps"),
    Fault("gelu_exact", 'nn.GELU(approximate="tanh")', "nn.GELU()", "blocks.0.mlp", "output", "approximate"),
    Fault("relu_in_last", 'nn.GELU(approximate="tanh")', 'nn.GELU(approximate="tanh") if layer < 2 else nn.ReLU()', "blocks.2.mlp", "output", "activation"),
    Fault("scale_by_width", "* self.d**-0.5", "* (self.n * self.d) ** -0.5", "blocks.0.attn", "output", "scale"),
    Fault("scale_by_layer", "* self.d**-0.5", "* self.d**-0.5 / (self.layer + 1)", "blocks.1.attn", "output", "scale"),
    Fault("mask_sees_next", ".triu(1)", ".triu(2)", "blocks.0.attn", "output", "mask"),
    Fault("mask_by_finite", 'torch.where(later, float("-inf"), scores)', "scores - 12.0 * later", "blocks.0.attn", "output", "mask"),
    Fault("heads_viewed", "z.reshape(b, t, self.n, self.d).permute(0, 2, 1, 3)", "z.reshape(b, self.n, t, self.d)", "blocks.0.attn", "output", "heads"),
    Fault("heads_joined", '"bhqk,bhkd->bqhd"', '"bhqk,bhkd->bqdh"', "blocks.0.attn", "output", "heads"),
    Fault("softmax_axis", "F.softmax(scores, dim=-1)", "F.softmax(scores, dim=-2)", "blocks.0.attn", "output", "order"),
    Fault("residual_of_norm", "        return self.mlp(self.ln_2(x)) + residual", "        x = self.ln_2(x)\n        return self.mlp(x) + (x if self.layer == 1 else residual)", "blocks.1", "output", "residual"),
    Fault("parallel", "        x = self.attn(self.ln_1(x)) + residual\n        residual = x\n        return self.mlp(self.ln_2(x)) + residual",
          "        return self.attn(self.ln_1(x)) + residual + self.mlp(self.ln_2(x))", "blocks.0", "output", "operand"),
    Fault("untied", "        self.head.weight = self.wte.weight\n", "", "", "gradient", "untied"),
    Fault("detached_head", "return self.head(h)", "return F.linear(h, self.head.weight.detach())", "", "gradient", "untied"),
    Fault("detached_places", "h + self.wpe(places)", "h + self.wpe(places).detach()", "", "gradient", "detached"),
    Fault("detached_deviation", "torch.sqrt(var + self.eps)", "torch.sqrt(var + self.eps).detach()", "ln_f", "gradient", "detached"),
    Fault("detached_mean", "centred = x - mean", "centred = x - mean.detach()", "ln_f", "gradient", "detached"),
    Fault("detached_weights", "weights = F.softmax(scores, dim=-1)", "weights = F.softmax(scores, dim=-1)\n        weights = weights.detach() if self.layer == 1 else weights", "blocks.1.attn", "gradient", "detached"),
    Fault("unbiased", "(centred * centred).mean(-1, keepdim=True)", "x.var(-1, keepdim=True)", "ln_f", "output", "variance"),
    Fault("eps_outside", "torch.sqrt(var + self.eps)", "(torch.sqrt(var) + self.eps)", "ln_f", "output", "eps"),
    Fault("places_from_one", "torch.arange(t, device=tokens.device)", "torch.arange(1, t + 1, device=tokens.device)", "", "output", "initial"),
    Fault("no_bias", "self.c_proj = nn.Linear(4 * WIDTH, WIDTH)", "self.c_proj = nn.Linear(4 * WIDTH, WIDTH, bias=layer != 2)", "blocks.2.mlp.c_proj", "output", "missing"),
]

ATTENTION = '''        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.d**-0.5
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        scores = torch.where(later, float("-inf"), scores)
        weights = F.softmax(scores, dim=-1)
        y = torch.einsum("bhqk,bhkd->bqhd", weights, v)
'''

RIGHT = [
    Right("sdpa", ATTENTION, "        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)\n"),
    Right("loop_over_heads", ATTENTION, '''        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu_(1)
        parts = []
        for i in range(self.n):
            s = (q[:, i] / self.d**0.5) @ k[:, i].mT
            parts.append(s.masked_fill(later, -float("inf")).softmax(-1) @ v[:, i])
        y = torch.cat(parts, -1)
'''),
    Right("online_softmax", ATTENTION, '''        top = q.new_full((b, self.n, t, 1), -float("inf"))
        total = q.new_zeros(b, self.n, t, 1)
        acc = torch.zeros_like(q)
        at = torch.arange(t, device=x.device)
        for s in range(0, t, 4):
            kb, vb = k[:, :, s : s + 4], v[:, :, s : s + 4]
            z = (q @ kb.mT) * self.d**-0.5
            z = z.masked_fill(at[None, s : s + 4] > at[:, None], -float("inf"))
            now = torch.maximum(top, z.amax(-1, keepdim=True)).detach()
            e = (z - now).exp()
            shrink = (top - now).exp()
            total = total * shrink + e.sum(-1, keepdim=True)
            acc = acc * shrink + e @ vb
            top = now
        y = (acc / total).transpose(1, 2)
'''),
    Right("baddbmm", '''        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.d**-0.5
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        scores = torch.where(later, float("-inf"), scores)
''', '''        bias = torch.full((t, t), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        flat = [z.reshape(b * self.n, t, self.d) for z in (q, k)]
        scores = torch.baddbmm(bias, flat[0], flat[1].mT, beta=1, alpha=self.d**-0.5).view(b, self.n, t, t)
'''),
    Right("var_mean", '''        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        var = (centred * centred).mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(var + self.eps)) + self.bias
''', '''        var, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale + (self.bias - mean * scale)
'''),
    Right("norm_by_function", '''    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        var = (centred * centred).mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(var + self.eps)) + self.bias
''', '''    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, bias, eps):
            var, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
            inv = (var + eps).rsqrt()
            z = (x - mean) * inv
            ctx.save_for_backward(z, inv, weight)
            return z * weight + bias

        @staticmethod
        def backward(ctx, grad):
            z, inv, weight = ctx.saved_tensors
            rows = tuple(range(grad.dim() - 1))
            g = grad * weight
            dx = inv * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
            return dx, (grad * z).sum(rows), grad.sum(rows), None

    def forward(self, x):
        return self.Norm.apply(x, self.weight, self.bias, self.eps)
'''),
    Right("gelu_by_hand", "self.c_proj(self.act(self.c_fc(x)))", "self.c_proj((lambda h: h * torch.sigmoid(2 * (2 / math.pi) ** 0.5 * h * (1 + 0.044715 * h * h)))(self.c_fc(x)))"),
    Right("checkpoint", "            h = block(h)\n", "            h = torch.utils.checkpoint.checkpoint(block, h, use_reentrant=False)\n"),
    Right("checkpoint_reentrant", "            h = block(h)\n", "            h = torch.utils.checkpoint.checkpoint(block, h, use_reentrant=True)\n"),
    Right("split_qkv", '''        self.c_attn = nn.Linear(WIDTH, 3 * self.n * self.d)
        self.c_proj = nn.Linear(self.n * self.d, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
''', '''        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = nn.Linear(WIDTH, WIDTH)
        self.v = nn.Linear(WIDTH, WIDTH)
        self.c_proj = nn.Linear(self.n * self.d, WIDTH)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.q(x), self.k(x), self.v(x)
''', True, {**NAMES, **{f"blocks.{i}.attn.{n}.{p}": f"blocks.{i}.attn.c_attn.{p}[{64 * j}:{64 * j + 64}]" for i in range(3) for j, n in enumerate("qkv") for p in ("weight", "bias")}}),
    Right("addmm", "        return self.c_proj(self.act(self.c_fc(x)))\n", '''        h = torch.addmm(self.c_fc.bias, x.flatten(0, 1), self.c_fc.weight.t())
        h = torch.addmm(self.c_proj.bias, self.act(h), self.c_proj.weight.t())
        return h.view_as(x)
''', True),
    Right("head_by_table", '''        h = self.ln_f(h)
        return self.head(h)
''', '''        return self.ln_f(h) @ self.wte.weight.T
''', True),
]
