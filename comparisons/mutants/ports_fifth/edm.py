"""A score network after NCSN++ (Fourier noise levels, FIR resampling, scaled skips) in EDM preconditioning; class labels."""

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


class FourierEmbedding(nn.Module):
    def __init__(self, num_channels, scale=16.0):
        super().__init__()
        g = torch.Generator().manual_seed(5)
        self.register_buffer("freqs", torch.randn(num_channels // 2, generator=g) * scale / 16)

    def forward(self, x):
        x = x.ger((2 * math.pi * self.freqs).to(x.dtype))
        return torch.cat([x.cos(), x.sin()], dim=1)


class Conv(nn.Module):
    """A convolution that resamples with a [1, 3, 3, 1] filter before or after."""

    def __init__(self, cin, cout, kernel, up=False, down=False):
        super().__init__()
        self.up, self.down, self.kernel = up, down, kernel
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) / math.sqrt(cin * kernel * kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(cout)) if kernel else None
        f = torch.tensor([1.0, 3.0, 3.0, 1.0])
        f = f.ger(f)
        self.register_buffer("resample_filter", (f / f.sum())[None, None] if up or down else None)

    def forward(self, x):
        if self.up:
            f = (self.resample_filter * 4).to(x.dtype).tile([x.shape[1], 1, 1, 1])
            x = F.conv_transpose2d(x, f, groups=x.shape[1], stride=2, padding=1)
        if self.down:
            f = self.resample_filter.to(x.dtype).tile([x.shape[1], 1, 1, 1])
            x = F.conv2d(x, f, groups=x.shape[1], stride=2, padding=1)
        if self.weight is not None:
            x = F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2)
        return x


class SelfAttention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels, eps=1e-6)
        self.qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n * self.heads, c // self.heads, 3, -1).unbind(2)
        weight = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(k.shape[1])).softmax(dim=2)
        a = torch.einsum("nqk,nck->ncq", weight, v)
        return self.proj(a.reshape(n, c, h, w))


class UNetBlock(nn.Module):
    def __init__(self, cin, cout, emb, up=False, down=False, attention=False, skip_scale=math.sqrt(0.5)):
        super().__init__()
        self.skip_scale = skip_scale
        self.norm0 = nn.GroupNorm(4, cin, eps=1e-6)
        self.conv0 = Conv(cin, cout, 3, up=up, down=down)
        self.affine = nn.Linear(emb, cout * 2)
        self.norm1 = nn.GroupNorm(4, cout, eps=1e-6)
        self.conv1 = Conv(cout, cout, 3)
        self.skip = Conv(cin, cout, 1, up=up, down=down) if cin != cout or up or down else None
        self.attn = SelfAttention(cout, 2) if attention else None

    def forward(self, x, emb):
        orig = x
        x = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        x = F.silu(torch.addcmul(shift, self.norm1(x), scale + 1))
        x = self.conv1(x)
        x = x.add(self.skip(orig) if self.skip is not None else orig) * self.skip_scale
        if self.attn is not None:
            x = self.attn(x).add(x) * self.skip_scale
        return x


class SongUNet(nn.Module):
    def __init__(self, channels=3, base=8, emb=24, classes=5):
        super().__init__()
        self.map_noise = FourierEmbedding(base)
        self.map_label = nn.Linear(classes, base, bias=False)
        self.map_layer0 = nn.Linear(base, emb)
        self.map_layer1 = nn.Linear(emb, emb)
        self.enc = nn.ModuleDict({
            "r8_conv": Conv(channels, base, 3),
            "r8_block0": UNetBlock(base, base, emb),
            "r4_down": UNetBlock(base, 2 * base, emb, down=True),
            "r4_block0": UNetBlock(2 * base, 2 * base, emb, attention=True),
        })
        self.dec = nn.ModuleDict({
            "r4_in0": UNetBlock(2 * base, 2 * base, emb, attention=True),
            "r4_block0": UNetBlock(4 * base, 2 * base, emb),
            "r8_up": UNetBlock(2 * base, 2 * base, emb, up=True),
            "r8_block0": UNetBlock(3 * base, base, emb),
        })
        self.out_norm = nn.GroupNorm(4, base, eps=1e-6)
        self.out_conv = Conv(base, channels, 3)

    def forward(self, x, noise_labels, class_labels):
        emb = self.map_noise(noise_labels)
        emb = emb.reshape(emb.shape[0], 2, -1).flip(1).reshape(*emb.shape)
        emb = emb + self.map_label(class_labels * math.sqrt(class_labels.shape[1]))
        emb = F.silu(self.map_layer0(emb))
        emb = F.silu(self.map_layer1(emb))
        skips = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if name == "r4_block0":
                x = torch.cat([x, skips[3]], dim=1)
            if name == "r8_block0":
                x = torch.cat([x, skips[1]], dim=1)
            x = block(x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))


