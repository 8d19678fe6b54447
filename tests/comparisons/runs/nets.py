"""Trainings to try the rule of recorded runs on, with right rewrites and faults of them.

None was used when its limit, its window and its guards were chosen in prototypes; `test_nets.py`
holds them to it.
"""

import contextlib
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from gradtwin.comparisons.training.datasets import load
from torch import nn

from gradtwin import record_run

F = nn.functional


@dataclass(frozen=True)
class Setup:
    """A training: the network by name, and how it is trained."""

    net: str
    optimizer: str
    lr: float
    batch: int
    momentum: float = 0.0
    clip: float = 0.0
    autocast: bool = False
    dtype: torch.dtype = torch.float32


SETUPS = {
    "tanh": Setup("tanh", "SGD", 0.1, 32),
    "relu": Setup("relu", "Adam", 3e-3, 32),
    "relu, chaotic": Setup("relu", "SGD", 1.0, 16),
    "conv": Setup("conv", "SGD", 0.05, 32, momentum=0.9),
    "conv, chaotic": Setup("conv", "Adam", 3e-2, 16),
    "gpt": Setup("gpt", "AdamW", 1e-3, 8),
    "gpt, chaotic": Setup("gpt", "AdamW", 2e-2, 8),
    "lstm": Setup("lstm", "Adam", 1e-2, 8, clip=0.25),
    "gpt, autocast": Setup("gpt", "AdamW", 1e-3, 8, autocast=True),
    "conv, autocast": Setup("conv", "SGD", 0.05, 32, momentum=0.9, autocast=True),
    "tanh, bfloat16": Setup("tanh", "SGD", 0.1, 32, dtype=torch.bfloat16),
    "gpt, bfloat16": Setup("gpt", "AdamW", 1e-3, 8, dtype=torch.bfloat16),
}
# Changes: for which networks (all without), and what they are when they are wrong.
RIGHT = [
    ({"chunk": True}, ""),
    ({"foreach": False}, ""),
    ({"fused": True}, ""),
    ({"permuted": True}, ""),
    ({"nll": True}, ""),
    ({"micro": 2}, "tanh relu gpt lstm"),
    ({"attention": "by hand"}, "gpt"),
    ({"norm": "by hand"}, "gpt"),
    ({"channels_last": True}, "conv"),
    ({"einsum": True}, "tanh relu"),
    ({"recurrence": "by hand"}, "lstm"),
]
WRONG = [
    ({"lr": 1.05}, "", "optimizer"),
    ({"decay": 1e-2}, "tanh relu conv lstm", "optimizer"),
    ({"eps": 1e-6}, "relu lstm", "optimizer"),
    ({"frozen": True}, "", "optimizer"),
    ({"late_rate": 0.9}, "", "optimizer"),
    ({"clip": 1.1}, "lstm", "optimizer"),
    ({"gelu": "tanh"}, "gpt", "forward"),
    ({"scale": 1.1}, "gpt", "forward"),
    ({"leak": 1e-2}, "conv", "forward"),
    ({"dropout": 0.1}, "gpt conv", "forward"),
    ({"seed": 1}, "", "data"),
    ({"shift": 1e-2}, "tanh relu conv", "data"),
    ({"momentum": 0.01}, "conv", "statistics"),
    ({"backward": 1.01}, "tanh relu conv gpt", "backward"),
    ({"factor": 32.0}, "tanh relu conv gpt", "backward"),
    ({"zero_grad": False}, "", "backward"),
    ({"initial": 1.01}, "", "start"),
]


