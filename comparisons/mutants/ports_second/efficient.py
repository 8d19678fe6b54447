"""An inverted-residual network in timm style with TensorFlow's padding and BatchNorm: squeeze-and-excitation, strides, running statistics, a weight-standardised head."""

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class Conv2dSame(nn.Conv2d):
    """Padding as in TensorFlow: what is odd goes to the right and below."""

    def forward(self, x):
        k, s = self.kernel_size[0], self.stride[0]
        ih, iw = x.shape[-2:]
        pad_h = max((-(ih // -s) - 1) * s + k - ih, 0)
        pad_w = max((-(iw // -s) - 1) * s + k - iw, 0)
        x = F.pad(x, [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ScaledStdConv2d(nn.Conv2d):
    def __init__(self, cin, cout, eps=1e-6):
        super().__init__(cin, cout, 1)
        self.gain = nn.Parameter(torch.ones(cout, 1, 1, 1))
        self.scale = self.weight[0].numel() ** -0.5
        self.eps = eps

    def forward(self, x):
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        var = self.weight.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        weight = self.scale * (self.weight - mean) / torch.sqrt(var + self.eps) * self.gain
        return F.conv2d(x, weight, self.bias)


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = nn.SiLU(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        x_se = x.mean((2, 3), keepdim=True)
        x_se = self.conv_expand(self.act1(self.conv_reduce(x_se)))
        return x * x_se.sigmoid()


def tf_bn(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class DepthwiseSeparableConv(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv_dw = nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False)
        self.bn1 = tf_bn(cin)
        self.act1 = nn.SiLU()
        self.se = SqueezeExcite(cin, 4)
        self.conv_pw = nn.Conv2d(cin, cout, 1, bias=False)
        self.bn2 = tf_bn(cout)

    def forward(self, x):
        shortcut = x
        x = self.se(self.act1(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(x)) + shortcut


class InvertedResidual(nn.Module):
    def __init__(self, cin, cout, kernel, stride, ratio=3):
        super().__init__()
        self.has_skip = cin == cout and stride == 1
        mid = cin * ratio
        self.conv_pw = nn.Conv2d(cin, mid, 1, bias=False)
        self.bn1 = tf_bn(mid)
        self.act1 = nn.SiLU()
        if stride > 1:
            self.conv_dw = Conv2dSame(mid, mid, kernel, stride, groups=mid, bias=False)
        else:
            self.conv_dw = nn.Conv2d(mid, mid, kernel, padding=kernel // 2, groups=mid, bias=False)
        self.bn2 = tf_bn(mid)
        self.act2 = nn.SiLU()
        self.se = SqueezeExcite(mid, 4)
        self.conv_pwl = nn.Conv2d(mid, cout, 1, bias=False)
        self.bn3 = tf_bn(cout)

    def forward(self, x):
        shortcut = x
        x = self.act1(self.bn1(self.conv_pw(x)))
        x = self.se(self.act2(self.bn2(self.conv_dw(x))))
        x = self.bn3(self.conv_pwl(x))
        return x + shortcut if self.has_skip else x


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem = Conv2dSame(3, 12, 3, stride=2, bias=False)
        self.bn1 = tf_bn(12)
        self.act1 = nn.SiLU()
        self.blocks = nn.Sequential(
            nn.Sequential(DepthwiseSeparableConv(12, 12)),
            nn.Sequential(InvertedResidual(12, 16, 5, 2), InvertedResidual(16, 16, 3, 1)),
        )
        self.conv_head = ScaledStdConv2d(16, 48)
        self.bn2 = tf_bn(48)
        self.act2 = nn.SiLU()
        self.classifier = nn.Linear(48, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)

    def forward(self, x):
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        return self.classifier(x.mean((2, 3)))


def inputs():
    g = torch.Generator().manual_seed(17)
    return (torch.randn(4, 3, 16, 16, generator=g),)


# The port ------------------------------------------------------------------------------------


class BatchNorm(nn.Module):
    def __init__(self, channels, eps=1e-3, momentum=0.01):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        if self.training:
            n = x.numel() // x.shape[1]
            mean = x.mean((0, 2, 3))
            var = x.square().mean((0, 2, 3)) - mean.square()
            with torch.no_grad():
                self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
                self.running_var.mul_(1 - self.momentum).add_(var * n / (n - 1), alpha=self.momentum)
                self.num_batches_tracked += 1
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class SameConv(nn.Module):
    def __init__(self, cin, cout, kernel, stride, groups=1):
        super().__init__()
        self.stride, self.groups, self.kernel = stride, groups, kernel
        self.weight = nn.Parameter(torch.randn(cout, cin // groups, kernel, kernel))

    def forward(self, x):
        lack = self.kernel - self.stride if x.shape[-1] % self.stride == 0 else self.kernel - x.shape[-1] % self.stride
        before = lack // 2
        x = F.pad(x, (before, lack - before, before, lack - before))
        return F.conv2d(x, self.weight, stride=self.stride, groups=self.groups)


class StandardisedConv(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, 1, 1))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.gain = nn.Parameter(torch.ones(cout, 1, 1, 1))

    def forward(self, x):
        fan_in = self.weight[0].numel()
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        power = centred.square().sum((1, 2, 3), keepdim=True) / fan_in
        weight = centred * torch.rsqrt(fan_in * (power + 1e-6)) * self.gain
        return F.conv2d(x, weight, self.bias)


class Squeeze(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        s = F.adaptive_avg_pool2d(x, 1)
        s = F.silu(self.conv_reduce(s))
        gate = torch.sigmoid(self.conv_expand(s))
        return gate * x


class Separable(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv_dw = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.bn1 = BatchNorm(c)
        self.se = Squeeze(c, 4)
        self.conv_pw = nn.Conv2d(c, c, 1, bias=False)
        self.bn2 = BatchNorm(c)

    def forward(self, x):
        h = F.silu(self.bn1(self.conv_dw(x)))
        h = self.bn2(self.conv_pw(self.se(h)))
        return x + h


class Strided(nn.Module):
    """inverted, without a residual"""

    def __init__(self, cin, cout):
        super().__init__()
        mid = 3 * cin
        self.conv_pw = nn.Conv2d(cin, mid, 1, bias=False)
        self.bn1 = BatchNorm(mid)
        self.conv_dw = SameConv(mid, mid, 5, 2, groups=mid)
        self.bn2 = BatchNorm(mid)
        self.se = Squeeze(mid, 4)
        self.conv_pwl = nn.Conv2d(mid, cout, 1, bias=False)
        self.bn3 = BatchNorm(cout)

    def forward(self, x):
        h = F.silu(self.bn1(self.conv_pw(x)))
        h = F.silu(self.bn2(self.conv_dw(h)))
        return self.bn3(self.conv_pwl(self.se(h)))


class Inverted(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv_pw = nn.Conv2d(c, 3 * c, 1, bias=False)
        self.bn1 = BatchNorm(3 * c)
        self.conv_dw = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=False)
        self.bn2 = BatchNorm(3 * c)
        self.se = Squeeze(3 * c, 4)
        self.conv_pwl = nn.Conv2d(3 * c, c, 1, bias=False)
        self.bn3 = BatchNorm(c)

    def forward(self, x):
        expanded = F.silu(self.bn1(self.conv_pw(x)))
        deep = F.silu(self.bn2(self.conv_dw(expanded)))
        deep = self.bn3(self.conv_pwl(self.se(deep)))
        return deep + x


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = SameConv(3, 12, 3, 2)
        self.stem_norm = BatchNorm(12)
        self.stage_0 = Separable(12)
        self.stage_1_0 = Strided(12, 16)
        self.stage_1_1 = Inverted(16)
        self.head = StandardisedConv(16, 48)
        self.head_norm = BatchNorm(48, momentum=0.01)
        self.classifier = nn.Linear(48, 10)

    def forward(self, x):
        x = F.silu(self.stem_norm(self.stem(x)))
        x = self.stage_1_1(self.stage_1_0(self.stage_0(x)))
        x = F.silu(self.head_norm(self.head(x)))
        return self.classifier(x.flatten(2).mean(-1))


NAMES = {
    "stem": "conv_stem", "stem_norm": "bn1", "head": "conv_head", "head_norm": "bn2",
    "stage_0": "blocks.0.0", "stage_1_0": "blocks.1.0", "stage_1_1": "blocks.1.1",
}

FAULTS = [
    Fault("eps_of_torch", "channels, eps=1e-3, momentum=0.01", "channels, eps=1e-5, momentum=0.01", "bn1", "output", "eps"),
    Fault("momentum_of_torch", "channels, eps=1e-3, momentum=0.01", "channels, eps=1e-3, momentum=0.1", "bn1", "buffer", "momentum"),
    Fault("momentum_of_keras", "self.head_norm = BatchNorm(48, momentum=0.01)", "self.head_norm = BatchNorm(48, momentum=0.99)", "bn2", "buffer", "momentum"),
    Fault("running_variance_biased", "add_(var * n / (n - 1), alpha", "add_(var, alpha", "bn1", "buffer", "variance"),
    Fault("normalised_by_unbiased", "var = x.square().mean((0, 2, 3)) - mean.square()", "var = x.var((0, 2, 3))", "bn1", "output", "variance"),
    Fault("batches_not_counted", "                self.num_batches_tracked += 1\n", "", "bn1", "buffer", "missing"),
    Fault("running_mean_of_magnitude", "self.running_mean.mul_(1 - self.momentum).add_(mean, alpha", "self.running_mean.mul_(1 - self.momentum).add_(mean.abs(), alpha", "bn1", "buffer", "operand"),
    Fault("running_statistics_in_training", "        if self.training:\n", "        if not self.training:\n", "bn1", "output", "mode"),
    Fault("statistics_not_tracked", "with torch.no_grad():\n                self.running_mean", "if not torch.is_grad_enabled():\n                self.running_mean", "bn1", "buffer", "mode"),
    Fault("symmetric_padding", "before = lack // 2", "before = (lack + 1) // 2", "conv_stem", "output", "padding"),
    Fault("variance_of_weight_unbiased", "keepdim=True) / fan_in\n", "keepdim=True) / (fan_in - 1)\n", "conv_head", "output", "variance"),
    Fault("eps_of_weight_outside_root", "torch.rsqrt(fan_in * (power + 1e-6))", "1 / (fan_in**0.5 * (power.sqrt() + 1e-6))", "conv_head", "output", "eps"),
    Fault("power_of_weight_detached", "torch.rsqrt(fan_in * (power + 1e-6))", "torch.rsqrt(fan_in * (power.detach() + 1e-6))", "conv_head", "gradient", "detached"),
    Fault("mean_of_weight_detached", "self.weight.mean((1, 2, 3), keepdim=True)", "self.weight.detach().mean((1, 2, 3), keepdim=True)", "conv_head", "gradient", "detached"),
    Fault("squeeze_relu", "s = F.silu(self.conv_reduce(s))", "s = F.relu(self.conv_reduce(s))", "blocks.0.0.se", "output", "activation"),
    Fault("hard_sigmoid_gate", "gate = torch.sigmoid(self.conv_expand(s))", "gate = F.hardsigmoid(self.conv_expand(s))", "blocks.0.0.se", "output", "approximate"),
    Fault("gate_of_unsqueezed_size", "s = F.adaptive_avg_pool2d(x, 1)", "s = x.sum((2, 3), keepdim=True) / x.shape[2]", "blocks.0.0.se", "output", "count"),
    Fault("stride_in_first_convolution", "        self.conv_pw = nn.Conv2d(cin, mid, 1, bias=False)\n        self.bn1 = BatchNorm(mid)\n        self.conv_dw = SameConv(mid, mid, 5, 2, groups=mid)\n",
          "        self.conv_pw = nn.Conv2d(cin, mid, 1, 2, bias=False)\n        self.bn1 = BatchNorm(mid)\n        self.conv_dw = SameConv(mid, mid, 5, 1, groups=mid)\n", "blocks.1.0.conv_pw", "output", "stride"),
    Fault("residual_missing", "        return deep + x\n", "        return deep\n", "blocks.1.1", "output", "residual"),
    Fault("squeezed_before_activation", "deep = F.silu(self.bn2(self.conv_dw(expanded)))\n        deep = self.bn3(self.conv_pwl(self.se(deep)))", "deep = self.bn2(self.conv_dw(expanded))\n        deep = self.bn3(self.conv_pwl(F.silu(self.se(deep))))", "blocks.1.1", "output", "order"),
    Fault("path_detached", "h = self.bn2(self.conv_pw(self.se(h)))", "h = self.bn2(self.conv_pw(self.se(h.detach())))", "blocks.0.0", "gradient", "detached"),
    Fault("shortcut_detached", "        return x + h\n", "        return x.detach() + h\n", "blocks.0.0", "gradient", "detached"),
]

RIGHT = [
    Right("batch_norm_of_torch", "        if self.training:\n            n = x.numel() // x.shape[1]\n", "        if self.training:\n            self.num_batches_tracked += 1\n            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps)\n            n = x.numel() // x.shape[1]\n"),
    Right("batch_norm_by_var_mean", "            var = x.square().mean((0, 2, 3)) - mean.square()\n", "            var, mean = torch.var_mean(x.transpose(0, 1).flatten(1), 1, correction=0)\n"),
    Right("running_statistics_by_lerp", """                self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
                self.running_var.mul_(1 - self.momentum).add_(var * n / (n - 1), alpha=self.momentum)
                self.num_batches_tracked += 1
""", """                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.copy_(torch.lerp(self.running_var, var * (n / (n - 1)), self.momentum))
                self.num_batches_tracked.add_(1)
"""),
    Right("same_by_unfold", "        return F.conv2d(x, self.weight, stride=self.stride, groups=self.groups)\n", """        out = (x.shape[-1] - self.kernel) // self.stride + 1
        columns = F.unfold(x, self.kernel, stride=self.stride).unflatten(1, (self.groups, -1))
        weight = self.weight.flatten(1).unflatten(0, (self.groups, -1))
        return torch.einsum("gok,bgkp->bgop", weight, columns).flatten(1, 2).unflatten(-1, (out, out))
"""),
    Right("same_by_cropping", "        x = F.pad(x, (before, lack - before, before, lack - before))\n        return F.conv2d(x, self.weight, stride=self.stride, groups=self.groups)\n",
          "        y = F.conv2d(x, self.weight, padding=lack, groups=self.groups)\n        first = lack - before\n        return y[..., first : first + x.shape[-2] : self.stride, first : first + x.shape[-1] : self.stride]\n"),
    Right("standardised_by_var_mean", """        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        power = centred.square().sum((1, 2, 3), keepdim=True) / fan_in
        weight = centred * torch.rsqrt(fan_in * (power + 1e-6)) * self.gain
""", """        weight = F.batch_norm(self.weight.view(1, len(self.weight), -1), None, None, self.gain.flatten() * fan_in**-0.5, training=True, eps=1e-6)
        weight = weight.view_as(self.weight)
"""),
    Right("squeeze_by_matmul", """        s = F.silu(self.conv_reduce(s))
        gate = torch.sigmoid(self.conv_expand(s))
        return gate * x
""", """        s = F.silu(F.linear(s.flatten(1), self.conv_reduce.weight.flatten(1), self.conv_reduce.bias))
        gate = torch.sigmoid(F.linear(s, self.conv_expand.weight.flatten(1), self.conv_expand.bias))
        return torch.einsum("bchw,bc->bchw", x, gate)
""", fused=True),
    Right("pointwise_by_einsum", "        h = F.silu(self.bn1(self.conv_pw(x)))\n        h = F.silu(self.bn2(self.conv_dw(h)))\n", '        h = torch.einsum("oc,bchw->bohw", self.conv_pw.weight[..., 0, 0], x)\n        h = F.silu(self.bn1(h))\n        h = F.silu(self.bn2(self.conv_dw(h)))\n', fused=True),
    Right("classified_before_pooling", "        return self.classifier(x.flatten(2).mean(-1))\n", "        scores = torch.einsum(\"bchw,oc->bohw\", x, self.classifier.weight)\n        return scores.mean((2, 3)) + self.classifier.bias\n", fused=True),
    Right("in_place_activation", "        h = F.silu(self.bn1(self.conv_dw(x)))\n", "        h = F.silu(self.bn1(self.conv_dw(x)), inplace=True)\n"),
]
