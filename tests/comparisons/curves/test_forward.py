"""What a forward pass computes on the way: both sides do the same in the same order, right to
rounding, and a function that is wrong is named as the first that is."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from gradtwin.comparisons.curves import forward
from gradtwin.comparisons.curves.divergence import _pairs, compare
from gradtwin.comparisons.training.cells import MODELS, Cell, start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_hand, by_torch, train
from gradtwin.comparisons.training.recipes import RECIPES
from gradtwin.comparisons.verdict.classes import DIFFERENT
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.manual import activations, linear
from gradtwin.manual.models import dense, recurrent, vision

from gradtwin import manual

FEW = {"regime": "mini-batch", "batch_size": 4, "steps": 2}
DROPS = {"layers": 1, "width": 8, "heads": 2, "context": 8, "dropout": 0.2}
CELLS = [Cell(model, of.data, "adamw", 0.01, **FEW) for model, of in MODELS.items()]
CELLS += [Cell("gpt", "text", "adamw", 0.01, size=DROPS, recipe=r, **FEW) for r in ("", "gpt")]
CELLS += [replace(cell, dtype="float32") for cell in CELLS]
CELLS += [replace(CELLS[-1], recipe=recipe) for recipe in RECIPES if RECIPES[recipe].precision]


def pair(cell):
    """What the last step of a training computes from parameters and batch."""
    data = load(cell.data)
    ours, twin = by_hand(cell, data), by_torch(cell, data)
    *_, step = train(twin, start(cell), cell.steps, cell.all_settings)
    return _pairs(ours, twin, step, cell.all_settings, cell.precision)[0]


@pytest.mark.thinned(6)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c.model}-{c.dtype}-{c.recipe}{c.shape}")
def test_both_sides_compute_the_same_on_the_way(cell):
    whole = pair(cell)
    sides = (
        forward.by_hand(whole.subject, whole.inputs),
        forward.by_torch(whole.reference, whole.inputs),
    )
    ours, theirs = ([a.function for a in side] for side in sides)
    assert ours == theirs
    assert any(a.parameter for a in sides[1])
    seen = whole.on_the_way()
    assert len(seen.recorded) == len(theirs)
    found = judge(seen.subject, seen.reference, seen.inputs, seen.dtype or cell.dtype)
    print({name: (v.kind, v.margin) for name, v in found.items()})
    assert all(v.kind != DIFFERENT for v in found.values())


def leaky(x):
    return activations.leaky_relu(x)


def another_epsilon(x, mean, var, **given):
    return RIGHT_NORM(x, mean, var, eps=1e-3, **given)


def gates_exchanged(x, hx, params, *settings):
    def exchanged(a):
        i, f, g, o = np.split(a, 4)
        return np.concatenate([f, i, g, o])

    y, pull = manual.recurrent.lstm(x, hx, list(map(exchanged, params)), *settings)

    def pullback(dy):
        dx, dhx, dparams = pull(dy)
        return dx, dhx, list(map(exchanged, dparams))

    return y, pullback


def half_a_gradient(x, weight, bias):
    """In the backward pass alone."""
    y, pull = linear.linear(x, weight, bias)

    def pullback(dy):
        dx, dweight, dbias = pull(dy)
        return dx, dweight / 2, dbias

    return y, pullback


RIGHT_NORM = manual.normalization.batch_norm
SMALL = {"convnet": {"width": 4}, "char_lstm": {"width": 8}}
SWEEP = pytest.mark.sweep
# model, where, what is exchanged, for what, what is the first to be different
FAULTS = [
    ("mlp", activations, "tanh", activations.relu, "activation tanh (behind 0.weight)"),
    ("mlp", dense, "linear", half_a_gradient, "gradient of 2.weight"),
    ("convnet", vision, "relu", leaky, "activation relu (behind bn1.weight)"),
    pytest.param(
        *("convnet", manual.normalization, "batch_norm", another_epsilon),
        "activation batch_norm (bn1.weight)",
        marks=SWEEP,
    ),
    pytest.param(
        *("char_lstm", recurrent, "lstm", gates_exchanged),
        "activation lstm (lstm.weight_ih_l0)",
        marks=SWEEP,
    ),
]


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=SWEEP)])
@pytest.mark.parametrize(("model", "where", "name", "fault", "first"), FAULTS)
def test_a_wrong_function_is_named(model, where, name, fault, first, dtype, monkeypatch):
    monkeypatch.setattr(where, name, fault)
    size = SMALL.get(model, {})
    row = compare(Cell(model, MODELS[model].data, "sgd", 0.1, dtype=dtype, size=size, **FEW)).row
    print({k: row[k] for k in ("class", "outside_step", "begins")})
    assert (row["class"], row["outside_step"], row["first_tensor"]) == ("different", 1, first)
    nearest = re.search(r"all before it is rounding .* at most (\S+) of the limit", row["begins"])
    assert nearest
    assert float(nearest[1]) <= 1


def test_a_rule_within_another_or_in_a_backward_pass_is_not_of_the_model():
    x, weight = np.ones((2, 3)), np.ones((4, 3))

    def another(x):
        y, pull = activations.relu(x)

        def pullback(dy):
            return activations.tanh(pull(dy))[0]

        return 2 * y, pullback

    def subject(inputs):
        y, pull = manual.dropout.dropout(linear.linear(*inputs)[0])
        return {"y": y, "dy": pull(y)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manual.dropout, "dropout", another)
        found = forward.by_hand(subject, (x, weight))
    assert [a.function for a in found] == ["linear", "dropout"]
    assert np.array_equal(found[1].value, np.full((2, 4), 6.0))


def test_what_one_side_does_more_is_left_out():
    made = {name: forward.Activation(name, np.zeros(1)) for name in ("linear", "relu", "tanh")}
    linear, relu, tanh = made.values()
    theirs = [linear, tanh, linear]
    assert [*forward._alike([linear, relu, linear], theirs)] == [(0, 0), (1, 1), (2, 2)]
    assert [*forward._alike([linear, relu, tanh, linear], theirs)] == [(0, 0), (2, 1), (3, 2)]
    assert [*forward._alike([linear, linear], theirs)] == [(0, 0), (1, 2)]


def test_who_watches_functions_goes_on():
    def watching(frame, event, argument):
        pass

    before = sys.getprofile()
    sys.setprofile(watching)
    try:
        forward.by_hand(lambda x: activations.relu(x), np.ones(1))
        assert sys.getprofile() is watching
    finally:
        sys.setprofile(before)
