"""A run that parts at a kink is explained; one that parts because it is wrong is not."""

from dataclasses import replace

import numpy as np
import pytest
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.curves.free import Point, kinks, losses
from gradtwin.comparisons.training.cells import Cell, start
from gradtwin.comparisons.training.datasets import load
from gradtwin.comparisons.training.loop import by_hand, by_torch, train
from gradtwin.comparisons.verdict.drift import Drift

LINE = Cell("linear_regression", "line", "sgd", 0.5, steps=90)
ULP = {"float32": 2.0**-23, "float64": 2.0**-52}
AT = 70  # the step whose update is off


def two_valleys(cell, side, off=0):
    """The weight goes half of the way to 1 at each step, where noise moves it by two ulps; but from
    a kink on, behind these, it goes to 3. One step is off by so many ulps."""
    ulp, now = ULP[cell.dtype], {}

    def batch(t):
        now["t"] = t
        return side.batch(t)

    def gradient(parameters, x, target):
        w = parameters["weight"]
        goal = np.where(w > 1 + 2 * ulp, 3, 1).astype(w.dtype)
        nothing = np.zeros_like(parameters["bias"])
        return np.asarray(w.sum()), {"weight": w - goal, "bias": nothing}

    def step(parameters, *rest):
        new, states = side.step(parameters, *rest)
        if off and now["t"] == AT:
            new = {**new, "weight": new["weight"] + new["weight"].dtype.type(off * ulp)}
        return new, states

    return replace(side, batch=batch, gradient=gradient, step=step, together=False)


def pair(off):
    return (
        lambda c, data: two_valleys(c, by_hand(c, data), off),
        lambda c, data: two_valleys(c, by_torch(c, data)),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kink_that_one_run_comes_over_is_why_it_parts(dtype):
    cell = replace(LINE, dtype=dtype)
    calm, over = (compare(cell, *pair(off)).row for off in (2, 3))
    print({k: over[k] for k in ("class", "begins", "lockstep_margin", "max_ratio")})
    assert calm["class"] == "rounding"
    assert over["class"] == "parted"
    assert abs(over["end_manual"] - over["end_reference"]) == pytest.approx(2, abs=0.1)
    why = f"at a kink, at step {AT + 3}: from where ours is, torch goes our way"
    assert over["note"].endswith(why)


def test_what_torch_does_not_follow_and_what_leaves_slowly_is_not_explained():
    cell = replace(LINE, dtype="float32")
    data = load(cell.data)
    hand, twin = (side(cell, data) for side in pair(3))
    at, t = Point(start(cell)), np.arange(90.0)
    ours, _ = losses(train(hand, at.parameters, 90, cell.all_settings), 90)

    def why(of, ratio):
        return kinks(hand, twin, cell, at, of, Drift(ratio, ratio, ratio, 1.0))

    leap = np.where(t >= AT + 2, 1e4, 0.5)
    assert "at a kink" in why(ours, leap)
    assert why(ours + 100 * (t > AT + 2), leap) == ""  # there is more than the kink
    assert why(ours, 0.1 * t) == ""
