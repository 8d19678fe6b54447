"""The other judges of a backward pass, and the count of its calls."""

import numpy as np
import pytest
import torch
from gradtwin.comparisons.mutants.judges import JUDGES, PICKED, Count, objections

from gradtwin import check

# Whether what is right errs less than TWICE as much as torch depends on the kernels of both.
CERTAIN = set(JUDGES) - {"twice_torchs_error"}
CALLS = [([np.random.default_rng(0).standard_normal((3, 4))], {})]


def tanh_with(slope):
    def tanh(x):
        y = np.tanh(x)
        return y, lambda dy: slope(y, dy)

    return tanh


def right(y, dy):
    return dy * (1 - y * y)


def in_float32_alone(y, dy):
    return right(y, dy) * (2 if y.dtype == np.float32 else 1)


@pytest.mark.parametrize(
    ("slope", "objecting"),
    [
        (right, set()),
        (lambda y, dy: -right(y, dy), set(JUDGES)),
        (in_float32_alone, {"assert_close", "one_percent", "twice_torchs_error"}),
        # Of half a percent, one percent sees nothing.
        (lambda y, dy: right(y, dy) * 1.005, set(JUDGES) - {"one_percent"}),
        (lambda y, dy: None, set(JUDGES)),
        (lambda y, dy: right(y, dy)[0], set(JUDGES)),
    ],
)
def test_who_objects(slope, objecting):
    found = objections(tanh_with(slope), torch.tanh, CALLS)
    asked = set(JUDGES) if objecting else CERTAIN
    assert {judge for judge in asked if found[judge]} == objecting
    assert found["slow_seconds"] > 0
    assert found["fast_seconds"] > 0


@pytest.mark.parametrize("judge", PICKED)
def test_what_is_not_a_number_is_within_no_tolerance(judge):
    truth = {"x": np.array([1.0, np.inf, np.nan])}
    theirs = {"x": (truth["x"] * (1 + 2.0**-22)).astype(np.float32)}
    assert PICKED[judge](theirs, theirs, truth)
    ours = {"x": np.array([np.nan, np.inf, np.nan], np.float32)}
    assert not PICKED[judge](ours, theirs, truth)


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.y = torch.tanh(x)
        return ctx.y

    @staticmethod
    def backward(ctx, dy):
        return right(ctx.y, dy)


class Layer:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return right(self.y, dy)


PAIR = (lambda x: (np.tanh(x), np.tanh(x)), right)


@pytest.mark.parametrize("thing", [tanh_with(right), Tanh, Layer, PAIR])
def test_calls_are_counted_in_forks_too_and_change_nothing(thing):
    count = Count()
    report = check(count.of(thing), torch.tanh, CALLS[0][0], quick=True)
    assert report.passed
    assert count.number >= len(set(zip(report.table["probe"], report.table["dtype"], strict=True)))
    found = objections(thing, torch.tanh, CALLS)
    assert not any(found[judge] for judge in CERTAIN)
