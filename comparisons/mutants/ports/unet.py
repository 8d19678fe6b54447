"""A diffusion U-Net: sinusoidal time embedding, GroupNorm, SiLU, skip connections, attention at the bottom."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

BASE, TIME, GROUPS, HEADS = 16, 48, 4, 2


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.2 * noise if name.endswith("bias") else 1 + 0.2 * noise)


def timestep_embedding(t, dim):
    half = dim // 2
    freqs = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=t.dtype, device=t.device) / half)
    args = t[:, None] * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


class ResBlock(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, n_in, eps=1e-5)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(TIME, n_out)
        self.norm2 = nn.GroupNorm(GROUPS, n_out, eps=1e-5)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x, temb):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, n, eps=1e-6)
        self.qkv = nn.Linear(n, 3 * n)
        self.proj = nn.Linear(n, n)

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (z.view(b, h * w, HEADS, c // HEADS).transpose(1, 2) for z in self.qkv(y).chunk(3, dim=-1))
        y = torch.softmax(q @ k.transpose(-1, -2) * (c // HEADS) ** -0.5, dim=-1) @ v
        y = self.proj(y.transpose(1, 2).reshape(b, h * w, c))
        return x + y.transpose(1, 2).view(b, c, h, w)


class Downsample(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(n, n, 3, stride=2, padding=0)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(BASE, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.conv_in = nn.Conv2d(3, BASE, 3, padding=1)
        self.down1 = ResBlock(BASE, BASE)
        self.downsample = Downsample(BASE)
        self.down2 = ResBlock(BASE, 2 * BASE)
        self.mid1 = ResBlock(2 * BASE, 2 * BASE)
        self.mid_attn = AttentionBlock(2 * BASE)
        self.up2 = ResBlock(4 * BASE, BASE)
        self.upsample = Upsample(BASE)
        self.up1 = ResBlock(2 * BASE, BASE)
        self.norm_out = nn.GroupNorm(GROUPS, BASE, eps=1e-5)
        self.conv_out = nn.Conv2d(BASE, 3, 3, padding=1)
        fill(self, 4)

    def forward(self, x, t):
        temb = self.time_embed(timestep_embedding(t.to(x.dtype), BASE))
        x = self.conv_in(x)
        skip1 = self.down1(x, temb)
        skip2 = self.down2(self.downsample(skip1), temb)
        h = self.mid_attn(self.mid1(skip2, temb))
        h = self.up2(torch.cat([h, skip2], dim=1), temb)
        h = self.up1(torch.cat([self.upsample(h), skip1], dim=1), temb)
        return self.conv_out(F.silu(self.norm_out(h)))


def inputs():
    g = torch.Generator().manual_seed(14)
    return torch.randn(2, 3, 12, 12, generator=g), torch.tensor([37, 501])


# The port ------------------------------------------------------------------------------------


class GroupNorm(nn.Module):
    def __init__(self, groups, channels, eps):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        shape = x.shape
        x = x.reshape(shape[0], self.groups, -1)
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        x = ((x - mean) / (var + self.eps).sqrt()).reshape(shape)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class TimeEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_1 = nn.Linear(BASE, TIME)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(TIME, TIME)

    def forward(self, emb):
        return self.linear_2(self.act(self.linear_1(emb)))


class ResnetBlock(nn.Module):
    def __init__(self, place, channels, out):
        super().__init__()
        self.place = place
        self.norm1 = GroupNorm(GROUPS, channels, eps=1e-5)
        self.conv1 = nn.Conv2d(channels, out, kernel_size=3, padding=1)
        self.time_emb_proj = nn.Linear(TIME, out)
        self.norm2 = nn.GroupNorm(GROUPS, out, eps=1e-5)
        self.conv2 = nn.Conv2d(out, out, kernel_size=3, padding=1)
        self.act = nn.SiLU()
        if channels != out:
            self.conv_shortcut = nn.Conv2d(channels, out, kernel_size=1)

    def forward(self, hidden, emb):
        residual = hidden
        hidden = self.act(self.norm1(hidden))
        hidden = self.conv1(hidden)
        emb = self.time_emb_proj(self.act(emb))
        hidden = hidden + emb.unsqueeze(-1).unsqueeze(-1)
        hidden = self.norm2(hidden)
        hidden = self.conv2(self.act(hidden))
        if hasattr(self, "conv_shortcut"):
            residual = self.conv_shortcut(residual)
        return residual + hidden


class SpatialAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x):
        b, c, high, wide = x.shape
        d = c // HEADS
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, high * wide, c)
        q = self.to_q(tokens).view(b, -1, HEADS, d)
        k = self.to_k(tokens).view(b, -1, HEADS, d)
        v = self.to_v(tokens).view(b, -1, HEADS, d)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / d**0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
        mixed = self.to_out(mixed.reshape(b, -1, c))
        return mixed.view(b, high, wide, c).permute(0, 3, 1, 2) + x


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")
        return self.conv(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_embed = TimeEmbed()
        self.conv_in = nn.Conv2d(3, BASE, 3, padding=1)
        self.down1 = ResnetBlock("down1", BASE, BASE)
        self.downsample = Down(BASE)
        self.down2 = ResnetBlock("down2", BASE, 2 * BASE)
        self.mid1 = ResnetBlock("mid1", 2 * BASE, 2 * BASE)
        self.mid_attn = SpatialAttention(2 * BASE)
        self.up2 = ResnetBlock("up2", 4 * BASE, BASE)
        self.upsample = Up(BASE)
        self.up1 = ResnetBlock("up1", 2 * BASE, BASE)
        self.norm_out = GroupNorm(GROUPS, BASE, eps=1e-5)
        self.conv_out = nn.Conv2d(BASE, 3, 3, padding=1)

    def sinusoid(self, steps):
        half = BASE // 2
        exponent = -math.log(10000) * torch.arange(half, dtype=steps.dtype, device=steps.device)
        angle = steps[:, None] * torch.exp(exponent / half)
        emb = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.cat([emb[:, half:], emb[:, :half]], dim=-1)

    def forward(self, sample, timestep):
        emb = self.sinusoid(timestep.to(sample.dtype))
        emb = self.time_embed(emb)
        h = self.conv_in(sample)
        skips = []
        h = self.down1(h, emb)
        skips.append(h)
        h = self.down2(self.downsample(h), emb)
        skips.append(h)
        h = self.mid1(h, emb)
        h = self.mid_attn(h)
        h = self.up2(torch.cat([h, skips.pop()], 1), emb)
        h = self.upsample(h)
        h = self.up1(torch.cat([h, skips.pop()], 1), emb)
        h = self.norm_out(h)
        return self.conv_out(F.silu(h))


NAMES = {"time_embed.linear_1": "time_embed.0", "time_embed.act": "time_embed.1", "time_embed.linear_2": "time_embed.2", "mid_attn.to_out": "mid_attn.proj"}
for _j, _n in enumerate(("to_q", "to_k", "to_v")):
    for _p in ("weight", "bias"):
        NAMES[f"mid_attn.{_n}.{_p}"] = f"mid_attn.qkv.{_p}[{32 * _j}:{32 * _j + 32}]"

FAULTS = [
    Fault("sine_first", "        return torch.cat([emb[:, half:], emb[:, :half]], dim=-1)\n", "        return emb\n", "", "output", "order"),
    Fault("frequency_shift", "torch.exp(exponent / half)", "torch.exp(exponent / (half - 1))", "", "output", "count"),
    Fault("time_without_silu", "self.time_emb_proj(self.act(emb))", "self.time_emb_proj(emb)", "down1", "output", "missing"),
    Fault("time_after_norm", '''        hidden = hidden + emb.unsqueeze(-1).unsqueeze(-1)
        hidden = self.norm2(hidden)
''', '''        hidden = self.norm2(hidden)
        hidden = hidden + emb.unsqueeze(-1).unsqueeze(-1)
''', "down1", "output", "order"),
    Fault("detached_time_in_up", "self.time_emb_proj(self.act(emb))", 'self.time_emb_proj(self.act(emb if self.place != "up2" else emb.detach()))', "up2", "gradient", "detached"),
    Fault("no_grad_for_time", "        emb = self.time_embed(emb)\n", "        with torch.no_grad():\n            emb = self.time_embed(emb)\n", "", "gradient", "detached"),
    Fault("eps_of_attention_norm", "self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)", "self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-5)", "mid_attn.norm", "output", "eps"),
    Fault("eps_of_norm2", "self.norm2 = nn.GroupNorm(GROUPS, out, eps=1e-5)", 'self.norm2 = nn.GroupNorm(GROUPS, out, eps=1e-5 if place != "mid1" else 1e-4)', "mid1.norm2", "output", "eps"),
    Fault("groups_of_last_norm", "self.norm_out = GroupNorm(GROUPS, BASE, eps=1e-5)", "self.norm_out = GroupNorm(BASE, BASE, eps=1e-5)", "norm_out", "output", "count"),
    Fault("unbiased", "unbiased=False", "unbiased=True", "down1.norm1", "output", "variance"),
    Fault("detached_norm", "        mean = x.mean(dim=-1, keepdim=True)\n", "        mean = x.mean(dim=-1, keepdim=True)\n        mean = mean.detach() if self.weight.numel() == 64 else mean\n", "up2.norm1", "gradient", "detached"),
    Fault("groups_strided", "x = x.reshape(shape[0], self.groups, -1)", "x = x.reshape(shape[0], -1, self.groups, *shape[2:]).transpose(1, 2).reshape(shape[0], self.groups, -1)", "down1.norm1", "output", "order"),
    Fault("heads_outermost", "v = self.to_v(tokens).view(b, -1, HEADS, d)", "v = self.to_v(tokens).view(b, -1, d, HEADS).transpose(2, 3)", "mid_attn", "output", "heads"),
    Fault("scale_of_channels", "/ d**0.5", "/ c**0.5", "mid_attn", "output", "scale"),
    Fault("attention_axis", "scores.softmax(-1)", "scores.softmax(-2)", "mid_attn", "output", "order"),
    Fault("image_transposed", "mixed.view(b, high, wide, c).permute(0, 3, 1, 2)", "mixed.view(b, wide, high, c).permute(0, 3, 2, 1)", "mid_attn", "output", "transposed"),
    Fault("residual_of_norm", "        return mixed.view(b, high, wide, c).permute(0, 3, 1, 2) + x\n", "        return mixed.view(b, high, wide, c).permute(0, 3, 1, 2) + self.norm(x)\n", "mid_attn", "output", "residual"),
    Fault("shortcut_of_activated", "        hidden = self.act(self.norm1(hidden))\n", '        hidden = self.act(self.norm1(hidden))\n        residual = hidden if self.place == "mid1" else residual\n', "mid1", "output", "residual"),
    Fault("padding_both_sides", "        x = F.pad(x, (0, 1, 0, 1))\n        return self.conv(x)", "        x = F.pad(x, (1, 0, 1, 0))\n        return self.conv(x)", "downsample", "output", "padding"),
    Fault("padding_replicated", "x = F.pad(x, (0, 1, 0, 1))", 'x = F.pad(x, (0, 1, 0, 1), mode="replicate")', "downsample", "output", "padding"),
    Fault("bilinear", 'x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")', 'x = F.interpolate(x, scale_factor=2, mode="bilinear")', "upsample", "output", "approximate"),
    Fault("skip_first", "self.up2(torch.cat([h, skips.pop()], 1), emb)", "self.up2(torch.cat([skips.pop(), h], 1), emb)", "", "output", "order"),
    Fault("skip_taken_late", '''        skips.append(h)
        h = self.mid1(h, emb)
''', '''        h = self.mid1(h, emb)
        skips.append(h)
''', "", "output", "operand"),
    Fault("skip_detached", "self.up1(torch.cat([h, skips.pop()], 1), emb)", "self.up1(torch.cat([h, skips.pop().detach()], 1), emb)", "", "gradient", "detached"),
    Fault("last_swish", "return self.conv_out(F.silu(h))", "return self.conv_out(h * torch.sigmoid(1.002 * h))", "", "output", "activation"),
    Fault("hard_swish", "return self.conv_out(F.silu(h))", "return self.conv_out(F.hardswish(h))", "", "output", "approximate"),
]

RIGHT = [
    Right("group_norm_of_library", '''        shape = x.shape
        x = x.reshape(shape[0], self.groups, -1)
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        x = ((x - mean) / (var + self.eps).sqrt()).reshape(shape)
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
''', '''        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
'''),
    Right("group_norm_by_moments", '''        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        x = ((x - mean) / (var + self.eps).sqrt()).reshape(shape)
''', '''        n = x.shape[-1]
        mean = x.sum(-1, keepdim=True) / n
        x = x - mean
        x = x.mul(torch.rsqrt(torch.einsum("bgn,bgn->bg", x, x)[..., None] / n + self.eps)).reshape(shape)
'''),
    Right("group_norm_by_batch_norm", '''        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        x = ((x - mean) / (var + self.eps).sqrt()).reshape(shape)
''', '''        x = F.batch_norm(x.reshape(1, shape[0] * self.groups, -1), None, None, training=True, eps=self.eps).reshape(shape)
'''),
    Right("attention_of_library", '''        scores = torch.einsum("bihd,bjhd->bhij", q, k) / d**0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
''', '''        mixed = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v))).transpose(1, 2)
'''),
    Right("attention_by_query_blocks", '''        scores = torch.einsum("bihd,bjhd->bhij", q, k) / d**0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
''', '''        k, v = k.permute(0, 2, 3, 1) * d**-0.25, v.transpose(1, 2)
        parts = [torch.softmax(part @ k, -1) @ v for part in (q.transpose(1, 2) * d**-0.25).split(16, 2)]
        mixed = torch.cat(parts, 2).transpose(1, 2)
'''),
    Right("attention_in_one_batch", '''        scores = torch.einsum("bihd,bjhd->bhij", q, k) / d**0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
''', '''        q, k, v = (z.transpose(1, 2).reshape(b * HEADS, -1, d) for z in (q, k, v))
        scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=d**-0.5)
        mixed = torch.bmm(scores.softmax(-1), v).view(b, HEADS, -1, d).transpose(1, 2)
'''),
    Right("qkv_together", '''        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x):
        b, c, high, wide = x.shape
        d = c // HEADS
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, high * wide, c)
        q = self.to_q(tokens).view(b, -1, HEADS, d)
        k = self.to_k(tokens).view(b, -1, HEADS, d)
        v = self.to_v(tokens).view(b, -1, HEADS, d)
''', '''        self.qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x):
        b, c, high, wide = x.shape
        d = c // HEADS
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(b, high * wide, c)
        q, k, v = self.qkv(tokens).view(b, -1, 3, HEADS, d).unbind(2)
''', False, {k: v for k, v in NAMES.items() if ".to_q" not in k and ".to_k" not in k and ".to_v" not in k}),
    Right("output_as_convolution", '''        mixed = self.to_out(mixed.reshape(b, -1, c))
        return mixed.view(b, high, wide, c).permute(0, 3, 1, 2) + x
''', '''        mixed = mixed.reshape(b, high, wide, c).permute(0, 3, 1, 2)
        return F.conv2d(mixed, self.to_out.weight[:, :, None, None], self.to_out.bias) + x
''', True),
    Right("repeat_for_nearest", 'F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")', "x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)"),
    Right("expand_for_nearest", 'F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="nearest")', "x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).flatten(4, 5).flatten(2, 3)"),
    Right("padding_larger_then_cut", '''        x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)
''', '''        return F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)[:, :, 1::2, 1::2]
''', True),
    Right("complex_time", '''        angle = steps[:, None] * torch.exp(exponent / half)
        emb = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.cat([emb[:, half:], emb[:, :half]], dim=-1)
''', '''        turn = torch.view_as_real(torch.polar(torch.ones_like(exponent), steps[:, None] * torch.exp(exponent / half)))
        return turn.transpose(1, 2).flatten(1)
'''),
    Right("time_by_functions", "return self.linear_2(self.act(self.linear_1(emb)))", "return F.linear(F.silu(F.linear(emb, self.linear_1.weight, self.linear_1.bias)), self.linear_2.weight, self.linear_2.bias)", True),
    Right("skip_concatenated_in_conv", '''        hidden = self.act(self.norm1(hidden))
        hidden = self.conv1(hidden)
''', '''        a, b = self.act(self.norm1(hidden)).tensor_split(2, dim=1)
        w, u = self.conv1.weight.tensor_split(2, dim=1)
        hidden = F.conv2d(a, w, self.conv1.bias, padding=1) + F.conv2d(b, u, padding=1)
''', True),
    Right("time_added_in_place", "hidden = hidden + emb.unsqueeze(-1).unsqueeze(-1)", "hidden.add_(emb[..., None, None])"),
    Right("checkpointed", "h = self.mid1(h, emb)", "h = torch.utils.checkpoint.checkpoint(self.mid1, h, emb, use_reentrant=False)"),
]
