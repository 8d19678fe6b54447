"""A small ConvNeXt V2 in the manner of timm (channels first), ported with channels last throughout."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..ports.kinds import Fault, Right


class LayerNorm2d(nn.LayerNorm):
    def __init__(self, channels, eps=1e-6):
        super().__init__(channels, eps=eps)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Channels last."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(0.2 * torch.randn(dim))
        self.bias = nn.Parameter(0.1 * torch.randn(dim))

    def forward(self, x):
        g = x.norm(p=2, dim=(1, 2), keepdim=True)
        n = g / (g.mean(dim=-1, keepdim=True) + self.eps)
        return x + self.bias + self.weight * (x * n)


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(self.grn(self.act(self.fc1(x))))


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim, kernel_size=5, mlp_ratio=2):
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.gamma = nn.Parameter(0.5 + 0.1 * torch.randn(dim))

    def forward(self, x):
        shortcut = x
        x = self.conv_dw(x)
        x = self.mlp(self.norm(x.permute(0, 2, 3, 1)))
        x = x.permute(0, 3, 1, 2) * self.gamma.reshape(1, -1, 1, 1)
        return x + shortcut


class ConvNeXtStage(nn.Module):
    def __init__(self, cin, cout, depth, stride):
        super().__init__()
        if stride > 1:
            self.downsample = nn.Sequential(LayerNorm2d(cin), nn.Conv2d(cin, cout, stride, stride=stride))
        else:
            self.downsample = nn.Identity()
        self.blocks = nn.Sequential(*[ConvNeXtBlock(cout) for _ in range(depth)])

    def forward(self, x):
        return self.blocks(self.downsample(x))


class HardSigmoid(nn.Module):
    def forward(self, x):
        return F.relu6(x + 3.0) / 6.0


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = nn.ReLU()
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = HardSigmoid()

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(s))))


class Original(nn.Module):
    def __init__(self, dims=(12, 24), depths=(1, 2), num_classes=7):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNorm2d(dims[0]))
        self.stages = nn.Sequential(ConvNeXtStage(dims[0], dims[0], depths[0], 1), ConvNeXtStage(dims[0], dims[1], depths[1], 2))
        self.se = SqueezeExcite(dims[1], 8)
        self.head = nn.ModuleDict({"norm": LayerNorm2d(dims[1]), "fc": nn.Linear(dims[1], num_classes)})

    def forward(self, x):
        x = self.se(self.stages(self.stem(x)))
        x = x.mean((2, 3), keepdim=True)
        return self.head["fc"](self.head["norm"](x).flatten(1))


def inputs():
    g = torch.Generator().manual_seed(8)
    return (torch.randn(2, 3, 32, 32, generator=g),)


# The port ------------------------------------------------------------------------------------


class Norm(nn.Module):
    """Over the last axis, for (batch, height, width, channels) as for (batch, channels)."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        x = (x - mean) * torch.rsqrt(var + 1e-6)
        return x * self.weight + self.bias


class ConvLast(nn.Conv2d):
    def forward(self, x):
        x = x.permute(0, 3, 1, 2)
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return x.permute(0, 2, 3, 1)


class Depthwise(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, 1, size, size))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.size = size

    def forward(self, x):
        p = self.size // 2
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, p, p, p, p))
        total = self.bias
        for i in range(self.size):
            for j in range(self.size):
                total = total + x[:, i:i + height, j:j + width] * self.weight[:, 0, i, j]
        return total


class Response(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        energy = (x * x).sum((1, 2))
        size = energy.sqrt()
        ratio = size / (size.mean(1, keepdim=True) + 1e-6)
        factor = 1 + self.weight * ratio[:, None, None, :]
        return x * factor + self.bias


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.grn = Response(2 * dim)
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x):
        hidden = self.fc1(x)
        hidden = F.gelu(hidden)
        hidden = self.grn(hidden)
        return self.fc2(hidden)


