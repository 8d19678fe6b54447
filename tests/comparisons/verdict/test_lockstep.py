"""Steps judged together are judged as each is alone, for little, and none hides another."""

from collections import Counter

import numpy as np
import pytest
from gradtwin.comparisons.optimizers import table
from gradtwin.comparisons.verdict.judge import judge
from gradtwin.comparisons.verdict.lockstep import JUDGED, Lockstep, Pair

from gradtwin import manual, reference

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
LR = 0.01


def rprop_like(wrong_at=None, wrong=lambda a: a):
    """A step p − lr g that counts, and is wrong at one of its steps."""

    def results(inputs):
        p, g, count = inputs
        new = p - p.dtype.type(LR) * g
        return {"p": wrong(new) if count == wrong_at else new, "count": np.asarray(count + 1)}

    return results


def run(subject, steps, dtype, many=None):
    """A Lockstep of so many steps that start from random numbers each."""
    rng, reference = np.random.default_rng(0), rprop_like()
    lockstep = Lockstep(np.dtype(dtype), steps)
    for t in range(steps):
        p, g = rng.standard_normal((2, 5)).astype(dtype)
        inputs = (p, g, t)
        pair = Pair(subject, reference, inputs, reference(inputs), {"p": p}, many)
        lockstep.look(t + 1, [pair])
    return lockstep


def one_element(new):
    return np.where(np.arange(5) == 3, new * new.dtype.type(1 + 1e-4), new)


@DTYPES
@pytest.mark.parametrize("step", [1, 7, JUDGED, JUDGED + 40])
def test_a_step_that_is_wrong_among_many_is_found_at_its_element(step, dtype):
    found = run(rprop_like(step - 1, one_element), JUDGED + 50, dtype)
    assert found.outside[:2] == (step, "p")
    assert found.verdicts[-2].verdict.index == (3,)
    assert found.verdicts[-1].step == step  # nothing behind it is judged
    first, before = found.beginning
    assert (first.step, first.name, first.verdict.index) == (step, "p", (3,))
    assert {*range(1, min(step, JUDGED))} <= {r.step for r in before} <= {*range(1, step)}


@pytest.mark.parametrize("wrong", [lambda new: new[1:], lambda new: new.astype(np.float16)])
def test_a_step_whose_result_is_laid_out_otherwise_is_found_and_said(wrong):
    step, names, note = run(rprop_like(6, wrong), 20, "float32").outside
    assert (step, names) == (7, "p")
    assert "instead of" in note


def test_a_step_that_lacks_a_result_is_refused():
    def lacks(inputs):
        new = rprop_like()(inputs)
        return new if inputs[2] != 6 else {"p": new["p"]}

    with pytest.raises(ValueError, match="expected p, count, got p"):
        print(run(lacks, 20, "float64").outside)


@DTYPES
@pytest.mark.parametrize("name", ["adam", "adafactor", "lbfgs"])
def test_together_is_as_alone(name, dtype, monkeypatch):
    """Every verdict is the same in all that owes nothing to the noise that is drawn."""
    seen = []
    look = Lockstep.look

    def watched(self, step, pairs):
        seen.append((step, *pairs))
        look(self, step, pairs)

    monkeypatch.setattr(Lockstep, "look", watched)
    together = table.compare(name, {}, dtype, "trained", steps=12).lockstep.verdicts
    alone = [
        (step, quantity, verdict)
        for step, pair in seen
        for quantity, verdict in judge(
            pair.subject, pair.reference, pair.inputs, np.dtype(dtype), before=pair.before
        ).items()
    ]
    assert len(together) == len(alone) > 12
    for (step, quantity, verdict), expected in zip(together, alone, strict=True):
        assert (step, quantity) == expected[:2]
        for said in ("kind", "ulp", "error", "note"):
            assert getattr(verdict, said) == getattr(expected[2], said)
        assert verdict.margin <= 1 or verdict == expected[2]


def counted(monkeypatch, name):
    """How often the reference is asked for steps, and for how many of them."""
    twin, asked = getattr(reference.optimizers, name), Counter()

    def counting(param, *rest, **settings):
        asked["calls"] += 1
        asked["steps"] += len(param) if isinstance(param, list) else 1
        return twin(param, *rest, **settings)

    counting.__dict__.update(vars(twin))
    monkeypatch.setattr(reference.optimizers, name, counting)
    return asked


@DTYPES
def test_a_longer_run_asks_the_reference_no_more_often(dtype, monkeypatch):
    """Beside its own run: up to a hundred steps at once, for what is not known from that run; and
    later those that are spaced by their logarithm. (Of this run none needs noise.)"""
    asked = counted(monkeypatch, "rprop")
    once = 2 if dtype == "float64" else 1  # what torch loses is asked nearby, or known
    for steps in (10, JUDGED, 10 * JUDGED):
        asked.clear()
        judged = table.compare("rprop", {}, dtype, steps=steps).lockstep.judged
        later = judged - min(steps, JUDGED)
        print(steps, judged, dict(asked))
        assert asked == {"calls": once * (1 + later), "steps": once * judged}
        assert later <= 20


def forgets_a_moment_once(param, grad, state, **settings):
    if state and state["step"] == 6:
        state = {**state, "exp_avg": np.zeros_like(param)}
    return RIGHT(param, grad, state, **settings)


RIGHT = manual.optimizers.adam


@DTYPES
def test_a_fault_of_one_step_is_found_at_that_step(dtype, monkeypatch):
    monkeypatch.setattr(manual.optimizers, "adam", forgets_a_moment_once)
    found = table.compare("adam", {}, dtype, "trained", steps=20)
    assert found.lockstep.outside[0] == 7
