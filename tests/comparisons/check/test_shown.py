"""What a report looks like in Python: in a line, in a notebook, as a failing assertion."""

import unittest

import numpy as np
import pytest
import torch
from gradtwin.comparisons.check import report as module
from gradtwin.comparisons.check.report import Report
from gradtwin.comparisons.report import notebook, tables
from torch import nn

from gradtwin import assert_gradient, assertion, check, trace

X = np.linspace(-2, 2, 5)
OWN = {"dtypes": ["float64"], "probes": ["as given"]}


def double(x):
    y = np.tanh(x)
    return y, lambda dy: 2 * dy * (1 - y * y)


def tanh(x):
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


def test_what_is_printed_by_itself_is_one_line():
    linear, x = nn.Linear(2, 2), torch.ones(3, 2)
    for found, said in (
        (check(double, torch.tanh, [X], **OWN), "WRONG, 1 of 2 rows, cause: factor"),
        (check(tanh, torch.tanh, [X], **OWN), "right, 2 rows"),
        (check(linear, nn.Linear(2, 2), [x]), "Linear against Linear: right, 4 results"),
        (trace(linear, x), "1 steps, 100% of the nodes have a rule, nothing is different"),
    ):
        assert said in repr(found)
        assert "\n" not in repr(found)
        assert len(repr(found)) < 200


def test_a_line_does_not_look_for_the_smallest_call():
    def search():
        raise AssertionError("searched")

    wrong = check(double, torch.tanh, [X], **OWN)
    found = Report("f\n", "g", False, wrong.table, None, search=search)
    assert "f against g" in repr(found)
    with pytest.raises(AssertionError, match="searched"):
        str(found)


def test_a_notebook_shows_class_and_margin_first_and_in_colour():
    html = check(double, torch.tanh, [X], **OWN)._repr_html_()
    head = html[html.index("<thead>") : html.index("</thead>")]
    assert head.startswith("<thead><tr><th>class</th><th>probe</th><th>margin</th>")
    assert "<b class=wrong>✗ different</b>" in html
    assert html.count("<tr>") == 2  # the wrong one, below the head
    assert "<b class=right>✓ " in check(tanh, torch.tanh, [X], **OWN)._repr_html_()


def test_a_nan_is_shown_and_what_is_missing_is_not():
    rows = [
        {
            "id": "a",
            "argument": "x",
            "subject": 0.5,
            "reference": np.nan,
            "index": "[1]",
            "class": "different",
        },
        {
            "id": "b",
            "argument": "x",
            "subject": np.nan,
            "reference": np.nan,
            "index": "",
            "class": "<n/a>",
        },
    ]
    html = notebook.part(False, "<f> is\nwrong", tables.table(rows))
    assert "<td>x</td><td>[1]</td><td>0.5</td><td>NaN</td>" in html
    assert html.count("NaN") == 1
    assert "&lt;f&gt; is" in html
    assert "– &lt;n/a&gt;" in html


@pytest.mark.parametrize("planted", [False, True])
def test_unittest_shows_no_frame_of_ours(monkeypatch, planted):
    if planted:
        for each in (module, assertion):
            monkeypatch.delattr(each, "__unittest")

    class Case(unittest.TestCase):
        def runTest(self):
            assert_gradient(double, torch.tanh, [X], **OWN)

    result = unittest.TestResult()
    Case().run(result)
    ((_, text),) = result.failures
    assert "cause: factor" in text
    assert (str(assertion.__file__) in text) == planted
