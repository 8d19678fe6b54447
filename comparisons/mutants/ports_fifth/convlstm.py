"""A ConvLSTM encoder and forecaster for frames (batch first, lengths, learned start, skip), ported time first with cells by hand."""

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
            p.add_(torch.randn(p.shape, generator=g) * (0.15 if p.dim() < 4 else 0.08))
        for name, b in module.named_buffers():
            if "running" in name:
                b.add_(torch.rand(b.shape, generator=g) * 0.3)


class FrameStem(nn.Module):
    """Frames to half size, each by itself; statistics over all frames."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x):
        b, t = x.shape[:2]
        y = F.leaky_relu(self.bn(self.conv(x.flatten(0, 1))), 0.2)
        return y.unflatten(0, (b, t))


class ConvLSTMCell(nn.Module):
    def __init__(self, cin, hidden, kernel=3):
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(cin + hidden, 4 * hidden, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(4, 4 * hidden)

    def forward(self, x, state):
        h, c = state
        gates = self.norm(self.conv(torch.cat([x, h], dim=1)))
        i, f, o, g = torch.split(gates, self.hidden, dim=1)
        c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class ConvLSTM(nn.Module):
    """One layer over time; a state stays as it is once a sequence has ended."""

    def __init__(self, cin, hidden):
        super().__init__()
        self.cell = ConvLSTMCell(cin, hidden)
        self.h0 = nn.Parameter(torch.zeros(hidden, 1, 1))
        self.c0 = nn.Parameter(torch.zeros(hidden, 1, 1))

    def forward(self, x, lengths):
        b, t, _, height, width = x.shape
        h = self.h0.expand(b, -1, height, width)
        c = self.c0.expand(b, -1, height, width)
        outputs = []
        for step in range(t):
            out, (h_new, c_new) = self.cell(x[:, step], (h, c))
            alive = (step < lengths)[:, None, None, None]
            h = torch.where(alive, h_new, h)
            c = torch.where(alive, c_new, c)
            outputs.append(out * alive)
        return torch.stack(outputs, dim=1), (h, c)


class Attend(nn.Module):
    """Pools the encoder's frames by a query from the forecaster's state (additive, over time)."""

    def __init__(self, hidden, width=8):
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(hidden, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, h, memory, lengths):
        q = self.query(h.mean((2, 3)))
        k = self.key(memory.mean((3, 4)))
        e = self.score(torch.tanh(q[:, None] + k)).squeeze(-1)
        e = e.masked_fill(torch.arange(memory.shape[1])[None] >= lengths[:, None], float("-inf"))
        w = e.softmax(dim=1)
        return (w[:, :, None, None, None] * memory).sum(1), w


class Forecaster(nn.Module):
    def __init__(self, cin, hidden, horizon):
        super().__init__()
        self.horizon = horizon
        self.attend = Attend(hidden)
        self.cell = ConvLSTMCell(cin + hidden, hidden)
        self.up = nn.ConvTranspose2d(hidden, hidden, 4, stride=2, padding=1)
        self.head = nn.Conv2d(hidden + cin, cin, 1)
        self.down = nn.AvgPool2d(2)

    def forward(self, frame, state, memory, lengths):
        h, c = state
        frames, weights = [], []
        for _ in range(self.horizon):
            context, w = self.attend(h, memory, lengths)
            out, (h, c) = self.cell(torch.cat([self.down(frame), context], 1), (h, c))
            y = F.leaky_relu(self.up(out), 0.2)
            frame = frame + self.head(torch.cat([y, frame], 1))
            frames.append(frame)
            weights.append(w)
        return torch.stack(frames, 1), torch.stack(weights, 1)


class Original(nn.Module):
    def __init__(self, channels=2, hidden=6, horizon=3):
        super().__init__()
        self.stem = FrameStem(channels, 5)
        self.layer0 = ConvLSTM(5, hidden)
        self.layer1 = ConvLSTM(hidden, hidden)
        self.norm = nn.GroupNorm(2, hidden, eps=1e-5)
        self.forecaster = Forecaster(channels, hidden, horizon)
        settle(self, 7)

    def forward(self, frames, lengths):
        x = self.stem(frames)
        a, _ = self.layer0(x, lengths)
        b, state = self.layer1(a, lengths)
        memory = self.norm((a + b).flatten(0, 1)).unflatten(0, a.shape[:2])
        last = frames[torch.arange(len(frames)), lengths - 1]
        predicted, weights = self.forecaster(last, state, memory, lengths)
        smooth = (predicted[:, 1:] - predicted[:, :-1]).pow(2).mean()
        return {"frames": predicted, "weights": weights, "smoothness": smooth}


def inputs():
    g = torch.Generator().manual_seed(17)
    return torch.randn(3, 4, 2, 8, 8, generator=g), torch.tensor([4, 2, 3])


# The port ------------------------------------------------------------------------------------


class Stem(nn.Module):
    """(time, batch, channels, height, width) in and out."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout, momentum=0.1)

    def forward(self, frames):
        t, b = frames.shape[:2]
        y = self.bn(self.conv(frames.transpose(0, 1).flatten(0, 1)))
        y = torch.where(y > 0, y, 0.2 * y)
        return y.unflatten(0, (b, t)).transpose(0, 1)


