"""What a report says beside its verdict: numbers that can be told apart, the line that finds the
same again, the smallest shapes, and what is known where no cause is."""

import inspect
import os
import pickle
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradtwin.comparisons.check import smallest, verify
from gradtwin.comparisons.check.again import line
from gradtwin.comparisons.check.causes.case import Cause, example
from gradtwin.comparisons.check.findings import OUTSIDE, Finding
from gradtwin.comparisons.check.probes import Probe
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.mutants.judges import Count
from gradtwin.comparisons.report.tables import contents, table, told_apart
from gradtwin.comparisons.report.text import apart
from typer.testing import CliRunner

from gradtwin import check

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 6))
LONG = (3, 4, 5, 6, 7, 8)  # more ways to cut it than are tried
OWN = {"probes": ["as given"], "dtypes": ["float64"]}


def tanh_with(slope):
    def tanh(x):
        y = np.tanh(x)

        def pullback(dy):
            return slope(x, y, dy)

        return y, pullback

    return tanh


@pytest.fixture(autouse=True)
def quickly(no_cause):
    """No cause is looked for."""


def right(x, y, dy):
    return dy * (1 - y * y)


# Numbers ---------------------------------------------------------------------------------------


def test_as_many_digits_as_tell_two_numbers_apart():
    assert apart(1.0, 2.0) == ["1", "2"]
    assert apart(1.77549, 1.77549) == ["1.77549", "1.77549"]
    assert apart(1.775491234, 1.775491239) == ["1.77549123", "1.77549124"]
    assert apart(1.0, np.nextafter(1.0, 2)) == ["1", "1.0000000000000002"]
    assert apart(np.nan, np.inf) == ["nan", "inf"]


def test_a_sentence_shows_two_numbers_that_differ():
    ours, truth = np.array([1.77549]), np.array([1.77549 * (1 + 1e-9)])
    f = Finding(
        OUTSIDE, Probe("far", (), {}), "x", "float64", None, None, ours, ours, truth, ours > 0
    )
    came, should = example(f).split(" (")[0].split(" where ")[0].split(" instead of ")
    assert came != should


def test_a_table_for_people_shows_two_numbers_that_differ():
    rows = [
        {"id": "a", "subject": 1.77549, "reference": 1.77549 * (1 + 1e-9), "error": 1e-9},
        {"id": "b", "subject": 0.5, "reference": np.nan, "error": 0.25},
    ]
    frame = table(rows)
    shown = told_apart(frame)
    assert shown["subject"][0] != shown["reference"][0]
    assert list(shown.loc[1, ["subject", "reference"]]) == ["0.5", ""]
    markdown = contents(frame, "t")["t.md"].decode()
    assert "1.7754900" in markdown
    wrong = tanh_with(lambda x, y, dy: right(x, y, dy) * (1 + 1e-9))
    report = check(wrong, torch.tanh, [X], **OWN)
    html = report._repr_html_()
    came, should = apart(report.first["subject"], report.first["reference"], least=4)
    assert f"<td>{came}</td><td>{should}</td>" in html


def test_a_relative_error_is_infinite_only_where_something_is():
    zero = np.where(np.arange(6) < 3, 0.0, X)

    def square(value):
        return lambda x: (x * x, lambda dy: 2 * x * dy + value)

    page = str(check(square(1.0), torch.square, [np.zeros(3)], **OWN))
    assert "inf" not in page
    assert "not 0, as it should be" in page
    assert "inf" not in str(check(square(1.0), torch.square, [zero], **OWN))
    assert "not finite" in str(check(square(np.inf), torch.square, [X], **OWN))


# Found again -----------------------------------------------------------------------------------

WRONG = {  # what is wrong where, and what is asked for beside
    "as given": (lambda x, y, dy: dy * (1 - y), {}),
    "mixed": (lambda x, y, dy: right(x, y, dy) * (1 + (x.dtype == np.float32)), {}),
    "far": (lambda x, y, dy: right(x, y, dy) + (abs(x) > 4), {"thorough": True}),
    "axis 1 of length 67": (lambda x, y, dy: right(x, y, dy) * (1 + (x.shape[-1] == 67)), {}),
    "one-hot dy": (
        lambda x, y, dy: right(x, y, dy) * (1 + ((dy != 0).sum() == 1)), {"thorough": True},
    ),
    "non-contiguous dy": (
        lambda x, y, dy: right(x, y, dy) * (1 + (not dy.flags.c_contiguous)), {"seed": 3},
    ),
}  # fmt: skip


