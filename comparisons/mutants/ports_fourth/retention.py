"""A retentive network: retention with a decay for each head in place of softmax, rotated pairs, grouped keys, a convolution over time before."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..ports.kinds import Fault, Right


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6, elementwise_affine=True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(dim) + 0.5) if elementwise_affine else None

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight


def rotate_every_two(x):
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


class RetNetRelPos(nn.Module):
    def __init__(self, head_dim, heads):
        super().__init__()
        angle = 1.0 / (10000 ** torch.linspace(0, 1, head_dim // 2, dtype=torch.float64))
        self.angle = angle.unsqueeze(-1).repeat(1, 2).flatten()
        self.decay = torch.log(1 - 2 ** (-2 - torch.arange(heads, dtype=torch.float64)))

    def forward(self, length, like):
        index = torch.arange(length, dtype=torch.float64)
        sin, cos = torch.sin(index[:, None] * self.angle), torch.cos(index[:, None] * self.angle)
        distance = index[:, None] - index[None, :]
        mask = torch.exp(distance * self.decay[:, None, None]).masked_fill(distance < 0, 0.0)
        return (sin.to(like), cos.to(like)), mask.to(like)


class MultiScaleRetention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.g_proj = nn.Linear(width, width, bias=False)
        self.group_norm = RMSNorm(self.head_dim, eps=1e-5, elementwise_affine=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, rel_pos):
        (sin, cos), mask = rel_pos
        b, t, c = x.shape
        q = self.q_proj(x).view(b, t, self.heads, -1).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, -1).transpose(1, 2) * self.head_dim ** -0.5
        v = self.v_proj(x).view(b, t, self.kv_heads, -1).transpose(1, 2)
        q = q * cos + rotate_every_two(q) * sin
        k = k * cos + rotate_every_two(k) * sin
        k = k.repeat_interleave(self.heads // self.kv_heads, 1)
        v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        out = (q @ k.transpose(-1, -2) * mask) @ v
        out = self.group_norm(out.transpose(1, 2)).reshape(b, t, c)
        return self.out_proj(F.silu(self.g_proj(x)) * out)


class CausalConv(nn.Module):
    def __init__(self, width, kernel=3, dilation=2):
        super().__init__()
        self.left = dilation * (kernel - 1)
        self.conv = nn.Conv1d(width, width, kernel, dilation=dilation, groups=4)

    def forward(self, x):
        x = F.pad(x.transpose(1, 2), (self.left, 0))
        return F.silu(self.conv(x)).transpose(1, 2)


class FeedForwardNetwork(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1 = nn.Linear(width, inner, bias=False)
        self.gate = nn.Linear(width, inner, bias=False)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)) * self.gate(x))


class DecoderLayer(nn.Module):
    def __init__(self, width, heads, kv_heads, depth):
        super().__init__()
        self.alpha = (2 * depth) ** 0.25
        self.retention_norm = RMSNorm(width)
        self.conv = CausalConv(width)
        self.retention = MultiScaleRetention(width, heads, kv_heads)
        self.final_norm = RMSNorm(width)
        self.ffn = FeedForwardNetwork(width, 2 * width)

    def forward(self, x, rel_pos):
        y = self.retention_norm(x)
        y = y + self.conv(y)
        x = self.alpha * x + self.retention(y, rel_pos=rel_pos)
        return self.alpha * x + self.ffn(self.final_norm(x))


class Original(nn.Module):
    def __init__(self, vocab=40, width=32, heads=4, kv_heads=2, depth=2):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.rel_pos = RetNetRelPos(width // heads, heads)
        self.layers = nn.ModuleList([DecoderLayer(width, heads, kv_heads, depth) for _ in range(depth)])
        self.norm = RMSNorm(width)
        self.bias = nn.Parameter(0.1 * torch.randn(vocab))
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, tokens, lengths):
        x = self.embed(tokens)
        rel_pos = self.rel_pos(tokens.shape[1], x)
        for layer in self.layers:
            x = layer(x, rel_pos)
        logits = self.norm(x) @ self.embed.weight.T + self.bias
        keep = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        target = tokens.roll(-1, 1)
        keep = keep & keep.roll(-1, 1) & (torch.arange(tokens.shape[1]) < tokens.shape[1] - 1)
        loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", label_smoothing=0.1)
        loss = ((loss * keep).sum(1) / keep.sum(1)).mean()
        return logits, loss


def inputs():
    g = torch.Generator().manual_seed(33)
    return torch.randint(0, 40, (2, 11), generator=g), torch.tensor([11, 7])


# The port ------------------------------------------------------------------------------------


class Root(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        power = torch.einsum("...c,...c->...", x, x) / x.shape[-1]
        x = x / (power + self.eps).sqrt().unsqueeze(-1)
        return self.weight * x


class Retention(nn.Module):
    """Time first: (time, batch, width); builds its own angles and decays."""

    def __init__(self, width, heads, groups):
        super().__init__()
        self.heads, self.groups, self.dim = heads, groups, width // heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.v_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.g_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x), self.g_proj(x)

    def turn(self, x):
        # x: (time, batch, heads, dim)
        half = self.dim // 2
        speed = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
        angle = torch.outer(torch.arange(len(x), dtype=torch.float64), speed)[:, None, None]
        cos, sin = angle.cos().to(x), angle.sin().to(x)
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)

    def mix(self, q, k, v):
        # (time, batch, heads, dim)
        steps = torch.arange(len(q), dtype=torch.float64)
        gamma = 1 - 0.5 ** torch.arange(2, 2 + self.heads, dtype=torch.float64)
        past = (steps[:, None] - steps).clamp(min=0)
        decay = (gamma[:, None, None] ** past).tril().to(q)
        scores = torch.einsum("qbhd,kbhd->bhqk", q, k) * self.dim ** -0.5
        return torch.einsum("bhqk,kbhd->qbhd", scores * decay, v)

    def forward(self, x):
        t, n, c = x.shape
        q, k, v, g = self.project(x)
        q = self.turn(q.view(t, n, self.heads, self.dim))
        k = self.turn(k.view(t, n, self.groups, self.dim))
        v = v.view(t, n, self.groups, self.dim)
        times = self.heads // self.groups
        k = k.unsqueeze(3).expand(-1, -1, -1, times, -1).reshape(t, n, self.heads, self.dim)
        v = v.unsqueeze(3).expand(-1, -1, -1, times, -1).reshape(t, n, self.heads, self.dim)
        y = self.mix(q, k, v)
        square = y.square().mean(-1, keepdim=True)
        y = y * (square + 1e-5).rsqrt()
        y = y.reshape(t, n, c) * F.silu(g)
        return self.out_proj(y)


class TimeConv(nn.Module):
    """Time first."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=4, dilation=2, groups=4)

    def forward(self, x):
        y = self.conv(x.permute(1, 2, 0))[:, :, :len(x)]
        y = y * torch.sigmoid(y)
        return y.permute(2, 0, 1)


class GatedFeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width, bias=False)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.fc2 = nn.Linear(2 * width, width, bias=False)

    def inner(self, x):
        return F.gelu(self.fc1(x)) * self.gate(x)

    def forward(self, x):
        return self.fc2(self.inner(x))


class Layer(nn.Module):
    def __init__(self, width, alpha):
        super().__init__()
        self.alpha = alpha
        self.norm_a = Root(width, 1e-6)
        self.norm_b = Root(width, 1e-6)
        self.conv = TimeConv(width)
        self.retention = Retention(width, 4, 2)
        self.ffn = GatedFeedForward(width)

    def forward(self, x):
        y = self.norm_a(x)
        y = self.conv(y) + y
        x = torch.add(self.retention(y), x, alpha=self.alpha)
        y = self.norm_b(x)
        return torch.add(self.ffn(y), x, alpha=self.alpha)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.layers = nn.Sequential(Layer(32, 4 ** 0.25), Layer(32, 4 ** 0.25))
        self.norm = Root(32, 1e-6)
        self.bias = nn.Parameter(torch.zeros(40))

    def forward(self, tokens, lengths):
        time = tokens.shape[1]
        x = self.embed(tokens.t())
        x = self.layers(x)
        x = self.norm(x).transpose(0, 1)
        logits = F.linear(x, self.embed.weight, self.bias)
        log = logits[:, :-1].log_softmax(-1)
        right = log.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        smoothed = -(0.9 * right + 0.1 * log.mean(-1))
        keep = torch.arange(1, time) < lengths[:, None]
        each = (smoothed * keep).sum(1) / keep.sum(1)
        return logits, each.mean()


