"""A submodule that takes its tensors in another form is judged in that, as its parent gives it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.findings import NOT_APPLICABLE
from gradtwin.comparisons.check.modules import record
from gradtwin.comparisons.check.modules.forms import Given, form_of
from gradtwin.comparisons.check.modules.record import record_module
from gradtwin.comparisons.check.modules.recording import Call
from torch import nn

from gradtwin import check

WIDTH, LONG = 6, 4  # as many rows as there are steps: axes that are exchanged fit all the same


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Attention(nn.Module):
    """With a mask that is added."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out((q @ k.mT / WIDTH**0.5 + mask).softmax(-1) @ v)


class Mixer(nn.Module):
    """Along time."""

    def __init__(self):
        super().__init__()
        self.ln, self.fc = nn.LayerNorm(WIDTH), nn.Linear(LONG, LONG)

    def forward(self, x):
        return x + self.fc(self.ln(x).mT).mT


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, several):
        return F.gelu(self.fc(torch.cat(several, -1))), several[0].mean()


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, query, key, value):
        return (self.q(query) @ self.k(key).mT / WIDTH**0.5).softmax(-1) @ value


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mixer, self.dense, self.cross = Attention(), Mixer(), Dense(), Cross()

    def forward(self, x):
        mask = torch.full((LONG, LONG), -torch.inf).triu(1)
        x = x + self.attn(x, mask)
        y = self.mixer(x)
        z, mean = self.dense([x, y])
        return self.cross(z, z, z) + mean


class Boolean(Attention):
    scale = 1.0

    def forward(self, x, keep):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.mT * (self.scale * WIDTH**-0.5)).masked_fill(~keep, -torch.inf)
        return self.out(scores.softmax(-1) @ v)


class TimeFirst(Mixer):
    detached = False

    def forward(self, x):
        y = self.fc(self.ln(x).permute(1, 2, 0)).permute(2, 0, 1)
        return x + (y.detach() if self.detached else y)


class Packed(Dense):
    approximate = "none"

    def forward(self, both):
        mean = both[..., :WIDTH].mean()
        return mean, F.gelu(self.fc(both), approximate=self.approximate)


class Once(Cross):
    swapped = False

    def forward(self, x):
        q, k = (self.k(x), self.q(x)) if self.swapped else (self.q(x), self.k(x))
        return torch.einsum("btu,bud->btd", (q @ k.mT / WIDTH**0.5).softmax(-1), x)


class Port(nn.Module):
    twice = False

    def __init__(self):
        super().__init__()
        self.attn, self.mixer, self.dense, self.cross = Boolean(), TimeFirst(), Packed(), Once()

    def forward(self, x):
        keep = torch.ones(LONG, LONG, dtype=torch.bool).tril()
        x = (2 * x if self.twice else x) + self.attn(x, keep)
        y = self.mixer(x.transpose(0, 1)).transpose(0, 1)
        mean, z = self.dense(torch.cat((x, y), -1))
        return self.cross(z) + mean


INPUT = torch.randn(LONG, LONG, WIDTH, generator=torch.Generator().manual_seed(1))
WRONG = {
    "attn": ("scale", 1.001, "output"),
    "mixer": ("detached", True, "gradient of x"),
    "dense": ("approximate", "tanh", "output 0"),
    "cross": ("swapped", True, "output"),
    "": ("twice", True, "output"),
}


def test_one_that_is_right_is_judged_in_its_own_form():
    for dtype in (torch.float32, torch.float64):
        report = check(Port().to(dtype), Net().to(dtype), [INPUT.to(dtype)])
        assert report.passed, report
        assert not report.table["class"].eq(NOT_APPLICABLE).any(), report


def test_a_record_knows_the_form_as_well(tmp_path):
    """But of one tensor that is given three times three gradients, and not their sum."""
    path = record_module(Net(), tmp_path / "old.npz", [INPUT])
    report = check(Port(), against=path)
    assert report.passed, report
    table = report.table
    assert set(table["place"][table["class"] == NOT_APPLICABLE]) == {"cross"}
    wrong = Port()
    wrong.mixer.detached = True
    assert check(wrong, against=path).first == "gradient of x in mixer"


def test_a_record_of_before_has_no_keys_of_results(tmp_path, monkeypatch):
    path, real = record_module(Net(), tmp_path / "old.npz", [INPUT]), record._call
    monkeypatch.setattr(record, "_call", lambda *kept: replace(real(*kept), paths=[]))
    table = check(Port(), against=path).table
    assert table.set_index("place")["class"]["mixer"].eq("rounding").all()
    assert not table["class"].eq("different").any()


@pytest.mark.parametrize("place", WRONG)
def test_what_is_wrong_is_found_where_it_is(place):
    port = Port()
    name, value, result = WRONG[place]
    setattr(getattr(port, place) if place else port, name, value)
    report = check(port, Net(), [INPUT])
    assert report.first == f"{result} in {place or 'Net'}", report


def test_its_cause_is_found_as_well():
    port = Port()
    port.attn.scale = 2.0
    assert check(port, Net(), [INPUT]).cause.name == "scale"


class Sorted(Port):
    """One that gives a submodule what no arrangement of the original's is."""

    def forward(self, x):
        y = x.sort(1).values
        return super().forward(x) + 0 * self.attn(y, torch.ones(LONG, LONG).bool()).sum()


