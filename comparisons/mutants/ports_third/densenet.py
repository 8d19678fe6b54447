"""A small DenseNet in train mode in the style of timm: nested Sequential with names against attributes, BatchNorm with running statistics, a squeeze-and-excite gate in the transition."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class DenseLayer(nn.Module):
    def __init__(self, num_input_features, growth_rate, bn_size):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(num_input_features)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(num_input_features, bn_size * growth_rate, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, kernel_size=3, padding=1, bias=False)

    def forward(self, features):
        x = torch.cat(features, 1)
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    def __init__(self, num_layers, num_input_features, bn_size, growth_rate):
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(num_input_features + i * growth_rate, growth_rate, bn_size))

    def forward(self, x):
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class HardSigmoid(nn.Module):
    def forward(self, x):
        return F.relu6(x + 3.0) / 6.0


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.gate = HardSigmoid()

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(F.relu(self.fc1(s))))


class Transition(nn.Sequential):
    def __init__(self, channels, out):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, out, kernel_size=1, bias=False)
        self.se = SqueezeExcite(out, 4)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(OrderedDict([
            ("conv0", nn.Conv2d(3, 12, 5, stride=2, padding=2, bias=False)),
            ("norm0", nn.BatchNorm2d(12)),
            ("relu0", nn.ReLU(inplace=True)),
            ("pool0", nn.MaxPool2d(3, stride=2, padding=1)),
            ("denseblock1", DenseBlock(2, 12, 2, 8)),
            ("transition1", Transition(28, 14)),
            ("denseblock2", DenseBlock(2, 14, 2, 8)),
            ("norm5", nn.BatchNorm2d(30, momentum=0.05)),
        ]))
        self.classifier = nn.Linear(30, 6)
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, x):
        x = F.relu(self.features(x))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.classifier(x)


def inputs():
    g = torch.Generator().manual_seed(16)
    return (torch.randn(3, 3, 32, 32, generator=g) + 0.3,)


# The port ------------------------------------------------------------------------------------


class BatchNorm(nn.Module):
    def __init__(self, size, momentum=0.1, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.momentum, self.eps = momentum, eps

    def forward(self, x):
        if self.training:
            mean = x.mean((0, 2, 3))
            var = (x - mean[:, None, None]).square().mean((0, 2, 3))
            self.note(mean, var, x.numel() // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        x = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def note(self, mean, var, count):
        self.num_batches_tracked += 1
        self.running_mean += self.momentum * (mean - self.running_mean)
        var = var * (count / (count - 1))
        self.running_var.mul_(1 - self.momentum).add_(var, alpha=self.momentum)


class Layer(nn.Module):
    def __init__(self, n, growth):
        super().__init__()
        self.norm1 = BatchNorm(n)
        self.conv1 = nn.Conv2d(n, 2 * growth, 1, bias=False)
        self.norm2 = BatchNorm(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def squeeze(self, x):
        x = self.norm1(x).relu()
        x = self.conv1(x)
        return x

    def forward(self, x):
        x = self.squeeze(x)
        x = self.norm2(x)
        x = F.relu(x)
        return self.conv2(x)


class Dense(nn.Module):
    def __init__(self, n, growth, index):
        super().__init__()
        self.index = index
        self.denselayer1 = Layer(n, growth)
        self.denselayer2 = Layer(n + growth, growth)

    def forward(self, x):
        for layer in (self.denselayer1, self.denselayer2):
            new = layer(x)
            x = torch.cat([x, new], dim=1)
        return x


class Gate(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.reduce = nn.Conv2d(n, m, 1)
        self.expand = nn.Conv2d(m, n, 1)

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        s = self.expand(self.reduce(s).relu())
        s = F.relu6(s + 3) / 6
        return s * x


class Between(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.norm = BatchNorm(n)
        self.conv = nn.Conv2d(n, m, 1, bias=False)
        self.se = Gate(m, 4)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        x = self.norm(x)
        x = torch.relu(x)
        x = self.conv(x)
        x = self.se(x)
        return self.pool(x)


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 12, 5, stride=2, padding=2, bias=False)
        self.norm0 = BatchNorm(12, eps=1e-5)
        self.pool0 = nn.MaxPool2d(3, stride=2, padding=1)
        self.denseblock1 = Dense(12, 8, 1)
        self.transition1 = Between(28, 14)
        self.denseblock2 = Dense(14, 8, 2)
        self.norm5 = BatchNorm(30, momentum=0.05)

    def forward(self, x):
        x = self.conv0(x)
        x = self.norm0(x)
        x = self.pool0(F.relu(x))
        x = self.denseblock1(x)
        x = self.transition1(x)
        x = self.denseblock2(x)
        return self.norm5(x)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = Features()
        self.classifier = nn.Linear(30, 6)

    def forward(self, x):
        y = self.features(x).relu()
        y = y.mean((-2, -1))
        return self.classifier(y)


NAMES = {
    "features.transition1.se.reduce": "features.transition1.se.fc1",
    "features.transition1.se.expand": "features.transition1.se.fc2",
}

FAULTS = [
    Fault("momentum_of_norm5", "self.norm5 = BatchNorm(30, momentum=0.05)", "self.norm5 = BatchNorm(30, momentum=0.1)", "features.norm5", "buffer", "momentum"),
    Fault("momentum_other_way", "self.running_var.mul_(1 - self.momentum).add_(var, alpha=self.momentum)", "self.running_var.mul_(self.momentum).add_(var, alpha=1 - self.momentum)", "features.norm0", "buffer", "momentum"),
    Fault("running_var_biased", "var = var * (count / (count - 1))", "var = var * 1.0", "features.norm0", "buffer", "variance"),
    Fault("normalised_by_unbiased", "var = (x - mean[:, None, None]).square().mean((0, 2, 3))\n            self.note(mean, var, x.numel() // x.shape[1])", "var = (x - mean[:, None, None]).square().mean((0, 2, 3))\n            self.note(mean, var, x.numel() // x.shape[1])\n            var = x.var((0, 2, 3))", "features.norm0", "output", "variance"),
    Fault("batches_not_counted", "        self.num_batches_tracked += 1\n", "", "features.norm0", "buffer", "missing"),
    Fault("statistics_noted_twice", "x = self.transition1(x)", "x = torch.utils.checkpoint.checkpoint(self.transition1, x, use_reentrant=False)", "features.transition1.norm", "buffer", "momentum"),
    Fault("running_statistics_in_train_mode", "x = self.denseblock2(x)\n        return self.norm5(x)", "x = self.denseblock2(x)\n        self.norm5.training = False\n        return self.norm5(x)", "features.norm5", "output", "mode"),
    Fault("mean_detached", "mean = x.mean((0, 2, 3))", "mean = x.mean((0, 2, 3)) if self.momentum == 0.1 else x.detach().mean((0, 2, 3))", "features.norm5", "gradient", "detached"),
    Fault("eps_of_norm0", "self.norm0 = BatchNorm(12, eps=1e-5)", "self.norm0 = BatchNorm(12, eps=1e-3)", "features.norm0", "output", "eps"),
    Fault("new_features_first", "x = torch.cat([x, new], dim=1)", "x = torch.cat([new, x], dim=1)", "features.denseblock1", "output", "order"),
    Fault("old_features_detached", "new = layer(x)", "new = layer(x if self.index == 1 else x.detach())", "features.denseblock2", "gradient", "detached"),
    Fault("maxpool_late_padding", "x = self.pool0(F.relu(x))", "x = F.max_pool2d(F.pad(F.relu(x), (0, 1, 0, 1)), 3, 2)", "features", "output", "padding"),
    Fault("sigmoid_for_hardsigmoid", "s = F.relu6(s + 3) / 6", "s = torch.sigmoid(s)", "features.transition1.se", "output", "approximate"),
    Fault("gate_before_mean_detached", "s = x.mean((2, 3), keepdim=True)", "s = x.detach().mean((2, 3), keepdim=True)", "features.transition1.se", "gradient", "detached"),
    Fault("strided_for_pooled", "return self.pool(x)", "return x[:, :, ::2, ::2]", "features.transition1", "output", "stride"),
    Fault("conv0_reflects", "self.conv0 = nn.Conv2d(3, 12, 5, stride=2, padding=2, bias=False)", "self.conv0 = nn.Conv2d(3, 12, 5, stride=2, padding=2, padding_mode=\"reflect\", bias=False)", "features.conv0", "output", "padding"),
    Fault("last_relu_missing", "y = self.features(x).relu()", "y = self.features(x)", "", "output", "activation"),
    Fault("pooled_by_a_fixed_window", "y = y.mean((-2, -1))", "y = F.avg_pool2d(y, 3).flatten(1)", "", "output", "count"),
    Fault("running_mean_cumulative", "self.running_mean += self.momentum * (mean - self.running_mean)", "self.running_mean += (mean - self.running_mean) / self.num_batches_tracked", "features.norm0", "buffer", "momentum"),
    Fault("running_mean_not_kept", "        self.running_mean += self.momentum * (mean - self.running_mean)\n", "", "features.norm0", "buffer", "missing"),
]

NORMAL = """        if self.training:
            mean = x.mean((0, 2, 3))
            var = (x - mean[:, None, None]).square().mean((0, 2, 3))
            self.note(mean, var, x.numel() // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        x = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]"""

RIGHT = [
    Right("norm_of_torch", NORMAL, """        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps)"""),
    Right("norm_by_moments", NORMAL, """        first = x.mean((0, 2, 3))
        var = x.square().mean((0, 2, 3)) - first.square()
        self.note(first, var, x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(var + self.eps)
        return x * scale[:, None, None] + (self.bias - first * scale)[:, None, None]"""),
    Right("norm_by_function", """class BatchNorm(nn.Module):
    def __init__(self, size, momentum=0.1, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.momentum, self.eps = momentum, eps

    def forward(self, x):
        if self.training:
            mean = x.mean((0, 2, 3))
            var = (x - mean[:, None, None]).square().mean((0, 2, 3))
            self.note(mean, var, x.numel() // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        x = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return""", """class Whiten(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mean, var, eps):
        rate = (var + eps).rsqrt()[:, None, None]
        y = (x - mean[:, None, None]) * rate
        ctx.save_for_backward(y, rate)
        return y

    @staticmethod
    def backward(ctx, g):
        y, rate = ctx.saved_tensors
        axes = (0, 2, 3)
        return rate * (g - g.mean(axes, True) - y * (g * y).mean(axes, True)), None, None, None


class BatchNorm(nn.Module):
    def __init__(self, size, momentum=0.1, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.momentum, self.eps = momentum, eps

    def forward(self, x):
        var, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
        self.note(mean, var, x.numel() // x.shape[1])
        x = Whiten.apply(x, mean, var, self.eps)
        return"""),
    Right("conv1_by_einsum", "        x = self.conv1(x)\n", "        x = torch.einsum(\"bchw,dc->bdhw\", x, self.conv1.weight[:, :, 0, 0])\n", True, NAMES),
    Right("conv2_by_unfold", "        return self.conv2(x)", "        y = F.unfold(x, 3, padding=1).mT @ self.conv2.weight.flatten(1).mT\n        return y.mT.unflatten(2, x.shape[2:])", True, NAMES),
    Right("relu_in_place", "x = self.norm1(x).relu()", "x = self.norm1(x).clamp_(min=0)"),
    Right("pool_by_strides", "return self.pool(x)", "return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) * 0.25", True, NAMES),
    Right("features_written_into_one", """        for layer in (self.denselayer1, self.denselayer2):
            new = layer(x)
            x = torch.cat([x, new], dim=1)
        return x""", """        a = self.denselayer1(x)
        b = self.denselayer2(torch.cat([x, a], 1))
        return torch.cat([x, a, b], 1)"""),
    Right("layer_tail_checkpointed", "        x = F.relu(x)\n        return self.conv2(x)", "        return torch.utils.checkpoint.checkpoint(lambda y: self.conv2(F.relu(y)), x, use_reentrant=True)"),
    Right("norm_and_relu_in_conv_of_transition", """        x = self.norm(x)
        x = torch.relu(x)
        x = self.conv(x)
        x = self.se(x)
        return self.pool(x)""", """        x = torch.relu(self.norm(x))
        x = x.movedim(1, -1) @ self.conv.weight.flatten(1).mT
        x = self.se(x.movedim(-1, 1))
        return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))""", True, NAMES),
    Right("hardsigmoid_by_clamp", "s = F.relu6(s + 3) / 6", "s = torch.clamp(s / 6 + 0.5, 0, 1)"),
    Right("gate_by_linear", "        s = x.mean((2, 3), keepdim=True)\n        s = self.expand(self.reduce(s).relu())\n", """        s = F.linear(x.flatten(2).mean(-1), self.reduce.weight.flatten(1), self.reduce.bias).relu()
        s = F.linear(s, self.expand.weight.flatten(1), self.expand.bias)[..., None, None]
""", True, NAMES),
]
