"""GRU-D for irregular series with missing values, a second plain GRU backwards over it, masked attention pooling; ported time first."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..ports.kinds import Fault, Right


class DecayX(nn.Module):
    """A decay for each variable."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(size))
        self.bias = nn.Parameter(0.2 * torch.randn(size))

    def forward(self, delta):
        return torch.exp(-F.relu(delta * self.weight + self.bias))


class DecayH(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.linear = nn.Linear(size, hidden)

    def forward(self, delta):
        return torch.exp(-F.relu(self.linear(delta)))


class GRUDCell(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.decay_x = DecayX(size)
        self.decay_h = DecayH(size, hidden)
        self.register_buffer("mean", 0.3 * torch.randn(size))
        self.update = nn.Linear(2 * size + hidden, hidden)
        self.reset = nn.Linear(2 * size + hidden, hidden)
        self.candidate = nn.Linear(2 * size + hidden, hidden)

    def forward(self, x, m, delta, last, h):
        gamma = self.decay_x(delta)
        x_hat = m * x + (1 - m) * (gamma * last + (1 - gamma) * self.mean)
        h = self.decay_h(delta) * h
        z = torch.sigmoid(self.update(torch.cat([x_hat, h, m], -1)))
        r = torch.sigmoid(self.reset(torch.cat([x_hat, h, m], -1)))
        n = torch.tanh(self.candidate(torch.cat([x_hat, r * h, m], -1)))
        return (1 - z) * h + z * n, m * x + (1 - m) * last


class BackwardGRU(nn.Module):
    """PyTorch's GRU (the reset gate after the product), from the last valid step to the first."""

    def __init__(self, size, hidden):
        super().__init__()
        self.initial = nn.Parameter(0.3 * torch.randn(hidden))
        self.gru = nn.GRUCell(size, hidden)

    def forward(self, x, valid):
        h = self.initial.expand(x.shape[0], -1)
        states = []
        for t in reversed(range(x.shape[1])):
            new = self.gru(x[:, t], h)
            h = torch.where(valid[:, t, None], new, h)
            states.insert(0, h)
        return torch.stack(states, 1)


class AttentionPool(nn.Module):
    def __init__(self, width, inner=12):
        super().__init__()
        self.key = nn.Linear(width, inner)
        self.query = nn.Parameter(torch.randn(inner))
        self.value = nn.Linear(width, width)

    def forward(self, x, valid):
        score = torch.tanh(self.key(x)) @ self.query / math.sqrt(self.query.shape[0])
        score = score.masked_fill(~valid, float("-inf"))
        w = torch.softmax(score, dim=1)
        return torch.einsum("bt,btc->bc", w, self.value(x)), w


class Original(nn.Module):
    def __init__(self, size=5, hidden=16, kinds=6):
        super().__init__()
        self.hidden = hidden
        self.kind = nn.Embedding(kinds, 8, padding_idx=0)
        self.cell = GRUDCell(size, hidden)
        self.norm = nn.LayerNorm(hidden + 8, eps=1e-5)
        self.back = BackwardGRU(hidden + 8, hidden)
        self.pool = AttentionPool(2 * hidden)
        self.out = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Softplus(beta=2.0), nn.Linear(hidden, 3))
        self.rebuild = nn.Linear(hidden, size)

    def forward(self, x, observed, times, kinds):
        b, steps, size = x.shape
        valid = kinds != 0
        m = observed.to(x)
        gaps = torch.cat([torch.zeros_like(times[:, :1]), times[:, 1:] - times[:, :-1]], 1)
        h = x.new_zeros(b, self.hidden)
        last = self.cell.mean.expand(b, -1)
        delta = x.new_zeros(b, size)
        hidden = []
        for t in range(steps):
            if t > 0:
                delta = gaps[:, t, None] + (1 - m[:, t - 1]) * delta
            new, new_last = self.cell(x[:, t], m[:, t], delta, last, h)
            keep = valid[:, t, None]
            h, last = torch.where(keep, new, h), torch.where(keep, new_last, last)
            hidden.append(h)
        hidden = torch.stack(hidden, 1)
        y = self.norm(torch.cat([hidden, self.kind(kinds)], -1))
        y = torch.cat([hidden, self.back(y, valid)], -1)
        pooled, weights = self.pool(y, valid)
        seen = m[:, 1:] * valid[:, 1:, None]
        error = (self.rebuild(hidden[:, :-1]) - x[:, 1:]).abs() * seen
        return self.out(pooled), weights, error.sum() / seen.sum()


def inputs():
    g = torch.Generator().manual_seed(9)
    x = torch.randn(3, 8, 5, generator=g)
    observed = torch.rand(3, 8, 5, generator=g) < 0.6
    times = torch.rand(3, 8, generator=g).cumsum(1)
    kinds = torch.randint(1, 6, (3, 8), generator=g)
    kinds[0, 6:] = 0
    kinds[2, 4:] = 0
    return x, observed, times, kinds


# The port ------------------------------------------------------------------------------------


class PerVariable(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, gap):
        rate = torch.addcmul(self.bias, gap, self.weight)
        return rate.clamp(min=0).neg().exp()


class PerUnit(nn.Module):
    def __init__(self, n, units):
        super().__init__()
        self.linear = nn.Linear(n, units)

    def forward(self, gap):
        rate = torch.relu(self.linear(gap))
        return 1 / torch.exp(rate)


class Cell(nn.Module):
    def __init__(self, n, units):
        super().__init__()
        self.units = units
        self.decay_x = PerVariable(n)
        self.decay_h = PerUnit(n, units)
        self.register_buffer("mean", torch.zeros(n))
        self.gates = nn.Linear(2 * n + units, 2 * units)
        self.candidate = nn.Linear(2 * n + units, units)

    def both(self, v):
        return self.gates(v).chunk(2, -1)

    def forward(self, x, m, gap, state):
        last, h = state
        decay = self.decay_x(gap)
        filled = self.mean + decay * (last - self.mean)
        used = torch.where(m, x, filled)
        h = h * self.decay_h(gap)
        flags = m.to(x)
        z, r = self.both(torch.cat((used, h, flags), -1))
        z, r = z.sigmoid(), r.sigmoid()
        n = self.candidate(torch.cat((used, h * r, flags), -1)).tanh()
        h = h + z * (n - h)
        last = torch.where(m, x, last)
        return last, h


class Reverse(nn.Module):
    """Time first: (time, batch, width)."""

    def __init__(self, n, units):
        super().__init__()
        self.initial = nn.Parameter(torch.zeros(units))
        self.gru = nn.GRUCell(n, units)

    def forward(self, x, valid):
        h = self.initial.repeat(x.shape[1], 1)
        states = []
        for step, alive in zip(x.flip(0), valid.flip(0)):
            new = self.gru(step, h)
            alive = alive.unsqueeze(-1).to(h)
            h = alive * new + (1 - alive) * h
            states.append(h)
        return torch.stack(states[::-1])


class Pool(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(inner))
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, width)

    def forward(self, x, valid):
        # x: (time, batch, width)
        score = (self.key(x).tanh() * self.query).sum(-1) * self.query.numel() ** -0.5
        score = score - score.amax(0, keepdim=True).detach()
        weight = score.exp() * valid
        weight = weight / weight.sum(0, keepdim=True)
        return {"pooled": (weight.unsqueeze(-1) * self.value(x)).sum(0), "weight": weight}


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind = nn.Embedding(6, 8, padding_idx=0)
        self.cell = Cell(5, 16)
        self.norm = nn.LayerNorm(24)
        self.back = Reverse(24, 16)
        self.pool = Pool(32, 12)
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, 3)
        self.rebuild = nn.Linear(16, 5)

    def gaps(self, times, observed):
        # (time, batch, variables): how long ago each was seen, before each step
        step = times.diff(dim=0).unsqueeze(-1)
        since = [torch.zeros_like(observed[0], dtype=times.dtype)]
        for t in range(1, len(times)):
            since.append(step[t - 1] + since[-1].masked_fill(observed[t - 1], 0))
        return since

    def forward(self, x, observed, times, kinds):
        x, observed, times, kinds = (t.transpose(0, 1) for t in (x, observed, times, kinds))
        length, n, width = x.shape
        valid = kinds > 0
        gaps = self.gaps(times, observed)
        state = (self.cell.mean.repeat(n, 1), x.new_zeros(n, 16))
        hidden = []
        for t in range(length):
            new = self.cell(x[t], observed[t], gaps[t], state)
            alive = valid[t, :, None]
            state = tuple(torch.where(alive, a, b) for a, b in zip(new, state))
            hidden.append(state[1])
        hidden = torch.stack(hidden)
        normed = self.norm(torch.cat((hidden, self.kind(kinds)), 2))
        both = torch.cat((hidden, self.back(normed, valid)), 2)
        pooled = self.pool(both, valid)
        y = self.fc1(pooled["pooled"])
        y = self.fc2(F.softplus(y, beta=2.0))
        seen = observed[1:] & valid[1:, :, None]
        guess = self.rebuild(hidden[:-1])
        error = F.l1_loss(guess[seen], x[1:][seen])
        return y, pooled["weight"].transpose(0, 1), error