def test_where_it_cannot_be_told_its_parent_answers():
    table = check(Sorted(), Net(), [INPUT]).table
    assert (table[table["place"] == "attn"]["class"] == NOT_APPLICABLE).all()
    assert not check(Sorted(), Net(), [INPUT]).failed["place"].eq("attn").any()


A, B = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
LAYOUTS = {
    "other axes": ([A], [A.permute(2, 0, 1)]),
    "joined": ([A], [A.reshape(6, 4)]),
    "other axes, joined": ([A], [A.permute(1, 0, 2).reshape(3, 8)]),
    "parted, other axes": ([A], [A.reshape(2, 3, 2, 2).permute(2, 0, 3, 1)]),
    "cut": ([A, B], [A[:, :1], A[:, 1:], B]),
    "one of an axis": ([A, B], [A[0], A[1], B]),
    "joined with another": ([A, B], [torch.cat((A, B), 1)]),
    "on a new axis": ([A, A.exp()], [torch.stack((A, A.exp()), 2)]),
    "other order": ([A, A.exp(), B], [B, A.exp(), A]),
    "a sum": ([A, A.exp()], [A + A.exp(), A]),
    "a part alone": ([A], [A[:, 1:]]),
    "spread": ([A[:1], A[0]], [A[:1].expand(5, 3, 4), A[0].expand(2, 3, 4)]),
}


def _form(ours, theirs, kwargs=None, exact=True):
    """Of a call that gave A on both sides."""
    call = Call("inner", 0, nn.Identity(), tuple(theirs), kwargs or {}, {})
    return form_of(Given(tuple(ours), kwargs or {}, [("", A)]), call, {"": A}, exact=exact)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found(layout):
    theirs, ours = LAYOUTS[layout]
    theirs = [t.clone().requires_grad_() for t in theirs]
    form = _form(ours, theirs)
    for way, t in zip(form.ways, ours, strict=True):
        assert torch.equal(way(theirs), t)


def test_what_is_wrong_before_it_hides_the_form_of_one_that_takes_no_other():
    theirs = [A.clone().requires_grad_()]
    ours = [A.mT + 0.3 * torch.randn(2, 4, 3)]
    assert _form(ours, theirs) is None
    (way,) = _form(ours, theirs, exact=False).ways
    assert torch.equal(way(theirs), A.mT)


def test_what_is_of_the_same_form_is_none():
    x, mask = A.clone().requires_grad_(), torch.ones(3).bool()
    near = A * (1 + torch.finfo(A.dtype).eps)
    assert _form((near, mask), (x, mask), {"n": 3}) is None
    assert _form((near, ~mask), (x, mask), {"n": 3}) is not None


class Flow(nn.Module):
    """A step that adds to a running total, or leaves that to its parent; of it a mean is a part."""

    adds, share = True, 1.0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(-1.0, 0.2, WIDTH))

    def forward(self, x, total=None):
        own = self.share * self.scale.sum().tanh() + 0 * x.sum(-1)
        return x * self.scale.exp(), total + own if self.adds else own


class Flows(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(Flow() for _ in range(3))

    def forward(self, x):
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, total = step(x, total)
        return x, total


class MyFlow(Flow):
    adds = False


class MyFlows(Flows):
    def __init__(self, share=1.0):
        super().__init__()
        self.steps = nn.ModuleList(MyFlow() for _ in range(3))
        self.steps[1].share = share

    def forward(self, x):
        total = 0
        for step in self.steps:
            x, own = step(x)
            total = total + own
        return x, total


def test_what_the_port_leaves_to_its_parent_to_add_is_added():
    x = torch.randn(4, WIDTH)
    report = check(MyFlows(), Flows(), [x])
    assert report.passed
    assert not (report.table["class"] == NOT_APPLICABLE).any()
    report = check(MyFlows(0.9), Flows(), [x])
    assert report.first == "output 1 in steps.1"


class Places(nn.Embedding):
    """Of as many sequences, or of one for all; counted from 2 inside, or outside."""

    def forward(self, tokens):
        return super().forward(torch.arange(tokens.shape[1]).expand(tokens.shape) + 2)


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.places, self.fc = Places(8, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):
        return self.fc(self.places(tokens))


class MyPlaced(Placed):
    def __init__(self, first=2):
        super().__init__()
        self.places, self.first = nn.Embedding(8, WIDTH), first

    def forward(self, tokens):
        rows = self.places(torch.arange(self.first, tokens.shape[1] + self.first))
        return self.fc(rows).expand(*tokens.shape, WIDTH)


def test_a_result_that_is_the_same_for_all_is_one_of_them():
    tokens = torch.full((3, 5), 7)
    report = check(MyPlaced(), Placed(), [tokens])
    assert report.passed
    assert set(report.table["place"]) >= {"places", "fc"}
    assert not (report.table["class"] == NOT_APPLICABLE).any()
    assert not check(MyPlaced(3), Placed(), [tokens]).passed


class Kept(nn.Module):
    """A mean that is moved, in its place or by another tensor."""

    share = 0.1

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x):
        self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean


class Replaced(Kept):
    def forward(self, x):
        before = self.mean
        self.mean = before.lerp(x.detach().mean(0), 0.1)
        y = x - self.mean
        self.mean = before.lerp(self.mean, self.share * 10)
        return y


def test_a_buffer_that_is_replaced_is_judged():
    x = torch.randn(7, WIDTH)
    assert check(Replaced(), Kept(), [x]).passed
    port = Replaced()
    port.share = 0.09
    assert check(port, Kept(), [x]).first == "buffer mean in Kept"
