"""A classifier and tagger with an LSTM and a bidirectional GRU over padded sequences (lengths from the padding); the port writes the cells out."""

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

from .kinds import Fault, Right

VOCAB, WIDTH, HIDDEN, TAGS, PAD = 70, 24, 32, 9, 0


def fill(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.2 * noise if "bias" in name else 1 + 0.1 * noise)
        module.embedding.weight[PAD] = 0


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(WIDTH, HIDDEN, batch_first=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, (h, c) = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return y, h[0], c[0]


class BiGru(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(HIDDEN, HIDDEN // 2, batch_first=True, bidirectional=True)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, h = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return y, torch.cat([h[0], h[1]], dim=-1)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)
        self.lstm = Lstm()
        self.norm = nn.LayerNorm(HIDDEN)
        self.gru = BiGru()
        self.tag = nn.Linear(HIDDEN + WIDTH, TAGS)
        self.score = nn.Linear(4 * HIDDEN, 1)
        fill(self, 7)

    def forward(self, ids):
        mask = ids.ne(PAD)
        lengths = mask.sum(1)
        x = self.embedding(ids)
        y, h, c = self.lstm(x, lengths)
        y = self.norm(y)
        z, last = self.gru(y, lengths)
        z = z + y
        mean = (z * mask[..., None]).sum(1) / lengths[:, None]
        return self.tag(torch.cat([z, x], dim=-1)), self.score(torch.cat([h, c, last, mean], dim=-1))


def inputs():
    g = torch.Generator().manual_seed(17)
    ids = torch.randint(1, VOCAB, (4, 9), generator=g)
    for row, length in enumerate((6, 9, 3, 7)):
        ids[row, length:] = PAD
    return (ids,)


# The port ------------------------------------------------------------------------------------


class LstmCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Module()
        self.cell.weight_ih = nn.Parameter(torch.zeros(4 * HIDDEN, WIDTH))
        self.cell.weight_hh = nn.Parameter(torch.zeros(4 * HIDDEN, HIDDEN))
        self.cell.bias_ih = nn.Parameter(torch.zeros(4 * HIDDEN))
        self.cell.bias_hh = nn.Parameter(torch.zeros(4 * HIDDEN))

    def step(self, x, h, c):
        p = self.cell
        gates = x @ p.weight_ih.t() + p.bias_ih + h @ p.weight_hh.t() + p.bias_hh
        i, f, g, o = gates.chunk(4, dim=-1)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(c)
        return h, c

    def forward(self, x, lengths):
        b, t, _ = x.shape
        h = x.new_zeros(b, HIDDEN)
        c = x.new_zeros(b, HIDDEN)
        outputs = []
        for n in range(t):
            alive = (n < lengths).unsqueeze(-1)
            h_new, c_new = self.step(x[:, n], h, c)
            h = torch.where(alive, h_new, h)
            c = torch.where(alive, c_new, c)
            outputs.append(h_new * alive)
        return torch.stack(outputs, dim=1), h, c


class GruDirection(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.input = nn.Linear(HIDDEN, 3 * size)
        self.state = nn.Linear(size, 3 * size)
        self.size = size

    def forward(self, x, lengths):
        h = x.new_zeros(x.shape[0], self.size)
        given = self.input(x)
        outputs = []
        for n in range(x.shape[1]):
            r_x, z_x, n_x = given[:, n].split(self.size, dim=-1)
            r_h, z_h, n_h = self.state(h).split(self.size, dim=-1)
            reset = torch.sigmoid(r_x + r_h)
            update = torch.sigmoid(z_x + z_h)
            new = torch.tanh(n_x + reset * n_h)
            alive = (lengths > n).to(x.dtype)[:, None]
            step = (1 - update) * new + update * h
            h = alive * step + (1 - alive) * h
            outputs.append(alive * h)
        return torch.stack(outputs, 1), h


class TwoWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.forth = GruDirection(HIDDEN // 2)
        self.back = GruDirection(HIDDEN // 2)

    def turn(self, x, lengths):
        at = torch.arange(x.shape[1], device=x.device)[None]
        at = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)
        return x.gather(1, at[..., None].expand_as(x))

    def forward(self, x, lengths):
        a, h_a = self.forth(x, lengths)
        b, h_b = self.back(self.turn(x, lengths), lengths)
        b = self.turn(b, lengths)
        return torch.cat((a, b), -1), torch.cat((h_a, h_b), -1)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)
        self.lstm = LstmCells()
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-5)
        self.gru = TwoWays()
        self.tag = nn.Linear(HIDDEN + WIDTH, TAGS)
        self.score = nn.Linear(4 * HIDDEN, 1)

    def forward(self, ids):
        mask = ids != PAD
        lengths = mask.long().sum(dim=1)
        x = self.embedding(ids)
        h, final, cell = self.lstm(x, lengths)
        h = self.norm(h)
        z, last = self.gru(h, lengths)
        z = h + z
        pooled = torch.einsum("btc,bt->bc", z, mask.to(z.dtype)) / lengths.unsqueeze(1)
        return self.tag(torch.cat((z, x), 2)), self.score(torch.cat([final, cell, last, pooled], dim=1))


NAMES = {f"lstm.cell.{n}": f"lstm.rnn.{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
for _way, _end in (("forth", ""), ("back", "_reverse")):
    for _part, _of in (("input", "ih"), ("state", "hh")):
        for _p in ("weight", "bias"):
            NAMES[f"gru.{_way}.{_part}.{_p}"] = f"gru.rnn.{_p}_{_of}_l0{_end}"

FAULTS = [
    Fault("gates_output_before_cell", "i, f, g, o = gates.chunk(4, dim=-1)", "i, f, o, g = gates.chunk(4, dim=-1)", "lstm", "output", "order"),
    Fault("gates_forget_first", "i, f, g, o = gates.chunk(4, dim=-1)", "f, i, g, o = gates.chunk(4, dim=-1)", "lstm", "output", "order"),
    Fault("gates_interleaved", "i, f, g, o = gates.chunk(4, dim=-1)", "i, f, g, o = gates.unflatten(-1, (HIDDEN, 4)).unbind(-1)", "lstm", "output", "order"),
    Fault("forget_bias_added", "f.sigmoid()", "(f + 1).sigmoid()", "lstm", "output", "initial"),
    Fault("cell_not_squashed", "h = o * torch.tanh(c)", "h = o * c", "lstm", "output", "activation"),
    Fault("candidate_by_sigmoid", "i * torch.tanh(g)", "i * torch.sigmoid(g)", "lstm", "output", "activation"),
    Fault("hard_sigmoid", "o.sigmoid()", "F.hardsigmoid(o)", "lstm", "output", "approximate"),
    Fault("hidden_bias_missing", " + h @ p.weight_hh.t() + p.bias_hh", " + h @ p.weight_hh.t()", "lstm", "output", "missing"),
    Fault("input_bias_twice", " + h @ p.weight_hh.t() + p.bias_hh", " + h @ p.weight_hh.t() + p.bias_ih", "lstm", "output", "operand"),
    Fault("recurrent_transposed", "h @ p.weight_hh.t()", "(h @ p.weight_hh.view(4, HIDDEN, HIDDEN)).transpose(0, 1).flatten(1)", "lstm", "output", "transposed"),
    Fault("started_at_ones", "        c = x.new_zeros(b, HIDDEN)\n", "        c = x.new_ones(b, HIDDEN)\n", "lstm", "output", "initial"),
    Fault("started_small", "        h = x.new_zeros(b, HIDDEN)\n        c =", "        h = x.new_full((b, HIDDEN), 1e-4)\n        c =", "lstm", "output", "initial"),
    Fault("state_runs_over_padding", "h = torch.where(alive, h_new, h)", "h = h_new", "lstm", "output", "padding"),
    Fault("cell_runs_over_padding", "c = torch.where(alive, c_new, c)", "c = c_new", "lstm", "output", "padding"),
    Fault("one_step_less", "alive = (n < lengths).unsqueeze(-1)", "alive = (n < lengths - 1).unsqueeze(-1)", "lstm", "output", "mask"),
    Fault("detached_each_step", "self.step(x[:, n], h, c)", "self.step(x[:, n], h.detach(), c)", "lstm", "gradient", "detached"),
    Fault("detached_cell_once", "self.step(x[:, n], h, c)", "self.step(x[:, n], h, c.detach() if n == 4 else c)", "lstm", "gradient", "detached"),
    Fault("detached_early_steps", "self.step(x[:, n], h, c)", "self.step(x[:, n].detach() if n == 0 else x[:, n], h, c)", "lstm", "gradient", "detached"),
    Fault("reset_before_product", "r_h, z_h, n_h = self.state(h).split(self.size, dim=-1)\n            reset = torch.sigmoid(r_x + r_h)\n", '''r_h, z_h, _ = self.state(h).split(self.size, dim=-1)
            reset = torch.sigmoid(r_x + r_h)
            n_h = F.linear(reset * h, self.state.weight[2 * self.size :], self.state.bias[2 * self.size :]) / reset
''', "gru", "output", "order"),
    Fault("update_the_other_way", "(1 - update) * new + update * h", "update * new + (1 - update) * h", "gru", "output", "operand"),
    Fault("update_and_reset_exchanged", "r_x, z_x, n_x = given[:, n]", "z_x, r_x, n_x = given[:, n]", "gru", "output", "order"),
    Fault("turned_with_padding", "at = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)", "at = (x.shape[1] - 1 - at).expand(x.shape[0], -1)", "gru", "output", "padding"),
    Fault("not_turned_back", "        b = self.turn(b, lengths)\n", "", "gru", "output", "order"),
    Fault("last_of_padded", "torch.cat((a, b), -1), torch.cat((h_a, h_b), -1)", "torch.cat((a, b), -1), torch.cat((a[:, -1], h_b), -1)", "gru", "output", "padding"),
    Fault("detached_state_in_gate", "reset = torch.sigmoid(r_x + r_h)", "reset = torch.sigmoid(r_x + r_h.detach())", "gru", "gradient", "detached"),
    Fault("detached_backward_way", "self.back(self.turn(x, lengths), lengths)", "self.back(self.turn(x, lengths).detach(), lengths)", "gru", "gradient", "detached"),
    Fault("mean_over_all", "/ lengths.unsqueeze(1)", "/ ids.shape[1]", "", "output", "count"),
    Fault("mean_near", "/ lengths.unsqueeze(1)", "/ (lengths.unsqueeze(1) + 1e-3)", "", "output", "count"),
    Fault("mean_with_padding", 'torch.einsum("btc,bt->bc", z, mask.to(z.dtype))', 'torch.einsum("btc->bc", z)', "", "output", "mask"),
    Fault("padding_learns", "padding_idx=PAD", "padding_idx=None", "embedding", "gradient", "padding"),
    Fault("eps_of_norm", "nn.LayerNorm(HIDDEN, eps=1e-5)", "nn.LayerNorm(HIDDEN, eps=2e-5)", "norm", "output", "eps"),
    Fault("residual_detached", "        z = h + z\n", "        z = z + h.detach()\n", "", "gradient", "detached"),
    Fault("residual_before_norm", "        h = self.norm(h)\n        z, last = self.gru(h, lengths)\n", "        z, last = self.gru(self.norm(h), lengths)\n", "", "output", "residual"),
    Fault("ends_exchanged", "torch.cat([final, cell, last, pooled], dim=1)", "torch.cat([cell, final, last, pooled], dim=1)", "", "output", "order"),
]

STEP = '''        gates = x @ p.weight_ih.t() + p.bias_ih + h @ p.weight_hh.t() + p.bias_hh
        i, f, g, o = gates.chunk(4, dim=-1)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(c)
        return h, c
'''

RIGHT = [
    Right("cell_of_library", "        self.cell = nn.Module()\n        self.cell.weight_ih = nn.Parameter(torch.zeros(4 * HIDDEN, WIDTH))\n        self.cell.weight_hh = nn.Parameter(torch.zeros(4 * HIDDEN, HIDDEN))\n        self.cell.bias_ih = nn.Parameter(torch.zeros(4 * HIDDEN))\n        self.cell.bias_hh = nn.Parameter(torch.zeros(4 * HIDDEN))\n\n    def step(self, x, h, c):\n        p = self.cell\n" + STEP,
          "        self.cell = nn.LSTMCell(WIDTH, HIDDEN)\n\n    def step(self, x, h, c):\n        return self.cell(x, (h, c))\n"),
    Right("one_product", "gates = x @ p.weight_ih.t() + p.bias_ih + h @ p.weight_hh.t() + p.bias_hh", "gates = torch.addmm(p.bias_ih + p.bias_hh, torch.cat([x, h], 1), torch.cat([p.weight_ih, p.weight_hh], 1).T)"),
    Right("gates_by_tanh", "i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()", "i, f, o = (0.5 + 0.5 * torch.tanh(0.5 * z) for z in (i, f, o))"),
    Right("in_place_gates", '''        c = f * c + i * torch.tanh(g)
''', '''        c = torch.mul(f, c).addcmul_(i, g.tanh())
'''),
    Right("step_by_function", '''        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(c)
        return h, c
''', '''        return self.Mix.apply(i, f, torch.tanh(g), o, c)

    class Mix(torch.autograd.Function):
        @staticmethod
        def forward(ctx, i, f, g, o, c):
            new = f * c + i * g
            ctx.save_for_backward(i, f, g, o, c, torch.tanh(new))
            return o * torch.tanh(new), new

        @staticmethod
        def backward(ctx, dh, dc):
            i, f, g, o, c, t = ctx.saved_tensors
            dc = dc + dh * o * (1 - t * t)
            return dc * g, dc * c, dc * i, dh * t, dc * f
'''),
    Right("checkpointed_steps", "self.step(x[:, n], h, c)", "torch.utils.checkpoint.checkpoint(self.step, x[:, n], h, c, use_reentrant=False)"),
    Right("masked_by_products", '''            h = torch.where(alive, h_new, h)
            c = torch.where(alive, c_new, c)
''', '''            h = h + alive.to(h.dtype) * (h_new - h)
            c = torch.lerp(c, c_new, alive.to(c.dtype))
'''),
    Right("filled_in_place", '''            outputs.append(h_new * alive)
        return torch.stack(outputs, dim=1), h, c
''', '''            outputs.append((n, h_new.masked_fill(~alive, 0.0)))
        y = x.new_empty(b, t, HIDDEN)
        for n, z in outputs:
            y[:, n] = z
        return y, h, c
'''),
    Right("shrinking_batch", '''        b, t, _ = x.shape
        h = x.new_zeros(b, HIDDEN)
        c = x.new_zeros(b, HIDDEN)
        outputs = []
        for n in range(t):
            alive = (n < lengths).unsqueeze(-1)
            h_new, c_new = self.step(x[:, n], h, c)
            h = torch.where(alive, h_new, h)
            c = torch.where(alive, c_new, c)
            outputs.append(h_new * alive)
        return torch.stack(outputs, dim=1), h, c
''', '''        order = lengths.argsort(descending=True)
        x, sizes = x[order], lengths[order]
        h = x.new_zeros(len(x), HIDDEN)
        c, outputs = torch.zeros_like(h), []
        for n in range(x.shape[1]):
            k = int((sizes > n).sum())
            if k == 0:
                outputs.append(torch.zeros_like(h))
                continue
            h_k, c_k = self.step(x[:k, n], h[:k], c[:k])
            h, c = torch.cat([h_k, h[k:]]), torch.cat([c_k, c[k:]])
            outputs.append(F.pad(h_k, (0, 0, 0, len(x) - k)))
        back = order.argsort()
        return torch.stack(outputs, 1)[back], h[back], c[back]
'''),
    Right("gru_update_as_difference", "step = (1 - update) * new + update * h", "step = new + update * (h - new)"),
    Right("gru_state_by_parts", '''            r_h, z_h, n_h = self.state(h).split(self.size, dim=-1)
''', '''            r_h, z_h, n_h = (F.linear(h, w, v) for w, v in zip(self.state.weight.chunk(3), self.state.bias.chunk(3)))
'''),
    Right("gru_input_each_step", "r_x, z_x, n_x = given[:, n].split(self.size, dim=-1)", "r_x, z_x, n_x = self.input(x[:, n]).tensor_split(3, dim=-1)"),
    Right("gru_gates_apart", '''        self.input = nn.Linear(HIDDEN, 3 * size)
        self.state = nn.Linear(size, 3 * size)
        self.size = size

    def forward(self, x, lengths):
        h = x.new_zeros(x.shape[0], self.size)
        given = self.input(x)
''', '''        self.reset, self.update, self.new = (nn.Linear(HIDDEN, size) for _ in range(3))
        self.state = nn.Linear(size, 3 * size)
        self.size = size

    def forward(self, x, lengths):
        h = x.new_zeros(x.shape[0], self.size)
        given = torch.cat([self.reset(x), self.update(x), self.new(x)], -1)
''', True, {**{k: v for k, v in NAMES.items() if ".input." not in k}, **{f"gru.{way}.{n}.{p}": f"gru.rnn.{p}_ih_l0{end}[{16 * j}:{16 * j + 16}]" for way, end in (("forth", ""), ("back", "_reverse")) for j, n in enumerate(("reset", "update", "new")) for p in ("weight", "bias")}}),
    Right("turned_by_flip_and_roll", '''        at = torch.arange(x.shape[1], device=x.device)[None]
        at = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)
        return x.gather(1, at[..., None].expand_as(x))
''', '''        return torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths.tolist())])
'''),
    Right("mean_by_loop", 'torch.einsum("btc,bt->bc", z, mask.to(z.dtype)) / lengths.unsqueeze(1)', "torch.stack([row[:n].mean(0) for row, n in zip(z, lengths.tolist())])"),
    Right("embedding_by_one_hot", "x = self.embedding(ids)", "x = (F.one_hot(ids, VOCAB) * mask[..., None]).to(self.embedding.weight.dtype) @ self.embedding.weight", True),
    Right("score_in_parts", "self.score(torch.cat([final, cell, last, pooled], dim=1))", "sum(a @ w.T for a, w in zip((final, cell, last, pooled), self.score.weight.chunk(4, 1))) + self.score.bias", True),
]
