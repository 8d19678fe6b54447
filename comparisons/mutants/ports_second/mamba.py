"""A selective state space language model in the manner of mamba-minimal: causal depthwise convolution, data-dependent steps, a sequential scan, a head by the embedding."""

import torch
import torch.nn.functional as F
from torch import nn

from ..ports.kinds import Fault, Right


class RMSNorm(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class MambaBlock(nn.Module):
    def __init__(self, d_model=24, d_inner=48, d_state=6, dt_rank=3, d_conv=4):
        super().__init__()
        self.d_inner, self.d_state, self.dt_rank = d_inner, d_state, dt_rank
        self.in_proj = nn.Linear(d_model, d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(d_inner, dt_rank + d_state * 2, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1.0)).repeat(d_inner, 1) + 0.1 * torch.randn(d_inner, d_state))
        self.D = nn.Parameter(1 + 0.2 * torch.randn(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x):
        length = x.shape[1]
        x, res = self.in_proj(x).split(split_size=[self.d_inner, self.d_inner], dim=-1)
        x = self.conv1d(x.transpose(1, 2))[:, :, :length].transpose(1, 2)
        x = F.silu(x)
        y = self.ssm(x) * F.silu(res)
        return self.out_proj(y)

    def ssm(self, x):
        A = -torch.exp(self.A_log)
        delta, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(delta @ self.dt_proj.weight.T + self.dt_proj.bias)
        deltaA = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
        deltaB_u = torch.einsum("bld,bln,bld->bldn", delta, B, x)
        state = torch.zeros_like(deltaA[:, 0])
        ys = []
        for i in range(x.shape[1]):
            state = deltaA[:, i] * state + deltaB_u[:, i]
            ys.append(torch.einsum("bdn,bn->bd", state, C[:, i]))
        return torch.stack(ys, dim=1) + x * self.D


class ResidualBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixer = MambaBlock()
        self.norm = RMSNorm(24)

    def forward(self, x):
        return self.mixer(self.norm(x)) + x


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(41, 24)
        self.layers = nn.ModuleList([ResidualBlock() for _ in range(2)])
        self.norm_f = RMSNorm(24)
        for name, p in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(p, 1.0, 0.2)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm_f(x), self.embedding.weight)


def inputs():
    g = torch.Generator().manual_seed(15)
    return (torch.randint(0, 41, (2, 11), generator=g),)


# The port ------------------------------------------------------------------------------------


class Scale(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, (self.dim,), self.weight, self.eps)


def scan(decay, inflow, chunk=4):
    """states of h = exp(decay) h + inflow, both batch, length, channels, n; a chunk at a time, each at once"""
    h = torch.zeros_like(inflow[:, 0])
    states = []
    for log, new in zip(decay.split(chunk, 1), inflow.split(chunk, 1)):
        total = log.cumsum(1)
        between = total[:, :, None] - total[:, None]
        t = torch.arange(log.shape[1], device=log.device)
        past = (t[:, None] >= t)[None, :, :, None, None]
        weights = between.masked_fill(~past, float("-inf")).exp()
        out = (weights * new[:, None]).sum(2) + total.exp() * h[:, None]
        states.append(out)
        h = out[:, -1]
    return torch.cat(states, 1)


class Mixer(nn.Module):
    def __init__(self, index, dim=24, inner=48, n=6, rank=3):
        super().__init__()
        self.index, self.n, self.rank = index, n, rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, n))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        u, z = self.in_proj(x).chunk(2, -1)
        c = self.conv1d(u.mT)[..., : u.shape[1]]
        c = F.silu(c).mT
        low, b, read = torch.tensor_split(self.x_proj(c), (self.rank, self.rank + self.n), -1)
        dt = F.softplus(F.linear(low, self.dt_proj.weight, self.dt_proj.bias))
        a = self.A_log.exp().neg()
        decay = dt[..., None] * a
        inflow = (dt * c)[..., None] * b[:, :, None]
        states = scan(decay, inflow)
        y = (states * read[:, :, None]).sum(-1)
        y = y + self.D * c
        return self.out_proj(y * F.silu(z))


