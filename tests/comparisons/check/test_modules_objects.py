"""Objects that modules are given and give: they hold tensors, and calls change them."""

import copy
import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import nn

from gradtwin import check

WIDTH = 4


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Layer:
    def __init__(self):
        self.keys = None


class Cache:
    """Grows with each call, as caches of keys and values do."""

    def __init__(self):
        self.layers = []
        self.owner = self

    def update(self, number, keys):
        while len(self.layers) <= number:
            self.layers.append(Layer())
        layer = self.layers[number]
        old = torch.tensor([]) if layer.keys is None else layer.keys
        layer.keys = torch.cat([old, keys], -2) if old.numel() else keys
        return layer.keys


class Config:
    scale = 0.5

    def __init__(self):
        self.names = {"a": [1, 2]}


CONFIG = Config()


class Block(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number, self.k, self.q = number, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, *, cache, config):
        assert config is CONFIG  # an object that no call changes stays the one that it is
        keys = cache.update(self.number, self.k(x))
        return x + self.scores(x, keys, config.scale).softmax(-1) @ keys

    def scores(self, x, keys, scale):
        return self.q(x) @ keys.mT * scale


class Wrong(Block):
    def scores(self, x, keys, scale):
        return super().scores(x, keys, 0.6)


class Net(nn.Module):
    block = Block

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(map(self.block, range(2)))

    def forward(self, x, cache=None):
        cache = cache or Cache()
        for block in self.blocks:
            x = block(x, cache=cache, config=CONFIG)
        return x, cache


def of(kind):
    return type("Net", (Net,), {"block": kind})()


def filled():
    made = Cache()
    for number in range(2):
        made.update(number, torch.randn(2, 3, WIDTH))
    return made


@pytest.mark.parametrize("given", [False, True])
def test_a_call_is_given_the_cache_as_it_was_before_it(given):
    x, cache = torch.randn(2, 5, WIDTH), filled() if given else None
    before = copy.deepcopy(cache)
    report = check(of(Block), Net(), [x, cache])
    assert report.passed, str(report)
    assert {"blocks.0", "blocks.1", ""} <= set(report.table["place"])
    assert "n/a" not in set(report.table["class"])
    wrong = check(of(Wrong), Net(), [x, cache])
    assert wrong.first == "output in blocks.0"
    assert wrong.cause.name == "scale"
    if given:  # the caller's own is not changed
        assert all(
            torch.equal(a.keys, b.keys) for a, b in zip(cache.layers, before.layers, strict=True)
        )


def test_a_gradient_of_what_an_object_holds_is_asked_where_it_comes_alone():
    class Sums(nn.Module):
        def forward(self, cache):
            return self.of(cache.layers[0].keys).cumsum(0)

        def of(self, keys):
            return keys

    class Detached(Sums):
        def of(self, keys):
            return keys.detach() + 0 * keys

    assert check(Sums(), type("Sums", (Sums,), {})(), [filled()]).passed
    report = check(Detached(), Sums(), [filled()])
    assert report.first == "gradient of cache.layers.0.keys in Sums"


class State:
    def __init__(self, x):
        self.x = x


class Step(nn.Linear):
    def forward(self, state):
        return State(super().forward(state.x))


class Twice(Step):
    def forward(self, state):
        return State(super().forward(state).x * 1.001)


class Steps(nn.Module):
    """All of whose submodules take and give an object alone."""

    def __init__(self, second=Step):
        super().__init__()
        self.one, self.two = Step(WIDTH, WIDTH), second(WIDTH, WIDTH)

    def forward(self, x):
        return self.two(self.one(State(x)))


def test_results_that_objects_hold_are_judged_where_there_are_no_others():
    x = torch.randn(3, WIDTH)
    report = check(Steps(), Steps(), [x])
    assert report.passed, str(report)
    assert {"output", "gradient of state.x", "gradient of weight"} <= set(report.table["result"])
    assert check(Steps(Twice), Steps(), [x]).first == "output in two"


class Keyed(dict):
    """Its keys are its attributes."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


@dataclasses.dataclass
class Output(OrderedDict):
    """As some libraries have it, with keys and fields."""

    x: torch.Tensor = None
    y: torch.Tensor = None

    def __post_init__(self):
        for name in ("x", "y"):
            if getattr(self, name) is not None:
                super().__setitem__(name, getattr(self, name))

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        super().__setattr__(name, value)


@pytest.mark.parametrize("kind", [Keyed, Output])
def test_mappings_that_have_attributes_are_what_they_were_given(kind):
    class Inner(nn.Linear):
        def forward(self, given):
            return kind(x=super().forward(given.x), y=given["y"])

    class Other(Inner):
        def forward(self, given):
            return super().forward(kind(x=given.x.detach(), y=given.y))

    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner(WIDTH, WIDTH)

        def forward(self, x):
            return self.inner(kind(x=x, y=2 * x))

    x = torch.randn(3, WIDTH)
    report = check(Outer(Inner), Outer(Inner), [x])
    assert report.passed, str(report)
    assert {"gradient of given.x", "gradient of given.y"} <= set(report.table["result"])
    report = check(Outer(Other), Outer(Inner), [x])
    assert report.first == "gradient of given.x in inner"
    assert report.cause.name == "detached"


class Attention(nn.Linear):
    """Gives its weights beside, or nothing in their place, or itself alone."""

    form, times = "both", 1.0

    def forward(self, x):
        weights = super().forward(x).softmax(-1)
        y = self.times * weights @ x.mT @ x
        return {"both": (y, weights), "none": (y, None), "alone": y}[self.form]


class Outside(nn.Module):
    uses = False

    def __init__(self, form="both", times=1.0):
        super().__init__()
        self.attn = Attention(WIDTH, WIDTH)
        self.attn.form, self.attn.times = form, times

    def forward(self, x):
        y = self.attn(x)
        return y if isinstance(y, torch.Tensor) else y[0]


@pytest.mark.parametrize("forms", [("none", "both"), ("both", "none"), ("alone", "both")])
def test_what_one_side_gives_in_the_place_of_nothing_is_left_out(forms):
    x = torch.randn(WIDTH, WIDTH)
    port, original = map(Outside, forms)
    report = check(port, original, [x])
    assert report.passed, str(report)
    assert "gradient of weight" in set(report.table[report.table["place"] == "attn"]["result"])
    report = check(Outside(forms[0], 1.001), original, [x])
    assert report.first.startswith("output")
    assert report.first.endswith("in attn")


def test_what_the_whole_does_not_give_is_wrong():
    both = nn.Sequential(Attention(WIDTH, WIDTH))
    fewer = nn.Sequential(Attention(WIDTH, WIDTH))
    fewer[0].form = "none"
    report = check(fewer, both, [torch.randn(WIDTH, WIDTH)])
    assert not report.passed
    assert "it gives 1 tensors, not 2" in str(report)
