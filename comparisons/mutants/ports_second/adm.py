"""A class-conditional diffusion U-Net in the manner of guided-diffusion: scale-shift GroupNorm, residual blocks that resample, packed attention."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


def timestep_embedding(timesteps, dim, dtype, max_period=10000):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=dtype, device=timesteps.device) / half)
    args = timesteps[:, None].to(dtype) * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


class TimestepEmbedSequential(nn.Sequential):
    """A sequential module that hands the embedding to those children that take it."""

    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    def __init__(self, channels, out_channels, emb_channels, up=False, down=False):
        super().__init__()
        self.up, self.down = up, down
        self.in_layers = nn.Sequential(nn.GroupNorm(4, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(nn.GroupNorm(4, out_channels), nn.SiLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def resample(self, x):
        if self.up:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, kernel_size=2, stride=2)

    def forward(self, x, emb):
        if self.up or self.down:
            h = self.in_layers[1](self.in_layers[0](x))
            h, x = self.resample(h), self.resample(x)
            h = self.in_layers[2](h)
        else:
            h = self.in_layers(x)
        emb_out = self.emb_layers(emb)[:, :, None, None]
        scale, shift = torch.chunk(emb_out, 2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        h = self.out_layers[2](self.out_layers[1](h))
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, channels, num_heads=2):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Conv1d(channels, channels * 3, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        ch = c // self.num_heads
        q, k, v = qkv.reshape(b * self.num_heads, ch * 3, -1).split(ch, dim=1)
        scale = 1 / math.sqrt(math.sqrt(ch))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight, dim=-1)
        a = torch.einsum("bts,bcs->bct", weight, v)
        h = self.proj_out(a.reshape(b, c, -1))
        return (x + h).reshape(b, c, *spatial)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        emb = 48
        self.model_channels = 16
        self.time_embed = nn.Sequential(nn.Linear(16, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = nn.Embedding(5, emb)
        self.input_blocks = nn.ModuleList([
            TimestepEmbedSequential(nn.Conv2d(3, 16, 3, padding=1)),
            TimestepEmbedSequential(ResBlock(16, 16, emb)),
            TimestepEmbedSequential(ResBlock(16, 16, emb, down=True)),
            TimestepEmbedSequential(ResBlock(16, 32, emb), AttentionBlock(32)),
        ])
        self.middle_block = TimestepEmbedSequential(ResBlock(32, 32, emb), AttentionBlock(32), ResBlock(32, 32, emb))
        self.output_blocks = nn.ModuleList([
            TimestepEmbedSequential(ResBlock(32 + 32, 32, emb), AttentionBlock(32)),
            TimestepEmbedSequential(ResBlock(32 + 16, 32, emb), ResBlock(32, 32, emb, up=True)),
            TimestepEmbedSequential(ResBlock(32 + 16, 16, emb)),
            TimestepEmbedSequential(ResBlock(16 + 16, 16, emb)),
        ])
        self.out = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 6, 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)

    def forward(self, x, timesteps, y):
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels, x.dtype))
        emb = emb + self.label_emb(y)
        hs = []
        h = x
        for module in self.input_blocks:
            h = module(h, emb)
            hs.append(h)
        h = self.middle_block(h, emb)
        for module in self.output_blocks:
            h = torch.cat([h, hs.pop()], dim=1)
            h = module(h, emb)
        return self.out(h)


def inputs():
    g = torch.Generator().manual_seed(11)
    return torch.randn(2, 3, 8, 8, generator=g), torch.tensor([3, 37]), torch.tensor([4, 1])


# The port ------------------------------------------------------------------------------------


def group_norm(channels):
    return nn.GroupNorm(4, channels)


def conv3x3(cin, cout):
    return nn.Conv2d(cin, cout, 3, stride=1, padding=1)


def sinusoids(t, dim, dtype):
    i = torch.arange(dim // 2, dtype=dtype, device=t.device)
    angle = t.to(dtype).unsqueeze(1) * torch.exp(i * (-math.log(10000.0) / (dim // 2))).unsqueeze(0)
    return torch.cat((angle.cos(), angle.sin()), 1)


class TimestepEmbedding(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.linear_1 = nn.Linear(cin, cout)
        self.linear_2 = nn.Linear(cout, cout)

    def forward(self, t):
        return self.linear_2(F.silu(self.linear_1(t)))


class ResnetBlock2D(nn.Module):
    def __init__(self, cin, cout, temb=48, resample=None):
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(cin)
        self.conv1 = conv3x3(cin, cout)
        self.time_emb_proj = nn.Linear(temb, cout * 2)
        self.norm2 = group_norm(cout)
        self.conv2 = conv3x3(cout, cout)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb):
        h = F.silu(self.norm1(x))
        if self.resample == "down":
            x, h = (F.avg_pool2d(z, 2) for z in (x, h))
        elif self.resample == "up":
            x, h = (z.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for z in (x, h))
        h = self.conv1(h)
        scale, shift = self.time_emb_proj(F.silu(temb))[..., None, None].chunk(2, 1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(F.silu(h))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return x + h


class SpatialAttention(nn.Module):
    def __init__(self, channels, heads=2):
        super().__init__()
        self.heads, self.head_dim = heads, channels // heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        tokens = x.flatten(2)
        n = tokens.shape[-1]
        packed = self.qkv(self.norm(tokens))
        q, k, v = packed.view(-1, self.heads, 3, self.head_dim, n).unbind(2)
        scores = (q.transpose(-1, -2) @ k) * self.head_dim ** -0.5
        mixed = v @ scores.softmax(-1).transpose(-1, -2)
        return (tokens + self.proj_out(mixed.flatten(1, 2))).view_as(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_embedding = TimestepEmbedding(16, 48)
        self.label_emb = nn.Embedding(5, 48)
        self.conv_in = conv3x3(3, 16)
        self.down_1 = ResnetBlock2D(16, 16)
        self.down_2 = ResnetBlock2D(16, 16, resample="down")
        self.down_3 = ResnetBlock2D(16, 32)
        self.down_3_attn = SpatialAttention(32)
        self.mid_1 = ResnetBlock2D(32, 32)
        self.mid_attn = SpatialAttention(32)
        self.mid_2 = ResnetBlock2D(32, 32)
        self.up_0 = ResnetBlock2D(64, 32)
        self.up_0_attn = SpatialAttention(32)
        self.up_1 = ResnetBlock2D(48, 32)
        self.up_1_resample = ResnetBlock2D(32, 32, resample="up")
        self.up_2 = ResnetBlock2D(48, 16)
        self.up_3 = ResnetBlock2D(32, 16)
        self.norm_out = nn.GroupNorm(num_groups=4, num_channels=16)
        self.conv_out = nn.Conv2d(16, 6, 3, padding="same")

    def forward(self, sample, timestep, class_labels):
        temb = self.time_embedding(sinusoids(timestep, 16, sample.dtype))
        temb = temb + self.label_emb(class_labels)
        s0 = self.conv_in(sample)
        s1 = self.down_1(s0, temb)
        s2 = self.down_2(s1, temb)
        s3 = self.down_3_attn(self.down_3(s2, temb))
        h = self.mid_1(s3, temb)
        h = self.mid_2(self.mid_attn(h), temb)
        h = self.up_0_attn(self.up_0(torch.cat((h, s3), 1), temb))
        h = self.up_1_resample(self.up_1(torch.cat((h, s2), 1), temb), temb)
        h = self.up_2(torch.cat((h, s1), 1), temb)
        h = self.up_3(torch.cat((h, s0), 1), temb)
        return self.conv_out(F.silu(self.norm_out(h)))


NAMES = {
    "time_embedding": "time_embed", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "down_3_attn": "input_blocks.3.1", "mid_attn": "middle_block.1", "up_0_attn": "output_blocks.0.1",
    "norm_out": "out.0", "conv_out": "out.2",
}
for _port, _original in (
    ("down_1", "input_blocks.1.0"), ("down_2", "input_blocks.2.0"), ("down_3", "input_blocks.3.0"),
    ("mid_1", "middle_block.0"), ("mid_2", "middle_block.2"), ("up_0", "output_blocks.0.0"), ("up_1", "output_blocks.1.0"),
    ("up_1_resample", "output_blocks.1.1"), ("up_2", "output_blocks.2.0"), ("up_3", "output_blocks.3.0"),
):
    NAMES[_port] = _original
    for _a, _b in (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("norm2", "out_layers.0"), ("conv2", "out_layers.2")):
        NAMES[f"{_port}.{_a}"] = f"{_original}.{_b}"
    if _port in ("down_3", "up_0", "up_1", "up_2", "up_3"):
        NAMES[f"{_port}.conv_shortcut"] = f"{_original}.skip_connection"

FAULTS = [
    Fault("eps_of_second_norm", "self.norm2 = group_norm(cout)", "self.norm2 = nn.GroupNorm(4, cout, eps=1e-6)", "input_blocks.1.0.out_layers.0", "output", "eps"),
    Fault("groups_of_last_norm", "num_groups=4, num_channels=16", "num_groups=8, num_channels=16", "out.0", "output", "count"),
    Fault("sine_first", "(angle.cos(), angle.sin())", "(angle.sin(), angle.cos())", "", "output", "order"),
    Fault("shift_before_scale", "scale, shift = self.time_emb_proj", "shift, scale = self.time_emb_proj", "input_blocks.1.0", "output", "order"),
    Fault("one_plus_missing", "* (1 + scale) + shift", "* scale + shift", "input_blocks.1.0", "output", "missing"),
    Fault("heads_split_after_qkv", "packed.view(-1, self.heads, 3, self.head_dim, n).unbind(2)", "packed.view(-1, 3, self.heads, self.head_dim, n).unbind(1)", "input_blocks.3.1", "output", "heads"),
    Fault("scale_of_all_channels", "* self.head_dim ** -0.5", "* (self.heads * self.head_dim) ** -0.5", "input_blocks.3.1", "output", "scale"),
    Fault("scores_not_transposed_back", "v @ scores.softmax(-1).transpose(-1, -2)", "v @ scores.softmax(-1)", "input_blocks.3.1", "output", "transposed"),
    Fault("residual_of_normed", "packed = self.qkv(self.norm(tokens))", "tokens = self.norm(tokens)\n        packed = self.qkv(tokens)", "input_blocks.3.1", "output", "residual"),
    Fault("subsampled_instead_of_averaged", "(F.avg_pool2d(z, 2) for z in (x, h))", "(z[..., ::2, ::2] for z in (x, h))", "input_blocks.2.0", "output", "stride"),
    Fault("skip_detached", "torch.cat((h, s1), 1)", "torch.cat((h, s1.detach()), 1)", "", "gradient", "detached"),
    Fault("embedding_detached_in_middle", "self.mid_2(self.mid_attn(h), temb)", "self.mid_2(self.mid_attn(h), temb.detach())", "", "gradient", "detached"),
    Fault("gelu_in_time_embedding", "self.linear_2(F.silu(self.linear_1(t)))", "self.linear_2(F.gelu(self.linear_1(t)))", "time_embed", "output", "activation"),
    Fault("reflected_last_conv", 'nn.Conv2d(16, 6, 3, padding="same")', 'nn.Conv2d(16, 6, 3, padding=1, padding_mode="reflect")', "out.2", "output", "padding"),
    Fault("eps_of_last_norm", "num_groups=4, num_channels=16", "num_groups=4, num_channels=16, eps=1e-6", "out.0", "output", "eps"),
    Fault("label_detached", "temb = temb + self.label_emb(class_labels)", "temb = temb + self.label_emb(class_labels).detach()", "", "gradient", "detached"),
]

RIGHT = [
    Right("attention_sdpa", """        scores = (q.transpose(-1, -2) @ k) * self.head_dim ** -0.5
        mixed = v @ scores.softmax(-1).transpose(-1, -2)