NAMES = {}
for _i in range(2):
    NAMES[f"layers.{_i}.norm_a"] = f"layers.{_i}.retention_norm"
    NAMES[f"layers.{_i}.norm_b"] = f"layers.{_i}.final_norm"

_PACKED = dict(NAMES)
_FFN = dict(NAMES)
for _i in range(2):
    _PACKED[f"layers.{_i}.retention.qkvg.weight"] = "cat(" + ", ".join(f"layers.{_i}.retention.{_n}_proj.weight" for _n in "qkvg") + ")"
    _FFN[f"layers.{_i}.ffn.both.weight"] = f"cat(layers.{_i}.ffn.fc1.weight, layers.{_i}.ffn.gate.weight)"

FAULTS = [
    Fault("eps_of_final_norm", "self.norm = Root(32, 1e-6)", "self.norm = Root(32, 1e-5)", "norm", "output", "eps"),
    Fault("eps_of_group_norm", "y * (square + 1e-5).rsqrt()", "y * (square + 1e-6).rsqrt()", "layers.0.retention", "output", "eps"),
    Fault("power_detached", "x = x / (power + self.eps).sqrt().unsqueeze(-1)", "x = x / (power.detach() + self.eps).sqrt().unsqueeze(-1)",
          "layers.0.retention_norm", "gradient", "detached"),
    Fault("group_norm_of_all_heads", "square = y.square().mean(-1, keepdim=True)", "square = y.square().mean((-2, -1), keepdim=True)",
          "layers.0.retention", "output", "count"),
    Fault("group_norm_centred", "square = y.square().mean(-1, keepdim=True)", "square = y.var(-1, unbiased=False, keepdim=True)",
          "layers.0.retention", "output", "variance"),
    Fault("halves_for_pairs", """        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
""", """        even, odd = x.chunk(2, -1)
        return torch.cat((even * cos - odd * sin, odd * cos + even * sin), -1)
""", "layers.0.retention", "output", "rope"),
    Fault("usual_frequencies", "speed = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))",
          "speed = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)", "layers.0.retention", "output", "rope"),
    Fault("rotated_backwards", "even * cos - odd * sin, odd * cos + even * sin", "even * cos + odd * sin, odd * cos - even * sin", "layers.0.retention", "output", "rope"),
    Fault("values_rotated", "        v = v.view(t, n, self.groups, self.dim)\n", "        v = self.turn(v.view(t, n, self.groups, self.dim))\n", "layers.0.retention", "output", "operand"),
    Fault("keys_tiled", "k = k.unsqueeze(3).expand(-1, -1, -1, times, -1).reshape(t, n, self.heads, self.dim)", "k = k.repeat(1, 1, times, 1)",
          "layers.0.retention", "output", "repeat"),
    Fault("both_tiled", """        k = k.unsqueeze(3).expand(-1, -1, -1, times, -1).reshape(t, n, self.heads, self.dim)
        v = v.unsqueeze(3).expand(-1, -1, -1, times, -1).reshape(t, n, self.heads, self.dim)
""", """        k = k.unsqueeze(2).expand(-1, -1, times, -1, -1).reshape(t, n, self.heads, self.dim)
        v = v.unsqueeze(2).expand(-1, -1, times, -1, -1).reshape(t, n, self.heads, self.dim)
""", "layers.0.retention", "output", "repeat"),
    Fault("query_heads_interleaved", "q = self.turn(q.view(t, n, self.heads, self.dim))", "q = self.turn(q.view(t, n, self.dim, self.heads).mT)",
          "layers.0.retention", "output", "heads"),
    Fault("unscaled", "scores = torch.einsum(\"qbhd,kbhd->bhqk\", q, k) * self.dim ** -0.5", "scores = torch.einsum(\"qbhd,kbhd->bhqk\", q, k)",
          "layers.0.retention", "output", "scale"),
    Fault("present_hidden", "(gamma[:, None, None] ** past).tril()", "(gamma[:, None, None] ** past).tril(-1)", "layers.0.retention", "output", "mask"),
    Fault("future_seen", "(gamma[:, None, None] ** past).tril()", "(gamma[:, None, None] ** past)", "layers.0.retention", "output", "mask"),
    Fault("heads_of_decay_reversed", "scores * decay, v)", "scores * decay.flip(0), v)", "layers.0.retention", "output", "heads"),
    Fault("gate_detached", "* F.silu(g)", "* F.silu(g.detach())", "layers.0.retention", "gradient", "detached"),
    Fault("gate_of_sigmoid", "* F.silu(g)", "* F.sigmoid(g)", "layers.0.retention", "output", "activation"),
    Fault("padded_on_both_sides", "(x.permute(1, 2, 0))[:, :, :len(x)]", "(x.permute(1, 2, 0))[:, :, 2:len(x) + 2]", "layers.0.conv", "output", "padding"),
    Fault("sigmoid_detached", "y = y * torch.sigmoid(y)", "y = y * torch.sigmoid(y.detach())", "layers.0.conv", "gradient", "detached"),
    Fault("convolution_without_residual", "y = self.conv(y) + y", "y = self.conv(y)", "layers.0", "output", "residual"),
    Fault("residual_unscaled", "return torch.add(self.ffn(y), x, alpha=self.alpha)", "return torch.add(self.ffn(y), x)", "layers.0", "output", "scale"),
    Fault("tanh_gelu", "F.gelu(self.fc1(x))", "F.gelu(self.fc1(x), approximate=\"tanh\")", "layers.0.ffn", "output", "approximate"),
    Fault("gate_and_value", "F.gelu(self.fc1(x)) * self.gate(x)", "F.gelu(self.gate(x)) * self.fc1(x)", "layers.0.ffn", "output", "operand"),
    Fault("table_detached", "logits = F.linear(x, self.embed.weight, self.bias)", "logits = F.linear(x, self.embed.weight.detach(), self.bias)", "", "gradient", "untied"),
    Fault("bias_left_out", "logits = F.linear(x, self.embed.weight, self.bias)", "logits = F.linear(x, self.embed.weight)", "", "output", "missing"),
    Fault("mean_of_all_tokens", "        each = (smoothed * keep).sum(1) / keep.sum(1)\n", "        each = (smoothed * keep).sum() / keep.sum()\n", "", "output", "count"),
    Fault("smoothing_missing", "smoothed = -(0.9 * right + 0.1 * log.mean(-1))", "smoothed = -right", "", "output", "missing"),
    Fault("lengths_off_by_one", "keep = torch.arange(1, time) < lengths[:, None]", "keep = torch.arange(1, time) <= lengths[:, None]", "", "output", "mask"),
    Fault("scores_detached", "scores * decay, v)", "scores.detach() * decay, v)", "layers.0.retention", "gradient", "detached"),
    Fault("decay_in_half", "(gamma[:, None, None] ** past).tril().to(q)", "(gamma[:, None, None] ** past).tril().half().to(q)", "layers.0.retention", "output", "approximate"),
]

