"""Two modules: each mistake that ports make has its name, and what only looks like it has not."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradtwin import check

D, T, HEADS = 8, 3, 2


def module(forward):
    """A module with a few layers and this forward."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(D, D) for _ in range(3))
            self.norm, self.drop = nn.LayerNorm(D), nn.Dropout(0.3)
            self.gates = nn.Linear(2 * D, 4 * D)
            self.out = nn.Linear(D, D)
            self.register_buffer("mean", torch.linspace(-1, 1, D))

        def forward(self, x):
            return forward(self, x)

    return Net()


def told(original, port):
    torch.manual_seed(0)
    report = check(module(port), module(original), [torch.randn(2, T, D)])
    assert not report.passed
    return report.cause.name if report.cause else ""


def attention(mask=None, scale=1.0, turned=None, after=False):
    def forward(self, x):
        n, t, d = x.shape
        parts = [f(x).view(n, t, HEADS, -1) for f in (self.a, self.b, self.c)]
        parts = [p.transpose(1, 2) for p in parts]
        if turned:
            parts[:2] = [turned(p) for p in parts[:2]]
        scores = parts[0] @ parts[1].mT * scale
        hidden = mask(t) if mask else torch.ones(t, t, dtype=torch.bool).triu(1)
        if after:
            weights = scores.softmax(-1).masked_fill(hidden, 0.0)
        else:
            weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return self.out((weights @ parts[2]).transpose(1, 2).reshape(n, t, d))

    return forward


def angles(t, half, base=1e4, start=0):
    rate = base ** (-torch.arange(half) / half)
    theta = torch.arange(start, start + t)[:, None] * rate
    return theta.cos(), theta.sin()