@pytest.mark.thinned(2)
@pytest.mark.parametrize("where", WRONG)
def test_the_line_finds_the_same_element_again(where):
    slope, asked = WRONG[where]
    tanh = tanh_with(slope)
    report = check(tanh, torch.tanh, [X], probes=["another dy", where], **asked)
    first = report.first
    again = eval(report.again, {"check": check, "tanh": tanh, "torch": torch, "args": [X]})
    assert f"seed={asked.get('seed', 0)}, probes=[{first['probe']!r}]" in report.again
    assert report.again in str(report)
    assert len(again.table) < len(report.table)
    kept = ["sample", "probe", "argument", "dtype", "index", "subject", "reference", "class"]
    assert again.first[kept].equals(first[kept]), report.again


def test_the_line_names_what_it_can_and_leaves_names_for_the_rest():
    def called(subject, against=None, arrays=None, settings=None, **more):
        given = {n: p.default for n, p in inspect.signature(check).parameters.items()} | more
        given |= {"subject": subject, "against": against, "arrays": arrays, "settings": settings}
        return line(check, given, "far", "float32")

    ends = "dtypes=['float32'], seed=0, probes=['far'])"
    assert called("gelu", F.gelu) == f"check('gelu', torch.nn.functional.gelu, {ends}"
    assert called(
        (right, test_the_line_names_what_it_can_and_leaves_names_for_the_rest), None, [X]
    ) == (
        "check((right, test_the_line_names_what_it_can_and_leaves_names_for_the_rest), "
        f"arrays=args, {ends}"
    )
    assert called(lambda x: x, torch.nn.Tanh(), [X], {"dim": -1}) == (
        f"check(subject, against, args, {{'dim': -1}}, {ends}"
    )
    assert called(torch.tanh, torch.special.expit, settings={"w": X}, allow=0.5, quick=True) == (
        f"check(torch.tanh, torch._C._special.special_expit, settings=settings, allow=0.5, {ends}"
    )


# The smallest shapes ---------------------------------------------------------------------------


def linear(x, w, b):
    def pullback(dy):
        return dy @ w, dy.T @ x, dy.mean(0)

    return x @ w.T + b, pullback


@pytest.mark.parametrize(
    ("subject", "against", "shapes", "expected"),
    [
        (tanh_with(lambda x, y, dy: -right(x, y, dy)), torch.tanh, [(7, 9)], [(1, 1)]),
        (
            tanh_with(lambda x, y, dy: right(x, y, dy) * (1 + (np.arange(dy.shape[1]) >= 4))),
            torch.tanh, [(7, 9)], [(1, 5)],
        ),
        (
            tanh_with(lambda x, y, dy: right(x, y, dy) * (1 + (len(dy) > 2))),
            None, [(7, 9)], [(3, 1)],
        ),
        (linear, F.linear, [(4, 3), (5, 3), (5,)], [(2, 1), (1, 1), (1,)]),
        (linear, F.linear, [(4, 4), (4, 4), (4,)], [(2, 2), (2, 2), (2,)]),
    ],
)  # fmt: skip
def test_the_smallest_shapes_at_which_it_is_still_wrong(subject, against, shapes, expected):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    report = check(subject, against, arrays, **OWN)
    assert list(report.smallest.shapes) == expected
    assert f"still wrong at shapes {', '.join(map(str, expected))}" in str(report)
    if sum(np.prod(s) for s in expected) < 4:
        found = report.smallest
        assert (found.truth is None) == (against is None)
        assert against is None or "it should be      [" in str(report).partition("still wrong")[2]
        assert list(found.inputs) == [*(["x"] if len(shapes) == 1 else ["x", "w", "b"]), "dy"]
    assert pickle.loads(pickle.dumps(report)).smallest.shapes == report.smallest.shapes


def test_what_dies_or_refuses_is_no_shrink_and_leaves_the_verdict():
    def dies(x, y, dy):
        if len(x) < 4:
            os._exit(0)
        return -right(x, y, dy)

    def refuses(x, y, dy):
        if len(x) < 4:
            raise ValueError("four rows")
        return -right(x, y, dy)

    for slope in (dies, refuses):
        report = check(tanh_with(slope), torch.tanh, [X[:, :1]], **OWN)
        assert report.smallest is None
        assert not report.passed
        assert "still wrong" not in str(report)


