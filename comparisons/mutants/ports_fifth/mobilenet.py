"""MobileNetV3 after torchvision (Sequentials, squeeze and excitation, hardswish) in train mode with dropout, ported after timm."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def settle(module, seed):
    """Move parameters and running statistics off their initial values, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.2 if p.dim() == 1 else 0.05))
        for name, b in module.named_buffers():
            if "running" in name:
                b.add_(torch.rand(b.shape, generator=g) * 0.3)


class ConvNormActivation(nn.Sequential):
    def __init__(self, cin, cout, kernel, stride=1, groups=1, activation=nn.Hardswish):
        layers = [
            nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(cout, eps=0.001, momentum=0.01),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        scale = self.avgpool(x)
        scale = F.relu(self.fc1(scale))
        return F.relu6(self.fc2(scale) + 3) / 6 * x


class InvertedResidual(nn.Module):
    def __init__(self, cin, expanded, cout, kernel, stride, use_se, use_hs):
        super().__init__()
        self.use_res_connect = stride == 1 and cin == cout
        activation = nn.Hardswish if use_hs else nn.ReLU
        layers = []
        if expanded != cin:
            layers.append(ConvNormActivation(cin, expanded, 1, activation=activation))
        layers.append(ConvNormActivation(expanded, expanded, kernel, stride, groups=expanded, activation=activation))
        if use_se:
            layers.append(SqueezeExcitation(expanded, max(expanded // 4, 4)))
        layers.append(ConvNormActivation(expanded, cout, 1, activation=None))
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        result = self.block(x)
        if self.use_res_connect:
            result = result + x
        return result


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            ConvNormActivation(3, 8, 3, stride=2),
            InvertedResidual(8, 8, 8, 3, 1, True, False),
            InvertedResidual(8, 24, 12, 3, 2, False, False),
            InvertedResidual(12, 36, 12, 5, 1, True, True),
            ConvNormActivation(12, 32, 1),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(32, 40), nn.Hardswish(inplace=True), nn.Dropout(p=0.2, inplace=True), nn.Linear(40, 7))
        settle(self, 5)

    def forward(self, x):
        x = self.features(x)
        x = torch.flatten(self.avgpool(x), 1)
        return self.classifier(x)


def inputs():
    g = torch.Generator().manual_seed(15)
    return (torch.randn(4, 3, 17, 17, generator=g),)


# The port ------------------------------------------------------------------------------------


class BatchNormAct(nn.BatchNorm2d):
    """A batch norm with its activation."""

    def __init__(self, width, act):
        super().__init__(width, eps=1e-3, momentum=0.01)
        self.act = act

    def forward(self, x):
        x = super().forward(x)
        return self.act(x)


class Stem(nn.Module):
    """Convolution, norm, activation under the Sequential's numbers."""

    def __init__(self, cin, cout, size, step=1):
        super().__init__()
        self.add_module("0", nn.Conv2d(cin, cout, size, stride=step, padding=size // 2, bias=False))
        self.add_module("1", nn.BatchNorm2d(cout, eps=1e-3, momentum=1e-2))

    def forward(self, x):
        conv, norm = self.children()
        y = norm(conv(x))
        return y * F.relu6(y + 3) / 6


class SqueezeExcite(nn.Module):
    def __init__(self, width, reduced):
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, width, 1)

    def forward(self, x):
        pooled = x.mean((2, 3), keepdim=True)
        gate = self.conv_expand(self.conv_reduce(pooled).relu())
        return x * ((gate + 3).clamp(0, 6) / 6)


class DepthwiseSeparable(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = BatchNormAct(width, torch.relu)
        self.se = SqueezeExcite(width, 4)
        self.conv_pw = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)

    def forward(self, x):
        y = self.se(self.bn1(self.conv_dw(x)))
        return self.bn2(self.conv_pw(y)) + x


class Inverted(nn.Module):
    def __init__(self, cin, mid, cout, size, step, act, se):
        super().__init__()
        self.conv_pw = nn.Conv2d(cin, mid, 1, bias=False)
        self.bn1 = BatchNormAct(mid, act)
        self.conv_dw = nn.Conv2d(mid, mid, size, stride=step, padding=size // 2, groups=mid, bias=False)
        self.bn2 = BatchNormAct(mid, act)
        self.se = SqueezeExcite(mid, mid // 4) if se else nn.Identity()
        self.conv_pwl = nn.Conv2d(mid, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout, 1e-3, 0.01)
        self.has_skip = cin == cout and step == 1

    def forward(self, x):
        shortcut = x
        x = self.bn1(self.conv_pw(x))
        x = self.se(self.bn2(self.conv_dw(x)))
        x = self.bn3(self.conv_pwl(x))
        return shortcut + x if self.has_skip else x


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem = Stem(3, 8, 3, step=2)
        self.block0 = DepthwiseSeparable(8)
        self.block1 = Inverted(8, 24, 12, 3, 2, F.relu, se=False)
        self.block2 = Inverted(12, 36, 12, 5, 1, F.hardswish, se=True)
        self.conv_head = Stem(12, 32, 1)
        self.pre = nn.Linear(32, 40)
        self.classifier = nn.Linear(40, 7)
        self.drop_rate = 0.2

    def forward(self, images):
        x = self.conv_stem(images)
        x = self.block2(self.block1(self.block0(x)))
        x = self.conv_head(x)
        x = x.mean(dim=(-2, -1))
        x = F.hardswish(self.pre(x))
        x = F.dropout(x, self.drop_rate, training=self.training)
        return self.classifier(x)


NAMES = {
    "conv_stem": "features.0",
    "conv_head": "features.4",
    "pre": "classifier.0",
    "classifier": "classifier.3",
    "block0": "features.1",
    "block0.conv_dw": "features.1.block.0.0",
    "block0.bn1": "features.1.block.0.1",
    "block0.se": "features.1.block.1",
    "block0.se.conv_reduce": "features.1.block.1.fc1",
    "block0.se.conv_expand": "features.1.block.1.fc2",
    "block0.conv_pw": "features.1.block.2.0",
    "block0.bn2": "features.1.block.2.1",
    "block1": "features.2",
    "block1.conv_pw": "features.2.block.0.0",
    "block1.bn1": "features.2.block.0.1",
    "block1.conv_dw": "features.2.block.1.0",
    "block1.bn2": "features.2.block.1.1",
    "block1.conv_pwl": "features.2.block.2.0",
    "block1.bn3": "features.2.block.2.1",
    "block2": "features.3",
    "block2.conv_pw": "features.3.block.0.0",
    "block2.bn1": "features.3.block.0.1",
    "block2.conv_dw": "features.3.block.1.0",
    "block2.bn2": "features.3.block.1.1",
    "block2.se": "features.3.block.2",
    "block2.se.conv_reduce": "features.3.block.2.fc1",
    "block2.se.conv_expand": "features.3.block.2.fc2",
    "block2.conv_pwl": "features.3.block.3.0",
    "block2.bn3": "features.3.block.3.1",
}
# A timm norm holds its activation, a torchvision one does not: only parameters and buffers of these are called alike.
for _n in ("block0.bn1", "block1.bn1", "block1.bn2", "block2.bn1", "block2.bn2"):
    _o = NAMES.pop(_n)
    for _k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        NAMES[f"{_n}.{_k}"] = f"{_o}.{_k}"

FAULTS = [
    Fault("eps_of_stem_norm", "nn.BatchNorm2d(cout, eps=1e-3, momentum=1e-2)", "nn.BatchNorm2d(cout, momentum=1e-2)", "features.0.1", "output", "eps"),
    Fault("momentum_of_stem_norm", "nn.BatchNorm2d(cout, eps=1e-3, momentum=1e-2)", "nn.BatchNorm2d(cout, eps=1e-3)", "features.0.1", "buffer", "momentum"),
    Fault("momentum_turned", "super().__init__(width, eps=1e-3, momentum=0.01)", "super().__init__(width, eps=1e-3, momentum=0.99)", "features.1", "buffer", "momentum"),
    Fault("momentum_of_none", "super().__init__(width, eps=1e-3, momentum=0.01)", "super().__init__(width, eps=1e-3, momentum=None)", "features.1", "buffer", "momentum"),
    Fault("momentum_of_last_norm", "self.bn3 = nn.BatchNorm2d(cout, 1e-3, 0.01)", "self.bn3 = nn.BatchNorm2d(cout, 1e-3)", "features.2.block.2.1", "buffer", "momentum"),
    Fault("biased_running_variance", "x = super().forward(x)\n        return self.act(x)", "before = self.running_var.clone()\n        var = x.detach().var((0, 2, 3), unbiased=False)\n        x = super().forward(x)\n        self.running_var = torch.lerp(before, var.to(before.dtype), self.momentum)\n        return self.act(x)", "features.1", "buffer", "variance"),
    Fault("unbiased_batch_variance", "y = norm(conv(x))", "z = conv(x)\n        norm(z.detach())\n        var, mean = torch.var_mean(z, (0, 2, 3), keepdim=True)\n        y = (z - mean) * (var + norm.eps).rsqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]", "features.0", "output", "variance"),
    Fault("statistics_detached", "y = norm(conv(x))", "z = conv(x)\n        norm(z.detach())\n        var, mean = torch.var_mean(z.detach(), (0, 2, 3), keepdim=True, unbiased=False)\n        y = (z - mean) * (var + norm.eps).rsqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]", "features.0", "gradient", "detached"),
    Fault("norms_in_eval_mode", "x = super().forward(x)\n", "x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)\n", "features.1", "output", "mode"),
    Fault("head_norm_frozen", "self.conv_head = Stem(12, 32, 1)", "self.conv_head = Stem(12, 32, 1).eval()", "features.4.1", "output", "mode"),
    Fault("dropout_missing", "x = F.dropout(x, self.drop_rate, training=self.training)", "x = x", "", "output", "mode"),
    Fault("dropout_in_eval", "training=self.training", "training=not self.training", "", "output", "mode"),
    Fault("swish_for_hardswish", "return y * F.relu6(y + 3) / 6", "return F.silu(y)", "features.0", "output", "approximate"),
    Fault("swish_in_block", "F.hardswish, se=True", "F.silu, se=True", "features.3", "output", "approximate"),
    Fault("relu_in_block", "F.hardswish, se=True", "F.relu, se=True", "features.3", "output", "activation"),
    Fault("sigmoid_gate", "return x * ((gate + 3).clamp(0, 6) / 6)", "return x * torch.sigmoid(gate)", "features.1.block.1", "output", "activation"),
    Fault("hard_sigmoid_of_keras", "return x * ((gate + 3).clamp(0, 6) / 6)", "return x * (gate * 0.2 + 0.5).clamp(0, 1)", "features.1.block.1", "output", "scale"),
    Fault("gate_twice", "y = self.se(self.bn1(self.conv_dw(x)))", "y = self.bn1(self.conv_dw(x))\n        y = y * self.se(y)", "features.1", "output", "operand"),
    Fault("gate_detached", "pooled = x.mean((2, 3), keepdim=True)", "pooled = x.detach().mean((2, 3), keepdim=True)", "features.1.block.1", "gradient", "detached"),
    Fault("pool_over_one_less", "pooled = x.mean((2, 3), keepdim=True)", "pooled = x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)", "features.1.block.1", "output", "count"),
    Fault("squeezing_relu_missing", "gate = self.conv_expand(self.conv_reduce(pooled).relu())", "gate = self.conv_expand(self.conv_reduce(pooled))", "features.1.block.1", "output", "missing"),
    Fault("excitation_before_depthwise", "x = self.se(self.bn2(self.conv_dw(x)))", "x = self.bn2(self.conv_dw(self.se(x)))", "features.3", "output", "order"),
    Fault("skip_after_expansion", "shortcut = x\n        x = self.bn1(self.conv_pw(x))", "x = self.bn1(self.conv_pw(x))\n        shortcut = x[:, : self.conv_pw.in_channels]", "features.3", "output", "residual"),
    Fault("skip_before_norm", "return self.bn2(self.conv_pw(y)) + x", "return self.bn2(self.conv_pw(y) + x)", "features.1", "output", "residual"),
    Fault("padding_of_tensorflow", "y = norm(conv(x))", "if conv.stride[0] == 2:\n            x = F.pad(x, (0, 2, 0, 2))\n            y = norm(F.conv2d(x, conv.weight, stride=2))\n        else:\n            y = norm(conv(x))", "features.0", "output", "padding"),
    Fault("stride_at_the_first", "self.conv_dw = nn.Conv2d(mid, mid, size, stride=step, padding=size // 2, groups=mid, bias=False)", "self.conv_dw = nn.Conv2d(mid, mid, size, padding=size // 2, groups=mid, bias=False)\n        self.conv_pw.stride = (step, step)", "features.2.block.0.0", "output", "stride"),
    Fault("stride_from_the_second", "x = self.se(self.bn2(self.conv_dw(x)))", "if self.conv_dw.stride[0] == 2:\n            x = F.conv2d(x, self.conv_dw.weight, padding=1, groups=x.shape[1])[:, :, 1::2, 1::2]\n        else:\n            x = self.conv_dw(x)\n        x = self.se(self.bn2(x))", "features.2", "output", "stride"),
    Fault("images_transposed", "x = self.conv_stem(images)", "x = self.conv_stem(images.transpose(2, 3))", "", "output", "transposed"),
    Fault("residual_detached", "return shortcut + x if self.has_skip else x", "return shortcut.detach() + x if self.has_skip else x", "features.3", "gradient", "residual"),
    Fault("eps_of_activated_norms", "super().__init__(width, eps=1e-3, momentum=0.01)", "super().__init__(width, eps=9e-4, momentum=0.01)", "features.1", "output", "eps"),
    Fault("gate_bias_detached", "gate = self.conv_expand(self.conv_reduce(pooled).relu())", "gate = F.conv2d(self.conv_reduce(pooled).relu(), self.conv_expand.weight, self.conv_expand.bias.detach())", "features.1.block.1", "gradient", "detached"),
]

RIGHT = [
    Right("stem_unfolded", "y = norm(conv(x))", "n, _, h, w = x.shape\n        step = conv.stride[0]\n        cols = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=step)\n        y = (conv.weight.flatten(1) @ cols).view(n, -1, (h - 1) // step + 1, (w - 1) // step + 1)\n        y = norm(y)", True),
    Right("norm_of_stem_by_hand", "y = norm(conv(x))", "z = conv(x)\n        n = z.numel() // z.shape[1]\n        mean = z.mean((0, 2, 3))\n        centred = z - mean[:, None, None]\n        var = centred.square().mean((0, 2, 3))\n        with torch.no_grad():\n            norm.running_mean += norm.momentum * (mean - norm.running_mean)\n            norm.running_var.mul_(1 - norm.momentum).add_(var * n / (n - 1), alpha=norm.momentum)\n            norm.num_batches_tracked += 1\n        y = centred * (norm.weight / (var + norm.eps).sqrt())[:, None, None] + norm.bias[:, None, None]", True),
    Right("hardswish_of_torch", "return y * F.relu6(y + 3) / 6", "return F.hardswish(y)"),
    Right("hardswish_in_place", "return y * F.relu6(y + 3) / 6", "return F.relu6(y + 3).mul(y).div_(6)"),
    Right("squeeze_by_linear", "pooled = x.mean((2, 3), keepdim=True)\n        gate = self.conv_expand(self.conv_reduce(pooled).relu())", "pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)\n        low = F.linear(pooled, self.conv_reduce.weight.flatten(1), self.conv_reduce.bias).clamp_min(0)\n        gate = F.linear(low, self.conv_expand.weight.flatten(1), self.conv_expand.bias)[..., None, None]", True),
    Right("pointwise_by_einsum", "x = self.bn3(self.conv_pwl(x))", "x = self.bn3(torch.einsum('nchw,oc->nohw', x, self.conv_pwl.weight[:, :, 0, 0]))", True),
    Right("depthwise_by_shifts", "y = self.se(self.bn1(self.conv_dw(x)))", "wide = F.pad(x, (1, 1, 1, 1))\n        w = self.conv_dw.weight[:, 0, :, :, None, None]\n        h = sum(w[:, i, j] * wide[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3))\n        y = self.se(self.bn1(h))", True),
    Right("channels_last", "x = self.conv_stem(images)", "x = self.conv_stem(images.contiguous(memory_format=torch.channels_last))"),
    Right("skip_in_place", "return shortcut + x if self.has_skip else x", "if self.has_skip:\n            x += shortcut\n        return x"),
    Right("dropout_by_hand", "x = F.dropout(x, self.drop_rate, training=self.training)", "if self.training:\n            x = x * F.dropout(torch.ones_like(x), p=0.2)"),
]
