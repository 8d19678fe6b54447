"""Baselines: what was planted is found in the rows that it must change, and only there; what moves
by rounding is called that; and no file that is not whole is ever compared."""

import functools
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from gradtwin.comparisons import (
    baseline,
    curves,
    diff,
    diff_report,
    gradients,
    quantities,
    recorder,
    samples,
)
from gradtwin.comparisons.cli import app
from gradtwin.comparisons.samples.activations import SAMPLES as ACTIVATIONS
from gradtwin.comparisons.samples.optimizers import configurations
from gradtwin.comparisons.training import Cell
from scipy.special import ndtr
from typer.testing import CliRunner

from gradtwin import manual, reference

RULES = ("relu", "gelu", "softmax", "linear", "mse_loss", "embedding", "linear_regression")
NAMES = (*RULES, "cosine_annealing_lr", "sgd", "adam")
CELL = Cell("linear_regression", "line", "sgd", 0.1, steps=12)


def shrink(monkeypatch):
    """Few steps, settings and cells: a measurement takes a second."""
    monkeypatch.setattr(quantities, "configurations", lambda name: configurations(name)[:2])
    monkeypatch.setattr(quantities, "JUDGED", 8)
    monkeypatch.setattr(curves, "GRID", (CELL,))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def stored():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return recorder.measured(NAMES, repeats=1)


def swapped(side, op, change):
    """A patch: the rule gives change(y, list of gradients) instead."""
    module = getattr(side, samples.family(op))
    right = getattr(module, op)

    @functools.wraps(right)
    def rule(*args, **kwargs):
        y, pullback = right(*args, **kwargs)

        def changed(dy):
            found = pullback(dy)
            several = isinstance(found, tuple)
            made = change(y, list(found) if several else [found])[1]
            return tuple(made) if several else made[0]

        changed.constant = getattr(pullback, "constant", None)
        return change(y, [])[0], changed

    if side is reference:  # the torch function, for what is made of torch alone
        rule.__wrapped__ = right.__wrapped__
    return lambda monkeypatch: monkeypatch.setattr(module, op, rule)


def rewritten(module, name, old, new):
    """A patch: the function with a piece of its text in another form."""
    source = inspect.getsource(getattr(module, name))
    assert source.count(old) == 1
    scope = dict(vars(module))
    exec(source.replace(old, new), scope)
    return lambda monkeypatch: monkeypatch.setattr(module, name, scope[name])


def scaled(factor, at=None):
    """A change of the gradients, or of the one at this place."""

    def change(y, found):
        made = [g if at is not None and i != at else g * g.dtype.type(factor) for i, g in enumerate(found)]
        return y, [np.asarray(g) for g in made]

    return change


def value(function):
    return lambda y, found: (np.asarray(function(y)), found)


def single(y, found):
    return y, [np.asarray(g.astype(np.float32).astype(g.dtype)) for g in found]


def doubled_inputs(monkeypatch):
    right = gradients.drawn

    def drawn(op, row, dtype, seed):
        args, kwargs, dy = right(op, row, dtype, seed)
        return (args, kwargs, 2 * dy) if op == "relu" else (args, kwargs, dy)

    monkeypatch.setattr(gradients, "drawn", drawn)


def another_step(side, name, change):
    """A patch: an optimizer whose settings are changed first."""
    module = getattr(side, "optimizers")
    right = getattr(module, name)

    @functools.wraps(right, updated=())
    def step(param, grad, state, **settings):
        return right(param, grad, state, **(settings | change(settings)))

    if hasattr(right, "run"):
        step.run = lambda p, g, settings, *rest: right.run(p, g, settings | change(settings), *rest)
    return lambda monkeypatch: monkeypatch.setattr(module, name, step)


def of(name, *arguments, dtype="", where=lambda q: True):
    """The rows of these arguments that have a finite number other than 0."""
    return lambda q: (
        q.name == name
        and q.table == "gradients"
        and (not arguments or argument(q) in arguments)
        and dtype in q.id
        and bool(np.any(np.isfinite(q.manual) & (q.manual != 0)))
        and where(q)
    )


def argument(q):
    """Of a gradient's id, op(sample)/argument/dtype/seed."""
    return q.id.split("/")[-3]


def quantity(q):
    """Of an optimizer's id, name(settings)/stream/quantity/step/dtype/seed."""
    return q.id.split("/")[-4]


def is_tanh(q):
    return "tanh" in q.id


def is_far(q):
    return "1000.0" in q.id


def steps(name, *names):
    return lambda q: q.table == "optimizers" and q.name == name and quantity(q) in names


