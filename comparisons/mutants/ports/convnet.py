"""A residual convolutional net with BatchNorm (running statistics) and strided stages; the port's BatchNorm is by hand."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

CLASSES = 10


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * (2 / p[0].numel()) ** 0.5)
            else:
                p.copy_(0.2 * noise if name.endswith("bias") else 1 + 0.2 * noise)
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.2 * torch.randn(b.shape, generator=g))
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=g))


class BasicBlock(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + identity)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.layer1 = BasicBlock(12, 12, 1)
        self.layer2 = BasicBlock(12, 24, 2)
        self.layer3 = BasicBlock(24, 32, 2)
        self.fc = nn.Linear(32 * 4, CLASSES)
        fill(self, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 2)
        return self.fc(torch.flatten(x, 1))


def inputs():
    g = torch.Generator().manual_seed(13)
    return (torch.randn(4, 3, 32, 32, generator=g),)


# The port ------------------------------------------------------------------------------------


class BatchNorm(nn.Module):
    def __init__(self, size, momentum=0.1, eps=1e-5, place=""):
        super().__init__()
        self.momentum, self.eps, self.place = momentum, eps, place
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def statistics(self, x):
        if not self.training:
            return self.running_mean, self.running_var
        n = x.numel() // x.shape[1]
        mean = x.mean((0, 2, 3))
        var = (x - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)
        return mean, var

    def forward(self, x):
        mean, var = self.statistics(x)
        inv = 1 / torch.sqrt(var + self.eps)
        x = (x - mean[None, :, None, None]) * inv[None, :, None, None]
        return x * self.weight[None, :, None, None] + self.bias[None, :, None, None]


class Block(nn.Module):
    def __init__(self, place, n_in, n_out, stride=1):
        super().__init__()
        self.place = place
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(n_out, place=place + ".bn1")
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(n_out, place=place + ".bn2")
        self.project = stride > 1
        if self.project:
            self.shortcut_conv = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut_norm = BatchNorm(n_out, place=place + ".shortcut")

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.project:
            x = self.shortcut_norm(self.shortcut_conv(x))
        return F.relu(x + y)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.bn1 = BatchNorm(12, place="bn1")
        self.layer1 = Block("layer1", 12, 12)
        self.layer2 = Block("layer2", 12, 24, stride=2)
        self.layer3 = Block("layer3", 24, 32, stride=2)
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, images):
        h = self.conv1(images)
        h = F.relu(self.bn1(h))
        h = F.avg_pool2d(h, 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3):
            h = stage(h)
        b, c, high, wide = h.shape
        h = h.view(b, c, 2, high // 2, 2, wide // 2).mean((3, 5))
        return self.fc(h.reshape(b, -1))


NAMES = {}
for _n in (2, 3):
    NAMES[f"layer{_n}.shortcut_conv"] = f"layer{_n}.downsample.0"
    NAMES[f"layer{_n}.shortcut_norm"] = f"layer{_n}.downsample.1"

FAULTS = [
    Fault("momentum_other_way", "self.running_mean += self.momentum * (mean - self.running_mean)", "self.running_mean.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)", "bn1", "buffer", "momentum"),
    Fault("momentum_of_one", 'BatchNorm(n_out, place=place + ".bn2")', 'BatchNorm(n_out, 0.1 if place != "layer2" else 0.01, place=place + ".bn2")', "layer2.bn2", "buffer", "momentum"),
    Fault("momentum_near", 'BatchNorm(n_out, place=place + ".shortcut")', 'BatchNorm(n_out, 0.1 if place != "layer3" else 0.1001, place=place + ".shortcut")', "layer3.downsample.1", "buffer", "momentum"),
    Fault("running_biased", "(var * n / (n - 1) - self.running_var)", "(var - self.running_var)", "bn1", "buffer", "variance"),
    Fault("running_biased_in_one", "(var * n / (n - 1) - self.running_var)", '(var * n / (n - (self.place != "layer3.bn2")) - self.running_var)', "layer3.bn2", "buffer", "variance"),
    Fault("running_deviation", "(var * n / (n - 1) - self.running_var)", "(var.add(1e-3).sqrt() ** 2 * n / (n - 1) - self.running_var)", "bn1", "buffer", "eps"),
    Fault("running_mean_square", "self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)", "self.running_var += self.momentum * ((x**2).mean((0, 2, 3)) * n / (n - 1) - self.running_var)", "bn1", "buffer", "variance"),
    Fault("running_frozen", "            self.num_batches_tracked += 1\n", '            if self.place == "layer1.bn2":\n                return mean, var\n            self.num_batches_tracked += 1\n', "layer1.bn2", "buffer", "mode"),
    Fault("not_counted", "            self.num_batches_tracked += 1\n", "", "bn1", "buffer", "missing"),
    Fault("unbiased", "var = (x - mean.view(-1, 1, 1)).square().mean((0, 2, 3))", 'var = x.var((0, 2, 3), correction=int(self.place == "bn1"))', "bn1", "output", "variance"),
    Fault("eps_of_bn2", 'BatchNorm(n_out, place=place + ".bn2")', 'BatchNorm(n_out, eps=1e-3 if place == "layer2" else 1e-5, place=place + ".bn2")', "layer2.bn2", "output", "eps"),
    Fault("detached_mean", "        return mean, var\n", '        return (mean.detach() if self.place == "layer3.bn1" else mean), var\n', "layer3.bn1", "gradient", "detached"),
    Fault("detached_statistics", "        return mean, var\n", '        return (mean.detach(), var.detach()) if self.place == "layer2.shortcut" else (mean, var)\n', "layer2.downsample.1", "gradient", "detached"),
    Fault("evaluated", "if not self.training:", 'if not self.training or self.place == "layer2.bn1":', "layer2.bn1", "output", "mode"),
    Fault("statistics_of_batch_only", "mean = x.mean((0, 2, 3))", 'mean = x.mean((0, 2, 3)) if self.place != "layer3.bn2" else x[:2].mean((0, 2, 3))', "layer3.bn2", "output", "count"),
    Fault("stride_later", '''        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(n_out, place=place + ".bn1")
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)''', '''        self.conv1 = nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False)
        self.bn1 = BatchNorm(n_out, place=place + ".bn1")
        self.conv2 = nn.Conv2d(n_out, n_out, 3, stride, 1, bias=False)''', "layer2.conv1", "output", "stride"),
    Fault("stride_offset", "self.shortcut_norm(self.shortcut_conv(x))", "self.shortcut_norm(self.shortcut_conv(F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))))", "layer2", "output", "stride"),
    Fault("padding_reflect", "nn.Conv2d(3, 12, 3, padding=1, bias=False)", 'nn.Conv2d(3, 12, 3, padding=1, bias=False, padding_mode="reflect")', "conv1", "output", "padding"),
    Fault("pool_without_padding_in_count", "F.avg_pool2d(h, 3, stride=2, padding=1)", "F.avg_pool2d(h, 3, stride=2, padding=1, count_include_pad=False)", "", "output", "count"),
    Fault("relu_before_sum", "return F.relu(x + y)", "return x + F.relu(y)", "layer1", "output", "order"),
    Fault("leaky", "return F.relu(x + y)", 'return F.leaky_relu(x + y, 0.01 if self.place == "layer3" else 0.0)', "layer3", "output", "activation"),
    Fault("shortcut_of_nothing", "return F.relu(x + y)", 'return F.relu(x + y if self.place != "layer1" else y)', "layer1", "output", "residual"),
    Fault("detached_shortcut", "return F.relu(x + y)", 'return F.relu((x.detach() if self.place == "layer1" else x) + y)', "layer1", "gradient", "detached"),
    Fault("flattened_channels_last", "h.reshape(b, -1)", "h.permute(0, 2, 3, 1).reshape(b, -1)", "", "output", "order"),
    Fault("kernel_turned", "        h = self.conv1(images)\n", "        h = self.conv1(images.mT).mT\n", "", "output", "transposed"),
    Fault("checkpoint_counts_twice", "            h = stage(h)\n", "            h = torch.utils.checkpoint.checkpoint(stage, h, use_reentrant=False) if stage is self.layer2 else stage(h)\n", "", "buffer", "momentum"),
]

RIGHT = [
    Right("batch_norm_of_library", '''    def forward(self, x):
        mean, var = self.statistics(x)
        inv = 1 / torch.sqrt(var + self.eps)
        x = (x - mean[None, :, None, None]) * inv[None, :, None, None]
        return x * self.weight[None, :, None, None] + self.bias[None, :, None, None]
''', '''    def forward(self, x):
        self.num_batches_tracked.add_(int(self.training))
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps)
'''),
    Right("folded_affine", '''        x = (x - mean[None, :, None, None]) * inv[None, :, None, None]
        return x * self.weight[None, :, None, None] + self.bias[None, :, None, None]
''', '''        scale = self.weight * inv
        return torch.addcmul((self.bias - mean * scale).view(-1, 1, 1), x, scale.view(-1, 1, 1))
'''),
    Right("statistics_by_var_mean", '''        mean = x.mean((0, 2, 3))
        var = (x - mean.view(-1, 1, 1)).square().mean((0, 2, 3))
''', '''        flat = x.transpose(0, 1).flatten(1)
        var, mean = torch.var_mean(flat, dim=1, correction=0)
'''),
    Right("statistics_by_lerp", '''            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)
''', '''            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.mul_(1 - self.momentum).add_(x.var((0, 2, 3)), alpha=self.momentum)
'''),
    Right("in_place", '''        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.project:
            x = self.shortcut_norm(self.shortcut_conv(x))
        return F.relu(x + y)
''', '''        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y))
        if self.project:
            x = self.shortcut_norm(self.shortcut_conv(x))
        y += x
        return y.relu_()
'''),
    Right("unfold", '''        y = F.relu(self.bn1(self.conv1(x)))
''', '''        b, _, high, wide = x.shape
        s = 2 if self.project else 1
        columns = F.unfold(x, 3, padding=1, stride=s)
        y = (self.conv1.weight.flatten(1) @ columns).view(b, -1, high // s, wide // s)
        y = F.relu(self.bn1(y))
''', True),
    Right("shortcut_by_slices", "x = self.shortcut_norm(self.shortcut_conv(x))", 'x = self.shortcut_norm(torch.einsum("oc,bchw->bohw", self.shortcut_conv.weight[:, :, 0, 0], x[:, :, ::2, ::2]))', True),
    Right("sum_of_taps", '''        y = self.bn2(self.conv2(y))
''', '''        z, w, (high, wide) = F.pad(y, (1, 1, 1, 1)), self.conv2.weight, y.shape[2:]
        taps = [torch.einsum("oc,bchw->bohw", w[:, :, i, j], z[:, :, i : i + high, j : j + wide]) for i in range(3) for j in range(3)]
        y = self.bn2(torch.stack(taps).sum(0))
''', True),
    Right("conv_in_two", '''        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.bn1 = BatchNorm(12, place="bn1")
        self.layer1 = Block("layer1", 12, 12)
        self.layer2 = Block("layer2", 12, 24, stride=2)
        self.layer3 = Block("layer3", 24, 32, stride=2)
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, images):
        h = self.conv1(images)
''', '''        self.lower = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.upper = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = BatchNorm(12, place="bn1")
        self.layer1 = Block("layer1", 12, 12)
        self.layer2 = Block("layer2", 12, 24, stride=2)
        self.layer3 = Block("layer3", 24, 32, stride=2)
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, images):
        h = torch.cat([self.lower(images), self.upper(images)], 1)
''', True, {**NAMES, "lower.weight": "conv1.weight[:6]", "upper.weight": "conv1.weight[6:]"}),
    Right("pool_by_weights", "F.avg_pool2d(h, 3, stride=2, padding=1)", "F.conv2d(h, h.new_full((12, 1, 3, 3), 1 / 9), stride=2, padding=1, groups=12)"),
    Right("pool_by_sums", "h.view(b, c, 2, high // 2, 2, wide // 2).mean((3, 5))", "F.avg_pool2d(h, (high // 2, wide // 2))"),
    Right("fc_per_quarter", "return self.fc(h.reshape(b, -1))", 'return torch.einsum("bchw,ochw->bo", h, self.fc.weight.view(-1, c, 2, 2)) + self.fc.bias', True),
]