class Original(nn.Module):
    def __init__(self, sigma_data=0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.model = SongUNet()
        settle(self, 1)

    def forward(self, x, sigma, class_labels):
        sigma = sigma.reshape(-1, 1, 1, 1)
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        c_out = sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        c_noise = sigma.log() / 4
        f = self.model(c_in * x, c_noise.flatten(), class_labels)
        return c_skip * x + c_out * f


def inputs():
    g = torch.Generator().manual_seed(11)
    x = torch.randn(3, 3, 8, 8, generator=g)
    sigma = (torch.randn(3, generator=g) * 1.2 - 0.6).exp()
    return x, sigma, F.one_hot(torch.tensor([1, 4, 0]), 5).to(x.dtype)


# The port ------------------------------------------------------------------------------------


class NoiseFeatures(nn.Module):
    def __init__(self, width, spread=16.0):
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width // 2))
        self.spread = spread

    def forward(self, level):
        angle = level[:, None] * self.freqs[None].to(level.dtype) * (2 * math.pi)
        return torch.cat((torch.cos(angle), torch.sin(angle)), -1)


class Sampled(nn.Module):
    """What StyleGAN calls upfirdn, followed by a convolution."""

    def __init__(self, cin, cout, size=3, way="same"):
        super().__init__()
        self.way, self.size = way, size
        self.weight = nn.Parameter(torch.empty(cout, cin, size, size).normal_(std=0.1))
        self.bias = nn.Parameter(torch.zeros(cout))
        if way != "same":
            self.register_buffer("resample_filter", torch.ones(1, 1, 4, 4) / 16)

    def forward(self, x):
        c = x.shape[1]
        if self.way == "up":
            taps = 4 * self.resample_filter.to(x.dtype).expand(c, 1, 4, 4)
            x = F.conv_transpose2d(x, taps, stride=2, padding=1, groups=c)
        elif self.way == "down":
            taps = self.resample_filter.to(x.dtype).expand(c, 1, 4, 4)
            x = F.conv2d(x, taps, stride=2, padding=1, groups=c)
        return F.conv2d(x, self.weight, self.bias, padding=self.size // 2)


class TokenAttention(nn.Module):
    """Attention over (batch, places, channels)."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens):
        b, n, c = tokens.shape
        d = c // self.heads
        normed = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        packed = self.qkv(normed).view(b, n, self.heads, d, 3)
        query, key, value = (packed[..., i].transpose(1, 2) for i in range(3))
        scores = query @ key.transpose(-1, -2) / d**0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(b, n, c))


class ResBlock(nn.Module):
    def __init__(self, cin, cout, emb, way="same", attend=False):
        super().__init__()
        self.norm0 = nn.GroupNorm(4, cin, eps=1e-6)
        self.conv0 = Sampled(cin, cout, 3, way)
        self.affine = nn.Linear(emb, 2 * cout)
        self.norm1 = nn.GroupNorm(4, cout, eps=1e-6)
        self.conv1 = Sampled(cout, cout, 3)
        self.skip = Sampled(cin, cout, 1, way) if (cin != cout or way != "same") else nn.Identity()
        self.attn = TokenAttention(cout) if attend else None

    def forward(self, x, emb):
        h = self.conv0(F.silu(self.norm0(x)))
        gain, offset = torch.tensor_split(self.affine(emb), 2, dim=-1)
        h = self.norm1(h) * (1 + gain[..., None, None]) + offset[..., None, None]
        h = self.conv1(F.silu(h))
        x = (h + self.skip(x)) * 0.5**0.5
        if self.attn is None:
            return x
        a = self.attn(x.flatten(2).transpose(1, 2))
        a = a.transpose(1, 2).unflatten(2, x.shape[2:])
        return (x + a) / math.sqrt(2)


class Denoiser(nn.Module):
    def __init__(self, channels=3, base=8, emb=24, classes=5):
        super().__init__()
        self.map_noise = NoiseFeatures(base)
        self.map_label = nn.Linear(classes, base, bias=False)
        self.map_layer0 = nn.Linear(base, emb)
        self.map_layer1 = nn.Linear(emb, emb)
        self.conv_in = Sampled(channels, base)
        self.down1 = ResBlock(base, base, emb)
        self.down2 = ResBlock(base, 2 * base, emb, way="down")
        self.down3 = ResBlock(2 * base, 2 * base, emb, attend=True)
        self.mid = ResBlock(2 * base, 2 * base, emb, attend=True)
        self.up1 = ResBlock(4 * base, 2 * base, emb)
        self.up2 = ResBlock(2 * base, 2 * base, emb, way="up")
        self.up3 = ResBlock(3 * base, base, emb)
        self.out_norm = nn.GroupNorm(4, base, eps=1e-6)
        self.out_conv = Sampled(base, channels)

    def embed(self, level, label):
        cos, sin = self.map_noise(level).chunk(2, dim=-1)
        e = torch.cat((sin, cos), dim=-1)
        e = e + self.map_label(label * label.shape[-1] ** 0.5)
        e = F.silu(self.map_layer0(e))
        return F.silu(self.map_layer1(e))

    def forward(self, x, level, label):
        e = self.embed(level, label)
        x = self.conv_in(x)
        high = self.down1(x, e)
        low = self.down3(self.down2(high, e), e)
        x = self.mid(low, e)
        x = self.up1(torch.cat((x, low), 1), e)
        x = self.up2(x, e)
        x = self.up3(torch.cat((x, high), 1), e)
        return self.out_conv(F.silu(self.out_norm(x)))


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Denoiser()
        self.std = 0.5

    def forward(self, x, sigma, class_labels):
        s = sigma.view(-1, 1, 1, 1)
        var = s.square() + self.std**2
        inner = self.model(x * var.rsqrt(), 0.25 * torch.log(sigma), class_labels)
        return x * (self.std**2 / var) + inner * (s * self.std * var.rsqrt())


NAMES = {
    "model.conv_in": "model.enc.r8_conv",
    "model.down1": "model.enc.r8_block0",
    "model.down2": "model.enc.r4_down",
    "model.down3": "model.enc.r4_block0",
    "model.mid": "model.dec.r4_in0",
    "model.up1": "model.dec.r4_block0",
    "model.up2": "model.dec.r8_up",
    "model.up3": "model.dec.r8_block0",
    "model.down3.attn.qkv.weight": "model.enc.r4_block0.attn.qkv.weight[:, :, 0, 0]",
    "model.down3.attn.proj.weight": "model.enc.r4_block0.attn.proj.weight[:, :, 0, 0]",
    "model.mid.attn.qkv.weight": "model.dec.r4_in0.attn.qkv.weight[:, :, 0, 0]",
    "model.mid.attn.proj.weight": "model.dec.r4_in0.attn.proj.weight[:, :, 0, 0]",
}

FAULTS = [
    Fault("eps_of_norm0", "self.norm0 = nn.GroupNorm(4, cin, eps=1e-6)", "self.norm0 = nn.GroupNorm(4, cin)", "model.enc.r8_block0.norm0", "output", "eps"),
    Fault("eps_of_out_norm", "self.out_norm = nn.GroupNorm(4, base, eps=1e-6)", "self.out_norm = nn.GroupNorm(4, base, eps=1e-5)", "model.out_norm", "output", "eps"),
    Fault("upsampling_gain", "taps = 4 * self.resample_filter", "taps = 2 * self.resample_filter", "model.dec.r8_up.conv0", "output", "scale"),
    Fault("no_label_gain", "self.map_label(label * label.shape[-1] ** 0.5)", "self.map_label(label)", "model", "output", "scale"),
    Fault("no_skip_scale", "x = (h + self.skip(x)) * 0.5**0.5", "x = h + self.skip(x)", "model.enc.r8_block0", "output", "scale"),
    Fault("cos_before_sin", "e = torch.cat((sin, cos), dim=-1)", "e = torch.cat((cos, sin), dim=-1)", "model", "output", "order"),
    Fault("two_pi_missing", "* (2 * math.pi)", "* math.pi", "model.map_noise", "output", "scale"),
    Fault("gain_and_offset_swapped", "gain, offset = torch.tensor_split", "offset, gain = torch.tensor_split", "model.enc.r8_block0", "output", "order"),
    Fault("gain_without_one", "(1 + gain[..., None, None])", "gain[..., None, None]", "model.enc.r8_block0", "output", "missing"),
    Fault("attention_packed_by_thirds", "packed = self.qkv(normed).view(b, n, self.heads, d, 3)", "packed = self.qkv(normed).view(b, n, 3, self.heads, d).permute(0, 1, 3, 4, 2)", "model.enc.r4_block0.attn", "output", "heads"),
    Fault("attention_heads_inner", "return self.proj(mixed.transpose(1, 2).reshape(b, n, c))", "return self.proj(mixed.permute(0, 2, 3, 1).reshape(b, n, c))", "model.enc.r4_block0.attn", "output", "heads"),
    Fault("attention_scale_of_width", "key.transpose(-1, -2) / d**0.5", "key.transpose(-1, -2) / c**0.5", "model.enc.r4_block0.attn", "output", "scale"),
    Fault("skip_of_first_conv", "x = self.conv_in(x)\n        high = self.down1(x, e)\n        low = self.down3(self.down2(high, e), e)", "high = self.conv_in(x)\n        low = self.down3(self.down2(self.down1(high, e), e), e)", "model", "output", "operand"),
    Fault("skip_before_mid", "x = self.up1(torch.cat((x, low), 1), e)", "x = self.up1(torch.cat((low, x), 1), e)", "model", "output", "order"),
    Fault("attention_residual_normed", "a = self.attn(x.flatten(2).transpose(1, 2))", "x = self.attn.norm(x)\n        a = self.attn(x.flatten(2).transpose(1, 2))", "model.enc.r4_block0", "output", "residual"),
    Fault("embedding_detached", "h = self.norm1(h) * (1 + gain[..., None, None])", "h = self.norm1(h) * (1 + gain.detach()[..., None, None])", "model.enc.r8_block0", "gradient", "detached"),
    Fault("skip_detached", "low = self.down3(self.down2(high, e), e)", "low = self.down3(self.down2(high, e), e)\n        high = high.detach()", "model", "gradient", "detached"),
    Fault("last_activation_missing", "return F.silu(self.map_layer1(e))", "return self.map_layer1(e)", "model", "output", "activation"),
    Fault("quick_activation", "h = self.conv1(F.silu(h))", "h = self.conv1(h * torch.sigmoid(1.0001 * h))", "model.enc.r8_block0", "output", "approximate"),
    Fault("noise_by_log10", "0.25 * torch.log(sigma)", "0.25 * torch.log10(sigma)", "", "output", "scale"),
    Fault("skip_with_same_factor", "return x * (self.std**2 / var)", "return x * var.rsqrt() * (self.std**2 / var)", "", "output", "operand"),
    Fault("padding_replicated", "return F.conv2d(x, self.weight, self.bias, padding=self.size // 2)", "if self.size > 1:\n            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode='replicate'), self.weight, self.bias)\n        return F.conv2d(x, self.weight, self.bias)", "model.enc.r8_conv", "output", "padding"),
    Fault("attention_input_detached", "a = self.attn(x.flatten(2).transpose(1, 2))", "a = self.attn(x.detach().flatten(2).transpose(1, 2))", "model.enc.r4_block0", "gradient", "detached"),
    Fault("keys_detached", "key.transpose(-1, -2) / d**0.5", "key.detach().transpose(-1, -2) / d**0.5", "model.enc.r4_block0.attn", "gradient", "detached"),
    Fault("rounded_skip_scale", "x = (h + self.skip(x)) * 0.5**0.5", "x = (h + self.skip(x)) * 0.7071", "model.enc.r8_block0", "output", "scale"),
    Fault("eps_in_preconditioning", "var = s.square() + self.std**2", "var = s.square() + self.std**2 + 1e-6", "", "output", "eps"),
    Fault("rounded_two_pi", "* (2 * math.pi)", "* 6.2832", "model.map_noise", "output", "scale"),
    Fault("noise_level_detached", "e = self.embed(level, label)", "e = self.embed(level.detach(), label)", "model", "gradient", "detached"),
]

RIGHT = [
    Right("silu_by_hand", "h = self.conv1(F.silu(h))", "h = self.conv1(h * torch.sigmoid(h))"),
    Right("transposed_conv_as_zeros_and_conv", "x = F.conv_transpose2d(x, taps, stride=2, padding=1, groups=c)", "z = x.new_zeros(x.shape[0], c, 2 * x.shape[2], 2 * x.shape[3])\n            z[:, :, ::2, ::2] = x\n            x = F.conv2d(F.pad(z, (2, 1, 2, 1)), taps.flip(-1, -2), groups=c)"),
    Right("down_by_two_separable_passes", "x = F.conv2d(x, taps, stride=2, padding=1, groups=c)", "line = taps.sum(-1)\n            x = F.conv2d(x, line[:, :, :, None], stride=(2, 1), padding=(1, 0), groups=c)\n            x = F.conv2d(x, line[:, :, None, :], stride=(1, 2), padding=(0, 1), groups=c)"),
    Right("scaled_dot_product", "scores = query @ key.transpose(-1, -2) / d**0.5\n        mixed = torch.softmax(scores, dim=-1) @ value", "mixed = F.scaled_dot_product_attention(query.contiguous(), key.contiguous(), value.contiguous())"),
    Right("convolution_unfolded", "return F.conv2d(x, self.weight, self.bias, padding=self.size // 2)", "columns = F.unfold(x, self.size, padding=self.size // 2)\n        out = torch.baddbmm(self.bias[None, :, None], self.weight.flatten(1).expand(x.shape[0], -1, -1), columns)\n        return out.unflatten(2, x.shape[2:])"),
    Right("group_norm_by_hand", "h = self.norm1(h) * (1 + gain[..., None, None]) + offset[..., None, None]", "grouped = h.unflatten(1, (4, -1))\n        var, mean = torch.var_mean(grouped, dim=(2, 3, 4), keepdim=True, unbiased=False)\n        n = ((grouped - mean) * torch.rsqrt(var + self.norm1.eps)).flatten(1, 2)\n        w = self.norm1.weight * (1 + gain)\n        h = torch.addcmul((self.norm1.bias * (1 + gain) + offset)[..., None, None], n, w[..., None, None])", True),
    Right("attention_inlined_by_heads", "a = self.attn(x.flatten(2).transpose(1, 2))\n        a = a.transpose(1, 2).unflatten(2, x.shape[2:])", "t = self.attn.norm(x).flatten(2).transpose(1, 2)\n        rows = self.attn.qkv.weight.unflatten(0, (self.attn.heads, -1, 3))\n        shift = self.attn.qkv.bias.unflatten(0, (self.attn.heads, -1, 3))\n        parts = []\n        for i in range(self.attn.heads):\n            q, k, v = (F.linear(t, rows[i, :, j], shift[i, :, j]) for j in range(3))\n            s = torch.einsum('bqd,bkd->bqk', q, k) * q.shape[-1] ** -0.5\n            parts.append(torch.einsum('bqk,bkd->bqd', s.softmax(-1), v))\n        a = F.linear(torch.cat(parts, -1), self.attn.proj.weight, self.attn.proj.bias).transpose(1, 2).unflatten(2, x.shape[2:])", True),
    Right("skip_folded_into_last_conv", "x = (h + self.skip(x)) * 0.5**0.5", "if isinstance(self.skip, Sampled):\n            y = x\n            if self.skip.way == 'down':\n                y = F.conv2d(y, self.skip.resample_filter.to(y.dtype).repeat(y.shape[1], 1, 1, 1), stride=2, padding=1, groups=y.shape[1])\n            if self.skip.way == 'up':\n                y = F.conv_transpose2d(y, self.skip.resample_filter.to(y.dtype).repeat(y.shape[1], 1, 1, 1) * 4, stride=2, padding=1, groups=y.shape[1])\n            y = torch.einsum('bchw,oc->bohw', y, self.skip.weight[:, :, 0, 0]) + self.skip.bias[:, None, None]\n            x = (h + y) * math.sqrt(0.5)\n        else:\n            x = (x + h) * math.sqrt(0.5)", True),
    Right("checkpointed_blocks", "low = self.down3(self.down2(high, e), e)", "from torch.utils.checkpoint import checkpoint\n        low = checkpoint(self.down3, checkpoint(self.down2, high, e, use_reentrant=False), e, use_reentrant=True)"),
]
