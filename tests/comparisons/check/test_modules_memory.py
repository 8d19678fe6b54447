"""Modules that keep something from one call to the next, beside parameters and buffers: each
evaluation starts from what was there before, and leaves it there."""

import pytest
import torch
from torch import nn

from gradtwin import check, record_module

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Base(nn.Module):
    times = 1.0

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)


class Tables(Base):
    """Made at the first call, as rotary embeddings often are."""

    def __init__(self):
        super().__init__()
        self.cos = None

    def forward(self, x):
        if self.cos is None:
            self.cos = torch.arange(4.0).mul(self.times).cos()
        return self.fc(x) * self.cos


class Computed(Base):
    """Of a parameter, once, with its graph."""

    def __init__(self):
        super().__init__()
        self.weight = None

    def forward(self, x):
        if self.weight is None:
            self.weight = torch.tanh(self.fc.weight)
        return self.times * x @ self.weight


class Carried(Base):
    """A hidden state."""

    def __init__(self):
        super().__init__()
        self.h = torch.zeros(4)

    def forward(self, x):
        self.h = torch.tanh(self.fc(x) + self.times * self.h.detach())
        return self.h + self.times


class Counted(Base):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(x) * (self.times / self.calls)


class Listed(Base):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(self.fc(x))
        return self.times * sum(self.seen)


class Averaged(Base):
    """In a tensor that is no buffer, and is written to in place."""

    def __init__(self):
        super().__init__()
        self.mean = torch.ones(4)

    def forward(self, x):
        y = self.fc(x)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * y.mean(0))
        return y * self.mean.clone() * self.times


class Shared:
    count = 0


class Owned(Base):
    """In an object that several modules know."""

    def __init__(self, shared=None):
        super().__init__()
        self.shared = shared or Shared()
        self.alias = {"shared": self.shared}

    def forward(self, x):
        self.shared.count += 1
        return self.fc(x) * (self.times / self.alias["shared"].count)


class Installed(Base):
    """By a hook on a part of it, in its first call."""

    ready = False

    def forward(self, x):
        if not self.ready:
            self.fc.register_forward_hook(lambda module, args, y: y * self.times)
            self.ready = True
        return self.fc(x)


class Twice(nn.Module):
    """Calls such a module twice."""

    def __init__(self, kind, times=1.0):
        super().__init__()
        self.inner, self.out = kind(), nn.Linear(4, 3)
        self.inner.times = times

    def forward(self, x):
        return self.out(self.inner(torch.tanh(self.inner(x))))


KINDS = [Tables, Computed, Carried, Counted, Listed, Averaged, Owned, Installed]


def held(module):
    return {n: v for n, v in vars(module.inner).items() if n not in vars(nn.Module())}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_from_call_to_call(kind, recorded, tmp_path):
    original = Twice(kind)
    before = {n: repr(v) for n, v in held(original).items() if kind is not Owned}
    given = {"against": original, "arrays": [X]}
    if recorded:
        given = {"against": record_module(original, tmp_path / "old.npz", [X])}
    port = Twice(kind)
    report = check(port, **given)
    assert report.passed, str(report)
    assert list(report.table["place"].unique()) in (
        ["inner.fc", "inner", "out", ""],
        ["inner", "out", ""],  # whose weight is used without a call
        ["inner.fc", "out", ""],  # what it keeps is not for a record
    )
    wrong = check(Twice(kind, 1.001), **given)
    assert not wrong.passed
    assert wrong.first.split(" in ")[-1] in ("inner.fc", "inner", "Twice")
    for module in (original, port):  # neither is changed
        assert {n: repr(v) for n, v in held(module).items() if n in before} == before
    assert kind is not Owned or original.inner.shared is original.inner.alias["shared"]


def test_a_list_that_somebody_else_knows_stays_as_it_is():
    port, original = Twice(Listed), Twice(Listed)
    own = original.inner.seen
    check(port, original, [X])
    assert own == [] or original.inner.seen == []


def test_a_port_that_keeps_something_which_the_original_has_not():
    class Plain(Base):
        def forward(self, x):
            return self.fc(x) * torch.arange(4.0).cos()

    assert check(Twice(Tables), Twice(Plain), [X]).passed
    assert check(Twice(Plain), Twice(Tables), [X]).passed
    assert check(Twice(Tables, 1.001), Twice(Plain), [X]).first == "output in inner"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_modules_of_torch_jit():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    script = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    assert check(script, net, [X]).passed
    wrong = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert not check(wrong, net, [X]).passed
    with pytest.raises(TypeError, match=r"the original: expected modules of Python, got one of"):
        check(net, script, [X])


class ByRows(Base):
    def forward(self, x):
        return torch.func.vmap(lambda row: self.times * self.fc(row))(x)


def test_what_is_called_inside_of_vmap_is_judged_with_what_calls_it(tmp_path):
    report = check(ByRows(), ByRows(), [X])
    assert report.passed, str(report)
    assert "fc: it is called inside of a transformation of torch.func" in str(report)
    assert "gradient of fc.weight" in set(report.table["result"])
    wrong = ByRows()
    wrong.times = 1.001
    assert check(wrong, ByRows(), [X]).first == "output in ByRows"
    path = record_module(ByRows(), tmp_path / "old.npz", [X])
    assert check(ByRows(), path).passed
    assert check(wrong, path).first == "output in ByRows"


class Packed(nn.Module):
    def __init__(self, times=1.0):
        super().__init__()
        self.lstm, self.times = nn.LSTM(4, 3), times

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return self.times * nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0])[0]


def test_packed_sequences(tmp_path):
    given = [torch.randn(6, 3, 4), torch.tensor([6, 2, 4])]
    path = record_module(Packed(), tmp_path / "old.npz", given)
    for against in ({"against": Packed(), "arrays": given}, {"against": path}):
        report = check(Packed(), **against)
        assert report.passed, str(report)
        assert "n/a" not in set(report.table["class"]), str(report)
        assert check(Packed(1.001), **against).first == "output in Packed"
