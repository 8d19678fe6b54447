"""The table of what is held to nothing can alarm, miss and abstain."""

import numpy as np
import pytest
from gradtwin.comparisons.mutants import without_reference
from gradtwin.comparisons.mutants.without_reference import mutant_row, right_row

from gradtwin import manual


def test_a_right_rule_is_quiet_and_all_its_own_results_are_counted():
    row = right_row("tanh", 0)
    assert row["class"] == "quiet"
    assert row["own"] == row["own_judged"] > 0
    assert row["elsewhere"] > row["elsewhere_judged"] > 0


def test_what_is_infinite_cannot_move_and_is_no_alarm():
    row = right_row("where", 7)
    assert row["call"] == "[True, False], [inf, 1.0], [2.0, -inf]"
    assert row["class"] == "quiet"
    assert set(row["reasons"].split("; ")) == {"the forward is not finite nearby"}


def test_what_cancels_whole_is_no_alarm():
    row = right_row("log_softmax_backward_data", 4)
    assert row["class"] == "quiet"


def test_a_wrong_rule_is_an_alarm(monkeypatch):
    def wrong(x):
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2) * 1.0001

    monkeypatch.setattr(manual.activations, "tanh", wrong)
    row = right_row("tanh", 0)
    assert row["class"] == "alarm"
    assert "WRONG" in row["says"]


def test_what_is_not_judged_has_its_reason(monkeypatch):
    monkeypatch.setattr(manual.activations, "tanh", lambda x: (np.round(x), lambda dy: dy))
    row = right_row("tanh", 0)
    assert row["own_judged"] < row["own"]
    assert set(row["reasons"].split("; ")) <= {
        "the forward is flat here",
        "the forward goes in steps here",
    }


@pytest.mark.parametrize("op", list(without_reference.ON_PURPOSE))
def test_what_differs_on_purpose_has_a_rule(op):
    assert op in without_reference.ops.names()


def test_a_mistake_of_the_gradient_is_caught_and_one_of_the_value_is_not_to_be_seen():
    mutants = without_reference.MUTANTS["softmax"]
    classes = {m.cause: mutant_row("softmax", n, 0)["class"] for n, m in enumerate(mutants)}
    assert classes["missing term"] == "caught"
    assert classes["range"] == "not to be seen"
    assert "missed" not in classes.values()


@pytest.mark.parametrize(
    ("op", "seed"),
    [
        ("softshrink", 2),  # λ = 0
        ("embedding", 5),  # renormalized
        ("nll_loss_backward", 6),  # the mean over no weight
    ],
)
def test_a_gradient_may_differ_where_it_is_meant_to(op, seed):
    assert right_row(op, seed)["class"] == "on purpose"


def test_another_mistake_of_a_rule_that_differs_on_purpose_is_an_alarm(monkeypatch):
    right = manual.activations.softshrink

    def wrong(x, lambd=0.5):
        y, pullback = right(x, lambd)
        return y, lambda dy: pullback(dy) * 1.0001

    monkeypatch.setattr(manual.activations, "softshrink", wrong)
    assert right_row("softshrink", 0)["class"] == "alarm"
