"""A causal dilated convolutional net as in WaveNet: gates, weight norm, residual and skip sums, BatchNorm1d at the entrance, a gated end."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

CHANNELS, SKIP, KERNEL, IN, OUT = 20, 24, 3, 6, 5
DILATIONS = (1, 2, 4, 8)


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if name.endswith("weight_g"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.1 * noise)
        for name, b in module.named_buffers():
            if "running" in name:
                b.copy_(0.5 + torch.rand(b.shape, generator=g))


class CausalConv(nn.Module):
    """weight = g * v / |v|, one length per output channel"""

    def __init__(self, n_in, n_out, dilation):
        super().__init__()
        self.dilation = dilation
        self.weight_v = nn.Parameter(torch.zeros(n_out, n_in, KERNEL))
        self.weight_g = nn.Parameter(torch.ones(n_out, 1, 1))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        w = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return F.conv1d(F.pad(x, ((KERNEL - 1) * self.dilation, 0)), w, self.bias, dilation=self.dilation)


class ResidualBlock(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.conv = CausalConv(CHANNELS, 2 * CHANNELS, dilation)
        self.res = nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.skip = nn.Conv1d(CHANNELS, SKIP, 1)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, dim=1)
        z = torch.tanh(a) * torch.sigmoid(b)
        return (x + self.res(z)) * 0.5**0.5, self.skip(z)


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(SKIP, 8)
        self.fc2 = nn.Linear(8, SKIP)

    def forward(self, x):
        s = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=2)))))
        return x * s[:, :, None]


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(IN)
        self.front = CausalConv(IN, CHANNELS, 1)
        self.blocks = nn.ModuleList(ResidualBlock(d) for d in DILATIONS)
        self.se = SqueezeExcite()
        self.prelu = nn.PReLU(SKIP)
        self.end = nn.Conv1d(SKIP, 2 * OUT, 1)
        fill(self, 9)
        with torch.no_grad():
            self.prelu.weight.mul_(0.25)

    def forward(self, x):
        x = self.front(self.bn(x))
        total = 0.0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        total = total / len(self.blocks) ** 0.5
        return F.glu(self.end(self.prelu(self.se(total))), dim=1)


def inputs():
    g = torch.Generator().manual_seed(19)
    return (torch.randn(3, IN, 28, generator=g),)


# The port ------------------------------------------------------------------------------------


class BatchNorm(nn.Module):
    def __init__(self, features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2)), x.var((0, 2), unbiased=False)
            m = x.shape[0] * x.shape[2]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (m / (m - 1)), self.momentum)
                self.num_batches_tracked.add_(1)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight / (var + self.eps).sqrt()
        return (x - mean[:, None]) * scale[:, None] + self.bias[:, None]


class Causal(nn.Module):
    def __init__(self, given, made, dilation):
        super().__init__()
        self.dilation, self.reach = dilation, (KERNEL - 1) * dilation
        self.weight_v = nn.Parameter(torch.zeros(made, given, KERNEL))
        self.weight_g = nn.Parameter(torch.ones(made, 1, 1))
        self.bias = nn.Parameter(torch.zeros(made))

    def kernel(self):
        length = self.weight_v.square().sum(dim=(1, 2), keepdim=True).sqrt()
        return self.weight_g * self.weight_v / length

    def forward(self, x):
        x = F.pad(x, (self.reach, 0))
        return F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)


class Residual(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.dilation = dilation
        self.conv = Causal(CHANNELS, 2 * CHANNELS, dilation)
        self.res = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=1)
        self.skip = nn.Conv1d(CHANNELS, SKIP, kernel_size=1)

    def forward(self, x):
        y = self.conv(x)
        gated = y[:, :CHANNELS].tanh() * y[:, CHANNELS:].sigmoid()
        skip = self.skip(gated)
        out = (self.res(gated) + x) / 2**0.5
        return out, skip


class Squeeze(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(SKIP, 8)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(8, SKIP)

    def forward(self, x):
        s = x.mean(-1)
        s = self.fc2(self.relu(self.fc1(s)))
        return torch.einsum("bct,bc->bct", x, s.sigmoid())


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = BatchNorm(IN)
        self.front = Causal(IN, CHANNELS, 1)
        self.blocks = nn.ModuleList([Residual(2**i) for i in range(4)])
        self.se = Squeeze()
        self.prelu = nn.PReLU(SKIP)
        self.end = nn.Conv1d(SKIP, 2 * OUT, 1)

    def forward(self, x):
        h = self.front(self.bn(x))
        skips = []
        for block in self.blocks:
            h, s = block(h)
            skips.append(s)
        h = torch.stack(skips).sum(0) * len(skips) ** -0.5
        h = self.prelu(self.se(h))
        value, gate = self.end(h).split(OUT, dim=1)
        return value * torch.sigmoid(gate)


NAMES = {}

FAULTS = [
    Fault("padding_on_both_sides", "F.pad(x, (self.reach, 0))", "F.pad(x, (self.reach // 2, self.reach // 2))", "front", "output", "padding"),
    Fault("padding_on_the_right", "F.pad(x, (self.reach, 0))", "F.pad(x, (0, self.reach)) if self.dilation == 4 else F.pad(x, (self.reach, 0))", "blocks.2.conv", "output", "padding"),
    Fault("padding_by_first", "F.pad(x, (self.reach, 0))", 'F.pad(x, (self.reach, 0), mode="replicate")', "front", "output", "padding"),
    Fault("sees_future", "F.pad(x, (self.reach, 0))", "F.pad(x, (self.reach - 1, 1))", "front", "output", "mask"),
    Fault("kernel_turned", "F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)", "F.conv1d(x, self.kernel().flip(2), self.bias, dilation=self.dilation)", "front", "output", "order"),
    Fault("dilation_by_one_more", "[Residual(2**i) for i in range(4)]", "[Residual(2 * i + 1 if i else 1) for i in range(4)]", "blocks.1.conv", "output", "stride"),
    Fault("length_per_input", "dim=(1, 2), keepdim=True", "dim=(0, 2), keepdim=True", "front", "output", "order"),
    Fault("length_of_all", "self.weight_v.square().sum(dim=(1, 2), keepdim=True).sqrt()", "self.weight_v.norm()", "front", "output", "order"),
    Fault("length_detached", "self.weight_g * self.weight_v / length", "self.weight_g * self.weight_v / (length.detach() if self.dilation == 8 else length)", "blocks.3.conv", "gradient", "detached"),
    Fault("length_with_eps", ".sum(dim=(1, 2), keepdim=True).sqrt()", ".sum(dim=(1, 2), keepdim=True).add(1e-3 if self.dilation == 2 else 0).sqrt()", "blocks.1.conv", "output", "eps"),
    Fault("length_averaged", "self.weight_v.square().sum(dim=(1, 2), keepdim=True).sqrt()", "self.weight_v.square().mean(dim=(1, 2), keepdim=True).sqrt()", "front", "output", "count"),
    Fault("gates_exchanged", "y[:, :CHANNELS].tanh() * y[:, CHANNELS:].sigmoid()", "y[:, CHANNELS:].tanh() * y[:, :CHANNELS].sigmoid()", "blocks.0", "output", "operand"),
    Fault("gates_interleaved", "y[:, :CHANNELS].tanh() * y[:, CHANNELS:].sigmoid()", "y[:, 0::2].tanh() * y[:, 1::2].sigmoid()", "blocks.0", "output", "order"),
    Fault("softsign", "y[:, :CHANNELS].tanh()", "F.hardtanh(y[:, :CHANNELS])", "blocks.0", "output", "approximate"),
    Fault("gate_detached", "y[:, CHANNELS:].sigmoid()", "(y[:, CHANNELS:].sigmoid() if self.dilation != 4 else y[:, CHANNELS:].sigmoid().detach())", "blocks.2", "gradient", "detached"),
    Fault("not_scaled", "(self.res(gated) + x) / 2**0.5", "self.res(gated) + x", "blocks.0", "output", "scale"),
    Fault("scale_cut", "(self.res(gated) + x) / 2**0.5", "(self.res(gated) + x) * 0.707", "blocks.0", "output", "scale"),
    Fault("residual_not_scaled", "(self.res(gated) + x) / 2**0.5", "(self.res(gated) / 2**0.5 + x)", "blocks.0", "output", "scale"),
    Fault("skip_of_sum", "        skip = self.skip(gated)\n        out = (self.res(gated) + x) / 2**0.5\n", "        out = (self.res(gated) + x) / 2**0.5\n        skip = self.skip(out if self.dilation == 8 else gated)\n", "blocks.3", "output", "operand"),
    Fault("residual_of_conv_only", "(self.res(gated) + x) / 2**0.5", "(self.res(gated) + (x if self.dilation != 2 else 0)) / 2**0.5", "blocks.1", "output", "residual"),
    Fault("residual_detached", "(self.res(gated) + x) / 2**0.5", "(self.res(gated) + (x if self.dilation != 4 else x.detach())) / 2**0.5", "blocks.2", "gradient", "detached"),
    Fault("first_skip_lost", "torch.stack(skips).sum(0)", "torch.stack(skips[1:]).sum(0)", "", "output", "missing"),
    Fault("skips_averaged", "* len(skips) ** -0.5", "/ len(skips)", "", "output", "count"),
    Fault("squeeze_over_channels", "s = x.mean(-1)", "s = x.mean(1)[:, :SKIP]", "se", "output", "order"),
    Fault("squeeze_causal", "s = x.mean(-1)", "s = x[..., 1:].mean(-1)", "se", "output", "initial"),
    Fault("squeeze_detached", "s = x.mean(-1)", "s = x.detach().mean(-1)", "se", "gradient", "detached"),
    Fault("squeeze_weight_detached", "x, s.sigmoid())", "x.detach(), s.sigmoid())", "se", "gradient", "detached"),
    Fault("squeeze_softmax", "s.sigmoid()", "s.softmax(-1)", "se", "output", "activation"),
    Fault("one_slope", "nn.PReLU(SKIP)", "nn.LeakyReLU(0.25)", "prelu", "output", "activation"),
    Fault("gate_of_value", "value, gate = self.end(h).split(OUT, dim=1)", "gate, value = self.end(h).split(OUT, dim=1)", "", "output", "operand"),
    Fault("running_biased", "var * (m / (m - 1))", "var", "bn", "buffer", "variance"),
    Fault("running_over_steps", "m = x.shape[0] * x.shape[2]", "m = x.shape[2]", "bn", "buffer", "count"),
    Fault("momentum_of_mean", "self.running_mean.lerp_(mean, self.momentum)", "self.running_mean.lerp_(mean, 1 - self.momentum)", "bn", "buffer", "momentum"),
    Fault("momentum_rounded", "momentum=0.1", "momentum=0.1002", "bn", "buffer", "momentum"),
    Fault("tracked_not", "                self.num_batches_tracked.add_(1)\n", "", "bn", "buffer", "missing"),
    Fault("running_after_input", "self.running_var.lerp_(var * (m / (m - 1)), self.momentum)", "self.running_var.lerp_(self.running_var * (m / (m - 1)), self.momentum)", "bn", "buffer", "operand"),
    Fault("evaluated", "        if self.training:\n", "        if not self.training:\n", "bn", "output", "mode"),
    Fault("unbiased", "x.var((0, 2), unbiased=False)", "x.var((0, 2), unbiased=True)", "bn", "output", "variance"),
    Fault("statistics_detached", "scale = self.weight / (var + self.eps).sqrt()", "scale = self.weight / (var.detach() + self.eps).sqrt()", "bn", "gradient", "detached"),
    Fault("eps_outside", "(var + self.eps).sqrt()", "(var.sqrt() + self.eps)", "bn", "output", "eps"),
]

RIGHT = [
    Right("batch_norm_of_library", '''        if self.training:
            mean, var = x.mean((0, 2)), x.var((0, 2), unbiased=False)
            m = x.shape[0] * x.shape[2]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (m / (m - 1)), self.momentum)
                self.num_batches_tracked.add_(1)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight / (var + self.eps).sqrt()
        return (x - mean[:, None]) * scale[:, None] + self.bias[:, None]
''', '''        if self.training:
            self.num_batches_tracked += 1
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps)
'''),
    Right("variance_by_moments", "x.var((0, 2), unbiased=False)", "x.square().mean((0, 2)) - x.mean((0, 2)).square()"),
    Right("affine_folded", "return (x - mean[:, None]) * scale[:, None] + self.bias[:, None]", "return torch.addcmul((self.bias - mean * scale)[:, None], x, scale[:, None])"),
    Right("taps", "return F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)", '''w, t = self.kernel(), x.shape[2] - self.reach
        return sum(torch.einsum("oi,bit->bot", w[:, :, j], x[:, :, j * self.dilation :][:, :, :t]) for j in range(KERNEL)) + self.bias[:, None]'''),
    Right("unfolded", "return F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)", '''columns = F.unfold(x.unsqueeze(2), (1, KERNEL), dilation=(1, self.dilation))
        return torch.baddbmm(self.bias[None, :, None], self.kernel().flatten(1).expand(len(x), -1, -1), columns)'''),
    Right("two_dimensional", "return F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)", "return F.conv2d(x[:, :, None], self.kernel()[:, :, None], self.bias, dilation=(1, self.dilation))[:, :, 0]"),
    Right("padded_then_cut", '''        x = F.pad(x, (self.reach, 0))
        return F.conv1d(x, self.kernel(), self.bias, dilation=self.dilation)
''', '''        return F.conv1d(x, self.kernel(), self.bias, padding=self.reach, dilation=self.dilation)[..., : x.shape[-1]]
'''),
    Right("kernel_of_library", '''        length = self.weight_v.square().sum(dim=(1, 2), keepdim=True).sqrt()
        return self.weight_g * self.weight_v / length
''', '''        return self.weight_g * F.normalize(self.weight_v.flatten(1), dim=1, eps=0.0).view_as(self.weight_v)
'''),
    Right("kernel_by_function", '''    def kernel(self):
        length = self.weight_v.square().sum(dim=(1, 2), keepdim=True).sqrt()
        return self.weight_g * self.weight_v / length
''', '''    class Direction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            length = torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)
            u = v / length
            ctx.save_for_backward(u, length)
            return u

        @staticmethod
        def backward(ctx, grad):
            u, length = ctx.saved_tensors
            return (grad - u * (u * grad).sum((1, 2), keepdim=True)) / length

    def kernel(self):
        return self.weight_g * self.Direction.apply(self.weight_v)
'''),
    Right("tanh_by_sigmoid", "y[:, :CHANNELS].tanh()", "(2 * torch.sigmoid(2 * y[:, :CHANNELS]) - 1)"),
    Right("both_heads_in_one", '''        skip = self.skip(gated)
        out = (self.res(gated) + x) / 2**0.5
''', '''        both = F.conv1d(gated, torch.cat([self.res.weight, self.skip.weight]), torch.cat([self.res.bias, self.skip.bias]))
        out, skip = both.split((CHANNELS, SKIP), 1)
        out = (out + x) / 2**0.5
''', True),
    Right("gates_of_two_convolutions", '''        self.conv = Causal(CHANNELS, 2 * CHANNELS, dilation)
        self.res = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=1)
        self.skip = nn.Conv1d(CHANNELS, SKIP, kernel_size=1)

    def forward(self, x):
        y = self.conv(x)
        gated = y[:, :CHANNELS].tanh() * y[:, CHANNELS:].sigmoid()
''', '''        self.filter = Causal(CHANNELS, CHANNELS, dilation)
        self.gate = Causal(CHANNELS, CHANNELS, dilation)
        self.res = nn.Conv1d(CHANNELS, CHANNELS, kernel_size=1)
        self.skip = nn.Conv1d(CHANNELS, SKIP, kernel_size=1)

    def forward(self, x):
        gated = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
''', True, {f"blocks.{i}.{n}.{p}": f"blocks.{i}.conv.{p}[{s}]" for i in range(4) for n, s in (("filter", ":20"), ("gate", "20:")) for p in ("weight_v", "weight_g", "bias")}),
    Right("sum_while_going", '''            skips.append(s)
        h = torch.stack(skips).sum(0) * len(skips) ** -0.5
''', '''            skips = s if len(skips) == 0 else skips.add_(s)
        h = skips / 2
'''),
    Right("sum_backwards", "torch.stack(skips).sum(0)", "(skips[3] + (skips[2] + (skips[1] + skips[0])))"),
    Right("checkpointed", "h, s = block(h)", "h, s = torch.utils.checkpoint.checkpoint(block, h, use_reentrant=False)"),
    Right("prelu_by_parts", "h = self.prelu(self.se(h))", "h = self.se(h)\n        h = h.clamp(min=0) + self.prelu.weight[:, None] * h.clamp(max=0)", True),
]
