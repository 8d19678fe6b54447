"""Dialects side by side: the step at which two of them part."""

import pytest
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.show.apart import parted
from typer.testing import CliRunner


def test_two_dialects_part_at_a_step():
    names, steps = parted("sgd")
    assert names[:2] == [
        "the rule",
        "momentum: the buffer holds lr d: a new lr acts on new gradients alone",
    ]
    assert steps[0][1] == steps[1][0] == 2  # the first step that has a buffer, and another lr
    assert all(steps[i][i] is None for i in range(len(names)))


@pytest.mark.parametrize("name", ["sgd", "lion"])
def test_show_has_the_table(name):
    result = CliRunner().invoke(app, ["show", name])
    assert result.exit_code == 0, result.output
    assert "the step at which two of them part" in result.output