class Unit(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.conv_dw = Depthwise(dim, 5)
        self.norm = Norm(dim)
        self.mlp = FeedForward(dim)

    def forward(self, x):
        y = self.mlp(self.norm(self.conv_dw(x)))
        return torch.addcmul(x, y, self.gamma)


class Stage(nn.Module):
    def __init__(self, cin, cout, depth, stride):
        super().__init__()
        self.downsample = nn.ModuleList([Norm(cin), ConvLast(cin, cout, 2, 2)]) if stride == 2 else None
        self.blocks = nn.ModuleList(Unit(cout) for _ in range(depth))

    def forward(self, x):
        if self.downsample is not None:
            x = self.downsample[0](x)
            x = self.downsample[1](x)
        for block in self.blocks:
            x = block(x)
        return x


class Excite(nn.Module):
    def __init__(self, dim, reduced):
        super().__init__()
        self.conv_reduce = ConvLast(dim, reduced, 1)
        self.conv_expand = ConvLast(reduced, dim, 1)

    def forward(self, x):
        s = x.mean((1, 2), keepdim=True)
        s = self.conv_expand(F.relu(self.conv_reduce(s)))
        gate = F.relu6(s + 3) / 6
        return gate * x


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(ConvLast(3, 12, 4, 4), Norm(12))
        self.stages = nn.ModuleList([Stage(12, 12, 1, 1), Stage(12, 24, 2, 2)])
        self.se = Excite(24, 8)
        self.head_norm = Norm(24)
        self.classifier = nn.Linear(24, 7)

    def forward(self, image):
        x = self.stem(image.permute(0, 2, 3, 1))
        x = self.stages[0](x)
        x = self.stages[1](x)
        x = self.se(x)
        pooled = self.head_norm(x.mean((1, 2)))
        return self.classifier(pooled)


NAMES = {"head_norm": "head.norm", "classifier": "head.fc"}

FAULTS = [
    Fault("eps_of_block_norm", "self.norm = Norm(dim)", "self.norm = nn.LayerNorm(dim)", "stages.0.blocks.0.norm", "output", "eps"),
    Fault("unbiased_norm", "torch.var_mean(x, -1, correction=0, keepdim=True)", "torch.var_mean(x, -1, correction=1, keepdim=True)",
          "stem.1", "output", "variance"),
    Fault("mean_detached", "x = (x - mean) * torch.rsqrt(var + 1e-6)", "x = (x - mean.detach()) * torch.rsqrt(var + 1e-6)",
          "stem.1", "gradient", "detached"),
    Fault("tanh_gelu", "F.gelu(hidden)", "F.gelu(hidden, approximate=\"tanh\")", "stages.0.blocks.0.mlp", "output", "approximate"),
    Fault("response_detached", "ratio = size / (size.mean(1, keepdim=True) + 1e-6)", "ratio = size / (size.mean(1, keepdim=True).detach() + 1e-6)",
          "stages.0.blocks.0.mlp.grn", "gradient", "detached"),
    Fault("response_of_batch", "size.mean(1, keepdim=True)", "size.mean(0, keepdim=True)", "stages.0.blocks.0.mlp.grn", "output", "order"),
    Fault("response_eps", "(size.mean(1, keepdim=True) + 1e-6)", "(size.mean(1, keepdim=True) + 1e-3)", "stages.0.blocks.0.mlp.grn", "output", "eps"),
    Fault("response_squared", "size = energy.sqrt()", "size = energy", "stages.0.blocks.0.mlp.grn", "output", "missing"),
    Fault("response_without_itself", "factor = 1 + self.weight", "factor = self.weight", "stages.0.blocks.0.mlp.grn", "output", "missing"),
    Fault("response_before_activation", "        hidden = F.gelu(hidden)\n        hidden = self.grn(hidden)\n",
          "        hidden = self.grn(hidden)\n        hidden = F.gelu(hidden)\n", "stages.0.blocks.0.mlp", "output", "order"),
    Fault("kernel_transposed", "self.weight[:, 0, i, j]", "self.weight[:, 0, j, i]", "stages.0.blocks.0.conv_dw", "output", "transposed"),
    Fault("padded_around", "x = F.pad(x, (0, 0, p, p, p, p))",
          "x = F.pad(x.movedim(-1, 1), (p, p, p, p), mode=\"circular\").movedim(1, -1)", "stages.0.blocks.0.conv_dw", "output", "padding"),
    Fault("gamma_on_residual", "torch.addcmul(x, y, self.gamma)", "(x + y) * self.gamma", "stages.0.blocks.0", "output", "residual"),
    Fault("residual_after_convolution", "        y = self.mlp(self.norm(self.conv_dw(x)))\n", "        x = self.conv_dw(x)\n        y = self.mlp(self.norm(x))\n",
          "stages.0.blocks.0", "output", "residual"),
    Fault("gamma_detached", "torch.addcmul(x, y, self.gamma)", "torch.addcmul(x, y, self.gamma.detach())", "stages.0.blocks.0", "gradient", "detached"),
    Fault("stem_stride", "ConvLast(3, 12, 4, 4)", "ConvLast(3, 12, 4, 3)", "stem.0", "output", "stride"),
    Fault("sigmoid_for_hard_sigmoid", "gate = F.relu6(s + 3) / 6", "gate = s.sigmoid()", "se", "output", "activation"),
    Fault("normed_before_pool", "self.head_norm(x.mean((1, 2)))", "self.head_norm(x).mean((1, 2))", "", "output", "order"),
    Fault("image_turned", "image.permute(0, 2, 3, 1)", "image.permute(0, 3, 2, 1)", "", "output", "transposed"),
    Fault("squeeze_detached", "s = x.mean((1, 2), keepdim=True)", "s = x.detach().mean((1, 2), keepdim=True)", "se", "gradient", "detached"),
    Fault("residual_detached", "torch.addcmul(x, y, self.gamma)", "torch.addcmul(x.detach(), y, self.gamma)", "stages.0.blocks.0", "gradient", "residual"),
]

RIGHT = [
    Right("norm_by_the_library", """        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        x = (x - mean) * torch.rsqrt(var + 1e-6)
        return x * self.weight + self.bias
""", """        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-6)
"""),
    Right("norm_by_moments", """        var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        x = (x - mean) * torch.rsqrt(var + 1e-6)
""", """        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide - wide.mean(-1, keepdim=True)
        x = (wide / wide.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()).to(x.dtype)
"""),
    Right("depthwise_by_the_library", """        total = self.bias
        for i in range(self.size):
            for j in range(self.size):
                total = total + x[:, i:i + height, j:j + width] * self.weight[:, 0, i, j]
        return total
""", """        x = F.conv2d(x.movedim(-1, 1), self.weight, self.bias, groups=len(self.bias))
        return x.movedim(1, -1)
"""),
    Right("depthwise_by_windows", """        total = self.bias
        for i in range(self.size):
            for j in range(self.size):
                total = total + x[:, i:i + height, j:j + width] * self.weight[:, 0, i, j]
        return total
""", """        windows = x.unfold(1, self.size, 1).unfold(2, self.size, 1)
        return torch.einsum("bhwcij,cij->bhwc", windows, self.weight[:, 0]) + self.bias
"""),
    Right("response_as_written", """        energy = (x * x).sum((1, 2))
        size = energy.sqrt()
        ratio = size / (size.mean(1, keepdim=True) + 1e-6)
        factor = 1 + self.weight * ratio[:, None, None, :]
        return x * factor + self.bias
""", """        size = torch.linalg.vector_norm(x.flatten(1, 2), dim=1)
        ratio = (size / size.mean(1, keepdim=True).add(1e-6))[:, None, None]
        return (x * ratio).mul(self.weight).add(x).add(self.bias)
"""),
    Right("gamma_folded", """        y = self.mlp(self.norm(self.conv_dw(x)))
        return torch.addcmul(x, y, self.gamma)
""", """        y = self.norm(self.conv_dw(x))
        y = self.mlp.grn(F.gelu(self.mlp.fc1(y)))
        return x + F.linear(y, self.mlp.fc2.weight * self.gamma[:, None], self.mlp.fc2.bias * self.gamma)
""", True),
    Right("downsample_by_patches", "            x = self.downsample[1](x)\n", """            b, h, w, c = x.shape
            patches = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4).flatten(3)
            x = patches @ self.downsample[1].weight.flatten(1).T + self.downsample[1].bias
""", True),
    Right("norm_folded_into_downsample", """            x = self.downsample[0](x)
            x = self.downsample[1](x)
""", """            norm, conv = self.downsample
            x = F.layer_norm(x, x.shape[-1:], eps=1e-6).movedim(-1, 1)
            weight = conv.weight * norm.weight.view(1, -1, 1, 1)
            bias = conv.bias + (conv.weight * norm.bias.view(1, -1, 1, 1)).sum((1, 2, 3))
            x = F.conv2d(x, weight, bias, stride=2).movedim(1, -1)
""", True),
    Right("squeeze_by_linear", "        s = self.conv_expand(F.relu(self.conv_reduce(s)))\n",
          """        s = F.relu(F.linear(s, self.conv_reduce.weight.flatten(1), self.conv_reduce.bias))
        s = F.linear(s, self.conv_expand.weight.flatten(1), self.conv_expand.bias)
""", True),
    Right("hard_sigmoid", "gate = F.relu6(s + 3) / 6", "gate = (s / 6 + 0.5).clamp(0, 1)"),
    Right("checkpointed", "            x = block(x)\n", "            x = checkpoint(block, x, use_reentrant=False)\n"),
    Right("gelu_by_erf", "        hidden = F.gelu(hidden)\n", "        hidden = hidden * 0.5 * (1 + torch.erf(hidden * 0.5 ** 0.5))\n"),
]
