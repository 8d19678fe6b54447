"""A small RWKV: token shift, a decaying weighted mean as attention, squared ReLU channel mixing; the recurrence kept stable by a running maximum."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class RWKV_TimeMix(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.time_decay = nn.Parameter(torch.linspace(-2.0, 1.0, n_embd))
        self.time_first = nn.Parameter(torch.linspace(0.5, -0.5, n_embd))
        self.time_mix_k = nn.Parameter(torch.rand(1, 1, n_embd))
        self.time_mix_v = nn.Parameter(torch.rand(1, 1, n_embd))
        self.time_mix_r = nn.Parameter(torch.rand(1, 1, n_embd))
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.receptance = nn.Linear(n_embd, n_embd, bias=False)
        self.output = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x):
        xx = self.time_shift(x)
        xk = x * self.time_mix_k + xx * (1 - self.time_mix_k)
        xv = x * self.time_mix_v + xx * (1 - self.time_mix_v)
        xr = x * self.time_mix_r + xx * (1 - self.time_mix_r)
        k, v, r = self.key(xk), self.value(xv), torch.sigmoid(self.receptance(xr))
        w = -torch.exp(self.time_decay)
        u = self.time_first
        aa = torch.zeros_like(k[:, 0])
        bb = torch.zeros_like(aa)
        pp = torch.full_like(aa, -1e30)
        out = []
        for t in range(x.shape[1]):
            kt, vt = k[:, t], v[:, t]
            q = torch.maximum(pp, u + kt)
            e1, e2 = torch.exp(pp - q), torch.exp(u + kt - q)
            out.append((e1 * aa + e2 * vt) / (e1 * bb + e2))
            q = torch.maximum(pp + w, kt)
            e1, e2 = torch.exp(pp + w - q), torch.exp(kt - q)
            aa = e1 * aa + e2 * vt
            bb = e1 * bb + e2
            pp = q
        return self.output(r * torch.stack(out, dim=1))


class RWKV_ChannelMix(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.time_mix_k = nn.Parameter(torch.rand(1, 1, n_embd))
        self.time_mix_r = nn.Parameter(torch.rand(1, 1, n_embd))
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.key = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.receptance = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(3 * n_embd, n_embd, bias=False)

    def forward(self, x):
        xx = self.time_shift(x)
        xk = x * self.time_mix_k + xx * (1 - self.time_mix_k)
        xr = x * self.time_mix_r + xx * (1 - self.time_mix_r)
        k = torch.square(torch.relu(self.key(xk)))
        return torch.sigmoid(self.receptance(xr)) * self.value(k)


class Block(nn.Module):
    def __init__(self, n_embd, layer_id):
        super().__init__()
        if layer_id == 0:
            self.ln0 = nn.LayerNorm(n_embd)
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)
        self.att = RWKV_TimeMix(n_embd)
        self.ffn = RWKV_ChannelMix(n_embd)
        self.layer_id = layer_id

    def forward(self, x):
        if self.layer_id == 0:
            x = self.ln0(x)
        x = x + self.att(self.ln1(x))
        return x + self.ffn(self.ln2(x))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 32)
        self.blocks = nn.Sequential(*[Block(32, i) for i in range(3)])
        self.ln_out = nn.LayerNorm(32)
        self.head = nn.Linear(32, 40, bias=False)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, idx, targets):
        logits = self.head(self.ln_out(self.blocks(self.emb(idx))))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        penalty = logits.amax(dim=-1).square().mean() * 1e-4
        return logits, loss + penalty


def inputs():
    g = torch.Generator().manual_seed(13)
    idx = torch.randint(0, 40, (2, 11), generator=g)
    targets = idx.roll(-1, 1)
    targets[:, -1] = -1
    targets[0, :3] = -1
    return idx, targets


# The port ------------------------------------------------------------------------------------


def shift(x):
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)


def blend(x, before, mix):
    return before + mix * (x - before)


def wkv(k, v, decay, first):
    steps = []
    num = torch.zeros_like(k[:, 0])
    den = torch.zeros_like(num)
    top = k.detach().amax(1)
    fade = torch.exp(-torch.exp(decay))
    for kt, vt in zip(k.unbind(1), v.unbind(1)):
        now = torch.exp(kt - top)
        bonus = torch.exp(first) * now
        steps.append((num + bonus * vt) / (den + bonus))
        num = fade * num + now * vt
        den = fade * den + now
    return torch.stack(steps, dim=1)


class TimeMix(nn.Module):
    def __init__(self, n, layer):
        super().__init__()
        self.layer = layer
        self.time_decay = nn.Parameter(torch.zeros(n))
        self.time_first = nn.Parameter(torch.zeros(n))
        for name in "kvr":
            setattr(self, f"time_mix_{name}", nn.Parameter(torch.ones(1, 1, n)))
        self.key = nn.Linear(n, n, bias=False)
        self.value = nn.Linear(n, n, bias=False)
        self.receptance = nn.Linear(n, n, bias=False)
        self.output = nn.Linear(n, n, bias=False)

    def forward(self, x):
        before = shift(x)
        k = self.key(blend(x, before, self.time_mix_k))
        v = self.value(blend(x, before, self.time_mix_v))
        r = self.receptance(blend(x, before, self.time_mix_r))
        y = wkv(k, v, self.time_decay, self.time_first)
        return self.output(torch.sigmoid(r) * y)


class ChannelMix(nn.Module):
    def __init__(self, n, layer):
        super().__init__()
        self.layer = layer
        for name in "kr":
            setattr(self, f"time_mix_{name}", nn.Parameter(torch.ones(1, 1, n)))
        self.key = nn.Linear(n, 3 * n, bias=False)
        self.receptance = nn.Linear(n, n, bias=False)
        self.value = nn.Linear(3 * n, n, bias=False)

    def forward(self, x):
        last = shift(x)
        h = self.key(blend(x, last, self.time_mix_k))
        h = F.relu(h) ** 2
        gate = self.receptance(blend(x, last, self.time_mix_r)).sigmoid()
        return gate * self.value(h)


class Layer(nn.Module):
    def __init__(self, n, layer):
        super().__init__()
        self.ln0 = nn.LayerNorm(n) if layer == 0 else None
        self.ln1 = nn.LayerNorm(n)
        self.ln2 = nn.LayerNorm(n, eps=1e-5)
        self.att = TimeMix(n, layer)
        self.ffn = ChannelMix(n, layer)

    def forward(self, x):
        if self.ln0 is not None:
            x = self.ln0(x)
        y = self.att(self.ln1(x))
        x = x + y
        y = self.ffn(self.ln2(x))
        return x + y


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(40, 32)
        self.blocks = nn.ModuleList(Layer(32, i) for i in range(3))
        self.ln_out = nn.LayerNorm(32)
        self.head = nn.Linear(32, 40, bias=False)

    def forward(self, idx, targets):
        x = self.emb(idx)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln_out(x))
        known = targets >= 0
        rows = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        loss = -(rows * known).sum() / known.sum()
        penalty = logits.max(-1).values.pow(2).mean()
        return logits, loss + 1e-4 * penalty


NAMES = {}

FAULTS = [
    Fault("shift_rolls_round", "return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)", "return x.roll(1, 1)", "blocks.0.att", "output", "initial"),
    Fault("shift_wrong_side", "return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)", "return F.pad(x[:, 1:], (0, 0, 0, 1))", "blocks.0.att", "output", "padding"),
    Fault("mix_swapped", "return before + mix * (x - before)", "return x + mix * (before - x)", "blocks.0.att", "output", "order"),
    Fault("bonus_for_decay_of_first", "steps.append((num + bonus * vt) / (den + bonus))", "steps.append((num + bonus * vt) / (den + now))", "blocks.0.att", "output", "operand"),
    Fault("no_bonus", "bonus = torch.exp(first) * now", "bonus = now", "blocks.0.att", "output", "missing"),
    Fault("decay_once_exponentiated", "fade = torch.exp(-torch.exp(decay))", "fade = torch.sigmoid(decay)", "blocks.0.att", "output", "activation"),
    Fault("faded_before_use", "        now = torch.exp(kt - top)\n", "        now = torch.exp(kt - top)\n        num, den = fade * num, fade * den\n", "blocks.0.att", "output", "order"),
    Fault("first_denominator_one", "den = torch.zeros_like(num)", "den = torch.full_like(num, 1e-4)", "blocks.0.att", "output", "initial"),
    Fault("key_detached", "y = wkv(k, v, self.time_decay, self.time_first)", "y = wkv(k if self.layer != 1 else k.detach(), v, self.time_decay, self.time_first)", "blocks.1.att", "gradient", "detached"),
    Fault("value_of_mixed_for_key", "v = self.value(blend(x, before, self.time_mix_v))", "v = self.value(blend(x, before, self.time_mix_k))", "blocks.0.att", "output", "operand"),
    Fault("relu_not_squared", "h = F.relu(h) ** 2", "h = F.relu(h)", "blocks.0.ffn", "output", "activation"),
    Fault("gate_detached_in_last", "return gate * self.value(h)", "return (gate.detach() if self.layer == 2 else gate) * self.value(h)", "blocks.2.ffn", "gradient", "detached"),
    Fault("eps_of_ln2", "self.ln2 = nn.LayerNorm(n, eps=1e-5)", "self.ln2 = nn.LayerNorm(n, eps=1e-6)", "blocks.0.ln2", "output", "eps"),
    Fault("residual_before_ln0", "            x = self.ln0(x)\n        y = self.att(self.ln1(x))", "            y = self.att(self.ln1(self.ln0(x)))\n        else:\n            y = self.att(self.ln1(x))", "blocks.0", "output", "residual"),
    Fault("loss_over_all", "loss = -(rows * known).sum() / known.sum()", "loss = -(rows * known).mean()", "", "output", "count"),
    Fault("penalty_detached", "penalty = logits.max(-1).values.pow(2).mean()", "penalty = logits.detach().max(-1).values.pow(2).mean()", "", "gradient", "detached"),
    Fault("decay_detached_in_last", "y = wkv(k, v, self.time_decay, self.time_first)", "y = wkv(k, v, self.time_decay if self.layer < 2 else self.time_decay.detach(), self.time_first)", "blocks.2.att", "gradient", "detached"),
]

LOOP = """    for kt, vt in zip(k.unbind(1), v.unbind(1)):
        now = torch.exp(kt - top)
        bonus = torch.exp(first) * now
        steps.append((num + bonus * vt) / (den + bonus))
        num = fade * num + now * vt
        den = fade * den + now
    return torch.stack(steps, dim=1)"""

RIGHT = [
    Right("wkv_as_a_matrix", LOOP, """    t = torch.arange(k.shape[1])
    gap = t[:, None] - t[None, :] - 1
    power = -torch.exp(decay) * gap.clamp(min=0)[..., None].to(k.dtype)
    power = torch.where((gap >= 0)[..., None], power, float("-inf"))
    power = torch.where((gap == -1)[..., None], first, power)
    weight = torch.softmax(power + k[:, None], dim=2)
    return torch.einsum("btsc,bsc->btc", weight, v)"""),
    Right("wkv_without_a_maximum", "top = k.detach().amax(1)", "top = 0"),
    Right("wkv_by_prefix_in_logs", LOOP, """    lower = torch.full_like(num, -1e30)
    w = torch.exp(decay)
    for kt, vt in zip(k.unbind(1), v.unbind(1)):
        share = torch.sigmoid(first + kt - lower)
        steps.append(num + share * (vt - num))
        faded = lower - w
        upper = torch.logaddexp(faded, kt)
        num = torch.lerp(num, vt, torch.exp(kt - upper))
        lower = upper
    return torch.stack(steps, dim=1)"""),
    Right("shift_by_pad", "return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)", "return F.pad(x, (0, 0, 1, 0))[:, :-1]"),
    Right("blend_by_lerp", "return before + mix * (x - before)", "return torch.lerp(before, x, mix.expand_as(x))"),
    Right("relu_squared_by_product", "h = F.relu(h) ** 2", "h = h * F.relu(h)"),
    Right("loss_of_torch", """        rows = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        loss = -(rows * known).sum() / known.sum()""", """        loss = F.cross_entropy(logits[known], targets[known])"""),
    Right("three_projections_stacked", """        self.key = nn.Linear(n, n, bias=False)
        self.value = nn.Linear(n, n, bias=False)
        self.receptance = nn.Linear(n, n, bias=False)
        self.output = nn.Linear(n, n, bias=False)

    def forward(self, x):
        before = shift(x)
        k = self.key(blend(x, before, self.time_mix_k))
        v = self.value(blend(x, before, self.time_mix_v))
        r = self.receptance(blend(x, before, self.time_mix_r))""", """        self.kvr = nn.Parameter(torch.zeros(3 * n, n))
        self.output = nn.Linear(n, n, bias=False)

    def forward(self, x):
        before = shift(x)
        three = torch.stack([blend(x, before, m) for m in (self.time_mix_k, self.time_mix_v, self.time_mix_r)])
        k, v, r = torch.einsum("jbtc,jdc->jbtd", three, self.kvr.view(3, -1, x.shape[-1]))""", True, {
        f"blocks.{i}.att.kvr": f"cat(blocks.{i}.att.key.weight, blocks.{i}.att.value.weight, blocks.{i}.att.receptance.weight)" for i in range(3)}),
    Right("output_norm_and_head_in_one", "logits = self.head(self.ln_out(x))", """d = x - x.mean(-1, keepdim=True)
        d = d * torch.rsqrt(d.square().mean(-1, keepdim=True) + self.ln_out.eps)
        logits = d @ (self.head.weight * self.ln_out.weight).mT + self.head.weight @ self.ln_out.bias""", True),
    Right("block_checkpointed", "x = block(x)", "x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)"),
]
