"""The rules on PyTorch's own test inputs and error inputs, and on bad calls."""

import numpy as np
import pytest
from gradtwin.comparisons import ops
from gradtwin.comparisons.cli.coverage import others
from gradtwin.comparisons.gradients import accuracy, bad_tape, coverage
from gradtwin.comparisons.gradients.accuracy import TORCH
from gradtwin.comparisons.ops import bad_calls, evaluate
from gradtwin.comparisons.optimizers import bad_calls as optimizers
from gradtwin.comparisons.schedules import bad_calls as schedules
from gradtwin.comparisons.verdict.classes import (
    DIFFERENT,
    DTYPES,
    IDENTICAL,
    ROUNDING,
    UNDECIDED,
)
from typer.testing import CliRunner

from gradtwin import manual, reference


def is_for_a_gpu_alone(name):
    """As batch_norm without cuDNN."""
    return name in coverage.differentiable() and not coverage.differentiable()[name].dtypes


RULED = [
    name
    for name, names in coverage.entries().items()
    if names & {op for op in ops.names() if ops.named(op).family != "models"}
    and not is_for_a_gpu_alone(name)
]
OWN = [name for name in RULED if name not in coverage.differentiable()]


@pytest.fixture(scope="session")
def dtypes(pytestconfig):
    """float32, where rounding shows; with --sweep both."""
    return DTYPES if pytestconfig.getoption("sweep") else ["float32"]


@pytest.fixture(scope="session")
def cases(pytestconfig, dtypes):
    """The cases of an entry, made once: of torch's samples and of bad calls eight, with --sweep
    all, as `gradtwin coverage` has them."""
    found = {}
    most = None if pytestconfig.getoption("sweep") else 8

    def of(name):
        if name not in found:
            found[name] = coverage.entry(name, dtypes=dtypes, most=most)
        return found[name]

    return of


@pytest.mark.parametrize("name", RULED)
def test_every_sample_and_every_bad_call_is_explained(cases, name):
    row, found = cases(name)
    print(row)
    wrong = [c for c in found if c["class"] in (DIFFERENT, UNDECIDED)]
    assert not wrong, [(c["id"], c["note"]) for c in wrong[:5]]
    assert row["samples"] > 0
    assert row["explained"] + row["inexpressible"] == row["samples"]
    assert row["refused"] == row["error_inputs"]
    assert row["matched"] + row["incomparable"] == row["bad_calls"]


@pytest.mark.parametrize("name", OWN)
def test_what_torch_has_no_samples_of_has_ten_of_ours(cases, dtypes, name):
    """Five in each of both dtypes, at least."""
    row, _ = cases(name)
    assert row["samples"] >= 5 * len(dtypes)


def test_fewer_of_many_cases_are_spread_over_all():
    (whole, every), (few, some) = (coverage.entry("nn.functional.relu", most=m) for m in (None, 2))
    assert few["samples"] == 4 < whole["samples"]  # two in each dtype
    assert few["bad_calls"] == 2 < whole["bad_calls"]
    assert {c["id"] for c in some} < {c["id"] for c in every}


def test_a_wrong_slope_and_a_missing_check_are_open(monkeypatch):
    def relu(x):
        y = np.where(x > 0, x, 0)

        def pullback(dy):
            return dy

        return y, pullback

    monkeypatch.setattr(manual.activations, "relu", relu)
    row, found = coverage.entry("nn.functional.relu")
    wrong = [c for c in found if c["class"] == DIFFERENT]
    assert row["class"] == DIFFERENT
    assert row["explained"] < row["samples"]
    assert row["matched"] < row["bad_calls"]
    assert {c["what"] for c in wrong} == {"sample", "bad call"}


@pytest.mark.parametrize(
    ("message", "refuses"),
    [
        ("p: expected a number, got 'a'", True),
        ("x[0]: expected one axis, got 2", True),
        ("wrong", False),
        ("pp: expected a number", False),
    ],
)
def test_a_refusal_names_the_argument(message, refuses):
    def call():
        raise ValueError(message)

    assert bad_calls.outcome(call, ["x", "p"])[1] is refuses


def test_a_crash_is_no_refusal():
    assert bad_calls.outcome(lambda: 1 / 0, ["x"]) == ("ZeroDivisionError: division by zero", False)


@pytest.mark.parametrize("name", others())
def test_optimizers_schedules_and_the_tape_refuse_what_torch_refuses(name):
    row, found = others()[name](name)
    wrong = [c for c in found if c["class"] in (DIFFERENT, UNDECIDED)]
    assert not wrong, [(c["id"], c["note"]) for c in wrong[:5]]
    assert row["bad_calls"] > 15
    assert row["matched"] > row["incomparable"]


def test_an_optimizer_that_looks_at_nothing_is_open(monkeypatch):
    def sgd(param, grad, state, *, lr=1e-3):
        return np.asarray(param) - lr * np.asarray(grad), {}

    monkeypatch.setattr(manual.optimizers, "sgd", sgd)
    row, found = optimizers.entry("sgd")
    wrong = {c["call"].rpartition("; ")[2] for c in found if c["class"] == DIFFERENT}
    assert {"lr: -1", "param: longdouble", "param: a list", "grad: the other byte order"} <= wrong
    assert row["class"] == DIFFERENT