def test_the_search_for_it_is_bounded_and_asks_a_right_subject_nothing():
    calls = Count()
    tanh = calls.of(tanh_with(lambda x, y, dy: right(x, y, dy) * (1 + (x.shape == LONG))))
    report = check(tanh, torch.tanh, [np.ones(LONG)], **OWN)
    before = calls.number
    assert report.smallest is None
    assert before < calls.number <= before + smallest.TRIES
    report = check(tanh, torch.tanh, [X], **OWN)
    before = calls.number
    assert report.passed
    assert "right" in str(report)
    assert report.smallest is None
    assert report.again == ""
    assert calls.number == before


# No cause --------------------------------------------------------------------------------------


def embedding(ids, weight):
    def pullback(dy):
        dweight = np.zeros_like(weight)
        dweight[ids] = dy
        return dweight

    return weight[ids], pullback


def partly(where, value=None):
    def slope(x, y, dy):
        good = right(x, y, dy)
        return np.where(where(x, dy), good * 3 if value is None else value(good, x), good)

    return tanh_with(slope)


def linear_with_a_wrong_weight(x, w, b):
    return linear(x, w, b)[0], lambda dy: (dy @ w, 0.3 * (dy.T @ x), dy.sum(0))


def partly_odd(where):
    return partly(where, lambda good, x: good * (2 + np.arange(24).reshape(4, 6)))


SOME = np.isin(np.arange(24).reshape(4, 6), [3, 10])
FACTS = {  # a subject of x, or subject, against and arrays; what is said of it
    "wrong there: every element": partly_odd(lambda x, dy: x < 9),
    "only at 2 of axis 0": partly_odd(lambda x, dy: np.arange(4)[:, None] == 2),
    "only the last 3 of axis 1": partly_odd(lambda x, dy: np.arange(6) > 2),
    "only where x < 0": partly_odd(lambda x, dy: x < 0),
    "only where dy > 0": partly_odd(lambda x, dy: dy > 0),
    "2 of 24 elements, at [0, 3], [1, 4]": partly_odd(lambda x, dy: SOME),
    "only where indices repeat": (embedding, F.embedding, [np.array([3, 0, 1, 3, 0]), X]),
    "got / expected: 3": partly(lambda x, dy: x < 0),
    "got / expected: one number at each place of axis 1: 2, 3, 4, 5, 6, 7": tanh_with(
        lambda x, y, dy: right(x, y, dy) * np.arange(2.0, 8.0)
    ),
    "wrong: the gradient of w; right: the gradient of x, the gradient of b, y": (
        *(linear_with_a_wrong_weight, F.linear),
        [X, X[:3], X[0, :3]],
    ),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("fact", FACTS)
def test_what_is_known_where_no_cause_is(fact):
    planted = FACTS[fact]
    call = planted if isinstance(planted, tuple) else (planted, torch.tanh, [X])
    report = check(*call, **OWN)
    assert not report.passed
    assert any(fact in found for found in report.facts), report.facts
    assert len(report.facts) <= 3
    assert all(found in str(report) for found in report.facts)


def test_a_cause_needs_no_facts(monkeypatch):
    sign = Cause("sign", "of the wrong sign")
    monkeypatch.setattr(verify, "diagnose", lambda done: sign)
    report = check(tanh_with(lambda x, y, dy: -right(x, y, dy)), torch.tanh, [X], **OWN)
    assert report.cause is sign
    assert report.facts == ()


def test_the_command_says_how_it_is_found_again(tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text(
        "import numpy as np\ndef far(x):\n    y = np.tanh(x)\n"
        "    return y, lambda dy: dy * (1 - y * y) + (abs(x) > 9)\n"
    )
    monkeypatch.chdir(tmp_path)
    command = "check rules.py:far --against torch.tanh --shape 2,3 --seed 5 --kinks any"
    command += " --probe ordinary --probe wide"
    done = CliRunner().invoke(app, command.split())
    (again,) = [s.split(": ", 1)[1] for s in done.stdout.splitlines() if "again: " in s]
    assert again == (
        "gradtwin check rules.py:far --against torch.tanh --shape 2,3 --kinks any "
        "--dtype float64 --seed 5 --probe wide"
    )
    other = CliRunner().invoke(app, shlex.split(again)[1:])
    first = [out.stdout.partition("first at")[2].splitlines()[:4] for out in (done, other)]
    assert first[0] == first[1]
    assert len(first[0]) == 4
