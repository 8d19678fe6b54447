"""A check ends when its time is over, with the verdict on what was judged till then; and says how
far it is."""

import io
import math
import time

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check import verify
from gradtwin.comparisons.check.isolation import OVER, Died, apart
from gradtwin.comparisons.check.pace import OutOfTime
from gradtwin.comparisons.cli import waiting
from gradtwin.comparisons.report import console

from gradtwin import check

X = np.random.default_rng(0).standard_normal((3, 4))
LATE = "not judged within the budget of "


def tanh_taking(seconds, factor=1.0, hangs_for=None):
    def tanh(x):
        y = np.tanh(x)

        def pullback(dy):
            time.sleep(1000 if hangs_for == x.shape else seconds)
            return factor * dy * (1 - y * y)

        return y, pullback

    return tanh


def late(report):
    return report.table[report.table["note"].str.startswith(LATE)]


@pytest.mark.parametrize("factor", [1.0, -1.0], ids=["right", "wrong"])
def test_what_was_judged_till_then_stands(factor):
    report = check(tanh_taking(0.015, factor), torch.tanh, [X], budget=0.02)
    rows = late(report)
    judged = report.table.drop(rows.index)
    assert report.passed == (factor == 1)
    assert 0 < len(judged) < 8
    assert set(rows["class"]) == {"n/a"}
    assert {"called again", "on kinks", "far", "no rows"} <= set(rows["probe"])
    assert f"{LATE}0.02 seconds: " in str(report)
    if factor < 0:
        assert set(report.failed["probe"]) == {"as given"}
        assert report.cause is None
        assert "warning: no time was left within 0.02 seconds to find a cause" in str(report)


def test_no_time_at_all_is_enough_for_the_first():
    report = check(torch.tanh, torch.tanh, [X], budget=1e-9)
    judged = report.table.drop(late(report).index)
    assert set(judged["probe"]) == {"as given"}
    assert set(judged["dtype"]) == {"float64"}
    second = check(torch.tanh, torch.tanh, [X], budget=1e-9, order=2)
    assert second.passed
    assert any(name.startswith("backward of") for name in late(second)["id"])


def test_a_budget_that_lasts_changes_nothing():
    few = {"probes": ["ordinary", "far"]}
    without, with_one = (
        check(torch.tanh, torch.tanh, [X], budget=budget, **few) for budget in (None, 100)
    )
    assert without.table.equals(with_one.table)
    assert LATE not in str(with_one)


def test_what_hangs_where_it_is_tried_apart_is_ended_with_the_time():
    begun = time.monotonic()
    report = check(
        tanh_taking(0, hangs_for=(4, 4)), torch.tanh, [X], probes=["shape", "-long"], budget=1.0
    )
    assert time.monotonic() - begun < 20  # and no minute of patience
    assert report.passed
    assert "one more row" in set(late(report)["probe"])


def test_tasks_apart_end_with_the_time():
    until = time.monotonic() + 0.3
    steps = []
    found = apart(
        lambda task: time.sleep(task) or task, [0, 1000, 0], 50, until, lambda: steps.append(1)
    )
    assert found[0] == 0
    assert found[1:] == [Died(OVER)] * 2
    assert len(steps) == 1


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, "3", True])
def test_a_bad_budget_is_refused_by_name(bad):
    with pytest.raises(ValueError, match="budget: expected seconds, more than 0, got"):
        check(torch.tanh, torch.tanh, [X], budget=bad)


def test_no_cause_is_made_of_what_was_not_answered(monkeypatch):
    """Neither side answers any more, and whatever is concluded from that is not said."""

    def hasty(done):
        with pytest.raises(OutOfTime):
            done[0].truth(done[0].base.inputs)
        return "state: it does not answer"

    monkeypatch.setattr(verify, "diagnose", hasty)
    report = check(tanh_taking(0, -1), torch.tanh, [X], budget=1e-9)
    assert report.cause is None
    monkeypatch.setattr(verify, "diagnose", lambda done: "found without a call")
    assert check(tanh_taking(0, -1), torch.tanh, [X], budget=1e-9).cause


# How far it is ---------------------------------------------------------------------------------


def test_the_steps_are_told_and_come_to_their_end():
    told = []
    few = {"probes": ["on kinks", "first row", "far"]}
    check(torch.tanh, torch.tanh, [X], progress=lambda *steps: told.append(steps), **few)
    done, known = zip(*told, strict=True)
    assert list(done) == list(range(1, len(told) + 1))
    assert all(d <= k for d, k in told)
    assert done[-1] == known[-1] >= 5
    with pytest.raises(TypeError, match="progress: expected a function"):
        check(torch.tanh, torch.tanh, [X], progress=3)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_after_a_while_and_on_a_terminal_only(monkeypatch, terminal):
    shown = io.StringIO()

    class Screen(console.Terminal):
        def __init__(self, **settings):
            super().__init__(**settings)
            self._file = shown

        is_terminal = terminal

    monkeypatch.setattr(console, "Terminal", Screen)
    monkeypatch.setattr(waiting, "AFTER", 0.05)
    with waiting.bar("[a] rule") as told:
        if told:
            told(1, 4)
            assert not shown.getvalue()
            time.sleep(0.06)
            told(2, 4)
            assert "2/4" in shown.getvalue()
            assert "[a] rule" in shown.getvalue()
            assert "left" in shown.getvalue()
    assert (told is not None) == terminal
    with waiting.bar("rule", quiet=True) as told:
        assert told is None
