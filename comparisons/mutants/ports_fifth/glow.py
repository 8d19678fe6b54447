"""A Glow: squeeze, actnorm, LU convolution, affine coupling, split priors; bits per dimension. Ported with log-determinants apart."""

import math

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


def settle(module, seed):
    """Move every parameter off its initial value, as training would."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * (0.15 if p.dim() < 4 else 0.08))


def gaussian_log_p(x, mean, log_sd):
    return -0.5 * math.log(2 * math.pi) - log_sd - 0.5 * (x - mean) ** 2 / torch.exp(2 * log_sd)


class ActNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x, logdet):
        _, _, h, w = x.shape
        return self.scale * (x + self.loc), logdet + h * w * self.scale.abs().log().sum()


class InvConvLU(nn.Module):
    def __init__(self, channels):
        super().__init__()
        g = torch.Generator().manual_seed(channels)
        q, _ = torch.linalg.qr(torch.randn(channels, channels, generator=g))
        p, l, u = torch.linalg.lu(q)
        s = torch.diagonal(u)
        self.register_buffer("w_p", p)
        self.register_buffer("s_sign", s.sign())
        self.w_l = nn.Parameter(l)
        self.w_s = nn.Parameter(s.abs().log())
        self.w_u = nn.Parameter(torch.triu(u, 1))

    def forward(self, x, logdet):
        _, c, h, w = x.shape
        lower = torch.tril(self.w_l, -1) + torch.eye(c, dtype=x.dtype, device=x.device)
        upper = torch.triu(self.w_u, 1) + torch.diag(self.s_sign.to(x.dtype) * self.w_s.exp())
        weight = self.w_p.to(x.dtype) @ lower @ upper
        return F.conv2d(x, weight[:, :, None, None]), logdet + h * w * self.w_s.sum()


class ZeroConv2d(nn.Module):
    """Pads with ones, as in the reference, and scales by exp(3 * scale)."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3)
        self.scale = nn.Parameter(torch.zeros(1, cout, 1, 1))

    def forward(self, x):
        out = self.conv(F.pad(x, [1, 1, 1, 1], value=1))
        return out * torch.exp(self.scale * 3)


class AffineCoupling(nn.Module):
    def __init__(self, channels, hidden=12):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            ZeroConv2d(hidden, channels),
        )

    def forward(self, x, logdet):
        a, b = x.chunk(2, 1)
        log_s, t = self.net(a).chunk(2, 1)
        s = torch.sigmoid(log_s + 2)
        return torch.cat([a, (b + t) * s], 1), logdet + s.log().flatten(1).sum(1)


