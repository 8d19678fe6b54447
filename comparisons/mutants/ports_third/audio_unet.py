"""A one-dimensional diffusion U-Net for audio: noise level by Fourier features, FiLM, Snake activations, GroupNorm, strided and transposed convolutions, cross attention to a padded text, preconditioned as by Karras."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class Snake(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x):
        return x + torch.sin(self.alpha * x) ** 2 / (self.alpha + 1e-9)


class NoiseEmbedding(nn.Module):
    def __init__(self, features, out):
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.3, 2.5, features))
        self.to_hidden = nn.Linear(2 * features + 1, out)
        self.to_out = nn.Linear(out, out)

    def forward(self, level):
        angle = level[:, None] * self.frequencies[None, :] * 2 * math.pi
        x = torch.cat([level[:, None], angle.sin(), angle.cos()], dim=-1)
        return self.to_out(F.silu(self.to_hidden(x)))


class FiLM(nn.Module):
    def __init__(self, cond, channels):
        super().__init__()
        self.proj = nn.Linear(cond, 2 * channels)

    def forward(self, x, *, cond):
        scale, shift = self.proj(F.silu(cond))[..., None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, cond, groups=4):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.act1 = Snake(c_in)
        self.conv1 = nn.Conv1d(c_in, c_out, 3, padding=1)
        self.film = FiLM(cond, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.act2 = Snake(c_out)
        self.conv2 = nn.Conv1d(c_out, c_out, 3, padding=2, dilation=2)
        self.skip = nn.Conv1d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()

    def forward(self, x, *, cond):
        h = self.conv1(self.act1(self.norm1(x)))
        h = self.film(self.norm2(h), cond=cond)
        h = self.conv2(self.act2(h))
        return (h + self.skip(x)) * 2 ** -0.5


class CrossAttention(nn.Module):
    def __init__(self, channels, context, heads):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.norm_context = nn.LayerNorm(context)
        self.to_q = nn.Conv1d(channels, channels, 1, bias=False)
        self.to_kv = nn.Linear(context, 2 * channels, bias=False)
        self.to_out = nn.Conv1d(channels, channels, 1)
        self.heads = heads

    def forward(self, x, *, context, mask):
        b, c, t = x.shape
        q = self.to_q(self.norm(x)).reshape(b, self.heads, c // self.heads, t).transpose(2, 3)
        k, v = self.to_kv(self.norm_context(context)).chunk(2, dim=-1)
        k, v = (y.reshape(b, -1, self.heads, c // self.heads).transpose(1, 2) for y in (k, v))
        scores = q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        y = (scores.softmax(dim=-1) @ v).transpose(2, 3).reshape(b, c, t)
        return x + self.to_out(y)


class Down(nn.Module):
    def __init__(self, c_in, c_out, cond):
        super().__init__()
        self.block = ResBlock(c_in, c_in, cond)
        self.sample = nn.Conv1d(c_in, c_out, 4, stride=2, padding=1)

    def forward(self, x, *, cond):
        x = self.block(x, cond=cond)
        return self.sample(x), x


class Up(nn.Module):
    def __init__(self, c_in, c_out, cond):
        super().__init__()
        self.sample = nn.ConvTranspose1d(c_in, c_out, 4, stride=2, padding=1)
        self.block = ResBlock(2 * c_out, c_out, cond)

    def forward(self, x, skip, *, cond):
        return self.block(torch.cat([self.sample(x), skip], dim=1), cond=cond)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.noise = NoiseEmbedding(6, 24)
        self.enter = nn.Conv1d(2, 12, 7, padding=3)
        self.downs = nn.ModuleList([Down(12, 16, 24), Down(16, 24, 24)])
        self.middle = nn.ModuleDict({"before": ResBlock(24, 24, 24), "attention": CrossAttention(24, 10, 3), "after": ResBlock(24, 24, 24)})
        self.ups = nn.ModuleList([Up(24, 16, 24), Up(16, 12, 24)])
        self.leave = nn.Conv1d(12, 2, 3, padding=1)
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1 or p.shape[-1] == 1 and p.dim() == 2:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, noisy, sigma, text, lengths):
        mask = torch.arange(text.shape[1]) < lengths[:, None]
        s = sigma[:, None, None]
        c_skip = 0.25 / (s ** 2 + 0.25)
        c_out = s * 0.5 / (s ** 2 + 0.25) ** 0.5
        c_in = 1 / (s ** 2 + 0.25) ** 0.5
        cond = self.noise(sigma.log() / 4)
        x = self.enter(noisy * c_in)
        skips = []
        for down in self.downs:
            x, skip = down(x, cond=cond)
            skips.append(skip)
        x = self.middle["before"](x, cond=cond)
        x = self.middle["attention"](x, context=text, mask=mask)
        x = self.middle["after"](x, cond=cond)
        for up in self.ups:
            x = up(x, skips.pop(), cond=cond)
        return c_skip * noisy + c_out * self.leave(x)


def inputs():
    g = torch.Generator().manual_seed(17)
    return (torch.randn(2, 2, 32, generator=g), torch.rand(2, generator=g) + 0.3,
            torch.randn(2, 6, 10, generator=g), torch.tensor([6, 4]))


# The port ------------------------------------------------------------------------------------


class Periodic(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(n, 1))

    def forward(self, x):
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)


class Norm(nn.Module):
    def __init__(self, groups, n, eps=1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(n))
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, x):
        y = x.unflatten(1, (self.groups, -1))
        mean = y.mean((2, 3), keepdim=True)
        var = (y - mean).pow(2).mean((2, 3), keepdim=True)
        y = ((y - mean) * torch.rsqrt(var + self.eps)).flatten(1, 2)
        return y * self.weight[:, None] + self.bias[:, None]


class Level(nn.Module):
    def __init__(self, features, n):
        super().__init__()
        self.register_buffer("frequencies", torch.zeros(features))
        self.to_hidden = nn.Linear(2 * features + 1, n)
        self.to_out = nn.Linear(n, n)

    def forward(self, level):
        level = level.unsqueeze(1)
        angle = 2 * math.pi * level * self.frequencies
        x = torch.cat([level, torch.sin(angle), torch.cos(angle)], 1)
        x = self.to_hidden(x)
        return self.to_out(x * x.sigmoid())


class Modulate(nn.Module):
    def __init__(self, cond, n):
        super().__init__()
        self.proj = nn.Linear(cond, 2 * n)

    def forward(self, x, cond):
        both = self.proj(nn.functional.silu(cond))
        n = x.shape[1]
        scale, shift = both[:, :n, None], both[:, n:, None]
        return x + x * scale + shift


class Residual(nn.Module):
    def __init__(self, a, b, cond, name=""):
        super().__init__()
        self.name = name
        self.norm1 = Norm(4, a)
        self.act1 = Periodic(a)
        self.conv1 = nn.Conv1d(a, b, 3, padding=1)
        self.film = Modulate(cond, b)
        self.norm2 = Norm(4, b, 1e-6)
        self.act2 = Periodic(b)
        self.conv2 = nn.Conv1d(b, b, 3, padding=2, dilation=2)
        self.skip = nn.Conv1d(a, b, 1, bias=False) if a != b else None

    def forward(self, x, cond):
        h = self.conv1(self.act1(self.norm1(x)))
        h = self.norm2(h)
        h = self.film(h, cond)
        h = self.act2(h)
        h = self.conv2(h)
        if self.skip is not None:
            x = self.skip(x)
        return (x + h) / math.sqrt(2)


class TextAttention(nn.Module):
    heads = 3

    def __init__(self, n, context):
        super().__init__()
        self.norm = Norm(1, n)
        self.norm_context = nn.LayerNorm(context)
        self.to_q = nn.Conv1d(n, n, 1, bias=False)
        self.to_kv = nn.Linear(context, 2 * n, bias=False)
        self.to_out = nn.Conv1d(n, n, 1)

    def forward(self, x, text, mask):
        n = x.shape[1]
        q = self.to_q(self.norm(x)).mT.unflatten(-1, (self.heads, -1))
        kv = self.to_kv(self.norm_context(text))
        k = kv[..., :n].unflatten(-1, (self.heads, -1))
        v = kv[..., n:].unflatten(-1, (self.heads, -1))
        s = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        s = s + torch.zeros_like(s).masked_fill(~mask[:, None, None], -1e9)
        w = s.softmax(-1)
        y = torch.einsum("bhqk,bkhd->bqhd", w, v).flatten(2)
        return x + self.to_out(y.mT)


class Halve(nn.Module):
    def __init__(self, a, b, cond):
        super().__init__()
        self.block = Residual(a, a, cond)
        self.sample = nn.Conv1d(a, b, 4, stride=2, padding=1)

    def forward(self, x, cond):
        skip = self.block(x, cond)
        return self.sample(skip), skip


class Double(nn.Module):
    def __init__(self, a, b, cond):
        super().__init__()
        self.sample = nn.ConvTranspose1d(a, b, 4, stride=2, padding=1)
        self.block = Residual(2 * b, b, cond)

    def forward(self, x, skip, cond):
        x = self.sample(x)
        x = torch.cat([x, skip], 1)
        return self.block(x, cond)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.noise = Level(6, 24)
        self.enter = nn.Conv1d(2, 12, 7, padding=3)
        self.down_0, self.down_1 = Halve(12, 16, 24), Halve(16, 24, 24)
        self.before = Residual(24, 24, 24)
        self.attention = TextAttention(24, 10)
        self.after = Residual(24, 24, 24, "after")
        self.up_0, self.up_1 = Double(24, 16, 24), Double(16, 12, 24)
        self.leave = nn.Conv1d(12, 2, 3, padding=1)

    def forward(self, noisy, sigma, text, lengths):
        mask = torch.arange(text.shape[1])[None] < lengths[:, None]
        s = sigma.view(-1, 1, 1)
        total = (s.square() + 0.25).sqrt()
        cond = self.noise(torch.log(sigma) / 4)
        x = self.enter(noisy / total)
        x, skip_0 = self.down_0(x, cond)
        x, skip_1 = self.down_1(x, cond)
        x = self.before(x, cond)
        x = self.attention(x, text, mask)
        x = self.after(x, cond)
        x = self.up_0(x, skip_1, cond)
        x = self.up_1(x, skip_0, cond)
        x = self.leave(x)
        return noisy * (0.25 / total.square()) + x * (0.5 * s / total)


NAMES = {
    "down_0": "downs.0", "down_1": "downs.1", "up_0": "ups.0", "up_1": "ups.1",
    "before": "middle.before", "attention": "middle.attention", "after": "middle.after",
}

FAULTS = [
    Fault("snake_not_divided", "return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)", "return x + (self.alpha * x).sin().square()", "downs.0.block.act1", "output", "missing"),
    Fault("snake_small_term", "return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)", "return x + (self.alpha * x).sin().square() / (self.alpha + 1e-5)", "downs.0.block.act1", "output", "eps"),
    Fault("channels_a_group", "self.norm1 = Norm(4, a)", "self.norm1 = Norm(a // 4, a)", "downs.0.block.norm1", "output", "count"),
    Fault("eps_of_norm2", "self.norm2 = Norm(4, b, 1e-6)", "self.norm2 = Norm(4, b)", "downs.0.block.norm2", "output", "eps"),
    Fault("unbiased_in_groups", "var = (y - mean).pow(2).mean((2, 3), keepdim=True)", "var = y.var((2, 3), keepdim=True)", "downs.0.block.norm1", "output", "variance"),
    Fault("film_shift_first", "scale, shift = both[:, :n, None], both[:, n:, None]", "shift, scale = both[:, :n, None], both[:, n:, None]", "downs.0.block.film", "output", "order"),
    Fault("film_scale_without_one", "return x + x * scale + shift", "return x * scale + shift", "downs.0.block.film", "output", "missing"),
    Fault("film_before_norm", "        h = self.norm2(h)\n        h = self.film(h, cond)\n", "        h = self.film(h, cond)\n        h = self.norm2(h)\n", "downs.0.block", "output", "order"),
    Fault("cond_detached_after", "        h = self.film(h, cond)\n", "        h = self.film(h, cond.detach() if self.name == \"after\" else cond)\n", "middle.after", "gradient", "detached"),
    Fault("residual_not_scaled", "return (x + h) / math.sqrt(2)", "return x + h", "downs.0.block", "output", "scale"),
    Fault("residual_of_normed", "        h = self.conv1(self.act1(self.norm1(x)))\n", "        x = self.norm1(x)\n        h = self.conv1(self.act1(x))\n", "downs.0.block", "output", "residual"),
    Fault("cos_first", "[level, torch.sin(angle), torch.cos(angle)]", "[level, torch.cos(angle), torch.sin(angle)]", "noise", "output", "order"),
    Fault("padding_of_text_seen", "s = s + torch.zeros_like(s).masked_fill(~mask[:, None, None], -1e9)", "s = s + torch.zeros_like(s).masked_fill(~mask[:, None, None], -2.0)", "middle.attention", "output", "mask"),
    Fault("keys_and_values_swapped", "        k = kv[..., :n].unflatten(-1, (self.heads, -1))\n        v = kv[..., n:].unflatten", "        v = kv[..., :n].unflatten(-1, (self.heads, -1))\n        k = kv[..., n:].unflatten", "middle.attention", "output", "operand"),
    Fault("attention_scale_of_channels", "/ math.sqrt(q.shape[-1])", "/ math.sqrt(n)", "middle.attention", "output", "scale"),
    Fault("heads_inner", "q = self.to_q(self.norm(x)).mT.unflatten(-1, (self.heads, -1))", "q = self.to_q(self.norm(x)).mT.unflatten(-1, (-1, self.heads)).mT", "middle.attention", "output", "heads"),
    Fault("query_transposed", "q = self.to_q(self.norm(x)).mT.unflatten(-1, (self.heads, -1))", "q = (self.norm(x).mT @ self.to_q.weight[:, :, 0]).unflatten(-1, (self.heads, -1))", "middle.attention", "output", "transposed"),
    Fault("weights_detached", "w = s.softmax(-1)", "w = s.softmax(-1).detach()", "middle.attention", "gradient", "detached"),
    Fault("transposed_convolution_kernel_flipped", "        x = self.sample(x)\n", "        x = F.conv_transpose1d(x, self.sample.weight.flip(-1), self.sample.bias, stride=2, padding=1)\n", "ups.0", "output", "transposed"),
    Fault("down_padded_on_one_side", "return self.sample(skip), skip", "return F.conv1d(F.pad(skip, (0, 2)), self.sample.weight, self.sample.bias, stride=2), skip", "downs.0", "output", "padding"),
    Fault("c_out_without_sigma_data", "x * (0.5 * s / total)", "x * (s / total)", "", "output", "scale"),
    Fault("skip_of_outermost_detached", "x = self.up_1(x, skip_0, cond)", "x = self.up_1(x, skip_0.detach(), cond)", "", "gradient", "detached"),
    Fault("stride_from_other_phase", "return self.sample(skip), skip", "return F.conv1d(skip, self.sample.weight, self.sample.bias, padding=2)[..., :-1:2], skip", "downs.0", "output", "stride"),
]

RIGHT = [
    Right("snake_by_cosine", "return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)", "return x + (1 - torch.cos(2 * self.alpha * x)) / (2 * (self.alpha + 1e-9))"),
    Right("snake_by_function", """class Periodic(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(n, 1))

    def forward(self, x):
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)""", """class Wave(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x, alpha)
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    @staticmethod
    def backward(ctx, g):
        x, alpha = ctx.saved_tensors
        near = alpha + 1e-9
        double = torch.sin(2 * alpha * x)
        slope = g * (x * double / near - torch.sin(alpha * x) ** 2 / near ** 2)
        return g * (1 + alpha / near * double), slope.sum((0, 2))[:, None]


