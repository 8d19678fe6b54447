"""A tagger of padded sentences: embedding with padding_idx, packed bidirectional LSTM, GRU from a learned state, attentive pooling, the partition of a linear-chain CRF."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..ports.kinds import Fault, Right


class PackedEncoder(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.rnn = nn.LSTM(input_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, x, mask):
        packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(packed)
        return pad_packed_sequence(output, batch_first=True, total_length=x.size(1))[0]


class ContextGRU(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.h0 = nn.Parameter(torch.randn(hidden_size))
        self.rnn = nn.GRU(input_size, hidden_size, batch_first=True)

    def forward(self, x, mask):
        packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        output, last = self.rnn(packed, self.h0.expand(1, x.size(0), -1).contiguous())
        return pad_packed_sequence(output, batch_first=True, total_length=x.size(1))[0], last[0]


class AttentivePooling(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.key = nn.Linear(size, size)
        self.query = nn.Parameter(torch.randn(size))

    def forward(self, h, mask):
        scores = torch.tanh(self.key(h)) @ self.query
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=1)
        return torch.bmm(weights.unsqueeze(1), h).squeeze(1)


class LinearChainCRF(nn.Module):
    def __init__(self, num_tags):
        super().__init__()
        self.start_transitions = nn.Parameter(torch.randn(num_tags))
        self.transitions = nn.Parameter(torch.randn(num_tags, num_tags))
        self.end_transitions = nn.Parameter(torch.randn(num_tags))

    def forward(self, emissions, mask):
        alpha = self.start_transitions + emissions[:, 0]
        for t in range(1, emissions.size(1)):
            inner = alpha.unsqueeze(2) + self.transitions + emissions[:, t].unsqueeze(1)
            alpha = torch.where(mask[:, t].unsqueeze(1), torch.logsumexp(inner, dim=1), alpha)
        return torch.logsumexp(alpha + self.end_transitions, dim=1)


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 12, padding_idx=0)
        self.encoder = PackedEncoder(12, 10)
        self.context = ContextGRU(20, 14)
        self.pool = AttentivePooling(14)
        self.tags = nn.Linear(14, 5)
        self.crf = LinearChainCRF(5)
        self.topic = nn.Linear(14 + 14 + 12, 3)

    def forward(self, ids):
        mask = ids != 0
        x = self.embed(ids)
        states, last = self.context(self.encoder(x, mask), mask)
        emissions = self.tags(states)
        bag = x.sum(1) / mask.sum(1, keepdim=True)
        topic = self.topic(torch.cat([self.pool(states, mask), last, bag], dim=1))
        return emissions, self.crf(emissions, mask), topic


def inputs():
    g = torch.Generator().manual_seed(14)
    ids = torch.randint(1, 30, (3, 8), generator=g)
    return (ids * (torch.arange(8) < torch.tensor([[5], [8], [3]])),)


# The port ------------------------------------------------------------------------------------


class LSTMCell(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.w_x, self.b_x = nn.Parameter(torch.randn(4 * m, n)), nn.Parameter(torch.zeros(4 * m))
        self.w_h, self.b_h = nn.Parameter(torch.randn(4 * m, m)), nn.Parameter(torch.zeros(4 * m))

    def forward(self, x, h, c):
        gates = F.linear(x, self.w_x, self.b_x) + F.linear(h, self.w_h, self.b_h)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Bidirectional(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.m = m
        self.ahead = LSTMCell(n, m)
        self.back = LSTMCell(n, m)

    def one_way(self, cell, x, mask, steps):
        h = c = x.new_zeros(x.shape[0], self.m)
        found = {}
        for t in steps:
            here = mask[:, t, None]
            new_h, new_c = cell(x[:, t], h, c)
            h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
            found[t] = h * here
        return torch.stack([found[t] for t in range(x.shape[1])], 1)

    def forward(self, x, mask):
        n = x.shape[1]
        ahead = self.one_way(self.ahead, x, mask, range(n))
        back = self.one_way(self.back, x, mask, reversed(range(n)))
        return torch.cat([ahead, back], -1)


class GRU(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.h0 = nn.Parameter(torch.zeros(m))
        self.w_x, self.b_x = nn.Parameter(torch.randn(3 * m, n)), nn.Parameter(torch.zeros(3 * m))
        self.w_h, self.b_h = nn.Parameter(torch.randn(3 * m, m)), nn.Parameter(torch.zeros(3 * m))

    def forward(self, x, mask):
        h = self.h0.repeat(x.shape[0], 1)
        states = []
        for t in range(x.shape[1]):
            xr, xz, xn = (x[:, t] @ self.w_x.t() + self.b_x).chunk(3, 1)
            hr, hz, hn = (h @ self.w_h.t() + self.b_h).chunk(3, 1)
            r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            n = torch.tanh(xn + r * hn)
            new = n + z * (h - n)
            h = torch.where(mask[:, t, None], new, h)
            states.append(h)
        states = torch.stack(states, 1)
        return states * mask[..., None], h


class Pool(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.key, self.query = nn.Linear(m, m), nn.Parameter(torch.zeros(m))

    def forward(self, h, mask):
        s = torch.einsum("btm,m->bt", self.key(h).tanh(), self.query)
        w = torch.where(mask, s, float("-inf")).softmax(1)
        return torch.einsum("bt,btm->bm", w, h)


class CRF(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.start_transitions, self.end_transitions = nn.Parameter(torch.zeros(k)), nn.Parameter(torch.zeros(k))
        self.transitions = nn.Parameter(torch.zeros(k, k))

    def forward(self, emissions, mask):
        scores = emissions.unbind(1)
        a = scores[0] + self.start_transitions
        for e, here in zip(scores[1:], mask.unbind(1)[1:]):
            onward = (a[:, :, None] + self.transitions[None]).logsumexp(1) + e
            a = torch.where(here[:, None], onward, a)
        return (a + self.end_transitions).logsumexp(1)


class Port(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 12, padding_idx=0)
        self.encoder = Bidirectional(12, 10)
        self.context = GRU(20, 14)
        self.pool = Pool(14)
        self.tags = nn.Linear(14, 5)
        self.crf = CRF(5)
        self.topic = nn.Linear(40, 3)

    def forward(self, ids):
        mask = ids.ne(0)
        x = self.embed(ids)
        encoded = self.encoder(x, mask)
        states, last = self.context(encoded, mask)
        emissions = self.tags(states)
        bag = x.sum(1) / mask.sum(1)[:, None]
        pooled = self.pool(states, mask)
        return emissions, self.crf(emissions, mask), self.topic(torch.cat((pooled, last, bag), -1))


NAMES = {f"encoder.{cell}.{a}": f"encoder.rnn.{b}_l0{end}" for cell, end in (("ahead", ""), ("back", "_reverse"))
         for a, b in (("w_x", "weight_ih"), ("w_h", "weight_hh"), ("b_x", "bias_ih"), ("b_h", "bias_hh"))}
NAMES |= {f"context.{a}": f"context.rnn.{b}_l0" for a, b in (("w_x", "weight_ih"), ("w_h", "weight_hh"), ("b_x", "bias_ih"), ("b_h", "bias_hh"))}

FAULTS = [
    Fault("gates_in_onnx_order", "i, f, g, o = gates.chunk(4, -1)", "i, o, f, g = gates.chunk(4, -1)", "encoder", "output", "order"),
    Fault("cell_not_squashed", "o.sigmoid() * c.tanh(), c", "o.sigmoid() * c, c", "encoder", "output", "activation"),
    Fault("hard_sigmoid_forgets", "c = f.sigmoid() * c", "c = F.hardsigmoid(f * 1.2) * c", "encoder", "output", "approximate"),
    Fault("backward_reads_padding", "h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)", "h, c = new_h, new_c", "encoder", "output", "padding"),
    Fault("cell_runs_through_padding", "torch.where(here, new_c, c)", "new_c", "encoder", "output", "mask"),
    Fault("recurrent_bias_missing", "F.linear(h, self.w_h, self.b_h)", "F.linear(h, self.w_h)", "encoder", "output", "missing"),
    Fault("reset_before_product", "n = torch.tanh(xn + r * hn)", "n = torch.tanh(xn + (r * h) @ self.w_h.t().chunk(3, 1)[2] + self.b_h.chunk(3)[2])", "context", "output", "order"),
    Fault("reset_outside_bias", "n = torch.tanh(xn + r * hn)", "b = self.b_h.chunk(3)[2]\n            n = torch.tanh(xn + r * (hn - b) + b)", "context", "output", "order"),
    Fault("update_gate_inverted", "new = n + z * (h - n)", "new = h + z * (n - h)", "context", "output", "operand"),
    Fault("learned_state_ignored", "h = self.h0.repeat(x.shape[0], 1)", "h = torch.zeros_like(self.h0).repeat(x.shape[0], 1)", "context", "output", "initial"),
    Fault("learned_state_detached", "h = self.h0.repeat(x.shape[0], 1)", "h = self.h0.data.repeat(x.shape[0], 1)", "context", "gradient", "detached"),
    Fault("truncated_after_four_steps", "            h = torch.where(mask[:, t, None], new, h)\n", "            h = torch.where(mask[:, t, None], new, h)\n            h = h.detach() if t == 3 else h\n", "context", "gradient", "detached"),
    Fault("last_of_padded", "return states * mask[..., None], h", "return states * mask[..., None], states[:, -1] * mask[:, -1:]", "context", "output", "mask"),
    Fault("pooled_over_padding", 'w = torch.where(mask, s, float("-inf")).softmax(1)', "w = s.softmax(1)", "pool", "output", "mask"),
    Fault("pooled_over_batch", 'w = torch.where(mask, s, float("-inf")).softmax(1)', 'w = torch.where(mask, s, -1e4).softmax(0)', "pool", "output", "order"),
    Fault("transitions_transposed", "a[:, :, None] + self.transitions[None]", "a[:, :, None] + self.transitions.t()[None]", "crf", "output", "transposed"),
    Fault("first_step_without_start", "a = scores[0] + self.start_transitions", "a = scores[0]", "crf", "output", "initial"),
    Fault("crf_through_padding", "a = torch.where(here[:, None], onward, a)", "a = onward", "crf", "output", "mask"),
    Fault("padding_row_learns", "nn.Embedding(30, 12, padding_idx=0)", "nn.Embedding(30, 12)", "embed", "gradient", "padding"),
    Fault("bag_over_all_positions", "x.sum(1) / mask.sum(1)[:, None]", "x.mean(1)", "", "output", "count"),
    Fault("crf_of_detached_emissions", "return emissions, self.crf(emissions, mask)", "return emissions, self.crf(emissions.detach(), mask)", "", "gradient", "detached"),
    Fault("pooled_states_detached", "pooled = self.pool(states, mask)", "pooled = self.pool(states.detach(), mask)", "", "gradient", "detached"),
]

RIGHT = [
    Right("torch_lstm", """        self.ahead = LSTMCell(n, m)
        self.back = LSTMCell(n, m)

    def one_way(self, cell, x, mask, steps):
        h = c = x.new_zeros(x.shape[0], self.m)
        found = {}
        for t in steps:
            here = mask[:, t, None]
            new_h, new_c = cell(x[:, t], h, c)
            h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
            found[t] = h * here
        return torch.stack([found[t] for t in range(x.shape[1])], 1)

    def forward(self, x, mask):
        n = x.shape[1]
        ahead = self.one_way(self.ahead, x, mask, range(n))
        back = self.one_way(self.back, x, mask, reversed(range(n)))
        return torch.cat([ahead, back], -1)
