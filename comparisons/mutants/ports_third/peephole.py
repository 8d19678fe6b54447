"""Two layer-normalised LSTM layers with peepholes, learned first states, the second backwards in time, pooled by attention."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from ..ports.kinds import Fault, Right


class PeepholeCell(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.x2h = nn.Linear(width, 4 * hidden, bias=False)
        self.h2h = nn.Linear(hidden, 4 * hidden, bias=False)
        self.ln_x = nn.LayerNorm(4 * hidden)
        self.ln_h = nn.LayerNorm(4 * hidden)
        self.ln_c = nn.LayerNorm(hidden)
        self.bias = nn.Parameter(0.1 * torch.randn(4 * hidden))
        self.peep_i = nn.Parameter(0.3 * torch.randn(hidden))
        self.peep_f = nn.Parameter(0.3 * torch.randn(hidden))
        self.peep_o = nn.Parameter(0.3 * torch.randn(hidden))

    def forward(self, x, state):
        h, c = state
        gates = self.ln_x(self.x2h(x)) + self.ln_h(self.h2h(h)) + self.bias
        i, f, g, o = gates.chunk(4, dim=-1)
        i = torch.sigmoid(i + self.peep_i * c)
        f = torch.sigmoid(f + self.peep_f * c + 1.0)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + self.peep_o * c)
        return o * torch.tanh(self.ln_c(c)), c


class Recurrence(nn.Module):
    def __init__(self, width, hidden, reverse):
        super().__init__()
        self.cell = PeepholeCell(width, hidden)
        self.h0 = nn.Parameter(0.5 * torch.randn(hidden))
        self.c0 = nn.Parameter(0.5 * torch.randn(hidden))
        self.reverse = reverse

    def forward(self, x, mask):
        batch, length, _ = x.shape
        h = self.h0.expand(batch, -1)
        c = self.c0.expand(batch, -1)
        out = [None] * length
        steps = range(length - 1, -1, -1) if self.reverse else range(length)
        for t in steps:
            new_h, new_c = self.cell(x[:, t], (h, c))
            keep = mask[:, t, None]
            h = torch.where(keep, new_h, h)
            c = torch.where(keep, new_c, c)
            out[t] = h
        return {"out": torch.stack(out, dim=1), "state": (h, c)}


class Pool(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, x, mask):
        s = self.score(torch.tanh(self.query(x))).squeeze(-1)
        w = s.masked_fill(~mask, float("-inf")).softmax(dim=-1)
        return (w.unsqueeze(-1) * x).sum(dim=1), w


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(10, 16)
        self.act = nn.GELU()
        self.layers = nn.ModuleList([Recurrence(16, 16, False), Recurrence(16, 16, True)])
        self.pool = Pool(16)
        self.mix = nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in self.parameters():
                if p.dim() == 1:
                    p.add_(0.1 * torch.randn(p.shape, generator=generator))

    def forward(self, x, lengths):
        mask = torch.arange(x.shape[1]) < lengths[:, None]
        x = self.act(self.enter(x))
        first = self.layers[0](x, mask)
        second = self.layers[1](first["out"], mask)
        x = second["out"] + x
        pooled, weights = self.pool(x, mask)
        last = torch.cat([pooled, first["state"][0]], dim=-1)
        mean = (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.head(torch.relu(self.mix(last)) + mean), {"weights": weights, "cell": second["state"][1]}


def inputs():
    g = torch.Generator().manual_seed(11)
    return torch.randn(3, 7, 10, generator=g), torch.tensor([7, 4, 6])


# The port ------------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True)
        return centred / (spread + self.eps).sqrt() * self.weight + self.bias


class Cell(nn.Module):
    def __init__(self, n, reverse):
        super().__init__()
        self.n, self.reverse = n, reverse
        self.inward = nn.Linear(n, 4 * n, bias=False)
        self.around = nn.Linear(n, 4 * n, bias=False)
        self.ln_x = Norm(4 * n, 1e-5)
        self.ln_h = Norm(4 * n, 1e-5)
        self.ln_c = Norm(n, 1e-5)
        self.bias = nn.Parameter(torch.zeros(4 * n))
        self.peep_i = nn.Parameter(torch.zeros(n))
        self.peep_f = nn.Parameter(torch.zeros(n))
        self.peep_o = nn.Parameter(torch.zeros(n))

    def drive(self, x):
        return self.ln_x(self.inward(x))

    def step(self, a, h, c):
        n = self.n
        a = a + self.bias
        z = a + self.ln_h(self.around(h))
        i = torch.sigmoid(z[:, :n] + self.peep_i * c)
        f = torch.sigmoid(z[:, n:2 * n] + self.peep_f * c + 1)
        g = z[:, 2 * n:3 * n].tanh()
        c = c * f + g * i
        o = torch.sigmoid(z[:, 3 * n:] + c * self.peep_o)
        h = o * self.ln_c(c).tanh()
        return h, c

    def forward(self, x, carry):
        return self.step(self.drive(x), *carry)


class Scan(nn.Module):
    def __init__(self, n, reverse=False):
        super().__init__()
        self.cell = Cell(n, reverse)
        self.h0 = nn.Parameter(torch.zeros(n))
        self.c0 = nn.Parameter(torch.zeros(n))
        self.reverse = reverse

    def forward(self, x, mask):
        xs = x.unbind(1)
        keeps = mask.unsqueeze(-1).unbind(1)
        h = self.h0.repeat(x.shape[0], 1)
        c = self.c0.repeat(x.shape[0], 1)
        pairs = list(zip(xs, keeps))
        if self.reverse:
            pairs.reverse()
        out = []
        for x_t, keep in pairs:
            u, v = self.cell(x_t, (h, c))
            h = torch.where(keep, u, h)
            c = torch.where(keep, v, c)
            out.append(h)
        if self.reverse:
            out = out[::-1]
        return {"out": torch.stack(out, 1), "state": (h, c)}


class Attend(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.query = nn.Linear(n, n)
        self.score = nn.Linear(n, 1, bias=False)

    def forward(self, x, mask):
        s = self.score(self.query(x).tanh())[..., 0]
        s = s.masked_fill(~mask, torch.finfo(s.dtype).min)
        w = F.softmax(s, dim=1)
        return torch.einsum("bt,btd->bd", w, x), w


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        n = 16
        self.enter = nn.Linear(10, n)
        self.act = nn.GELU()
        self.layers = nn.ModuleList([Scan(n), Scan(n, reverse=True)])
        self.pool = Attend(n)
        self.mix = nn.Linear(2 * n, n)
        self.head = nn.Linear(n, 5)

    def forward(self, x, lengths):
        steps = torch.arange(x.shape[1])
        mask = steps[None, :] < lengths[:, None]
        x = self.act(self.enter(x))
        one = self.layers[0](x, mask)
        two = self.layers[1](one["out"], mask)
        x = x + two["out"]
        pooled, w = self.pool(x, mask)
        hidden = self.mix(torch.cat([pooled, one["state"][0]], 1)).relu()
        mean = torch.einsum("btd,bt->bd", x, mask.to(x.dtype)) / lengths[:, None]
        return self.head(hidden + mean), {"weights": w, "cell": two["state"][1]}


NAMES = {
    "layers.0.cell.inward": "layers.0.cell.x2h",
    "layers.0.cell.around": "layers.0.cell.h2h",
    "layers.1.cell.inward": "layers.1.cell.x2h",
    "layers.1.cell.around": "layers.1.cell.h2h",
}

FAULTS = [
    Fault("peep_o_of_old_cell", """        c = c * f + g * i
        o = torch.sigmoid(z[:, 3 * n:] + c * self.peep_o)""", """        o = torch.sigmoid(z[:, 3 * n:] + c * self.peep_o)
        c = c * f + g * i""", "layers.0.cell", "output", "operand"),
    Fault("no_forget_bias", " + self.peep_f * c + 1)", " + self.peep_f * c)", "layers.0.cell", "output", "missing"),
    Fault("gates_as_in_keras_swapped", """        g = z[:, 2 * n:3 * n].tanh()
        c = c * f + g * i
        o = torch.sigmoid(z[:, 3 * n:] + c * self.peep_o)""", """        g = z[:, 3 * n:].tanh()
        c = c * f + g * i
        o = torch.sigmoid(z[:, 2 * n:3 * n] + c * self.peep_o)""", "layers.0.cell", "output", "order"),
    Fault("eps_of_ln_c", "self.ln_c = Norm(n, 1e-5)", "self.ln_c = Norm(n, 1e-6)", "layers.0.cell.ln_c", "output", "eps"),
    Fault("unbiased_in_norm", "spread = centred.square().mean(-1, keepdim=True)", "spread = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)", "layers.0.cell.ln_x", "output", "variance"),
    Fault("cell_runs_past_the_end", "c = torch.where(keep, v, c)", "c = v", "layers.0", "output", "mask"),
    Fault("zero_first_cell", "c = self.c0.repeat(x.shape[0], 1)", "c = torch.zeros_like(h)", "layers.0", "output", "initial"),
    Fault("peep_f_detached", "self.peep_f * c + 1)", "self.peep_f * (c.detach() if self.reverse else c) + 1)", "layers.1.cell", "gradient", "detached"),
    Fault("out_stays_reversed", "out = out[::-1]", "out = list(out)", "layers.1", "output", "order"),
    Fault("pool_sees_padding", "s = s.masked_fill(~mask, torch.finfo(s.dtype).min)", "s = s.masked_fill(~mask, 0.0)", "pool", "output", "mask"),
    Fault("gelu_of_tanh", "self.act = nn.GELU()", "self.act = nn.GELU(approximate=\"tanh\")", "act", "output", "approximate"),
    Fault("mean_over_padding", "mask.to(x.dtype)) / lengths[:, None]", "mask.to(x.dtype)) / x.shape[1]", "", "output", "count"),
    Fault("residual_of_first_layer", "x = x + two[\"out\"]", "x = one[\"out\"] + two[\"out\"]", "", "output", "residual"),
    Fault("carried_state_detached", "u, v = self.cell(x_t, (h, c))", "u, v = self.cell(x_t, (h.detach() if self.reverse else h, c))", "layers.1", "gradient", "detached"),
    Fault("first_hidden_detached", "h = self.h0.repeat(x.shape[0], 1)", "h = (self.h0.detach() if self.reverse else self.h0).repeat(x.shape[0], 1)", "layers.1", "gradient", "detached"),
]

RIGHT = [
    Right("norm_of_torch", """        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True)
        return centred / (spread + self.eps).sqrt() * self.weight + self.bias""", "        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)"),
    Right("norm_by_var_mean", """        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True)
        return centred / (spread + self.eps).sqrt() * self.weight + self.bias""", """        spread, middle = torch.var_mean(x, -1, correction=0, keepdim=True)
        scale = torch.rsqrt(spread + self.eps) * self.weight
        return x * scale + (self.bias - middle * scale)"""),
    Right("sigmoid_by_tanh", "i = torch.sigmoid(z[:, :n] + self.peep_i * c)", "i = 0.5 + 0.5 * torch.tanh(0.5 * (z[:, :n] + self.peep_i * c))"),
    Right("cell_by_addcmul", "c = c * f + g * i", "c = torch.addcmul(g * i, f, c)"),
    Right("mask_by_products", """            h = torch.where(keep, u, h)
            c = torch.where(keep, v, c)""", """            m = keep.to(u.dtype)
            h = h + m * (u - h)
            c = m * v + (1 - m) * c"""),
    Right("checkpointed_cell", "u, v = self.cell(x_t, (h, c))", "u, v = torch.utils.checkpoint.checkpoint(self.cell, x_t, (h, c), use_reentrant=False)"),
    Right("drive_of_all_steps_at_once", """        xs = x.unbind(1)
        keeps = mask.unsqueeze(-1).unbind(1)
        h = self.h0.repeat(x.shape[0], 1)
        c = self.c0.repeat(x.shape[0], 1)
        pairs = list(zip(xs, keeps))
        if self.reverse:
            pairs.reverse()
        out = []
        for x_t, keep in pairs:
            u, v = self.cell(x_t, (h, c))