NAMES = {
    "cell.gates.weight": "cat(cell.update.weight, cell.reset.weight)",
    "cell.gates.bias": "cat(cell.update.bias, cell.reset.bias)",
    "fc1": "out.0",
    "fc2": "out.2",
}

_APART = {"fc1": "out.0", "fc2": "out.2"}

_SPLIT = dict(NAMES)
_SPLIT.update({
    "back.input.weight": "back.gru.weight_ih", "back.input.bias": "back.gru.bias_ih",
    "back.state.weight": "back.gru.weight_hh", "back.state.bias": "back.gru.bias_hh",
})

FAULTS = [
    Fault("decay_not_clamped", "rate.clamp(min=0).neg().exp()", "rate.neg().exp()", "cell.decay_x", "output", "activation"),
    Fault("decay_bias_detached", "torch.addcmul(self.bias, gap, self.weight)", "torch.addcmul(self.bias.detach(), gap, self.weight)",
          "cell.decay_x", "gradient", "detached"),
    Fault("softplus_rate", "rate = torch.relu(self.linear(gap))", "rate = F.softplus(self.linear(gap), beta=20)", "cell.decay_h", "output", "approximate"),
    Fault("decay_after_gates", """        h = h * self.decay_h(gap)
        flags = m.to(x)
        z, r = self.both(torch.cat((used, h, flags), -1))
""", """        flags = m.to(x)
        z, r = self.both(torch.cat((used, h, flags), -1))
        h = h * self.decay_h(gap)
""", "cell", "output", "order"),
    Fault("decays_from_zero", "filled = self.mean + decay * (last - self.mean)", "filled = decay * last", "cell", "output", "missing"),
    Fault("decays_towards_last", "filled = self.mean + decay * (last - self.mean)", "filled = last + decay * (self.mean - last)", "cell", "output", "operand"),
    Fault("gates_swapped", "z, r = self.both(", "r, z = self.both(", "cell", "output", "order"),
    Fault("update_keeps", "h = h + z * (n - h)", "h = n + z * (h - n)", "cell", "output", "operand"),
    Fault("update_path_detached", "h = h + z * (n - h)", "h = h + z * (n - h.detach())", "cell", "gradient", "detached"),
    Fault("reset_after_product", "n = self.candidate(torch.cat((used, h * r, flags), -1)).tanh()",
          "n = (self.candidate(torch.cat((used, h * 0, flags), -1)) + r * (h @ self.candidate.weight[:, 5:21].T)).tanh()", "cell", "output", "order"),
    Fault("last_imputed", "last = torch.where(m, x, last)", "last = used", "cell", "output", "operand"),
    Fault("flags_inverted", "torch.cat((used, h * r, flags), -1)", "torch.cat((used, h * r, 1 - flags), -1)", "cell", "output", "mask"),
    Fault("starts_at_zero", "h = self.initial.repeat(x.shape[1], 1)", "h = 0 * self.initial.repeat(x.shape[1], 1)", "back", "output", "initial"),
    Fault("initial_detached", "h = self.initial.repeat(x.shape[1], 1)", "h = self.initial.detach().repeat(x.shape[1], 1)", "back", "gradient", "detached"),
    Fault("padding_read", "alive = alive.unsqueeze(-1).to(h)", "alive = torch.ones_like(h)", "back", "output", "mask"),
    Fault("states_reversed", "torch.stack(states[::-1])", "torch.stack(states)", "back", "output", "order"),
    Fault("truncated_gradient", "            new = self.gru(step, h)\n", "            new = self.gru(step, h if len(states) != 4 else h.detach())\n", "back", "gradient", "detached"),
    Fault("pool_over_padding", "weight = score.exp() * valid", "weight = score.exp()", "pool", "output", "mask"),
    Fault("pool_unscaled", " * self.query.numel() ** -0.5", "", "pool", "output", "scale"),
    Fault("pool_scale_of_width", "self.query.numel() ** -0.5", "x.shape[-1] ** -0.5", "pool", "output", "scale"),
    Fault("pool_eps", "weight / weight.sum(0, keepdim=True)", "weight / (weight.sum(0, keepdim=True) + 1e-5)", "pool", "output", "eps"),
    Fault("pool_averaged", "self.value(x)).sum(0)", "self.value(x)).mean(0)", "pool", "output", "count"),
    Fault("norm_eps", "self.norm = nn.LayerNorm(24)", "self.norm = nn.LayerNorm(24, eps=1e-3)", "norm", "output", "eps"),
    Fault("another_row_is_padding", "self.kind = nn.Embedding(6, 8, padding_idx=0)", "self.kind = nn.Embedding(6, 8, padding_idx=2)", "kind", "gradient", "padding"),
    Fault("last_seen_starts_at_zero", "state = (self.cell.mean.repeat(n, 1), x.new_zeros(n, 16))", "state = (0 * self.cell.mean.repeat(n, 1), x.new_zeros(n, 16))",
          "", "output", "initial"),
    Fault("gap_of_this_step", "masked_fill(observed[t - 1], 0)", "masked_fill(observed[t], 0)", "", "output", "mask"),
    Fault("first_gap_is_time", "since = [torch.zeros_like(observed[0], dtype=times.dtype)]", "since = [times[0, :, None].expand(-1, 5)]", "", "output", "initial"),
    Fault("softplus_sharpness", "F.softplus(y, beta=2.0)", "F.softplus(y)", "", "output", "activation"),
    Fault("error_over_all", "error = F.l1_loss(guess[seen], x[1:][seen])", "error = F.l1_loss(guess * seen, x[1:] * seen)", "", "output", "count"),
    Fault("error_of_same_step", "guess = self.rebuild(hidden[:-1])", "guess = self.rebuild(hidden[1:])", "", "output", "operand"),
    Fault("weights_of_pool_detached", "(weight.unsqueeze(-1) * self.value(x))", "(weight.detach().unsqueeze(-1) * self.value(x))", "pool", "gradient", "detached"),
    Fault("rebuilt_from_detached", "guess = self.rebuild(hidden[:-1])", "guess = self.rebuild(hidden[:-1].detach())", "", "gradient", "detached"),
]

