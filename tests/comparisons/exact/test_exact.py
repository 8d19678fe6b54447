"""Exact values: the same by themselves and together, and none beyond the work that is allowed."""

import math

import mpmath
import numpy as np
import pytest
from gradtwin.comparisons import exact, ops, samples
from gradtwin.comparisons.exact import DIGITS, KINK, SOON, activations
from gradtwin.comparisons.ops import arguments, evaluate


def call(op, row, dtype="float64"):
    inputs = evaluate.drawn(op, row, dtype, 0)
    ours, twin = ops.named(op).pair
    return inputs, arguments.argument_names(ours, *inputs[:2], twin.facts.constant)


@pytest.mark.thinned(6)
@pytest.mark.parametrize("op", [name for name in ops.names() if ops.named(name).exact])
def test_slopes_are_the_same_together_and_alone(op, held):
    rng = np.random.default_rng(0)

    def holds(row):
        inputs, names = call(op, row)
        taken = exact._Call(ops.named(op).exact, inputs)
        with mpmath.workdps(DIGITS):
            for name in names:
                every = taken.together(name)
                if every:
                    index = tuple(int(rng.integers(n)) for n in every[0].shape)
                    alone, together = taken.alone(name, index), [a[index] for a in every]
                    (slope, *_), kinks = alone, [is_kink(*way) for way in (alone, together)]
                    print(name, index, float(together[0]), float(slope), kinks)
                    same = np.isclose(float(together[0]), float(slope), 1e-15, 1e-150)
                    assert same or math.isnan(slope)
                    assert kinks[0] == kinks[1]

    held(holds, [row for _, row in ops.named(op).rows()])


def is_kink(slope, bend):
    return abs(bend) > KINK * abs(slope)


def dense(coupling):
    return lambda x, inplace=False: x * x + coupling * np.roll(x, 1)


@pytest.mark.parametrize("coupling", [1, 1e-30, mpmath.mpf(10) ** -100])
def test_what_moves_its_neighbour_is_not_taken_together(monkeypatch, coupling):
    x, dy = np.array([0.5, -2.0, 3.0]), np.array([1.0, 10.0, -4.0])
    taken = exact._Call(activations.relu, ((x,), {}, dy))
    with mpmath.workdps(DIGITS):
        assert taken.together("x") is not None
    monkeypatch.setattr(activations, "relu", dense(mpmath.mpf(coupling)))
    taken = exact._Call(activations.relu, ((x,), {}, dy))
    with mpmath.workdps(DIGITS):
        expected = coupling > 1e-40  # else it is no digit of a result
        assert (taken.together("x") is None) == expected
    found = ops.named("relu").oracle(((x,), {}, dy))("x", (0,))
    assert found == pytest.approx(2 * 0.5 + float(coupling) * 10, 1e-15)


def test_beyond_the_work_there_is_no_value():
    row = samples.call(samples.array(5, 4))
    inputs, _ = call("softmax", row)
    size = 2 * 20
    found = ops.named("softmax").oracle(inputs, work=(1 + 4 + 2 * 3) * size)
    values = [found("value", (0, 0)), *(found("x", (i, 0)) for i in range(5))]
    assert [math.isnan(v) for v in values] == [False] * 4 + [True] * 2
    assert found("value", (4, 3)) > 0  # which is known already


def test_a_call_that_is_too_large_is_not_even_looked_at(monkeypatch):
    monkeypatch.setattr(exact, "_exactly", None)
    inputs, names = call("linear", samples.call(samples.array(300, 200), samples.array(9, 200)))
    found = ops.named("linear").oracle(inputs, work=SOON)
    assert math.isnan(found("value", (0, 0)))
    assert all(math.isnan(found(name, (0, 0))) for name in names)