class Periodic(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(n, 1))

    def forward(self, x):
        return Wave.apply(x, self.alpha)"""),
    Right("norm_of_torch", """        y = x.unflatten(1, (self.groups, -1))
        mean = y.mean((2, 3), keepdim=True)
        var = (y - mean).pow(2).mean((2, 3), keepdim=True)
        y = ((y - mean) * torch.rsqrt(var + self.eps)).flatten(1, 2)
        return y * self.weight[:, None] + self.bias[:, None]""", "        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)"),
    Right("film_by_addcmul", "return x + x * scale + shift", "return torch.addcmul(shift, x, scale + 1)"),
    Right("film_of_norm_in_one", """        h = self.norm2(h)
        h = self.film(h, cond)
""", """        both = self.film.proj(F.silu(cond))[..., None]
        scale, shift = both.chunk(2, 1)
        gain = (1 + scale) * self.norm2.weight[:, None]
        shift = shift + (1 + scale) * self.norm2.bias[:, None]
        h = F.group_norm(h, 4, eps=self.norm2.eps) * gain + shift
""", True, NAMES),
    Right("convolution_of_concatenation_split", "        x = torch.cat([x, skip], 1)\n        return self.block(x, cond)", """        block, n = self.block, x.shape[1]
        h = block.act1(block.norm1(torch.cat([x, skip], 1)))
        h = F.conv1d(h[:, :n], block.conv1.weight[:, :n], block.conv1.bias, padding=1) + F.conv1d(h[:, n:], block.conv1.weight[:, n:], padding=1)
        h = block.conv2(block.act2(block.film(block.norm2(h), cond)))
        straight = F.conv1d(x, block.skip.weight[:, :n]) + F.conv1d(skip, block.skip.weight[:, n:])
        return (h + straight) * 0.5 ** 0.5""", True, NAMES),
    Right("halving_by_unfold", "return self.sample(skip), skip", """windows = F.pad(skip, (1, 1)).unfold(-1, 4, 2)
        return torch.einsum("bctk,dck->bdt", windows, self.sample.weight) + self.sample.bias[:, None], skip""", True, NAMES),
    Right("doubling_by_zeros_between", "        x = self.sample(x)\n", """        wide = torch.stack([x, torch.zeros_like(x)], -1).flatten(2)
        x = F.conv1d(F.pad(wide, (2, 1)), self.sample.weight.transpose(0, 1).flip(-1), self.sample.bias)
