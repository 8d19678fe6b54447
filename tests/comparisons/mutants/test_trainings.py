"""Changes of trainings that were written blind: each can be made, and what they are is found."""

import pytest
from gradtwin.comparisons.mutants import trainings
from gradtwin.comparisons.report.console import STYLES
from gradtwin.comparisons.verdict.classes import UNDECIDED


def test_every_change_can_be_made():
    changes = [(name, c) for name in trainings.trainings() for c in trainings.changes(name)]
    assert len(changes) == 90 + 131 + 104 + 193
    for name, change in changes:
        assert trainings.made(name, change).train


def test_what_fits_nowhere_is_not_made():
    change = trainings.Change("none", "nothing of that kind", "")
    with pytest.raises(ValueError, match="stands 0 times"):
        trainings.made("mlp", change)
    with pytest.raises(ValueError, match="training: expected one of autoencoder, "):
        trainings.made("none")


@pytest.mark.sweep
@pytest.mark.parametrize("name", trainings.trainings())
def test_nothing_harmless_is_an_alarm(name):
    rows = trainings.rows(name)
    assert not [r["id"] for r in rows if r["class"] == "alarm"]
    faulty = [r for r in rows if r["kind"] == "faulty"]
    assert sum(r["class"] == "found" for r in faulty) >= len(faulty) / 2


def test_each_outcome_can_be_printed():
    assert {"found", "missed", "quiet", "alarm", UNDECIDED} <= STYLES.keys()