class Cell(nn.Module):
    """The state is one tensor, (2, batch, hidden, height, width)."""

    def __init__(self, cin, hidden):
        super().__init__()
        self.conv = nn.Conv2d(cin + hidden, 4 * hidden, 3, padding=1)
        self.norm = nn.GroupNorm(4, 4 * hidden, eps=1e-5)

    def forward(self, state, x):
        h, c = state.unbind(0)
        z = self.norm(self.conv(torch.cat((x, h), 1)))
        i, f, o, g = z.chunk(4, 1)
        keep = torch.sigmoid(f + 1)
        c = keep * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * torch.tanh(c)
        return torch.stack((h, c))


class Unrolled(nn.Module):
    def __init__(self, cin, hidden):
        super().__init__()
        self.cell = Cell(cin, hidden)
        self.h0 = nn.Parameter(torch.zeros(hidden, 1, 1))
        self.c0 = nn.Parameter(torch.zeros(hidden, 1, 1))

    def forward(self, frames, lengths):
        start = torch.stack((self.h0, self.c0))[:, None]
        state = start.expand(-1, frames.shape[1], -1, *frames.shape[-2:])
        out = []
        for t, frame in enumerate(frames):
            new = self.cell(state, frame)
            alive = (lengths > t).to(new.dtype)[:, None, None, None]
            state = alive * new + (1 - alive) * state
            out.append(new[0] * alive)
        return torch.stack(out), state


class Additive(nn.Module):
    def __init__(self, hidden, width=8):
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(hidden, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, memory, h, ended):
        q = self.query(h.flatten(2).mean(-1))
        k = self.key(memory.flatten(3).mean(-1))
        energy = self.score((q + k).tanh())[..., 0]
        energy = torch.where(ended, -torch.inf, energy)
        weight = torch.softmax(energy, dim=0)
        return torch.einsum("tb,tbchw->bchw", weight, memory), weight


class Predictor(nn.Module):
    def __init__(self, cin, hidden):
        super().__init__()
        self.attend = Additive(hidden)
        self.cell = Cell(cin + hidden, hidden)
        self.up = nn.ConvTranspose2d(hidden, hidden, 4, 2, 1)
        self.head = nn.Conv2d(hidden + cin, cin, 1)

    def forward(self, frame, state, memory, ended):
        frames, weights = [], []
        for _ in range(3):
            context, weight = self.attend(memory, state[0], ended)
            small = F.avg_pool2d(frame, 2)
            state = self.cell(state, torch.cat((small, context), 1))
            y = F.leaky_relu(self.up(state[0]), 0.2)
            change = self.head(torch.cat((y, frame), 1))
            frame = frame + change
            frames.append(frame)
            weights.append(weight)
        return torch.stack(frames), torch.stack(weights)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Stem(2, 5)
        self.layer0 = Unrolled(5, 6)
        self.layer1 = Unrolled(6, 6)
        self.norm = nn.GroupNorm(2, 6)
        self.forecaster = Predictor(2, 6)

    def forward(self, frames, lengths):
        video = frames.transpose(0, 1)
        a, _ = self.layer0(self.stem(video), lengths)
        b, state = self.layer1(a, lengths)
        memory = torch.stack([self.norm(m) for m in a + b])
        ended = torch.arange(len(video))[:, None] >= lengths
        last = torch.stack([f[n - 1] for f, n in zip(frames, lengths.tolist())])
        predicted, weights = self.forecaster(last, state, memory, ended)
        smooth = torch.diff(predicted, dim=0).square().mean()
        return {"frames": predicted.transpose(0, 1), "weights": weights.permute(2, 0, 1), "smoothness": smooth}