class Scaled(torch.autograd.Function):
    """The identity, whose gradient is wrong by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.factor, None


class HandNorm(nn.LayerNorm):
    def forward(self, x):
        centered = x - x.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        return centered / torch.sqrt(variance + self.eps) * self.weight + self.bias


class Block(nn.Module):
    def __init__(self, width, heads, change):
        super().__init__()
        norm = HandNorm if change.get("norm") else nn.LayerNorm
        self.heads, self.change = heads, change
        self.norm1, self.qkv, self.out = (
            norm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.norm2, self.up, self.down = (
            norm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x):
        batch, time, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (a.view(batch, time, self.heads, -1).transpose(1, 2) for a in parts)
        scale = self.change.get("scale", 1.0) / math.sqrt(q.shape[-1])
        if self.change.get("attention"):
            scores = q @ k.transpose(-1, -2) * scale
            future = torch.ones(time, time, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        hidden = F.gelu(self.up(self.norm2(x)), approximate=self.change.get("gelu", "none"))
        hidden = F.dropout(hidden, self.change.get("dropout", 0.0))
        return x + self.down(hidden)


class Gpt(nn.Module):
    def __init__(self, change, words=40, width=48, time=24):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(time, width)
        self.blocks = nn.ModuleList([Block(width, 4, change) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.change = change

    def forward(self, x):
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 1:
                x = Scaled.apply(x, self.change.get("backward", 1.0))
        return self.head(self.norm(x))


class Conv(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change, momentum = change, change.get("momentum", 0.1)
        self.conv1, self.norm1 = (
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12, momentum=momentum),
        )
        self.conv2, self.norm2 = (
            nn.Conv2d(12, 24, 3, stride=2),
            nn.BatchNorm2d(24, momentum=momentum),
        )
        self.head = nn.Linear(24 * 9, 10)

    def forward(self, x):
        x = x.view(-1, 1, 8, 8)
        if self.change.get("channels_last"):
            x = x.to(memory_format=torch.channels_last)
        x = F.leaky_relu(self.norm1(self.conv1(x)), self.change.get("leak", 0.0))
        x = Scaled.apply(F.relu(self.norm2(self.conv2(x))), self.change.get("backward", 1.0))
        return self.head(F.dropout(x.flatten(1), self.change.get("dropout", 0.0)))


class Mlp(nn.Module):
    def __init__(self, change, activation):
        super().__init__()
        widths = (64, 64, 64, 64, 10)
        self.layers = nn.ModuleList([nn.Linear(m, n) for m, n in pairwise(widths)])
        self.change, self.activation = change, activation

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            if self.change.get("einsum"):
                x = torch.einsum("bi,oi->bo", x, layer.weight) + layer.bias
            else:
                x = layer(x)
            x = self.activation(x) if i < len(self.layers) - 1 else x
            if i == 1:
                x = Scaled.apply(x, self.change.get("backward", 1.0))
        return x


class Lstm(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.words, self.lstm, self.head = (
            nn.Embedding(40, 24),
            nn.LSTM(24, 48, batch_first=True),
            nn.Linear(48, 40),
        )
        self.change = change

    def forward(self, x):
        x = self.words(x)
        return self.head(self._by_hand(x) if self.change.get("recurrence") else self.lstm(x)[0])

    def _by_hand(self, x):
        lstm, found = self.lstm, []
        h = c = x.new_zeros(len(x), lstm.hidden_size)
        for t in range(x.shape[1]):
            gates = x[:, t] @ lstm.weight_ih_l0.T + lstm.bias_ih_l0
            gates = gates + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            found.append(h)
        return torch.stack(found, 1)


def made(setup, change):
    if setup.net in ("tanh", "relu"):
        return Mlp(change, getattr(torch, setup.net))
    return {"gpt": Gpt, "conv": Conv, "lstm": Lstm}[setup.net](change)


def batches(setup, steps, seed):
    rng = np.random.default_rng(seed)
    digits = load("digits")
    for _ in range(steps):
        if setup.net in ("gpt", "lstm"):
            ids = torch.tensor(rng.integers(0, 3, (setup.batch, 25)).cumsum(1) % 40)
            yield ids[:, :-1], ids[:, 1:]
        else:
            rows = rng.permutation(len(digits.x))[: setup.batch]
            yield torch.tensor(digits.x[rows]).to(setup.dtype), torch.tensor(digits.target[rows])


def loss_of(logits, target, change):
    logits, target = logits.flatten(0, -2), target.flatten()
    if change.get("chunk"):
        pairs = zip(logits.split(13), target.split(13), strict=True)
        return sum(F.cross_entropy(a, b, reduction="sum") for a, b in pairs) / len(target)
    if change.get("nll"):
        wide = logits.float() if logits.dtype != torch.bfloat16 or change.get("wide") else logits
        return -wide.log_softmax(-1)[range(len(target)), target].mean()
    return F.cross_entropy(logits, target)


def train(path, name, perturb=0, steps=24, **change):
    """The training of SETUPS[name], recorded, with a change."""
    setup = SETUPS[name]
    torch.manual_seed(0)
    model = made(setup, change).to(setup.dtype)
    with torch.no_grad():
        next(model.parameters()).view(-1)[5] *= change.get("initial", 1.0)
    settings = {key: change[key] for key in ("foreach", "fused") if key in change}
    if "decay" in change:
        settings["weight_decay"] = change["decay"]
    if setup.momentum:
        settings["momentum"] = setup.momentum
    if "eps" in change:
        settings["eps"] = change["eps"]
    parameters = [*model.parameters()][: -1 if change.get("frozen") else None]
    lr = setup.lr * change.get("lr", 1.0)
    optimizer = getattr(torch.optim, setup.optimizer)(parameters, lr=lr, **settings)
    torch.manual_seed(1)
    autocast = torch.autocast("cpu", torch.bfloat16) if setup.autocast else contextlib.nullcontext()
    with record_run(path, model, perturb=perturb) as run:
        for step, (x, target) in enumerate(batches(setup, steps, change.get("seed", 0))):
            if step == 3:
                optimizer.param_groups[0]["lr"] = lr * change.get("late_rate", 1.0)
            if change.get("permuted"):
                x, target = x.flip(0), target.flip(0)
            x = x + change["shift"] if "shift" in change else x
            if change.get("zero_grad", True):
                optimizer.zero_grad()
            micro = change.get("micro", 1)
            total = 0
            for part, wanted in zip(x.chunk(micro), target.chunk(micro), strict=True):
                with autocast:
                    loss = loss_of(model(part), wanted, {**change, "wide": setup.autocast}) / micro
                (loss * change.get("factor", 1.0)).backward()
                total = total + loss.detach() if micro > 1 else loss
            run.step(total)
            if setup.clip:
                nn.utils.clip_grad_norm_(parameters, setup.clip * change.get("clip", 1.0))
            optimizer.step()
