"""A latent diffusion U-Net: adaptive group norm on the time embedding, self and cross attention on a text context."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..ports.kinds import Fault, Right


@dataclass
class UNetConfig:
    in_channels: int = 4
    width: int = 16
    emb: int = 32
    groups: int = 4
    heads: int = 4
    context: int = 32


@dataclass
class UNetOutput:
    sample: torch.Tensor


class TimeEmbed(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.dim = dim
        self.linear_1 = nn.Linear(dim, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, t):
        half = self.dim // 2
        freqs = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / half).to(t)
        args = t[:, None] * freqs[None]
        emb = torch.cat([torch.cos(args), torch.sin(args)], dim=-1)
        return self.linear_2(F.silu(self.linear_1(emb)))


class AdaGroupNorm(nn.Module):
    def __init__(self, channels, groups, emb, eps=1e-5):
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.linear = nn.Linear(emb, 2 * channels)

    def forward(self, x, emb):
        scale, shift = self.linear(F.silu(emb))[:, :, None, None].chunk(2, dim=1)
        x = F.group_norm(x, self.groups, eps=self.eps)
        return x * (1 + scale) + shift


class ResBlock(nn.Module):
    def __init__(self, cin, cout, cfg):
        super().__init__()
        self.norm1 = nn.GroupNorm(cfg.groups, cin, eps=1e-5)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = AdaGroupNorm(cout, cfg.groups, cfg.emb)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h, emb)))
        return self.skip(x) + h


class CrossAttention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        b, n, c = q.shape
        q, k, v = (t.view(b, -1, self.heads, c // self.heads).transpose(1, 2) for t in (q, k, v))
        w = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(c // self.heads), dim=-1)
        return self.to_out((w @ v).transpose(1, 2).reshape(b, n, c))


class GEGLU(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class TransformerBlock(nn.Module):
    def __init__(self, width, cfg):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = CrossAttention(width, width, cfg.heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, cfg.context, cfg.heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = nn.ModuleDict({"act": GEGLU(width, width), "out": nn.Linear(width, width)})

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff["out"](self.ff["act"](self.norm3(x)))


class SpatialTransformer(nn.Module):
    def __init__(self, width, cfg):
        super().__init__()
        self.norm = nn.GroupNorm(cfg.groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.block = TransformerBlock(width, cfg)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.block(y, context=context).transpose(1, 2).reshape(b, c, h, w)
        return x + self.proj_out(y)


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Original(nn.Module):
    def __init__(self, cfg=None):
        super().__init__()
        cfg = cfg or UNetConfig()
        w = cfg.width
        self.time_embed = TimeEmbed(w, cfg.emb)
        self.conv_in = nn.Conv2d(cfg.in_channels, w, 3, padding=1)
        self.down1 = ResBlock(w, w, cfg)
        self.downsample = Downsample(w)
        self.down2 = ResBlock(w, 2 * w, cfg)
        self.mid = SpatialTransformer(2 * w, cfg)
        self.upsample = Upsample(2 * w)
        self.up1 = ResBlock(3 * w, w, cfg)
        self.norm_out = nn.GroupNorm(cfg.groups, w, eps=1e-5)
        self.conv_out = nn.Conv2d(w, cfg.in_channels, 3, padding=1)

    def forward(self, sample, timestep, encoder_hidden_states):
        emb = self.time_embed(timestep)
        skip = self.down1(self.conv_in(sample), emb)
        h = self.down2(self.downsample(skip), emb)
        h = self.mid(h, context=encoder_hidden_states)
        h = torch.cat([self.upsample(h), skip], dim=1)
        h = self.up1(h, emb)
        return UNetOutput(sample=self.conv_out(F.silu(self.norm_out(h))))


def inputs():
    g = torch.Generator().manual_seed(11)
    return (torch.randn(2, 4, 8, 8, generator=g), torch.tensor([17.0, 640.0]), torch.randn(2, 5, 32, generator=g))


# The port ------------------------------------------------------------------------------------


class Sinusoid(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.half = dim // 2
        self.linear_1 = nn.Linear(dim, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, t):
        steps = torch.arange(self.half, dtype=torch.float64)
        table = (10000.0 ** (-steps / self.half)).to(t)
        angle = torch.outer(t, table)
        emb = torch.cat((angle.cos(), angle.sin()), 1)
        h = self.linear_1(emb)
        h = h * torch.sigmoid(h)
        return self.linear_2(h)


class AdaNorm(nn.Module):
    def __init__(self, channels, groups, emb):
        super().__init__()
        self.groups = groups
        self.linear = nn.Linear(emb, channels * 2)

    def forward(self, x, emb):
        b, c, h, w = x.shape
        coef = self.linear(emb * torch.sigmoid(emb))
        gain, bias = coef[:, :c], coef[:, c:]
        g = x.reshape(b, self.groups, -1)
        mean = g.mean(-1, keepdim=True)
        var = (g - mean).square().mean(-1, keepdim=True)
        g = (g - mean) / torch.sqrt(var + 1e-5)
        g = g.view(b, c, h, w)
        return g + g * gain[..., None, None] + bias[..., None, None]


class Res(nn.Module):
    def __init__(self, cin, cout, emb, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding="same")
        self.norm2 = AdaNorm(cout, groups, emb)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding="same")
        self.skip = nn.Identity() if cin == cout else nn.Conv2d(cin, cout, 1)
        self.act = nn.SiLU()

    def forward(self, x, emb):
        h = self.act(self.norm1(x))
        h = self.conv1(h)
        h = self.act(self.norm2(h, emb))
        h = self.conv2(h)
        short = self.skip(x)
        return h + short


class Attention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.h, self.d = heads, width // heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def project(self, x, context):
        return self.to_q(x), self.to_k(context), self.to_v(context)

    def forward(self, x, context):
        q, k, v = self.project(x, context)
        q = q.unflatten(-1, (self.h, self.d))
        k = k.unflatten(-1, (self.h, self.d))
        v = v.unflatten(-1, (self.h, self.d))
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.d ** -0.5
        out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
        return self.to_out(out.flatten(2))


class Gated(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.inner = inner
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x):
        y = self.proj(x)
        return F.gelu(y[..., self.inner:]) * y[..., :self.inner]


class Block(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.attn2 = Attention(width, context, heads)
        self.ff = nn.ModuleDict(dict(act=Gated(width, width), out=nn.Linear(width, width)))

    def forward(self, x, context):
        n = self.norm1(x)
        x = self.attn1(n, n) + x
        n = self.norm2(x)
        x = self.attn2(n, context) + x
        n = self.norm3(x)
        return self.ff.out(self.ff.act(n)) + x


class Spatial(nn.Module):
    def __init__(self, width, context, heads, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.block = Block(width, context, heads)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, context):
        size = x.shape[-2:]
        inner = self.proj_in(self.norm(x))
        tokens = inner.permute(0, 2, 3, 1).flatten(1, 2)
        tokens = self.block(tokens, context)
        image = tokens.unflatten(1, size).permute(0, 3, 1, 2)
        return self.proj_out(image) + x


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(nn.functional.pad(x, [0, 1, 0, 1]))


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return self.conv(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_embed = Sinusoid(16, 32)
        self.stem = nn.Conv2d(4, 16, 3, padding=1)
        self.encoder = nn.ModuleList([Res(16, 16, 32, 4), Down(16), Res(16, 32, 32, 4)])
        self.mid = Spatial(32, 32, 4, 4)
        self.upsample = Up(32)
        self.up1 = Res(48, 16, 32, 4)
        self.norm_out = nn.GroupNorm(4, 16)
        self.conv_out = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, z, t, text):
        temb = self.time_embed(t)
        first = self.encoder[0](self.stem(z), temb)
        low = self.encoder[2](self.encoder[1](first), temb)
        low = self.mid(low, text)
        high = torch.cat((self.upsample(low), first), 1)
        high = self.up1(high, temb)
        y = F.silu(self.norm_out(high))
        return UNetOutput(self.conv_out(y))


NAMES = {
    "stem": "conv_in",
    "encoder.0": "down1",
    "encoder.1": "downsample",
    "encoder.2": "down2",
}

_KV = dict(NAMES)
for _n in ("attn1", "attn2"):
    _KV[f"mid.block.{_n}.to_kv.weight"] = f"cat(mid.block.{_n}.to_k.weight, mid.block.{_n}.to_v.weight)"

_GATE = dict(NAMES)
for _n in ("weight", "bias"):
    _GATE[f"mid.block.ff.act.value.{_n}"] = f"mid.block.ff.act.proj.{_n}[:32]"
    _GATE[f"mid.block.ff.act.gate.{_n}"] = f"mid.block.ff.act.proj.{_n}[32:]"

FAULTS = [
    Fault("cos_and_sin", "torch.cat((angle.cos(), angle.sin()), 1)", "torch.cat((angle.sin(), angle.cos()), 1)",
          "time_embed", "output", "order"),
    Fault("frequencies_over_one_less", "10000.0 ** (-steps / self.half)", "10000.0 ** (-steps / (self.half - 1))",
          "time_embed", "output", "count"),
    Fault("eps_of_adaptive_norm", "torch.sqrt(var + 1e-5)", "torch.sqrt(var + 1e-6)", "down1.norm2", "output", "eps"),
    Fault("eps_of_spatial_norm", "self.norm = nn.GroupNorm(groups, width, eps=1e-6)", "self.norm = nn.GroupNorm(groups, width)",
          "mid.norm", "output", "eps"),
    Fault("no_silu_before_adaptive_linear", "self.linear(emb * torch.sigmoid(emb))", "self.linear(emb)", "down1.norm2", "output", "activation"),
    Fault("scale_and_shift", "gain, bias = coef[:, :c], coef[:, c:]", "bias, gain = coef[:, :c], coef[:, c:]", "down1.norm2", "output", "order"),
    Fault("constant_variance", "var = (g - mean).square().mean(-1, keepdim=True)",
          "var = (g - mean).square().mean(-1, keepdim=True).detach()", "down1.norm2", "gradient", "detached"),
    Fault("unbiased_variance", "var = (g - mean).square().mean(-1, keepdim=True)",
          "var = g.var(-1, keepdim=True)", "down1.norm2", "output", "variance"),
    Fault("scale_of_all_heads", "* self.d ** -0.5", "* (self.h * self.d) ** -0.5", "mid.block.attn1", "output", "scale"),
    Fault("heads_last", "        k = k.unflatten(-1, (self.h, self.d))", "        k = k.unflatten(-1, (self.d, self.h)).transpose(-1, -2)",
          "mid.block.attn1", "output", "heads"),
    Fault("tanh_gelu", "F.gelu(y[..., self.inner:]) *", "F.gelu(y[..., self.inner:], approximate=\"tanh\") *", "mid.block.ff.act", "output", "approximate"),
    Fault("gate_of_other_half", "F.gelu(y[..., self.inner:]) * y[..., :self.inner]", "y[..., self.inner:] * F.gelu(y[..., :self.inner])",
          "mid.block.ff.act", "output", "operand"),
    Fault("cross_attends_to_itself", "self.attn2(n, context)", "self.attn2(n, n)", "mid.block", "output", "operand"),
    Fault("context_detached", "self.attn2(n, context)", "self.attn2(n, context.detach())", "mid.block", "gradient", "detached"),
    Fault("residual_after_norm", "        n = self.norm3(x)\n        return self.ff.out(self.ff.act(n)) + x",
          "        n = self.norm3(x)\n        return self.ff.out(self.ff.act(n)) + n", "mid.block", "output", "residual"),
    Fault("no_residual_of_spatial", "return self.proj_out(image) + x", "return self.proj_out(image)", "mid", "output", "residual"),
    Fault("tokens_by_columns", "tokens.unflatten(1, size).permute(0, 3, 1, 2)", "tokens.unflatten(1, size).permute(0, 3, 2, 1)",
          "mid", "output", "transposed"),
    Fault("padded_before", "[0, 1, 0, 1]", "[1, 0, 1, 0]", "downsample", "output", "padding"),
    Fault("skip_first", "torch.cat((self.upsample(low), first), 1)", "torch.cat((first, self.upsample(low)), 1)", "", "output", "order"),
    Fault("skip_path_detached", "short = self.skip(x)", "short = self.skip(x.detach())", "down1", "gradient", "detached"),
    Fault("time_detached", "temb = self.time_embed(t)", "temb = self.time_embed(t).detach()", "", "gradient", "detached"),
    Fault("table_in_half", "table = (10000.0 ** (-steps / self.half)).to(t)", "table = (10000.0 ** (-steps / self.half)).half().to(t)",
          "time_embed", "output", "approximate"),
]

RIGHT = [
    Right("heads_in_a_loop", """        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.d ** -0.5
        out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
        return""", """        parts = []
        for i in range(self.h):
            w = torch.softmax(q[:, :, i].bmm(k[:, :, i].mT).div(self.d ** 0.5), -1)
            parts.append(w.bmm(v[:, :, i]))
        out = torch.stack(parts, 2)
        return"""),
    Right("scaled_dot_product", """        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.d ** -0.5
        out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