def test_a_schedule_that_looks_at_nothing_is_open(monkeypatch):
    def exponential_lr(steps, *, lr, gamma):
        return lr * gamma ** np.asarray(steps, float)

    monkeypatch.setattr(manual.schedules, "exponential_lr", exponential_lr)
    row, found = schedules.entry("exponential_lr")
    assert row["class"] == DIFFERENT
    assert any("lr: -1" in c["call"] for c in found if c["class"] == DIFFERENT)


def test_a_tape_that_looks_at_nothing_is_open(monkeypatch):
    monkeypatch.setattr("gradtwin.manual.tape.array", lambda **given: next(iter(given.values())))
    row, found = bad_tape.entry()
    assert row["class"] == DIFFERENT
    assert any("longdouble" in c["call"] for c in found if c["class"] == DIFFERENT)


def test_coverage_lists_what_has_no_rule_and_what_cannot_be_judged():
    entries = coverage.entries()
    assert len(entries) > 500
    row, found = coverage.entry("fft.fft")
    assert (row["class"], row["rule"], row["explained"], found) == ("no rule", None, 0, [])
    assert row["samples"] > 0


def test_an_entry_is_of_the_first_of_its_names_that_is_a_rule():
    every = coverage.differentiable()
    assert coverage.rule_name(every["max.binary"]) == "max"
    assert coverage.rule_name(every["maximum"]) == "maximum"
    assert coverage.rule_name(every["clamp"]) == "clamp"


def test_what_is_written_into_and_what_has_too_many_axes_is_not_expressible():
    _, found = coverage.entry("amax", most=1)
    notes = {c["note"] for c in found if c["class"] == bad_calls.INEXPRESSIBLE}
    assert notes >= {"a tensor that is written into", "NumPy has no array of 65 axes"}


def test_each_of_many_operands_is_spoiled():
    args = "i,i->", np.ones(2), np.ones(2)
    every = list(bad_calls.spoiled(manual.products.einsum, args, {}))
    names = {what.partition(":")[0] for what, _, _ in every}
    assert names == {"equation", "operands.0", "operands.1"}
    assert all(len(args) == 3 and not kwargs for _, args, kwargs in every)


def test_another_entry_of_the_name_of_a_rule_has_none():
    """Tensor.unfold takes windows along one axis, and F.unfold makes columns of them."""
    entries = coverage.entries()
    assert "unfold" not in entries["unfold"]
    assert "unfold" in entries["nn.functional.unfold"]
    row, _ = coverage.entry("unfold", dtypes=["float64"], most=2)
    assert (row["class"], row["rule"]) == ("no rule", None)


def test_the_command_writes_both_tables(tmp_path):
    from gradtwin.comparisons.cli.app import app

    result = CliRunner().invoke(app, ["coverage", "relu", "--out", str(tmp_path), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    assert "8 of 8 samples explained" in " ".join(result.output.split())
    assert (tmp_path / "relu/coverage.parquet").exists()
    assert (tmp_path / "relu/coverage_cases.parquet").exists()
    wrong = CliRunner().invoke(app, ["coverage", "reluu", "--out", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "did you mean relu" in " ".join(wrong.output.split())


def test_accuracy_tells_which_side_is_nearer_and_what_is_a_convention():
    rows = [r for r in accuracy.rows("tanh") if r["argument"] == "x" and r["kind"] == "corner"]
    assert max(r["torch_ulp"] for r in rows) > 1e6 > 10 > max(r["manual_ulp"] for r in rows)
    kink = next(r for r in accuracy.rows("relu") if r["kind"] == "corner" and r["argument"] == "x")
    assert kink["conventions"] == 2  # at 0 and −0
    assert kink["manual_ulp"] == kink["torch_ulp"] == 0


def test_accuracy_sees_a_formula_that_loses_digits(monkeypatch):
    def tanh(x):
        y, _ = reference.activations.tanh(x)

        def pullback(dy):
            return dy * (1 - y * y) * (1 + 1e-9)

        return y, pullback

    monkeypatch.setattr(manual.activations, "tanh", tanh)
    rows = [r for r in accuracy.rows("tanh", dtypes=["float64"]) if r["kind"] == "sample"]
    assert {r["nearer"] for r in rows if r["argument"] == "x"} == {TORCH}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("op", [op for op in ops.names() if ops.named(op).family != "models"])
def test_no_rule_is_less_accurate_than_torch(op, dtypes):
    """Where torch is nearer to the exact value, rounding is all that is between them; so where that
    is all, no exact value is asked for."""
    for kind, call in ops.named(op).rows():
        for dtype in dtypes:
            verdicts = evaluate.judge_inputs(op, evaluate.drawn(op, call, dtype, 0), dtype)
            if any(v.kind not in (IDENTICAL, ROUNDING) for v in verdicts.values()):
                for row in accuracy.of_call(op, kind, call, dtype):
                    assert row["nearer"] != TORCH or row["class"] in (IDENTICAL, ROUNDING), row


def test_a_rule_that_is_less_accurate_is_seen(monkeypatch):
    def tanh(x):
        y, pullback = reference.activations.tanh(x)
        return y, lambda dy: pullback(dy) * np.asarray(1 + 1e-4, dy.dtype)

    monkeypatch.setattr(manual.activations, "tanh", tanh)
    with pytest.raises(AssertionError, match="tanh"):
        test_no_rule_is_less_accurate_than_torch("tanh", ["float32"])
