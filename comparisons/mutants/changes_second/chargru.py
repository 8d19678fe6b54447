"""A GRU that predicts the characters of Python's help, states carried along, SGD with a high momentum (chaotic)."""

import pydoc_data.topics

import torch
import torch.nn.functional as F
from torch import nn

from ..changes.kinds import Change

STEPS = 90
LANES = 16
SPAN = 20


class Reader(nn.Module):
    def __init__(self, letters, width=64):
        super().__init__()
        self.embed = nn.Embedding(letters, 24)
        self.first = nn.GRU(24, width, batch_first=True)
        self.second = nn.GRUCell(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters)
        self.register_buffer("seen", torch.full((letters,), 1.0 / letters))

    def forward(self, text, states):
        h, top = states
        if self.training:
            counts = F.one_hot(text, len(self.seen)).to(self.seen.dtype).mean(dim=(0, 1))
            self.seen.mul_(0.9).add_(counts, alpha=0.1)
        x = self.embed(text)
        x, h = self.first(x, h)
        x = F.dropout(x, 0.1, self.training)
        tops = []
        for t in range(x.shape[1]):
            top = self.second(x[:, t], top)
            tops.append(top)
        x = self.norm(torch.stack(tops, dim=1))
        logits = self.head(x) + torch.log(self.seen + 1e-3)
        return logits, (h, top)