""", """        xs = self.cell.drive(x).unbind(1)
        keeps = mask.unsqueeze(-1).unbind(1)
        h = self.h0.repeat(x.shape[0], 1)
        c = self.c0.repeat(x.shape[0], 1)
        pairs = list(zip(xs, keeps))
        if self.reverse:
            pairs.reverse()
        out = []
        for x_t, keep in pairs:
            u, v = self.cell.step(x_t, h, c)
""", True, NAMES),
    Right("two_kernels_in_one", """        self.inward = nn.Linear(n, 4 * n, bias=False)
        self.around = nn.Linear(n, 4 * n, bias=False)
        self.ln_x = Norm(4 * n, 1e-5)
        self.ln_h = Norm(4 * n, 1e-5)
        self.ln_c = Norm(n, 1e-5)
        self.bias = nn.Parameter(torch.zeros(4 * n))
        self.peep_i = nn.Parameter(torch.zeros(n))
        self.peep_f = nn.Parameter(torch.zeros(n))
        self.peep_o = nn.Parameter(torch.zeros(n))
""", """        self.kernel = nn.Linear(n, 8 * n, bias=False)
        self.ln_x = Norm(4 * n, 1e-5)
        self.ln_h = Norm(4 * n, 1e-5)
        self.ln_c = Norm(n, 1e-5)
        self.bias = nn.Parameter(torch.zeros(4 * n))
        self.peep_i = nn.Parameter(torch.zeros(n))
        self.peep_f = nn.Parameter(torch.zeros(n))
        self.peep_o = nn.Parameter(torch.zeros(n))

    def inward(self, x):
        return F.linear(x, self.kernel.weight[:4 * self.n])

    def around(self, x):
        return F.linear(x, self.kernel.weight[4 * self.n:])
