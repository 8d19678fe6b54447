"""An original in a file: a port is judged by it as by the original itself."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check.modules import record, stored
from torch import nn

from gradtwin import check, record_module


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Net(nn.Module):
    """With buffers, a draw, a tied weight, and a submodule that is called twice."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.fc.weight

    def forward(self, x, scale=1.0):
        x = self.drop(self.bn(self.fc(x)).tanh())
        return self.head(self.fc(x)) * scale


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(F.silu(self.norm(x)))


class ByHand(nn.LayerNorm):
    def forward(self, x):
        deviation = x - x.mean(-1, keepdim=True)
        variance = (deviation * deviation).mean(-1, keepdim=True)
        return deviation / (variance + self.eps).sqrt() * self.weight + self.bias


class Naive(ByHand):
    """Loses digits where the mean is large."""

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x * x).mean(-1, keepdim=True) - mean * mean
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


class Narrow(nn.LayerNorm):
    """Rounds to 16 bits on its way."""

    def forward(self, x):
        return super().forward(x.bfloat16().float())


class Unfused(nn.Module):
    """Joined, turned and called otherwise."""

    def __init__(self):
        super().__init__()
        self.both = nn.Parameter(torch.zeros(8, 4))
        self.register_buffer("calls", torch.full((2,), 5.0))

    def forward(self, x):
        a, b = (x @ part for part in self.both.chunk(2))
        return a.sigmoid() * b


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, x):
        return self.gate(x).sigmoid() * self.up(x)


class Counting(Unfused):
    def forward(self, x):
        self.calls += 1.0
        return super().forward(x)


NAMES = {"both": "cat(gate.weight.T, up.weight.T)"}
TURNED = {"both": "cat(up.weight.T, gate.weight.T)"}


def changed(module, **attributes):
    for place, value in attributes.items():
        name, _, own = place.rpartition("__")
        setattr(module.get_submodule(name.replace("__", ".")), own, value)
    return module


def by_hand(kind=ByHand, **attributes):
    made = Norm()
    made.norm.__class__ = kind
    return changed(made, **attributes)


def untied():
    made = Net()
    made.head.weight = nn.Parameter(torch.zeros(4, 4))
    return made


ROWS = torch.linspace(-2, 2, 24)
SHORT, LONG = ROWS.view(4, 6).bfloat16(), ROWS.view(4, 6).double()
PAIRS = {
    "the same": (Net, Net, ROWS.view(6, 4), None),
    "by hand": (by_hand, Norm, ROWS.view(4, 6), None),
    "bfloat16": (lambda: by_hand().bfloat16(), lambda: Norm().bfloat16(), SHORT, None),
    "float64": (lambda: by_hand().double(), lambda: Norm().double(), LONG, None),
    "joined": (Unfused, Gated, ROWS.view(6, 4), NAMES),
    "imprecise": (lambda: by_hand(Naive), Norm, ROWS.view(4, 6) + 300, None),
    "momentum": (lambda: changed(Net(), bn__momentum=0.2), Net, ROWS.view(6, 4), None),
    "no draw": (lambda: changed(Net(), drop__training=False), Net, ROWS.view(6, 4), None),
    "untied": (untied, Net, ROWS.view(6, 4), None),
    "eps": (lambda: by_hand(norm__eps=1e-3), Norm, ROWS.view(4, 6), None),
    "eps in bfloat16": (
        lambda: by_hand(norm__eps=1.0).bfloat16(),
        *(lambda: Norm().bfloat16(), SHORT, None),
    ),
    "narrow": (lambda: by_hand(Narrow), Norm, ROWS.view(4, 6) / 3, None),
    "turned": (Unfused, Gated, ROWS.view(6, 4), TURNED),
    "counts": (Counting, Gated, ROWS.view(6, 4), NAMES),
}
RIGHT = list(PAIRS)[:6]


def classes(report):
    return dict(zip(report.table["id"], report.table["class"], strict=True))


@pytest.mark.parametrize("name", PAIRS)
def test_a_record_judges_as_the_original_does(name, tmp_path):
    port, original, x, names = PAIRS[name]
    theirs = original()
    path = record_module(theirs, tmp_path / "old.npz", [x])
    here, there = check(port(), theirs, [x], names=names), check(port(), path, names=names)
    assert there.passed == here.passed == (name in RIGHT), str(there)
    assert there.first == here.first
    assert classes(there) == classes(here)
    assert "judged by a record" in there.notes[0]
    assert torch.__version__ in there.notes[0]
    if name == "imprecise":
        assert "imprecise" in set(there.table["class"])


@pytest.mark.parametrize(("name", "cause"), [("momentum", "momentum"), ("eps", "eps")])
def test_a_cause_is_found_in_the_port_alone(name, cause, tmp_path):
    port, original, x, _ = PAIRS[name]
    path = record_module(original(), tmp_path / "old.npz", [x])
    assert check(port(), str(path)).cause.name == cause