""", """        q, k, v = (z.transpose(-1, -2) for z in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
"""),
    Right("attention_baddbmm", """        scores = (q.transpose(-1, -2) @ k) * self.head_dim ** -0.5
        mixed = v @ scores.softmax(-1).transpose(-1, -2)
""", """        q, k, v = (z.flatten(0, 1) for z in (q, k, v))
        empty = torch.empty(q.shape[0], n, n, dtype=q.dtype, device=q.device)
        scores = torch.baddbmm(empty, q.transpose(1, 2), k, beta=0, alpha=self.head_dim ** -0.5)
        mixed = torch.bmm(v, scores.softmax(-1).transpose(1, 2)).view(-1, self.heads, self.head_dim, n)
"""),
    Right("group_norm_by_hand", """def group_norm(channels):
    return nn.GroupNorm(4, channels)
""", """class GroupNormByHand(nn.GroupNorm):
    def forward(self, x):
        y = x.reshape(x.shape[0], self.num_groups, -1)
        mean = y.mean(-1, keepdim=True)
        y = y - mean
        y = (y / torch.sqrt((y * y).mean(-1, keepdim=True) + self.eps)).reshape(x.shape)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return y * self.weight.view(shape) + self.bias.view(shape)


def group_norm(channels):
    return GroupNormByHand(4, channels)
"""),
    Right("conv_by_unfold", "    return nn.Conv2d(cin, cout, 3, stride=1, padding=1)\n", """    return UnfoldConv(cin, cout, 3, padding=1)


class UnfoldConv(nn.Conv2d):
    def forward(self, x):
        columns = F.unfold(x, 3, padding=1)
        y = self.weight.flatten(1) @ columns + self.bias[:, None]
        return y.unflatten(-1, x.shape[-2:])
"""),
    Right("up_by_expand", "(z.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for z in (x, h))", "(z[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).flatten(4, 5).flatten(2, 3) for z in (x, h))"),
    Right("down_by_sum_of_four", "(F.avg_pool2d(z, 2) for z in (x, h))", "((z[..., ::2, ::2] + z[..., 1::2, ::2] + z[..., ::2, 1::2] + z[..., 1::2, 1::2]) / 4 for z in (x, h))"),
    Right("checkpointed_middle", "        h = self.mid_1(s3, temb)\n", "        from torch.utils.checkpoint import checkpoint\n        h = checkpoint(self.mid_1, s3, temb, use_reentrant=False)\n"),
    Right("norm_folded_into_scale_and_shift", "        h = self.norm2(h) * (1 + scale) + shift\n", """        weight, bias = self.norm2.weight[:, None, None], self.norm2.bias[:, None, None]
        h = torch.addcmul(bias * (1 + scale) + shift, F.group_norm(h, self.norm2.num_groups, eps=self.norm2.eps), weight * (1 + scale))
""", fused=True),
    Right("time_embedding_without_submodules", """        self.linear_1 = nn.Linear(cin, cout)
        self.linear_2 = nn.Linear(cout, cout)

    def forward(self, t):
        return self.linear_2(F.silu(self.linear_1(t)))
""", """        self.w1, self.b1 = nn.Parameter(torch.randn(cin, cout)), nn.Parameter(torch.zeros(cout))
        self.w2, self.b2 = nn.Parameter(torch.randn(cout, cout)), nn.Parameter(torch.zeros(cout))

    def forward(self, t):
        h = t @ self.w1 + self.b1
        return torch.addmm(self.b2, h * torch.sigmoid(h), self.w2)
""", fused=True, names={k: v for k, v in NAMES.items() if "linear" not in k} | {
        "time_embedding.w1": "time_embed.0.weight.T", "time_embedding.b1": "time_embed.0.bias",
        "time_embedding.w2": "time_embed.2.weight.T", "time_embedding.b2": "time_embed.2.bias"}),
]