""", True, NAMES),
    Right("attention_of_torch", """        s = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        s = s + torch.zeros_like(s).masked_fill(~mask[:, None, None], -1e9)
        w = s.softmax(-1)
        y = torch.einsum("bhqk,bkhd->bqhd", w, v).flatten(2)
""", """        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)
"""),
    Right("keys_and_values_apart", """        self.to_kv = nn.Linear(context, 2 * n, bias=False)
        self.to_out = nn.Conv1d(n, n, 1)

    def forward(self, x, text, mask):
        n = x.shape[1]
        q = self.to_q(self.norm(x)).mT.unflatten(-1, (self.heads, -1))
        kv = self.to_kv(self.norm_context(text))
        k = kv[..., :n].unflatten(-1, (self.heads, -1))
        v = kv[..., n:].unflatten(-1, (self.heads, -1))
""", """        self.to_k = nn.Linear(context, n, bias=False)
        self.to_v = nn.Linear(context, n, bias=False)
        self.to_out = nn.Conv1d(n, n, 1)

    def forward(self, x, text, mask):
        q = self.to_q(self.norm(x)).mT.unflatten(-1, (self.heads, -1))
        text = self.norm_context(text)
        k = self.to_k(text).unflatten(-1, (self.heads, -1))
        v = self.to_v(text).unflatten(-1, (self.heads, -1))
""", True, NAMES | {"attention.to_k.weight": "middle.attention.to_kv.weight[:24]", "attention.to_v.weight": "middle.attention.to_kv.weight[24:]"}),
    Right("middle_checkpointed", "x = self.after(x, cond)", "x = torch.utils.checkpoint.checkpoint(self.after, x, cond, use_reentrant=False)"),
    Right("skip_as_matrix", "            x = self.skip(x)\n", "            x = self.skip.weight[:, :, 0] @ x\n", True, NAMES),
]