def curve_and(rows):
    """These rows, and the one training, which is of linear_regression by sgd."""
    return lambda q: q.table == "curves" or rows(q)


PLANTED = {
    "a slope by a millionth": (
        swapped(manual, "gelu", scaled(1 + 1e-6)), of("gelu", "x"), "manual"),
    "a value by one ulp": (
        swapped(manual, "softmax", value(lambda y: np.nextafter(y, 2))), of("softmax", "value"), "manual"),
    "a forgotten term": (
        rewritten(manual.activations, "softmax", " - (p * h).sum(axis=-1, keepdims=True)", ""),
        of("softmax", "x", where=lambda q: q.manual.size > 1), "manual"),
    "a constant of a loss": (
        swapped(manual, "mse_loss", scaled(1.001)), curve_and(of("mse_loss", "x", "target", "weight")), "manual"),
    "a sign": (
        swapped(manual, "embedding", scaled(-1)),
        lambda q: q.name == "embedding" and argument(q) == "weight" and q.manual.size, "manual"),
    "the second of three gradients": (
        swapped(manual, "linear", scaled(0.5, at=1)), of("linear", "weight"), "manual"),
    "lower precision": (
        swapped(manual, "linear", single),
        of("linear", "x", "weight", "bias", dtype="float64"), "manual"),
    "another dtype": (
        swapped(manual, "linear", value(lambda y: y.astype(float))),
        lambda q: q.name == "linear" and argument(q) == "value" and "float32" in q.id, "manual"),
    "another shape": (
        swapped(manual, "relu", value(lambda y: y[np.newaxis])),
        lambda q: q.name == "relu" and argument(q) == "value", "manual"),
    "a constant inside": (
        rewritten(manual.activations, "_gelu_tanh", "(1 + 0.044715 * square)", "(1 + 0.0447 * square)"),
        of("gelu", "value", "x", where=lambda q: is_tanh(q) and not is_far(q)), "manual"),
    "a dependency": (
        lambda m: m.setattr(manual.activations, "ndtr", lambda x: ndtr(np.float32(x)).astype(x.dtype)),
        of("gelu", "value", "x", dtype="float64", where=lambda q: not is_tanh(q) and not is_far(q)), "manual"),
    "a dependency of torch's side": (
        swapped(reference, "mse_loss", single),
        of("mse_loss", "x", "target", "weight", dtype="float64"), "torch"),
    "torch's slope": (
        swapped(reference, "gelu", scaled(1 + 1e-6)), of("gelu", "x"), "torch"),
    "torch's value": (
        swapped(reference, "relu", value(lambda y: y * y.dtype.type(1.0001))), of("relu", "value"), "torch"),
    "both sides at once": (doubled_inputs, of("relu", "x"), "stored"),
    "a schedule": (
        rewritten(manual.schedules, "cosine_annealing_lr", "/ T_max", "/ (T_max + 1e-5)"),
        lambda q: q.name == "cosine_annealing_lr", "manual"),
    "a step's size": (
        another_step(manual, "sgd", lambda s: {"lr": s.get("lr", 1e-3) * (1 + 1e-5)}),
        curve_and(steps("sgd", "param")), "manual"),
    "a guard of an optimizer": (
        another_step(manual, "adam", lambda s: {"eps": 1e-6}), steps("adam", "param"), "manual"),
    "a decay rate": (
        another_step(manual, "adam", lambda s: {"betas": (0.9, 0.99)}),
        steps("adam", "param", "exp_avg_sq"), "manual"),
    "torch's step": (
        another_step(reference, "sgd", lambda s: {"lr": s.get("lr", 1e-3) * (1 + 1e-5)}),
        curve_and(steps("sgd", "param")), "torch"),
    "a gradient of a model": (
        rewritten(manual.models, "linear_regression", '"bias": dbias', '"bias": dbias * dbias.dtype.type(1.001)'),
        lambda q: q.name == "linear_regression" and (q.table == "curves" or argument(q) == "parameters.bias") and bool(np.any(q.manual)),
        "manual"),
}  # fmt: skip


def changed(stored, names=NAMES):
    found = diff.compare(stored, recorder.measured(names))
    return found.moved.set_index("id")


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_and_only_there(what, stored, monkeypatch):
    plant, expected, side = PLANTED[what]
    plant(monkeypatch)
    moved = changed(stored)
    print(moved)
    must = {q.id for q in stored.quantities.values() if expected(q)}
    assert must
    assert not sorted({*moved.index} ^ must)
    assert set(moved["side"]) == {side}
    assert what == "a value by one ulp" or diff.DIFFERENT in set(moved["class"])