""", True, {
        f"layers.{k}.cell.kernel.weight": f"cat(layers.{k}.cell.x2h.weight, layers.{k}.cell.h2h.weight)" for k in (0, 1)}),
    Right("a_linear_for_each_gate", """        self.inward = nn.Linear(n, 4 * n, bias=False)
        self.around = nn.Linear(n, 4 * n, bias=False)
        self.ln_x = Norm(4 * n, 1e-5)
        self.ln_h = Norm(4 * n, 1e-5)
        self.ln_c = Norm(n, 1e-5)
        self.bias = nn.Parameter(torch.zeros(4 * n))
        self.peep_i = nn.Parameter(torch.zeros(n))
        self.peep_f = nn.Parameter(torch.zeros(n))
        self.peep_o = nn.Parameter(torch.zeros(n))
""", """        self.gate_i, self.gate_f, self.gate_g, self.gate_o = (nn.Linear(n, n, bias=False) for _ in range(4))
        self.around = nn.Linear(n, 4 * n, bias=False)
        self.ln_x = Norm(4 * n, 1e-5)
        self.ln_h = Norm(4 * n, 1e-5)
        self.ln_c = Norm(n, 1e-5)
        self.bias = nn.Parameter(torch.zeros(4 * n))
        self.peep_i = nn.Parameter(torch.zeros(n))
        self.peep_f = nn.Parameter(torch.zeros(n))
        self.peep_o = nn.Parameter(torch.zeros(n))

    def inward(self, x):
        return torch.cat([self.gate_i(x), self.gate_f(x), self.gate_g(x), self.gate_o(x)], -1)
""", True, {f"layers.{k}.cell.gate_{g}.weight": f"layers.{k}.cell.x2h.weight[{16 * j}:{16 * j + 16}]"
            for k in (0, 1) for j, g in enumerate("ifgo")} | {
            "layers.0.cell.around": "layers.0.cell.h2h", "layers.1.cell.around": "layers.1.cell.h2h"}),
    Right("softmax_by_exp", "w = F.softmax(s, dim=1)", """e = (s - s.amax(1, keepdim=True)).exp() * mask
        w = e / e.sum(1, keepdim=True)"""),
]
