"""An LSTM that reads the digits row by row; three batches accumulated per step of RMSprop (float32, calm)."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from .kinds import Change

STEPS = 100
PARTS = 3
SIZE = 20


class RowReader(nn.Module):
    def __init__(self, width=40):
        super().__init__()
        self.width = width
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)
        with torch.no_grad():
            self.lstm.bias_ih_l0[width : 2 * width] = 1.0  # the forget gate open

    def forward(self, rows):
        states, _ = self.lstm(rows)
        last = states[:, -1]
        return self.head(last)


class Digits:
    def __init__(self, seed):
        bunch = load_digits()
        self.rows = torch.tensor(bunch.images / 16.0).float()
        self.labels = torch.tensor(bunch.target)
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)

    def draw(self, size):
        if len(self.order) < size:
            self.order = torch.randperm(len(self.rows), generator=self.generator)
        chosen, self.order = self.order[:size], self.order[size:]
        return self.rows[chosen], self.labels[chosen]


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(21)
    data = Digits(seed=22)
    model = RowReader()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.99)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50, 80], gamma=0.5)
    with record(model) as run:
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = torch.zeros(())
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                error = F.cross_entropy(model(rows), labels)
                (error / PARTS).backward()
                loss += error.detach() / PARTS
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            scheduler.step()


HARMLESS = [
    Change("LSTM by hand", """\
states, _ = self.lstm(rows)
        last = states[:, -1]""", """\
lstm = self.lstm
        h = c = rows.new_zeros(len(rows), self.width)
        for t in range(rows.shape[1]):
            gates = F.linear(rows[:, t], lstm.weight_ih_l0, lstm.bias_ih_l0)
            gates = gates + F.linear(h, lstm.weight_hh_l0, lstm.bias_hh_l0)
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        last = h""", note="the module nn.LSTM itself is not called"),
    Change("last state from the second output", """\
states, _ = self.lstm(rows)
        last = states[:, -1]""", "_, (last, _) = self.lstm(rows)\n        last = last[0]"),
    Change(
        "one large batch for the parts",
        """\
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                error = F.cross_entropy(model(rows), labels)
                (error / PARTS).backward()
                loss += error.detach() / PARTS
""",
        """\
            drawn = [data.draw(SIZE) for part in range(PARTS)]
            rows, labels = (torch.cat(tensors) for tensors in zip(*drawn))
            loss = F.cross_entropy(model(rows), labels)
            loss.backward()
""",
    ),
    Change(
        "losses added, one backward",
        """\
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                error = F.cross_entropy(model(rows), labels)
                (error / PARTS).backward()
                loss += error.detach() / PARTS
""",
        """\
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                loss = loss + F.cross_entropy(model(rows), labels) / PARTS
            loss.backward()
""",
    ),
    Change(
        "gradients divided after the parts",
        """\
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                error = F.cross_entropy(model(rows), labels)
                (error / PARTS).backward()
                loss += error.detach() / PARTS
""",
        """\
            for part in range(PARTS):
                rows, labels = data.draw(SIZE)
                error = F.cross_entropy(model(rows), labels)
                error.backward()
                loss += error.detach() / PARTS
            for p in model.parameters():
                p.grad /= PARTS
""",
    ),
    Change(
        "schedule by hand",
        "            scheduler.step()\n",
        '            optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 ** ((step + 1 >= 50) + (step + 1 >= 80))\n',
    ),
    Change("single-tensor RMSprop against foreach", "alpha=0.99)", "alpha=0.99, foreach=True)"),
    Change(
        "parts in the other order",
        "                rows, labels = data.draw(SIZE)\n",
        "                if part == 0:\n"
        "                    drawn = [data.draw(SIZE) for _ in range(PARTS)]\n"
        "                rows, labels = drawn.pop()\n",
    ),
]

FAULTY = [
    Change(
        "accumulation without division",
        "(error / PARTS).backward()",
        "error.backward()",
        "optimizer",
        "the gradient recorded is three times as large, the loss the same: backward could be argued",
    ),
    Change(
        "gradients zeroed between the parts",
        "                error = F.cross_entropy(model(rows), labels)\n",
        "                optimizer.zero_grad()\n                error = F.cross_entropy(model(rows), labels)\n",
        "optimizer",
    ),
    Change(
        "state detached in the middle of the sequence",
        """\
states, _ = self.lstm(rows)
        last = states[:, -1]""",
        "_, (h, c) = self.lstm(rows[:, :4])\n"
        "        states, _ = self.lstm(rows[:, 4:], (h.detach(), c.detach()))\n"
        "        last = states[:, -1]",
        "backward",
    ),
    Change("smoothing constant 0.9", "alpha=0.99", "alpha=0.9", "optimizer"),
    Change("RMSprop's eps 1e-6", "alpha=0.99", "alpha=0.99, eps=1e-6", "optimizer"),
    Change("schedule one step late", "[50, 80]", "[51, 80]", "optimizer", "one step of fifty alone at first"),
    Change("forget gate not opened", "[width : 2 * width] = 1.0", "[width : 2 * width] += 0.0", "forward", "only the initial parameters differ: no kind fits quite"),
    Change("rows read from below", "bunch.images / 16.0", "bunch.images[:, ::-1].copy() / 16.0", "data"),
    Change("mean over the last two states", "last = states[:, -1]", "last = states[:, -2:].mean(1)", "forward"),
    Change("clipping by the largest entry", "0.5)\n            optimizer", '0.5, norm_type="inf")\n            optimizer', "optimizer"),
    Change(
        "scaled by 10 and clipped before the scale is taken off",
        "            nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n",
        "            for p in model.parameters():\n                p.grad *= 10\n"
        "            nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n"
        "            for p in model.parameters():\n                p.grad /= 10\n",
        "optimizer",
    ),
    Change("remainder of an epoch kept", "self.order = torch.randperm(len(self.rows), generator=self.generator)", "more = torch.randperm(len(self.rows), generator=self.generator)\n            self.order = torch.cat([self.order, more])", "data", "from the second epoch on"),
    Change("recurrent gradient times 1.02", "    optimizer = torch", "    model.lstm.weight_hh_l0.register_hook(lambda grad: 1.02 * grad)\n    optimizer = torch", "backward"),
]