""", """        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
"""),
    Right("packed_kv", """        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def project(self, x, context):
        return self.to_q(x), self.to_k(context), self.to_v(context)
""", """        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def project(self, x, context):
        return (self.to_q(x), *self.to_kv(context).chunk(2, -1))
""", True, _KV),
    Right("gate_apart", """        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x):
        y = self.proj(x)
        return F.gelu(y[..., self.inner:]) * y[..., :self.inner]
""", """        self.value = nn.Linear(width, inner)
        self.gate = nn.Linear(width, inner)

    def forward(self, x):
        return self.value(x) * F.gelu(self.gate(x))
""", True, _GATE),
    Right("group_norm_by_the_library", """        g = x.reshape(b, self.groups, -1)
        mean = g.mean(-1, keepdim=True)
        var = (g - mean).square().mean(-1, keepdim=True)
        g = (g - mean) / torch.sqrt(var + 1e-5)
        g = g.view(b, c, h, w)
        return g + g * gain[..., None, None] + bias[..., None, None]
""", """        g = F.group_norm(x, self.groups, eps=1e-5)
        return torch.addcmul(bias[:, :, None, None], g, (gain + 1)[:, :, None, None])
"""),
    Right("checkpointed", "high = self.up1(high, temb)", "high = checkpoint(self.up1, high, temb, use_reentrant=False)"),
    Right("upsampled_by_expand", "        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)\n",
          "        b, c, h, w = x.shape\n        x = x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)\n"),
    Right("last_conv_unfolded", "UNetOutput(self.conv_out(y))",
          "UNetOutput((self.conv_out.weight.flatten(1) @ F.unfold(y, 3, padding=1) + self.conv_out.bias[:, None]).view(z.shape))", True),
    Right("pointwise_as_linear", "inner = self.proj_in(self.norm(x))",
          "inner = torch.einsum(\"bchw,oc->bohw\", self.norm(x), self.proj_in.weight[:, :, 0, 0]) + self.proj_in.bias.view(1, -1, 1, 1)", True),
]