def halves(sign=1.0, **settings):
    def turned(x):
        cos, sin = angles(x.shape[-2], x.shape[-1] // 2, **settings)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - sign * b * sin, b * cos + sign * a * sin], -1)

    return turned


def pairs(x):
    cos, sin = angles(x.shape[-2], x.shape[-1] // 2)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def as_complex(x):
    cos, sin = angles(x.shape[-2], x.shape[-1] // 2)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.complex(cos, sin)).flatten(-2)


def grouped(repeated):
    def forward(self, x):
        keys = repeated(self.b(x).unflatten(-1, (4, 2))[:, :, :2])
        return self.out((self.a(x).unflatten(-1, (4, 2)) * keys).flatten(-2))

    return forward


def recurrent(order=(0, 1, 2, 3), start=0.0, detach=False, update=False):
    def forward(self, x):
        h = c = x.new_full((len(x), D), start)
        for t in range(x.shape[1]):
            h = h.detach() if detach else h
            gates = self.gates(torch.cat([x[:, t], h], -1)).chunk(4, -1)
            i, f, g, o = (gates[n] for n in order)
            f = f.sigmoid()
            kept, new = (1 - f, f) if update else (f, 1 - f)
            c = kept * c + new * i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h

    return forward


def gru(self, x, way=lambda r, h, f: r * f(h)):
    h = x.new_zeros(len(x), D)
    for t in range(x.shape[1]):
        r = self.a(x[:, t]).sigmoid()
        h = torch.tanh(self.b(x[:, t]) + way(r, h, self.c))
    return h


def tiled(k):
    return k.repeat(1, 1, 2, 1)


def expanded(k):
    return k[:, :, :, None].expand(-1, -1, -1, 2, -1).reshape(*k.shape[:2], 4, 2)


def strict(t):
    return torch.ones(t, t, dtype=torch.bool).triu(0).index_fill(0, torch.tensor([0]), False)


def no_grad(self, x):
    with torch.no_grad():
        y = self.a(x)
    return self.b(x) * y


PAIRS = {
    "rope": [
        (attention(turned=halves()), attention(turned=pairs)),
        (attention(turned=as_complex), attention(turned=halves())),
        (attention(turned=halves()), attention(turned=halves(sign=-1.0))),
        (attention(turned=halves()), attention(turned=halves(base=5e5))),
        (attention(turned=halves()), attention(turned=halves(base=1.3e4))),
    ],
    "mask": [
        (attention(), attention(mask=lambda t: torch.ones(t, t, dtype=torch.bool).triu(2))),
        (attention(), attention(mask=strict)),
        (attention(), attention(mask=lambda t: torch.ones(t, t, dtype=torch.bool).tril(-1))),
        (attention(), attention(after=True)),
    ],
    "scale": [
        (attention(scale=0.5), attention(scale=0.5013)),
        (lambda self, x: (self.a(x) + x) / 2**0.5, lambda self, x: self.a(x) / 2**0.5 + x),
    ],
    "repeat": [
        (grouped(expanded), grouped(tiled)),
        (grouped(lambda k: k.repeat_interleave(2, 2)), grouped(lambda k: torch.cat([k, k], 2))),
    ],
    "order": [
        (recurrent(), recurrent((0, 1, 3, 2))),
        (recurrent(), recurrent((1, 0, 2, 3))),
        (gru, lambda self, x: gru(self, x, lambda r, h, f: f(r * h))),
        (lambda self, x: F.relu(self.a(x) + x), lambda self, x: F.relu(self.a(x)) + x),
        (lambda self, x: self.b(self.a(x)).exp(), lambda self, x: self.a(self.b(x)).exp()),
        (lambda self, x: x / x.sum(-1, keepdim=True), lambda self, x: x / x.sum(1, keepdim=True)),
    ],
    "initial": [(recurrent(), recurrent(start=1.0)), (recurrent(), recurrent(start=1e-3))],
    "operand": [
        (recurrent(), recurrent(update=True)),
        (
            lambda self, x: F.silu(self.a(x)) * self.b(x),
            lambda self, x: F.silu(self.b(x)) * self.a(x),
        ),
        (
            lambda self, x: self.a(x).exp() + self.b(x).sin() * self.c(x),
            lambda self, x: self.a(x).exp() + self.c(x).sin() * self.b(x),
        ),
    ],
    "missing": [(lambda self, x: self.norm(self.a(x)) * 2, lambda self, x: self.a(x) * 2)],
    "residual": [(lambda self, x: self.a(x) + x, lambda self, x: self.a(x))],
    "mode": [
        (
            lambda self, x: self.a(self.drop(x)) + 1,
            lambda self, x: self.a(F.dropout(x, 0.3, training=False)) + 1,
        )
    ],
    "count": [
        (lambda self, x: self.a(x[:, 1:].mean(1)), lambda self, x: self.a(x.mean(1))),
        (lambda self, x: self.a(x) / T, lambda self, x: self.a(x) / (T - 1)),
    ],
    "detached": [
        (recurrent(), recurrent(detach=True)),
        (lambda self, x: self.b(x) * self.a(x), no_grad),
        (lambda self, x: self.a(x) * x, lambda self, x: self.a(x) * x.data),
    ],
    "activation": [
        (lambda self, x: self.a(x) * x, lambda self, x: self.a(x) * x.tanh()),
        (
            lambda self, x: F.silu(self.a(x)),
            lambda self, x: self.a(x) * torch.sigmoid(1.01 * self.a(x)),
        ),
    ],
    "approximate": [
        (lambda self, x: self.a(x).sigmoid(), lambda self, x: F.hardsigmoid(self.a(x))),
        (
            lambda self, x: F.gelu(self.a(x)),
            lambda self, x: self.a(x) * (1.702 * self.a(x)).sigmoid(),
        ),
    ],
    "variance": [
        (
            lambda self, x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * self.mean,
            lambda self, x: x / (x.var(-1, correction=0, keepdim=True) + 1e-3).sqrt() * self.mean,
        )
    ],
    "eps": [
        (
            lambda self, x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt(),
            lambda self, x: x / (x.pow(2).mean(-1, keepdim=True) + 1.7e-3).sqrt(),
        )
    ],
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("original", "port", "word"),
    [(*pair, word) for word, several in PAIRS.items() for pair in several],
    ids=[f"{word}{i}" for word, several in PAIRS.items() for i in range(len(several))],
)
def test_a_mistake_has_its_name(original, port, word):
    assert told(original, port) == word


# What is two mistakes, or another one.
NEAR = {
    "rope": [
        (attention(), attention(turned=lambda x: 1.1 * x)),
    ],
    "mask": [(attention(), attention(mask=strict, scale=0.9))],
    "scale": [(lambda self, x: self.a(x) / 2**0.5, lambda self, x: self.a(x) / (1 + x * x))],
    "repeat": [(grouped(expanded), grouped(lambda k: 1.1 * k.repeat(1, 1, 2, 1)))],
    "order": [(lambda self, x: F.relu(self.a(x) + x), lambda self, x: F.relu(self.a(x)) + 2 * x)],
    "initial": [(recurrent(), recurrent((1, 0, 2, 3)))],
    "operand": [
        (lambda self, x: F.silu(self.a(x)) * self.b(x), lambda self, x: F.silu(self.a(x)) * 2)
    ],
    "detached": [(lambda self, x: self.a(x) * x, lambda self, x: self.a(x) * x.detach() * 2)],
    "eps": [
        (
            lambda self, x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt(),
            lambda self, x: x / (x.abs().mean(-1, keepdim=True) + 1e-3).sqrt(),
        )
    ],
}


@pytest.mark.parametrize(
    ("original", "port", "word"),
    [(*pair, word) for word, several in NEAR.items() for pair in several],
    ids=[f"{word}{i}" for word, several in NEAR.items() for i in range(len(several))],
)
def test_what_is_another_mistake_has_another_name(original, port, word):
    assert told(original, port) != word


def test_where_a_number_is_told_it_is_the_one_that_stands_there():
    torch.manual_seed(0)
    subject, original = (module(attention(scale=scale)) for scale in (0.5013, 0.5))
    report = check(subject, original, [torch.randn(2, T, D)])
    assert report.cause.text.startswith("0.5 instead of 0.5013 in mul")


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(D, D, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class GruByHand(nn.Module):
    """With the reset gate before the product with the state."""

    exchanged = False

    def __init__(self):
        super().__init__()
        self.w, self.u = (nn.Parameter(torch.zeros(3 * D, D)) for _ in range(2))
        self.b, self.c = (nn.Parameter(torch.zeros(3 * D)) for _ in range(2))

    def forward(self, x):
        h, ys = x.new_zeros(len(x), D), []
        for step in x.unbind(1):
            r, z, n = F.linear(step, self.w, self.b).chunk(3, -1)
            r_h, z_h = F.linear(h, self.u[: 2 * D], self.c[: 2 * D]).chunk(2, -1)
            r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
            n = torch.tanh(n + F.linear(r * h, self.u[2 * D :]) + self.c[2 * D :])
            h = z * n + (1 - z) * h if self.exchanged else (1 - z) * n + z * h
            ys.append(h)
        return torch.stack(ys, 1)


GRU = {
    "w": "rnn.weight_ih_l0",
    "u": "rnn.weight_hh_l0",
    "b": "rnn.bias_ih_l0",
    "c": "rnn.bias_hh_l0",
}


@pytest.mark.parametrize(("exchanged", "word"), [(False, "order"), (True, None)])
def test_the_reset_gate_of_a_gru(exchanged, word):
    torch.manual_seed(0)
    port = GruByHand()
    port.exchanged = exchanged  # as well, which makes it two mistakes
    report = check(port, Gru(), [torch.randn(2, T, D)], names=GRU)
    assert (report.cause and report.cause.name) == word


class Statistics(nn.BatchNorm1d):
    """By hand, with statistics that are kept in one way or another."""

    way = ""

    def forward(self, x):
        mean, var = x.mean(0), x.var(0, correction=0)
        kept = x.var(0, correction=self.way != "biased")
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 0.9 if self.way == "share" else 0.0 if self.way == "never" else 0.1
            self.running_mean += share * (mean - self.running_mean)
            self.running_var += share * (kept - self.running_var)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


@pytest.mark.parametrize(
    ("way", "word"), [("biased", "variance"), ("share", "momentum"), ("never", "mode")]
)
def test_statistics_that_are_kept_otherwise(way, word):
    port = Statistics(D)
    port.way = way
    torch.manual_seed(0)
    assert check(port, nn.BatchNorm1d(D), [torch.randn(6, D)]).cause.name == word