RIGHT = [
    Right("gates_apart", """        self.gates = nn.Linear(2 * n + units, 2 * units)
        self.candidate = nn.Linear(2 * n + units, units)

    def both(self, v):
        return self.gates(v).chunk(2, -1)
""", """        self.update = nn.Linear(2 * n + units, units)
        self.reset = nn.Linear(2 * n + units, units)
        self.candidate = nn.Linear(2 * n + units, units)

    def both(self, v):
        return self.update(v), self.reset(v)
""", False, _APART),
    Right("candidate_in_parts", "n = self.candidate(torch.cat((used, h * r, flags), -1)).tanh()",
          """a, b, c = self.candidate.weight.split((5, 16, 5), 1)
        n = torch.addmm(self.candidate.bias, used, a.T).add((h * r) @ b.T).add(flags @ c.T).tanh()""", True),
    Right("mask_by_products", "        used = torch.where(m, x, filled)\n", "        used = filled + m.to(x) * (x - filled)\n"),
    Right("interpolated_state", "h = h + z * (n - h)", "h = torch.lerp(h, n, z)"),
    Right("decay_of_minimum", "rate.clamp(min=0).neg().exp()", "torch.exp(-torch.where(rate > 0, rate, torch.zeros_like(rate)))"),
    Right("gru_by_hand", """            new = self.gru(step, h)
""", """            gi = F.linear(step, self.gru.weight_ih, self.gru.bias_ih).chunk(3, 1)
            gh = F.linear(h, self.gru.weight_hh, self.gru.bias_hh).chunk(3, 1)
            r, z = torch.sigmoid(gi[0] + gh[0]), torch.sigmoid(gi[1] + gh[1])
            n = torch.tanh(gi[2] + r * gh[2])
            new = n + z * (h - n)
""", True),
    Right("gru_of_two_linears", """        self.gru = nn.GRUCell(n, units)

    def forward(self, x, valid):
        h = self.initial.repeat(x.shape[1], 1)
""", """        self.input = nn.Linear(n, 3 * units)
        self.state = nn.Linear(units, 3 * units)

    def gru(self, step, h):
        a, b, c = self.input(step).chunk(3, -1)
        d, e, f = self.state(h).chunk(3, -1)
        z = torch.sigmoid(b + e)
        return torch.tanh(c + f * torch.sigmoid(a + d)) * (1 - z) + h * z

    def forward(self, x, valid):
        h = self.initial.expand(x.shape[1], -1)
""", True, _SPLIT),
    Right("pool_by_softmax", """        score = score - score.amax(0, keepdim=True).detach()
        weight = score.exp() * valid
        weight = weight / weight.sum(0, keepdim=True)
""", """        weight = score.masked_fill(valid.logical_not(), -1e30).softmax(0)
"""),
    Right("pool_then_value", "\"pooled\": (weight.unsqueeze(-1) * self.value(x)).sum(0)",
          "\"pooled\": torch.einsum(\"tb,tbc->bc\", weight, x) @ self.value.weight.T + self.value.bias", True),
    Right("checkpointed_cell", "new = self.cell(x[t], observed[t], gaps[t], state)", "new = checkpoint(self.cell, x[t], observed[t], gaps[t], state, use_reentrant=False)"),
    Right("head_functional", "        y = self.fc1(pooled[\"pooled\"])\n", "        y = torch.addmm(self.fc1.bias, pooled[\"pooled\"], self.fc1.weight.t())\n", True),
]