NAMES = {}

FAULTS = [
    Fault("eps_of_cell_norm", "self.norm = nn.GroupNorm(4, 4 * hidden, eps=1e-5)", "self.norm = nn.GroupNorm(4, 4 * hidden, eps=1e-3)", "layer0.cell.norm", "output", "eps"),
    Fault("eps_of_stem_norm", "self.bn = nn.BatchNorm2d(cout, momentum=0.1)", "self.bn = nn.BatchNorm2d(cout, momentum=0.1, eps=1e-6)", "stem.bn", "output", "eps"),
    Fault("momentum_of_stem_norm", "self.bn = nn.BatchNorm2d(cout, momentum=0.1)", "self.bn = nn.BatchNorm2d(cout, momentum=0.9)", "stem.bn", "buffer", "momentum"),
    Fault("statistics_frame_by_frame", "y = self.bn(self.conv(frames.transpose(0, 1).flatten(0, 1)))", "y = torch.stack([self.bn(self.conv(f)) for f in frames], 1).flatten(0, 1)", "stem", "output", "count"),
    Fault("slope_of_stem", "y = torch.where(y > 0, y, 0.2 * y)", "y = torch.where(y > 0, y, 0.01 * y)", "stem", "output", "activation"),
    Fault("slope_detached", "y = torch.where(y > 0, y, 0.2 * y)", "y = torch.where(y > 0, y, 0.2 * y.detach())", "stem", "gradient", "detached"),
    Fault("frames_woven", "return y.unflatten(0, (b, t)).transpose(0, 1)", "return y.unflatten(0, (t, b))", "stem", "output", "order"),
    Fault("gates_as_in_torch", "i, f, o, g = z.chunk(4, 1)", "i, f, g, o = z.chunk(4, 1)", "layer0.cell", "output", "order"),
    Fault("forget_bias_missing", "keep = torch.sigmoid(f + 1)", "keep = torch.sigmoid(f)", "layer0.cell", "output", "missing"),
    Fault("hard_forget_gate", "keep = torch.sigmoid(f + 1)", "keep = F.hardsigmoid(f + 1)", "layer0.cell", "output", "approximate"),
    Fault("coupled_input_gate", "c = keep * c + i.sigmoid() * g.tanh()", "c = keep * c + (1 - keep) * g.tanh()", "layer0.cell", "output", "operand"),
    Fault("cell_clipped_gradient", "c = keep * c + i.sigmoid() * g.tanh()", "c = keep * c.detach() + i.sigmoid() * g.tanh()", "layer0.cell", "gradient", "detached"),
    Fault("output_without_tanh", "h = o.sigmoid() * torch.tanh(c)", "h = o.sigmoid() * c", "layer0.cell", "output", "activation"),
    Fault("hidden_before_input", "z = self.norm(self.conv(torch.cat((x, h), 1)))", "z = self.norm(self.conv(torch.cat((h, x), 1)))", "layer0.cell", "output", "order"),
    Fault("previous_cell_in_output", "c = keep * c + i.sigmoid() * g.tanh()\n        h = o.sigmoid() * torch.tanh(c)", "h = o.sigmoid() * torch.tanh(c)\n        c = keep * c + i.sigmoid() * g.tanh()", "layer0.cell", "output", "operand"),
    Fault("start_from_zero", "start = torch.stack((self.h0, self.c0))[:, None]", "start = torch.zeros_like(torch.stack((self.h0, self.c0)))[:, None]", "layer0", "output", "initial"),
    Fault("start_swapped", "start = torch.stack((self.h0, self.c0))[:, None]", "start = torch.stack((self.c0, self.h0))[:, None]", "layer0", "output", "initial"),
    Fault("start_not_learnt", "start = torch.stack((self.h0, self.c0))[:, None]", "start = torch.stack((self.h0, self.c0))[:, None].detach()", "layer0", "gradient", "detached"),
    Fault("ended_one_late", "alive = (lengths > t)", "alive = (lengths >= t)", "layer0", "output", "mask"),
    Fault("state_runs_on", "state = alive * new + (1 - alive) * state", "state = new", "layer0", "output", "mask"),
    Fault("time_truncated", "state = alive * new + (1 - alive) * state", "state = alive * new + (1 - alive) * state.detach()", "layer0", "gradient", "detached"),
    Fault("weights_over_batch", "weight = torch.softmax(energy, dim=0)", "weight = torch.softmax(energy.masked_fill(ended, -30.0), dim=1)", "forecaster.attend", "output", "order"),
    Fault("ended_not_masked", "energy = torch.where(ended, -torch.inf, energy)", "energy = torch.where(ended, 0.0, energy)", "forecaster.attend", "output", "mask"),
    Fault("ended_counted_from_one", "ended = torch.arange(len(video))[:, None] >= lengths", "ended = torch.arange(len(video))[:, None] > lengths", "", "output", "mask"),
    Fault("context_over_mean", "return torch.einsum(\"tb,tbchw->bchw\", weight, memory), weight", "return torch.einsum(\"tb,tbchw->bchw\", weight, memory) / len(memory), weight", "forecaster.attend", "output", "count"),
    Fault("query_of_cell", "context, weight = self.attend(memory, state[0], ended)", "context, weight = self.attend(memory, state[1], ended)", "forecaster", "output", "operand"),
    Fault("frame_replaced", "frame = frame + change", "frame = change", "forecaster", "output", "residual"),
    Fault("frame_of_teacher", "frame = frame + change\n            frames.append(frame)", "frames.append(frame + change)", "forecaster", "output", "residual"),
    Fault("fed_back_detached", "small = F.avg_pool2d(frame, 2)", "small = F.avg_pool2d(frame.detach(), 2)", "forecaster", "gradient", "detached"),
    Fault("every_second_pixel", "small = F.avg_pool2d(frame, 2)", "small = frame[:, :, ::2, ::2]", "forecaster", "output", "stride"),
    Fault("pool_shifted_by_padding", "small = F.avg_pool2d(frame, 2)", "small = F.avg_pool2d(frame, 3, stride=2, padding=1)", "forecaster", "output", "padding"),
    Fault("pool_transposed", "small = F.avg_pool2d(frame, 2)", "small = F.avg_pool2d(frame.mT, 2)", "forecaster", "output", "transposed"),
    Fault("memory_without_skip", "memory = torch.stack([self.norm(m) for m in a + b])", "memory = torch.stack([self.norm(m) for m in b])", "", "output", "residual"),
    Fault("last_frame_of_batch", "last = torch.stack([f[n - 1] for f, n in zip(frames, lengths.tolist())])", "last = frames[:, -1]", "", "output", "padding"),
    Fault("smooth_over_frames", "smooth = torch.diff(predicted, dim=0).square().mean()", "smooth = torch.diff(predicted, dim=0).square().sum() / predicted.numel()", "", "output", "count"),
    Fault("state_of_first_layer", "a, _ = self.layer0(self.stem(video), lengths)\n        b, state = self.layer1(a, lengths)", "a, state = self.layer0(self.stem(video), lengths)\n        b, _ = self.layer1(a, lengths)", "", "output", "operand"),
    Fault("weights_detached", '"tb,tbchw->bchw", weight, memory), weight', '"tb,tbchw->bchw", weight.detach(), memory), weight', "forecaster.attend", "gradient", "detached"),
    Fault("eps_of_memory_norm", "self.norm = nn.GroupNorm(2, 6)", "self.norm = nn.GroupNorm(2, 6, eps=1e-6)", "norm", "output", "eps"),
    Fault("last_frame_detached", "predicted, weights = self.forecaster(last, state, memory, ended)", "predicted, weights = self.forecaster(last.detach(), state, memory, ended)", "", "gradient", "detached"),
]