""", """        self.rnn = nn.LSTM(n, m, bidirectional=True)

    def forward(self, x, mask):
        rows = []
        for row, length in zip(x, mask.sum(1).tolist()):
            out, _ = self.rnn(row[:length])
            rows.append(F.pad(out, (0, 0, 0, x.shape[1] - length)))
        return torch.stack(rows)
""", names={k: v for k, v in NAMES.items() if not k.startswith("encoder")}),
    Right("projection_before_the_loop", """        h = self.h0.repeat(x.shape[0], 1)
        states = []
        for t in range(x.shape[1]):
            xr, xz, xn = (x[:, t] @ self.w_x.t() + self.b_x).chunk(3, 1)
""", """        h = self.h0.repeat(x.shape[0], 1)
        states = []
        projected = F.linear(x, self.w_x, self.b_x)
        for t in range(x.shape[1]):
            xr, xz, xn = projected[:, t].chunk(3, 1)
"""),
    Right("arithmetic_mask_in_gru", "            new = n + z * (h - n)\n            h = torch.where(mask[:, t, None], new, h)\n", "            here = mask[:, t, None].to(h.dtype)\n            h = here * ((1 - z) * n + z * h) + (1 - here) * h\n"),
    Right("backward_by_reversed_sentences", "        back = self.one_way(self.back, x, mask, reversed(range(n)))\n", """        t = torch.arange(n, device=x.device)
        index = torch.where(mask, mask.sum(1, keepdim=True) - 1 - t, t)[..., None]
        back = self.one_way(self.back, x.gather(1, index.expand_as(x)), mask, range(n))
        back = back.gather(1, index.expand_as(back))
