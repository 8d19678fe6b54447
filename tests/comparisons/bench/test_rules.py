"""What is timed against each other computes the same; and what is slow shows."""

import time

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons import ops
from gradtwin.comparisons.bench import rules
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.samples import large
from gradtwin.comparisons.verdict.classes import IDENTICAL, REFERENCE_IMPRECISE, ROUNDING
from gradtwin.reference.adapters import array, leaves

from gradtwin import manual

N = 400


@pytest.mark.parametrize("name", [n for n in large.calls(N) if ops.named(n).mirror])
def test_both_sides_of_a_timed_call_are_the_same(name):
    args, kwargs = large.calls(N)[name].draw(0, np.dtype("float32"))
    inputs = evaluate.completed(name, args, kwargs, 0)
    verdicts = evaluate.judge_inputs(name, inputs, "float32")
    assert {v.kind for v in verdicts.values()} <= {IDENTICAL, ROUNDING, REFERENCE_IMPRECISE}
    by_hand = leaves(rules.by_hand(name, *inputs)())
    by_torch = list(map(array, rules.by_torch(name, *inputs)()))
    assert [a.shape for a in by_hand] == [a.shape for a in by_torch]
    assert max(a.size for a in leaves(inputs) if isinstance(a, np.ndarray)) >= N / 2


def test_a_rule_that_waits_is_slow(monkeypatch):
    before = rules.rows("relu", sizes=[1000], repeats=5)[0]["ratio"]
    right = manual.activations.relu

    def relu(x):
        time.sleep(0.01)
        return right(x)

    monkeypatch.setattr(manual.activations, "relu", relu)
    (row,) = rules.rows("relu", sizes=[1000], repeats=5)
    assert row["ratio"] > 5 * before
    assert row["low"] <= row["ratio"] <= row["high"]


def test_the_mean_is_geometric_and_the_picture_shows_all():
    found = [
        {"op": op, "elements": n, "ratio": ratio}
        for op, ratios in (("a", (1.0, 2.0)), ("b", (4.0, 8.0)))
        for n, ratio in zip((10, 100), ratios, strict=True)
    ]
    frame = pd.DataFrame(found)
    assert rules.means(frame) == pytest.approx({10: 2.0, 100: 4.0})
    assert len(rules.figure(frame).axes[0].lines) == 4