RIGHT = [
    Right("projection_of_input_hoisted", "z = self.norm(self.conv(torch.cat((x, h), 1)))", "w = self.conv.weight.split((x.shape[1], h.shape[1]), 1)\n        z = self.norm(F.conv2d(h, w[1], padding=1) + F.conv2d(x, w[0], self.conv.bias, padding=1))", True),
    Right("gate_norm_by_hand", "z = self.norm(self.conv(torch.cat((x, h), 1)))\n        i, f, o, g = z.chunk(4, 1)", "parts = self.conv(torch.cat((x, h), 1)).chunk(4, 1)\n        w, s = self.norm.weight.chunk(4), self.norm.bias.chunk(4)\n        i, f, o, g = (F.layer_norm(p, p.shape[1:], eps=self.norm.eps) * w[j][:, None, None] + s[j][:, None, None] for j, p in enumerate(parts))", True),
    Right("sigmoid_by_tanh", "keep = torch.sigmoid(f + 1)", "keep = 0.5 * (1 + torch.tanh(0.5 * f + 0.5))"),
    Right("cell_by_addcmul", "c = keep * c + i.sigmoid() * g.tanh()", "c = torch.addcmul(g.tanh().mul(i.sigmoid()), keep, c)"),
    Right("stem_by_whole_frames", "y = self.bn(self.conv(frames.transpose(0, 1).flatten(0, 1)))\n        y = torch.where(y > 0, y, 0.2 * y)\n        return y.unflatten(0, (b, t)).transpose(0, 1)", "y = torch.stack([self.conv(f) for f in frames])\n        y = self.bn(y.flatten(0, 1)).unflatten(0, (t, b))\n        return y.clamp_min(0) + 0.2 * y.clamp_max(0)", True),
    Right("shrinking_batch", "new = self.cell(state, frame)\n            alive = (lengths > t).to(new.dtype)[:, None, None, None]\n            state = alive * new + (1 - alive) * state\n            out.append(new[0] * alive)", "rows = torch.nonzero(lengths > t)[:, 0]\n            new = self.cell(state[:, rows], frame[rows])\n            state = state.index_copy(1, rows, new)\n            out.append(torch.zeros_like(state[0]).index_copy(0, rows, new[0]))", True),
    Right("weights_by_hand", "energy = torch.where(ended, -torch.inf, energy)\n        weight = torch.softmax(energy, dim=0)", "raised = torch.exp(energy - energy.max(0).values.detach()) * ~ended\n        weight = raised / raised.sum(0)"),
    Right("pool_by_reshape", "small = F.avg_pool2d(frame, 2)", "small = frame.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))"),
    Right("up_as_pixel_shuffle", "y = F.leaky_relu(self.up(state[0]), 0.2)", "from_left = F.conv_transpose2d(state[0], self.up.weight, stride=2)[:, :, 1:-1, 1:-1]\n            y = F.leaky_relu(from_left + self.up.bias[:, None, None], 0.2)", True),
    Right("head_apart", "change = self.head(torch.cat((y, frame), 1))", "w = self.head.weight[:, :, 0, 0]\n            change = torch.tensordot(w[:, : y.shape[1]], y, ([1], [1])) + torch.tensordot(w[:, y.shape[1] :], frame, ([1], [1]))\n            change = change.transpose(0, 1) + self.head.bias[:, None, None]", True),
    Right("checkpointed_cell", "new = self.cell(state, frame)", "new = torch.utils.checkpoint.checkpoint(self.cell, state, frame, use_reentrant=False)"),
    Right("norm_of_all_frames", "memory = torch.stack([self.norm(m) for m in a + b])", "memory = self.norm((b + a).flatten(0, 1)).unflatten(0, a.shape[:2])"),
]