"""),
    Right("step_by_own_function", """class LSTMCell(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.w_x, self.b_x = nn.Parameter(torch.randn(4 * m, n)), nn.Parameter(torch.zeros(4 * m))
        self.w_h, self.b_h = nn.Parameter(torch.randn(4 * m, m)), nn.Parameter(torch.zeros(4 * m))

    def forward(self, x, h, c):
        gates = F.linear(x, self.w_x, self.b_x) + F.linear(h, self.w_h, self.b_h)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
""", """class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, c):
        i, f, g, o = gates.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        new = f * c + i * g
        squashed = torch.tanh(new)
        ctx.save_for_backward(i, f, g, o, c, squashed)
        return o * squashed, new

    @staticmethod
    def backward(ctx, dh, dc):
        i, f, g, o, c, squashed = ctx.saved_tensors
        dc = dc + dh * o * (1 - squashed * squashed)
        di, df, dg, do = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * squashed * o * (1 - o)
        return torch.cat((di, df, dg, do), -1), dc * f


class LSTMCell(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.w_x, self.b_x = nn.Parameter(torch.randn(4 * m, n)), nn.Parameter(torch.zeros(4 * m))
        self.w_h, self.b_h = nn.Parameter(torch.randn(4 * m, m)), nn.Parameter(torch.zeros(4 * m))

    def forward(self, x, h, c):
        gates = torch.addmm(self.b_x + self.b_h, x, self.w_x.t()).addmm(h, self.w_h.t())
        return Step.apply(gates, c)
"""),
    Right("gates_apart", """        self.w_x, self.b_x = nn.Parameter(torch.randn(4 * m, n)), nn.Parameter(torch.zeros(4 * m))
        self.w_h, self.b_h = nn.Parameter(torch.randn(4 * m, m)), nn.Parameter(torch.zeros(4 * m))

    def forward(self, x, h, c):
        gates = F.linear(x, self.w_x, self.b_x) + F.linear(h, self.w_h, self.b_h)
        i, f, g, o = gates.chunk(4, -1)
""", """        self.x = nn.ModuleDict({gate: nn.Linear(n, m) for gate in "ifgo"})
        self.h = nn.ModuleDict({gate: nn.Linear(m, m) for gate in "ifgo"})

    def forward(self, x, h, c):
        i, f, g, o = (self.x[gate](x) + self.h[gate](h) for gate in "ifgo")
""", fused=True, names={k: v for k, v in NAMES.items() if not k.startswith("encoder")} | {
        f"encoder.{cell}.{side}.{gate}.{kind}": f"encoder.rnn.{kind}_{ih}_l0{end}[{10 * number}:{10 * number + 10}]"
        for cell, end in (("ahead", ""), ("back", "_reverse")) for side, ih in (("x", "ih"), ("h", "hh"))
        for number, gate in enumerate("ifgo") for kind in ("weight", "bias")}),
    Right("crf_by_products", """        scores = emissions.unbind(1)
        a = scores[0] + self.start_transitions
        for e, here in zip(scores[1:], mask.unbind(1)[1:]):
            onward = (a[:, :, None] + self.transitions[None]).logsumexp(1) + e
            a = torch.where(here[:, None], onward, a)
        return (a + self.end_transitions).logsumexp(1)
""", """        a = emissions[:, 0] + self.start_transitions
        top = a.amax(1, keepdim=True).detach()
        log, p = top, (a - top).exp()
        odds = self.transitions.exp()
        for t in range(1, emissions.shape[1]):
            here = mask[:, t, None]
            q = (p @ odds) * emissions[:, t].exp()
            size = q.sum(1, keepdim=True)
            p = torch.where(here, q / size, p)
            log = torch.where(here, log + size.log(), log)
        return (log + torch.log(p @ self.end_transitions.exp()[:, None])).squeeze(1)
"""),
    Right("pooling_by_division", """        w = torch.where(mask, s, float("-inf")).softmax(1)
        return torch.einsum("bt,btm->bm", w, h)
""", """        w = torch.exp(s - s.max()) * mask
        return (w[..., None] * h).sum(1) / w.sum(1, keepdim=True)
"""),
    Right("embedding_as_function", "        x = self.embed(ids)\n", "        x = F.embedding(ids, self.embed.weight, padding_idx=0)\n", fused=True),
    Right("pooling_key_inlined", "s = torch.einsum(\"btm,m->bt\", self.key(h).tanh(), self.query)", "s = torch.addmm(self.key.bias, h.flatten(0, 1), self.key.weight.t()).tanh().mv(self.query).view(mask.shape)", fused=True),
]
