"""Mistakes in padding that look right: `check` finds each, and passes what is right. And where
torch answers with memory that nobody wrote."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.ops import evaluate

from gradtwin import check, manual, reference

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4, 5))


def pad(x, pad, mode="constant", value=None):
    steps = []
    for k in range(len(pad) // 2):
        axis, before, behind = x.ndim - 1 - k, pad[2 * k], pad[2 * k + 1]
        n = x.shape[axis]
        place = np.arange(-before, n + behind)
        outside = (place < 0) | (place >= n)
        if mode == "reflect":
            place = np.where(place < 0, -place, place)
            place = np.where(place >= n, 2 * (n - 1) - place, place)
        elif mode == "replicate":
            place = np.clip(place, 0, n - 1)
        elif mode == "circular":
            place = place % n
        else:
            place = np.where(outside, 0, place)
        x = np.moveaxis(x, axis, 0)[place]
        if mode == "constant":
            x[outside] = value or 0.0
        x = np.moveaxis(x, 0, axis)
        steps.append((axis, n, place, outside))

    def pullback(dy):
        for axis, n, place, outside in reversed(steps):
            moved = np.array(np.moveaxis(dy, axis, 0))
            if mode == "constant":
                moved[outside] = 0
            back = np.zeros((n, *moved.shape[1:]))
            np.add.at(back, place, moved)
            dy = np.moveaxis(back, 0, axis)
        return dy

    return x, pullback


def by(mode, pad=(2, 1, 1, 3), **settings):
    return (X, pad), {"mode": mode, **settings}


@pytest.mark.parametrize(
    "call",
    [
        *map(by, ("constant", "reflect", "replicate", "circular")),
        by("constant", (1, -1, -2, 2), value=1.5),
        by("replicate", (1, -1, -2, 2)),
        by("reflect", (1, -1, -2, 2)),
    ],
)
def test_the_right_one_passes(call):
    report = check(pad, "pad", *call, probes=["ordinary"])
    assert report.passed, report


def with_mistake(function, old, new):
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(vars(inspect.getmodule(function)))
    exec(source.replace(old, new), scope)
    return scope[function.__name__]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("old", "new", "call"),
    [
        ("x.ndim - 1 - k", "x.ndim - len(pad) // 2 + k", by("constant")),
        ("pad[2 * k], pad[2 * k + 1]", "pad[2 * k + 1], pad[2 * k]", by("replicate")),
        ("-place, place)", "-place - 1, place)", by("reflect")),
        ("2 * (n - 1) - place", "2 * n - 1 - place", by("reflect")),
        ("2 * (n - 1) - place", "n - 1", by("reflect")),
        ("np.clip(place, 0, n - 1)", "np.clip(place, 0, n - 2)", by("replicate")),
        ("np.clip(place, 0, n - 1)", "place % n", by("replicate")),
        ("place = place % n", "place = np.clip(place, 0, n - 1)", by("circular")),
        ("place = place % n", "place = (place - 1) % n", by("circular")),
        ("value or 0.0", "0.0", by("constant", value=1.5)),
        ("value or 0.0", "value or 1.0", by("constant")),
        ("moved[outside] = 0", "pass", by("constant")),
        ("np.add.at(back, place, moved)", "back[place] = moved", by("reflect")),
        ("np.add.at(back, place, moved)", "back[place] += moved", by("replicate")),
        ("np.add.at(back, place, moved)", "back[place[~outside]] = moved[~outside]",
         by("circular")),
        ("(place >= n)", "(place > n)", by("constant")),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(old, new, call):
    report = check(with_mistake(pad, old, new), "pad", *call, probes=["ordinary"])
    print(report.table)
    assert not report.passed


@pytest.mark.parametrize("side", [manual.padding, reference.padding])
def test_more_than_is_left_is_not_wrapped(side):
    """Torch compares the width to what there was, and then reads what it has not written."""
    x = np.arange(8.0).reshape(2, 4)
    assert F.pad(torch.from_numpy(x), (3, -3), "circular").shape == (2, 4)
    with pytest.raises(ValueError, match="pad: expected fewer"):
        side.pad(x, (3, -3), "circular")
    y, _ = side.pad(x, (-2, 2), "circular")
    assert y.tolist() == [[2, 3, 2, 3], [6, 7, 6, 7]]


def test_where_a_reflection_leaves_nothing_the_slope_is_0():
    """That of torch is made, and not filled; so its mirror refuses."""
    arguments = np.ones((1, 2, 5, 3, 4)), (1, -3, 0, -3, 3, -4), "reflect"
    y, pullback = manual.padding.pad(*arguments)
    assert y.shape == (1, 2, 4, 0, 2)
    assert not pullback(y).any()
    with pytest.raises(ValueError, match="pad: expected fewer"):
        reference.padding.pad(*arguments)


def test_a_border_that_is_repeated_often_adds_up_pairwise():
    x = np.ones((1, 1), np.float32)
    inputs = evaluate.completed("pad", (x, (0, 100_000), "replicate"), {}, 0)
    (_, pullback), dy = manual.padding.pad(*inputs[0]), inputs[2]
    assert abs(pullback(dy) - dy.astype(float).sum()) < 1e-5 * np.sqrt(dy.size)