class Flow(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.invconv = InvConvLU(channels)
        self.coupling = AffineCoupling(channels)

    def forward(self, x, logdet):
        x, logdet = self.actnorm(x, logdet)
        x, logdet = self.invconv(x, logdet)
        return self.coupling(x, logdet)


class FlowBlock(nn.Module):
    def __init__(self, channels, flows, split):
        super().__init__()
        self.flows = nn.ModuleList([Flow(channels * 4) for _ in range(flows)])
        self.split = split
        self.prior = ZeroConv2d(channels * 2, channels * 4) if split else ZeroConv2d(channels * 4, channels * 8)

    def forward(self, x, logdet):
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c * 4, h // 2, w // 2)
        for flow in self.flows:
            x, logdet = flow(x, logdet)
        if self.split:
            x, z = x.chunk(2, 1)
            mean, log_sd = self.prior(x).chunk(2, 1)
        else:
            z = x
            mean, log_sd = self.prior(torch.zeros_like(z)).chunk(2, 1)
        log_p = gaussian_log_p(z, mean, log_sd).flatten(1).sum(1)
        return x, logdet, log_p, z


class Original(nn.Module):
    def __init__(self, channels=3, bits=5):
        super().__init__()
        self.bits = bits
        self.blocks = nn.ModuleList([FlowBlock(channels, 2, True), FlowBlock(2 * channels, 2, False)])
        settle(self, 6)

    def forward(self, image):
        n = image[0].numel()
        logdet = image.new_zeros(image.shape[0])
        total, latents, x = 0.0, [], image - 0.5
        for block in self.blocks:
            x, logdet, log_p, z = block(x, logdet)
            latents.append(z)
            total = total + log_p
        bits = -(total + logdet - n * math.log(2**self.bits)) / (math.log(2) * n)
        return bits.mean(), latents


def inputs():
    g = torch.Generator().manual_seed(16)
    return (torch.rand(3, 3, 8, 8, generator=g),)


# The port ------------------------------------------------------------------------------------


class ActNorm2d(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x):
        pixels = x.shape[-1] * x.shape[-2]
        return x * self.scale + self.loc * self.scale, torch.log(torch.abs(self.scale)).sum() * pixels


class Invertible1x1(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("w_p", torch.eye(width))
        self.register_buffer("s_sign", torch.ones(width))
        for name in ("w_l", "w_u"):
            self.register_parameter(name, nn.Parameter(torch.zeros(width, width)))
        self.w_s = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        below = torch.ones_like(self.w_l).tril(-1)
        lower = self.w_l * below + torch.eye(len(below), dtype=x.dtype)
        upper = self.w_u * below.T + torch.diag_embed(self.s_sign.to(x.dtype) * torch.exp(self.w_s))
        kernel = torch.linalg.multi_dot((self.w_p.to(x.dtype), lower, upper))
        y = torch.einsum("oc,bchw->bohw", kernel, x)
        return y, self.w_s.sum() * (x.shape[2] * x.shape[3])


class Conv2dZeros(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel_size=3)
        self.scale = nn.Parameter(torch.zeros(1, cout, 1, 1))

    def forward(self, x):
        framed = F.pad(x, (1, 1, 1, 1), "constant", 1.0)
        return self.conv(framed) * (3 * self.scale).exp()


class Coupling(nn.Module):
    def __init__(self, width, hidden=12):
        super().__init__()
        self.conv1 = nn.Conv2d(width // 2, hidden, 3, padding="same")
        self.conv2 = nn.Conv2d(hidden, hidden, 1)
        self.conv3 = Conv2dZeros(hidden, width)

    def forward(self, x):
        half = x.shape[1] // 2
        keep, change = x[:, :half], x[:, half:]
        h = torch.relu(self.conv1(keep))
        h = torch.relu(self.conv2(h))
        out = self.conv3(h)
        raw, shift = out[:, :half], out[:, half:]
        gate = torch.sigmoid(raw + 2.0)
        change = (change + shift) * gate
        return torch.cat((keep, change), dim=1), F.logsigmoid(raw + 2.0).sum((1, 2, 3))


class Step(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.actnorm = ActNorm2d(width)
        self.invconv = Invertible1x1(width)
        self.coupling = Coupling(width)

    def forward(self, x):
        x, one = self.actnorm(x)
        x, two = self.invconv(x)
        x, three = self.coupling(x)
        return x, one + two + three


class Level(nn.Module):
    def __init__(self, width, last=False):
        super().__init__()
        self.flows = nn.ModuleList(Step(4 * width) for _ in range(2))
        self.last = last
        self.prior = Conv2dZeros(4 * width, 8 * width) if last else Conv2dZeros(2 * width, 4 * width)

    def forward(self, x):
        x = F.pixel_unshuffle(x, 2)
        logdet = x.new_zeros(len(x))
        for step in self.flows:
            x, change = step(x)
            logdet = logdet + change
        if self.last:
            rest, z = x, x
            stats = self.prior(torch.zeros_like(z))
        else:
            rest, z = torch.tensor_split(x, 2, dim=1)
            stats = self.prior(rest)
        mean, log_sd = torch.tensor_split(stats, 2, dim=1)
        prior = torch.distributions.Normal(mean, log_sd.exp())
        log_p = prior.log_prob(z).sum(dim=(1, 2, 3))
        return rest, logdet, log_p, z


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList((Level(3), Level(6, last=True)))

    def forward(self, image):
        x = image - 0.5
        likelihood = x.new_zeros(len(x))
        latents = []
        for level in self.blocks:
            x, logdet, log_p, z = level(x)
            likelihood = likelihood + logdet + log_p
            latents.append(z)
        size = image[0].numel()
        bits = (5 * math.log(2) * size - likelihood) / (size * math.log(2))
        return bits.mean(), latents


NAMES = {}
for _b in range(2):
    for _f in range(2):
        for _new, _old in (("conv1", "0"), ("conv2", "2"), ("conv3", "4")):
            NAMES[f"blocks.{_b}.flows.{_f}.coupling.{_new}"] = f"blocks.{_b}.flows.{_f}.coupling.net.{_old}"

FAULTS = [
    Fault("squeeze_of_real_nvp", "x = F.pixel_unshuffle(x, 2)", "x = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)", "blocks.0", "output", "order"),
    Fault("squeeze_of_transposed", "x = F.pixel_unshuffle(x, 2)", "x = F.pixel_unshuffle(x.mT, 2).mT", "blocks.0", "output", "transposed"),
    Fault("shift_after_scale", "return x * self.scale + self.loc * self.scale,", "return x * self.scale + self.loc,", "blocks.0.flows.0.actnorm", "output", "order"),
    Fault("scale_counted_once", "torch.log(torch.abs(self.scale)).sum() * pixels", "torch.log(torch.abs(self.scale)).sum()", "blocks.0.flows.0.actnorm", "output", "count"),
    Fault("scale_counted_by_mean", "torch.log(torch.abs(self.scale)).sum() * pixels", "torch.log(torch.abs(self.scale)).mean() * pixels", "blocks.0.flows.0.actnorm", "output", "count"),
    Fault("eps_in_log_of_scale", "torch.log(torch.abs(self.scale)).sum() * pixels", "torch.log(torch.abs(self.scale) + 1e-6).sum() * pixels", "blocks.0.flows.0.actnorm", "output", "eps"),
    Fault("kernel_transposed", "y = torch.einsum(\"oc,bchw->bohw\", kernel, x)", "y = torch.einsum(\"co,bchw->bohw\", kernel, x)", "blocks.0.flows.0.invconv", "output", "transposed"),
    Fault("factors_in_another_order", "torch.linalg.multi_dot((self.w_p.to(x.dtype), lower, upper))", "torch.linalg.multi_dot((lower, upper, self.w_p.to(x.dtype)))", "blocks.0.flows.0.invconv", "output", "order"),
    Fault("diagonal_of_lower_kept", "below = torch.ones_like(self.w_l).tril(-1)\n        lower = self.w_l * below + torch.eye(len(below), dtype=x.dtype)", "below = torch.ones_like(self.w_l).tril(-1)\n        lower = self.w_l * (below + torch.eye(len(below), dtype=x.dtype))", "blocks.0.flows.0.invconv", "output", "mask"),
    Fault("lower_part_not_masked", "upper = self.w_u * below.T", "upper = self.w_u * (1 - torch.eye(len(below), dtype=x.dtype))", "blocks.0.flows.0.invconv", "output", "mask"),
    Fault("sign_missing", "self.s_sign.to(x.dtype) * torch.exp(self.w_s)", "torch.exp(self.w_s)", "blocks.0.flows.0.invconv", "output", "missing"),
    Fault("kernel_log_determinant_detached", "return y, self.w_s.sum() * (x.shape[2] * x.shape[3])", "return y, self.w_s.detach().sum() * (x.shape[2] * x.shape[3])", "blocks.0.flows.0.invconv", "gradient", "detached"),
    Fault("padded_with_zeros", "F.pad(x, (1, 1, 1, 1), \"constant\", 1.0)", "F.pad(x, (1, 1, 1, 1))", "blocks.0.flows.0.coupling.net.4", "output", "padding"),
    Fault("log_scale_factor", "(3 * self.scale).exp()", "self.scale.exp()", "blocks.0.flows.0.coupling.net.4", "output", "scale"),
    Fault("bias_not_scaled", "return self.conv(framed) * (3 * self.scale).exp()", "return F.conv2d(framed, self.conv.weight) * (3 * self.scale).exp() + self.conv.bias[:, None, None]", "blocks.0.flows.0.coupling.net.4", "output", "order"),
    Fault("shift_and_scale_swapped", "raw, shift = out[:, :half], out[:, half:]", "shift, raw = out[:, :half], out[:, half:]", "blocks.0.flows.0.coupling", "output", "order"),
    Fault("cross_instead_of_halves", "raw, shift = out[:, :half], out[:, half:]", "raw, shift = out[:, 0::2], out[:, 1::2]", "blocks.0.flows.0.coupling", "output", "order"),
    Fault("other_half_kept", "keep, change = x[:, :half], x[:, half:]", "change, keep = x[:, :half], x[:, half:]", "blocks.0.flows.0.coupling", "output", "operand"),
    Fault("shift_after_gate", "change = (change + shift) * gate", "change = change * gate + shift", "blocks.0.flows.0.coupling", "output", "order"),
    Fault("gate_offset_missing_in_logdet", "F.logsigmoid(raw + 2.0).sum((1, 2, 3))", "F.logsigmoid(raw).sum((1, 2, 3))", "blocks.0.flows.0.coupling", "output", "missing"),
    Fault("gate_by_exp", "gate = torch.sigmoid(raw + 2.0)", "gate = torch.exp(F.logsigmoid(raw) + 2.0)", "blocks.0.flows.0.coupling", "output", "activation"),
    Fault("leaky_first_activation", "h = torch.relu(self.conv1(keep))", "h = F.leaky_relu(self.conv1(keep), 1e-4)", "blocks.0.flows.0.coupling", "output", "activation"),
    Fault("prior_conditioned_on_latent", "stats = self.prior(rest)", "stats = self.prior(z)", "blocks.0", "output", "operand"),
    Fault("prior_condition_detached", "stats = self.prior(rest)", "stats = self.prior(rest.detach())", "blocks.0", "gradient", "detached"),
    Fault("prior_of_variances", "torch.distributions.Normal(mean, log_sd.exp())", "torch.distributions.Normal(mean, (0.5 * log_sd).exp())", "blocks.0", "output", "variance"),
    Fault("prior_over_mean", "log_p = prior.log_prob(z).sum(dim=(1, 2, 3))", "log_p = prior.log_prob(z).mean(dim=(1, 2, 3))", "blocks.0", "output", "count"),
    Fault("last_prior_not_learnt", "stats = self.prior(torch.zeros_like(z))", "stats = self.prior(torch.zeros_like(z)).detach()", "blocks.1", "gradient", "detached"),
    Fault("last_prior_of_ones", "stats = self.prior(torch.zeros_like(z))", "stats = self.prior(torch.ones_like(z))", "blocks.1", "output", "initial"),
    Fault("likelihood_restarted", "likelihood = likelihood + logdet + log_p", "likelihood = logdet + log_p", "", "output", "initial"),
    Fault("nats_per_dimension", "/ (size * math.log(2))", "/ size", "", "output", "scale"),
    Fault("log_determinant_of_gate_detached", "F.logsigmoid(raw + 2.0).sum((1, 2, 3))", "F.logsigmoid(raw + 2.0).sum((1, 2, 3)).detach()", "blocks.0.flows.0.coupling", "gradient", "detached"),
    Fault("log_determinant_of_actnorm_detached", "torch.log(torch.abs(self.scale)).sum() * pixels", "torch.log(torch.abs(self.scale.detach())).sum() * pixels", "blocks.0.flows.0.actnorm", "gradient", "detached"),
    Fault("rounded_log_of_two", "/ (size * math.log(2))", "/ (size * 0.6931)", "", "output", "scale"),
    Fault("latents_detached", "latents.append(z)", "latents.append(z.detach())", "", "gradient", "detached"),
]

RIGHT = [
    Right("squeeze_by_slices", "x = F.pixel_unshuffle(x, 2)", "corners = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]\n        x = torch.stack(corners, 2).flatten(1, 2)"),
    Right("squeeze_by_unfold", "x = F.pixel_unshuffle(x, 2)", "x = F.unfold(x, 2, stride=2).unflatten(2, (x.shape[2] // 2, x.shape[3] // 2))"),
    Right("kernel_applied_by_factors", "kernel = torch.linalg.multi_dot((self.w_p.to(x.dtype), lower, upper))\n        y = torch.einsum(\"oc,bchw->bohw\", kernel, x)", "y = (self.w_p.to(x.dtype) @ (lower @ (upper @ x.flatten(2)))).view_as(x)"),
    Right("kernel_by_slogdet", "return y, self.w_s.sum() * (x.shape[2] * x.shape[3])", "return y, torch.linalg.slogdet(kernel)[1] * y[0, 0].numel()"),
    Right("zero_conv_scaled_kernel", "return self.conv(framed) * (3 * self.scale).exp()", "by = torch.exp(3 * self.scale).flatten()\n        return F.conv2d(framed, self.conv.weight * by[:, None, None, None], self.conv.bias * by)", True),
    Right("coupling_softplus", "F.logsigmoid(raw + 2.0).sum((1, 2, 3))", "-F.softplus(-raw - 2.0).flatten(1).sum(1)"),
    Right("coupling_in_place", "change = (change + shift) * gate\n        return torch.cat((keep, change), dim=1),", "y = x.clone()\n        y[:, half:] += shift\n        y[:, half:] *= gate\n        return y,"),
    Right("hidden_convolution_as_matmul", "h = torch.relu(self.conv2(h))", "h = torch.baddbmm(self.conv2.bias[None, :, None], self.conv2.weight[None, :, :, 0, 0].expand(len(h), -1, -1), h.flatten(2)).unflatten(2, h.shape[2:]).clamp_min(0)", True),
    Right("actnorm_folded_into_kernel", "x, one = self.actnorm(x)\n        x, two = self.invconv(x)", "pixels = x.shape[2] * x.shape[3]\n        conv, norm = self.invconv, self.actnorm\n        s = torch.diag(conv.s_sign.to(x.dtype) * conv.w_s.exp())\n        kernel = conv.w_p.to(x.dtype) @ (conv.w_l.tril(-1) + torch.eye(len(s), dtype=x.dtype)) @ (conv.w_u.triu(1) + s)\n        kernel = kernel * norm.scale[0, :, 0, 0]\n        x = F.conv2d(x, kernel[:, :, None, None], kernel @ norm.loc[0, :, 0, 0])\n        one, two = norm.scale.square().log().sum() * pixels / 2, conv.w_s.sum() * pixels", True),
    Right("gaussian_by_hand", "prior = torch.distributions.Normal(mean, log_sd.exp())\n        log_p = prior.log_prob(z).sum(dim=(1, 2, 3))", "e = (z - mean) * torch.exp(-log_sd)\n        log_p = -(log_sd + 0.5 * e * e).sum((1, 2, 3)) - 0.5 * z[0].numel() * math.log(2 * math.pi)"),
    Right("steps_checkpointed", "x, change = step(x)", "x, change = torch.utils.checkpoint.checkpoint(step, x, use_reentrant=False)"),
]