class Layer(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.norm = Scale(24)
        self.mixer = Mixer(index)

    def forward(self, x):
        normed = self.norm(x)
        return x + self.mixer(normed)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(41, 24)
        self.blocks = nn.ModuleList([Layer(0), Layer(1)])
        self.norm_f = Scale(24, eps=1e-5)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        x = self.norm_f(x)
        return x @ self.embed.weight.t()


NAMES = {"embed": "embedding", "blocks": "layers", "blocks.0": "layers.0", "blocks.1": "layers.1"}

FAULTS = [
    Fault("convolution_looks_ahead", "c = self.conv1d(u.mT)[..., : u.shape[1]]", "c = self.conv1d(u.mT)[..., 3:]", "layers.0.mixer", "output", "padding"),
    Fault("convolution_half_ahead", "c = self.conv1d(u.mT)[..., : u.shape[1]]", "c = self.conv1d(u.mT)[..., 1 : 1 + u.shape[1]]", "layers.0.mixer", "output", "padding"),
    Fault("zero_order_hold", "inflow = (dt * c)[..., None] * b[:, :, None]", "inflow = torch.expm1(decay) / a * c[..., None] * b[:, :, None]", "layers.0.mixer", "output", "approximate"),
    Fault("step_bias_missing", "F.linear(low, self.dt_proj.weight, self.dt_proj.bias)", "F.linear(low, self.dt_proj.weight)", "layers.0.mixer", "output", "missing"),
    Fault("relu_step", "dt = F.softplus(F.linear", "dt = F.relu(F.linear", "layers.0.mixer", "output", "activation"),
    Fault("sigmoid_gate", "self.out_proj(y * F.silu(z))", "self.out_proj(y * torch.sigmoid(z))", "layers.0.mixer", "output", "activation"),
    Fault("gate_first", "u, z = self.in_proj(x).chunk(2, -1)", "z, u = self.in_proj(x).chunk(2, -1)", "layers.0.mixer", "output", "order"),
    Fault("read_and_write_exchanged", "low, b, read = torch.tensor_split", "low, read, b = torch.tensor_split", "layers.0.mixer", "output", "order"),
    Fault("skip_before_convolution", "y = y + self.D * c", "y = y + self.D * u", "layers.0.mixer", "output", "operand"),
    Fault("chunk_starts_from_nothing", "        h = out[:, -1]\n", "        h = torch.zeros_like(h)\n", "layers.0.mixer", "output", "initial"),
    Fault("own_inflow_hidden", "past = (t[:, None] >= t)", "past = (t[:, None] > t)", "layers.0.mixer", "output", "mask"),
    Fault("rates_detached", "a = self.A_log.exp().neg()", "a = self.A_log.exp().neg() if self.index == 0 else self.A_log.detach().exp().neg()", "layers.1.mixer", "gradient", "detached"),
    Fault("skip_weight_detached", "y = y + self.D * c", "y = y + (self.D.data if self.index else self.D) * c", "layers.1.mixer", "gradient", "detached"),
    Fault("residual_of_normed", "return x + self.mixer(normed)", "return normed + self.mixer(normed)", "layers.0", "output", "residual"),
    Fault("eps_of_last_norm", "self.norm_f = Scale(24, eps=1e-5)", "self.norm_f = Scale(24, eps=1e-6)", "norm_f", "output", "eps"),
    Fault("head_gives_no_gradient", "return x @ self.embed.weight.t()", "return x @ self.embed.weight.detach().t()", "", "gradient", "untied"),
]

RIGHT = [
    Right("scan_step_by_step", """    h = torch.zeros_like(inflow[:, 0])
    states = []
    for log, new in zip(decay.split(chunk, 1), inflow.split(chunk, 1)):
        total = log.cumsum(1)
        between = total[:, :, None] - total[:, None]
        t = torch.arange(log.shape[1], device=log.device)
        past = (t[:, None] >= t)[None, :, :, None, None]
        weights = between.masked_fill(~past, float("-inf")).exp()
        out = (weights * new[:, None]).sum(2) + total.exp() * h[:, None]
        states.append(out)
        h = out[:, -1]
    return torch.cat(states, 1)
""", """    factors = decay.exp().unbind(1)
    states = list(inflow.unbind(1))
    for t in range(1, len(states)):
        states[t] = torch.addcmul(states[t], factors[t], states[t - 1])
    return torch.stack(states, 1)
"""),
    Right("scan_by_doubling", """    h = torch.zeros_like(inflow[:, 0])
    states = []
    for log, new in zip(decay.split(chunk, 1), inflow.split(chunk, 1)):
        total = log.cumsum(1)
        between = total[:, :, None] - total[:, None]
        t = torch.arange(log.shape[1], device=log.device)
        past = (t[:, None] >= t)[None, :, :, None, None]
        weights = between.masked_fill(~past, float("-inf")).exp()
        out = (weights * new[:, None]).sum(2) + total.exp() * h[:, None]
        states.append(out)
        h = out[:, -1]
    return torch.cat(states, 1)
""", """    a, b, step = decay.exp(), inflow, 1
    while step < a.shape[1]:
        b = torch.cat((b[:, :step], a[:, step:] * b[:, :-step] + b[:, step:]), 1)
        a = torch.cat((a[:, :step], a[:, step:] * a[:, :-step]), 1)
        step *= 2
    return b
"""),
    Right("one_chunk", "def scan(decay, inflow, chunk=4):", "def scan(decay, inflow, chunk=1 << 20):"),
    Right("scan_by_own_function", """def scan(decay, inflow, chunk=4):
""", """class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, decay, inflow):
        factor = decay.exp()
        states = inflow.clone()
        for t in range(1, states.shape[1]):
            states[:, t] += factor[:, t] * states[:, t - 1]
        ctx.save_for_backward(factor, states)
        return states

    @staticmethod
    def backward(ctx, grad):
        factor, states = ctx.saved_tensors
        grad = grad.clone()
        for t in range(states.shape[1] - 1, 0, -1):
            grad[:, t - 1] += factor[:, t] * grad[:, t]
        before = torch.cat((torch.zeros_like(states[:, :1]), states[:, :-1]), 1)
        return grad * before * factor, grad


def scan(decay, inflow):
    return Scan.apply(decay, inflow)


def chunked_scan(decay, inflow, chunk=4):
"""),
    Right("convolution_by_shifts", "        c = self.conv1d(u.mT)[..., : u.shape[1]]\n        c = F.silu(c).mT\n", """        w = self.conv1d.weight[:, 0]
        c = self.conv1d.bias + w[:, 3] * u
        for back in (1, 2, 3):
            c = c + w[:, 3 - back] * F.pad(u, (0, 0, back, 0))[:, :-back]
        c = c * c.sigmoid()
""", fused=True),
    Right("projections_apart", """        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * n, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, n))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        u, z = self.in_proj(x).chunk(2, -1)
        c = self.conv1d(u.mT)[..., : u.shape[1]]
        c = F.silu(c).mT
        low, b, read = torch.tensor_split(self.x_proj(c), (self.rank, self.rank + self.n), -1)
""", """        self.w_u, self.w_z = nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.w_low, self.w_b, self.w_read = (nn.Linear(inner, k, bias=False) for k in (rank, n, n))
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, n))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        u, z = self.w_u(x), self.w_z(x)
        c = self.conv1d(u.mT)[..., : u.shape[1]]
        c = F.silu(c).mT
        low, b, read = self.w_low(c), self.w_b(c), self.w_read(c)
""", fused=True, names=NAMES | {f"blocks.{i}.mixer.{a}.weight": f"layers.{i}.mixer.{b}" for i in range(2) for a, b in (
        ("w_u", "in_proj.weight[:48]"), ("w_z", "in_proj.weight[48:]"), ("w_low", "x_proj.weight[:3]"), ("w_b", "x_proj.weight[3:9]"), ("w_read", "x_proj.weight[9:]"))}),
    Right("norm_by_length", "return F.rms_norm(x, (self.dim,), self.weight, self.eps)", "return self.weight * (x / (x.norm(dim=-1, keepdim=True).square() / self.dim + self.eps).sqrt())"),
    Right("step_by_logaddexp", "dt = F.softplus(F.linear(low, self.dt_proj.weight, self.dt_proj.bias))", "low = self.dt_proj(low)\n        dt = torch.logaddexp(low, torch.zeros_like(low))"),
    Right("norm_folded_into_head", "        x = self.norm_f(x)\n        return x @ self.embed.weight.t()\n", "        inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.norm_f.eps)\n        return inverse * F.linear(x, self.embed.weight * self.norm_f.weight)\n", fused=True),
    Right("contractions_by_einsum", "        y = (states * read[:, :, None]).sum(-1)\n        y = y + self.D * c\n", '        y = torch.einsum("bldn,bln->bld", states, read)\n        y.addcmul_(self.D, c)\n'),
]