def test_what_a_port_has_alone_gets_no_slack_of_its_own(tmp_path, monkeypatch):
    """Planted: arranged as a value is, its floor is the buffer itself, which hides all."""
    port, original, x, names = PAIRS["counts"]
    path = record_module(original(), tmp_path / "old.npz", [x])
    assert not check(port(), path, names=names).passed
    monkeypatch.setattr(record, "_slack", lambda of, moves: of(moves))
    assert check(port(), path, names=names).passed


class Pair(collections.namedtuple("Pair", ("left", "right"))):  # fmt: skip
    pass


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    sides: Pair
    dtype: torch.dtype


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x, mask=None, scale=1.0, **settings):
        keyed = Keyed(scale=scale)
        return self.inner(
            Batch(x, Pair(x * 2, [3, None]), torch.float32), {1: mask}, keyed, **settings
        )


class Keyed(collections.OrderedDict):
    """As the results of some libraries are: with attributes beside its keys."""

    def __getattr__(self, name):
        return self[name]


class Inner(nn.Module):
    def forward(self, batch, masks, keyed, power):
        scale = keyed.scale
        y = batch.x.masked_fill(masks[1], 0.5) + batch.sides.left * batch.sides.right[0]
        return (y * scale).to(batch.dtype) ** power


class Twice(Nested):
    def forward(self, *args, **settings):
        return 2 * super().forward(*args, **settings)


def test_arguments_of_any_form_come_back(tmp_path):
    x, mask = ROWS.view(6, 4), ROWS.view(6, 4) > 0
    settings = {"mask": mask, "scale": 0.5, "power": 2}
    path = record_module(Nested(), tmp_path / "old.npz", [x], settings)
    report = check(Nested(), path)
    assert report.passed, str(report)
    assert "gradient of batch.sides.0" in set(report.table["result"])
    assert check(Twice(), path).first == "output in Nested"


class Cache:
    pass


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (Cache(), "argument of Taking.1: a Cache cannot be kept; expected tensors, numbers"),
        ([1, {"a": 1j}], "argument of Taking.1.1.a: a complex cannot be kept"),
        (torch.eye(2).to_sparse(), "a tensor of torch.sparse_coo float32 cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_named_and_nothing_is_written(thing, said, tmp_path):
    class Taking(nn.Linear):
        def forward(self, x, thing):
            return super().forward(x)

    with pytest.raises(TypeError, match=said):
        record_module(Taking(4, 2), tmp_path / "old.npz", [ROWS.view(6, 4), thing])
    assert not list(tmp_path.iterdir())


class Growing(nn.Linear):
    def forward(self, x, cache):
        cache.seen = [*getattr(cache, "seen", []), x]
        return super().forward(sum(cache.seen))


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Growing(4, 4), Growing(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        cache = Cache()
        return self.last(self.two(self.one(x, cache), cache))


def test_a_call_that_is_given_what_cannot_be_kept_is_left_out_and_named(tmp_path):
    path = record_module(Cached(), tmp_path / "old.npz", [ROWS.view(6, 4)])
    report = check(Cached(), path)
    assert report.passed, str(report)
    assert set(report.table["place"]) == {"last", ""}
    assert "2 calls that could not be kept, as argument of one.1: a Cache" in report.notes[0]
    wrong = Cached()
    wrong.two.forward = lambda x, cache: Growing.forward(wrong.two, x * 1.001, cache)
    assert check(wrong, path).first == "output in Cached"


def test_a_record_is_arrays_alone_and_changes_nothing(tmp_path):
    original = Net()
    before = {n: t.clone() for n, t in original.state_dict().items()}
    path = record_module(original, tmp_path / "old.npz", [ROWS.view(6, 4)])
    assert all(torch.equal(before[n], t) for n, t in original.state_dict().items())
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "biuf" for name in archive.files)


def test_a_record_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "VERSION", 2)
    path = record_module(Norm(), tmp_path / "old.npz", [ROWS.view(4, 6)])
    with pytest.raises(ValueError, match="expected format 1, got 2 of another gradtwin"):
        check(Norm(), path)


def test_other_files(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: expected a record"):
        check(Norm(), path)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        check(Norm(), "none.npz")
    writer = stored.Writer()
    writer.write(path, {"format": stored.VERSION, "name": 3})
    with pytest.raises(ValueError, match=r"other\.npz: expected a record of a module: .*name"):
        check(Norm(), path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"subject": torch.tanh}, "subject: expected a torch.nn.Module beside a record"),
        ({"arrays": [ROWS]}, "arrays: expected no such argument beside a record"),
        ({"seed": 1}, "seed: expected no such argument beside a record"),
        ({"strict": True}, "strict: expected no such argument beside a record"),
    ],
)
def test_what_says_nothing_beside_a_record(given, said, tmp_path):
    path = record_module(Norm(), tmp_path / "old.npz", [ROWS.view(4, 6)])
    with pytest.raises(TypeError, match=said):
        check(**{"subject": Norm(), "against": path, **given})


def test_what_is_no_original(tmp_path):
    with pytest.raises(TypeError, match=r"original: expected a torch\.nn\.Module, got a"):
        record_module(torch.tanh, tmp_path / "old.npz", [ROWS])
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.npz"):
        record_module(Norm(), tmp_path / "old", [ROWS.view(4, 6)])