_MIX = """        past = (steps[:, None] - steps).clamp(min=0)
        decay = (gamma[:, None, None] ** past).tril().to(q)
        scores = torch.einsum("qbhd,kbhd->bhqk", q, k) * self.dim ** -0.5
        return torch.einsum("bhqk,kbhd->qbhd", scores * decay, v)
"""

RIGHT = [
    Right("recurrent", _MIX, """        gamma = gamma.to(q)[None, :, None, None]
        state, out = 0, []
        for a, b, c in zip(q, k, v):
            state = gamma * state + b.unsqueeze(-1) * c.unsqueeze(-2)
            out.append((a.unsqueeze(-2) @ state).squeeze(-2) / self.dim ** 0.5)
        return torch.stack(out)
"""),
    Right("chunks", _MIX, """        size, out = 4, []
        state = q.new_zeros(*q.shape[1:], self.dim)
        for i in range(0, len(q), size):
            a, b, c = q[i:i + size], k[i:i + size] * self.dim ** -0.5, v[i:i + size]
            n = len(a)
            s = steps[:n]
            inner = (gamma[:, None, None] ** (s[:, None] - s).clamp(min=0)).tril().to(q)
            near = torch.einsum("bhqk,kbhd->qbhd", torch.einsum("qbhd,kbhd->bhqk", a, b) * inner, c)
            before = (gamma[None] ** (s[:, None] + 1)).to(q)[:, None, :, None]
            far = torch.einsum("qbhd,bhde->qbhe", a * before, state)
            after = (gamma[None] ** (n - 1 - s[:, None])).to(q)[:, None, :, None]
            state = state * (gamma ** n).to(q)[None, :, None, None] + torch.einsum("kbhd,kbhe->bhde", b * after, c)
            out.append(near + far)
        return torch.cat(out)
"""),
    Right("complex_rotation", """        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
""", """        number = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous()) * torch.complex(cos, sin)
        return torch.view_as_real(number).flatten(-2)
"""),
    Right("packed_projection", """        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.v_proj = nn.Linear(width, groups * self.dim, bias=False)
        self.g_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        return self.q_proj(x), self.k_proj(x), self.v_proj(x), self.g_proj(x)
""", """        self.qkvg = nn.Linear(width, 2 * width + 2 * groups * self.dim, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def project(self, x):
        inner, narrow = self.heads * self.dim, self.groups * self.dim
        return self.qkvg(x).split([inner, narrow, narrow, inner], -1)
""", True, _PACKED),
    Right("packed_feed_forward", """        self.fc1 = nn.Linear(width, 2 * width, bias=False)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.fc2 = nn.Linear(2 * width, width, bias=False)

    def inner(self, x):
        return F.gelu(self.fc1(x)) * self.gate(x)
""", """        self.both = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(2 * width, width, bias=False)

    def inner(self, x):
        left, right = self.both(x).tensor_split(2, -1)
        return right * F.gelu(left)
""", True, _FFN),
    Right("norm_upcast", """        power = torch.einsum("...c,...c->...", x, x) / x.shape[-1]
        x = x / (power + self.eps).sqrt().unsqueeze(-1)
        return self.weight * x
""", """        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, True) + self.eps)
        return wide.to(x.dtype) * self.weight
"""),
    Right("convolution_by_taps", "        y = self.conv(x.permute(1, 2, 0))[:, :, :len(x)]\n", """        w = self.conv.weight.unflatten(0, (4, -1))
        past = F.pad(x, (0, 0, 0, 0, 4, 0)).unflatten(-1, (4, -1))
        y = sum(torch.einsum("tbgi,goi->bgot", past[2 * j:2 * j + len(x)], w[..., j]) for j in range(3))
        y = y.flatten(1, 2) + self.conv.bias[:, None]
""", True),
    Right("norm_folded_into_head", "        x = self.norm(x).transpose(0, 1)\n        logits = F.linear(x, self.embed.weight, self.bias)\n",
          """        x = x.transpose(0, 1)
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        logits = torch.matmul(x, (self.embed.weight * self.norm.weight).T).add(self.bias)
""", True),
    Right("checkpointed_reentrant", "        x = self.layers(x)\n", "        for layer in self.layers:\n            x = checkpoint(layer, x, use_reentrant=True)\n"),
    Right("loss_by_the_library", """        log = logits[:, :-1].log_softmax(-1)
        right = log.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        smoothed = -(0.9 * right + 0.1 * log.mean(-1))
""", """        smoothed = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none", label_smoothing=0.1)
        smoothed = smoothed.view(-1, time - 1)
"""),
]