def windows(text):
    lanes = text[: len(text) // LANES * LANES].view(LANES, -1)
    start = 0
    while True:
        if start + SPAN + 1 > lanes.shape[1]:
            start = 0
        yield lanes[:, start : start + SPAN], lanes[:, start + 1 : start + SPAN + 1]
        start += SPAN


def train(record):
    torch.set_num_threads(1)
    torch.manual_seed(111)
    topics = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics))[:24000].lower()
    letters = sorted(set(text))
    code = {letter: i for i, letter in enumerate(letters)}
    stream = windows(torch.tensor([code[letter] for letter in text]))
    model = Reader(len(letters))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 1e-3}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 10))
    states = (torch.zeros(1, LANES, 64), torch.zeros(LANES, 64))
    with record(model) as run:
        for step in range(STEPS):
            given, wanted = next(stream)
            states = tuple(state.detach() for state in states)
            logits, states = model(given, states)
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            run.step(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()


HARMLESS = [
    Change("classes in the second axis", "F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=0.02)", "F.cross_entropy(logits.transpose(1, 2), wanted, label_smoothing=0.02)"),
    Change(
        "smoothing by hand",
        "F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=0.02)",
        "-(0.98 * (logp := F.log_softmax(logits, dim=-1)).gather(2, wanted[..., None]).mean() + 0.02 * logp.mean())",
    ),
    Change("seen letters by bincount", "F.one_hot(text, len(self.seen)).to(self.seen.dtype).mean(dim=(0, 1))", "torch.bincount(text.flatten(), minlength=len(self.seen)).to(self.seen.dtype) / text.numel()"),
    Change("seen letters by lerp", "self.seen.mul_(0.9).add_(counts, alpha=0.1)", "self.seen.lerp_(counts, 0.1)"),
    Change("embedding as a product", "self.embed(text)", "F.one_hot(text, len(self.seen)).to(self.seen.dtype) @ self.embed.weight"),
    Change(
        "second cell written out",
        "            top = self.second(x[:, t], top)\n",
        "            cell = self.second\n"
        "            ri, zi, ni = F.linear(x[:, t], cell.weight_ih, cell.bias_ih).chunk(3, dim=1)\n"
        "            rh, zh, nh = F.linear(top, cell.weight_hh, cell.bias_hh).chunk(3, dim=1)\n"
        "            update = torch.sigmoid(zi + zh)\n"
        "            new = torch.tanh(ni + torch.sigmoid(ri + rh) * nh)\n"
        "            top = (1 - update) * new + update * top\n",
    ),
    Change("norm at each step of time", "self.norm(torch.stack(tops, dim=1))", "torch.stack([self.norm(t) for t in tops], dim=1)", note="the norm is called 20 times a step"),
    Change("norm written out", "self.norm(torch.stack(tops, dim=1))", "torch.stack(tops, dim=1)\n        spread, middle = torch.var_mean(x, dim=-1, correction=0, keepdim=True)\n        x = (x - middle) * torch.rsqrt(spread + self.norm.eps) * self.norm.weight + self.norm.bias"),
    Change(
        "clipping by hand",
        "            nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n",
        "            norm = sum(p.grad.pow(2).sum() for p in model.parameters()).sqrt()\n"
        "            for p in model.parameters():\n"
        "                p.grad.mul_((0.5 / (norm + 1e-6)).clamp(max=1.0))\n",
    ),
    Change("one tensor at a time", "momentum=0.9)", "momentum=0.9, foreach=False)"),
    Change("prior in the bias of the head", "self.head(x) + torch.log(self.seen + 1e-3)", "F.linear(x, self.head.weight, self.head.bias + torch.log(self.seen + 1e-3))"),
    Change(
        "batch last",
        "x, h = self.first(x, h)",
        "x, h = torch.gru(x.transpose(0, 1), h, self.first._flat_weights, True, 1, 0.0, self.training, False, False)\n        x = x.transpose(0, 1)",
        note="the GRU's own forward is not called",
    ),
]

FAULTY = [
    Change("targets two letters on", "lanes[:, start + 1 : start + SPAN + 1]", "(lanes[:, start + 2 : start + SPAN + 2] if start + SPAN + 2 <= lanes.shape[1] else lanes[:, start + 1 : start + SPAN + 1])", "data"),
    Change("windows overlap by one", "start += SPAN\n", "start += SPAN - 1\n", "data", "from the second step on"),
    Change("case kept", ".lower()", "[:24000]", "data", "more letters: shapes change"),
    Change("topics in the order of their lengths", "for name in sorted(topics))", "for name in sorted(topics, key=lambda n: (len(n), n)))", "data", "the letters may change as well"),
    Change("first letter's target wrong from step 15 on", "            given, wanted = next(stream)\n", "            given, wanted = next(stream)\n            if step >= 15:\n                wanted = torch.cat([given[:, :1], wanted[:, 1:]], dim=1)\n", "data"),
    Change("smoothing 0.03", "label_smoothing=0.02", "label_smoothing=0.03", "forward"),
    Change("norm's eps 1e-3", "nn.LayerNorm(width)", "nn.LayerNorm(width, eps=1e-3)", "forward"),
    Change("dropout 0.12", "F.dropout(x, 0.1, self.training)", "F.dropout(x, 0.12, self.training)", "forward"),
    Change("state of the second cell not carried", "return logits, (h, top)", "return logits, (h, torch.zeros_like(top))", "forward", "from the second step on"),
    Change("padding letter", "nn.Embedding(letters, 24)", "nn.Embedding(letters, 24, padding_idx=1)", "forward", "its row begins at zero and gets no gradient"),
    Change("time cut in the second cell", "            tops.append(top)\n", "            tops.append(top)\n            if t == x.shape[1] // 2:\n                top = top.detach()\n", "backward"),
    Change("summed over time", "            loss.backward()\n", "            (SPAN * loss).backward()\n", "backward", "clipping hides most of it"),
    Change("gradients not cleared from step 10 on", "            optimizer.zero_grad()\n", "            if step < 10:\n                optimizer.zero_grad()\n", "backward"),
    Change("clipped at 0.6", "model.parameters(), 0.5)", "model.parameters(), 0.6)", "optimizer"),
    Change("decay on vectors too", '"weight_decay": 0.0', '"weight_decay": 1e-3', "optimizer"),
    Change("Nesterov", "momentum=0.9)", "momentum=0.9, nesterov=True)", "optimizer"),
    Change("warm-up over eleven steps", "(s + 1) / 10)", "(s + 1) / 11)", "optimizer"),
    Change("schedule stepped before the optimizer", "            optimizer.step()\n            schedule.step()\n", "            schedule.step()\n            optimizer.step()\n", "optimizer"),
    Change("seen letters at 0.95", "self.seen.mul_(0.9).add_(counts, alpha=0.1)", "self.seen.mul_(0.95).add_(counts, alpha=0.05)", "statistics"),
    Change("seen letters kept only from the last lane", "F.one_hot(text, len(self.seen))", "F.one_hot(text[-1:], len(self.seen))", "statistics"),
    Change("evaluation mode from step 25 on", "            logits, states = model(given, states)\n", "            if step == 25:\n                model.eval()\n            logits, states = model(given, states)\n", "statistics", "dropout stops too: forward as well"),
]
