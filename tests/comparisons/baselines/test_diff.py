"""Baselines: what was planted is found in the rows that it must change, and only there; what moves
by rounding is called that; and no file that is not whole is ever compared."""

import functools
import inspect
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from gradtwin.comparisons import ops, samples
from gradtwin.comparisons.baselines import diff, diff_report, file, measure, record
from gradtwin.comparisons.baselines.classes import BETTER, NEAR, NEW, REMOVED, WORSE
from gradtwin.comparisons.baselines.diff_report import FORMATS
from gradtwin.comparisons.baselines.file import Baseline, NotComparable
from gradtwin.comparisons.baselines.measure import ARRAYS, Quantity
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.ops import evaluate
from gradtwin.comparisons.ops.optimizers import configurations
from gradtwin.comparisons.samples.activations import SAMPLES as ACTIVATIONS
from gradtwin.comparisons.training.cells import Cell
from scipy.special import ndtr
from typer.testing import CliRunner

from gradtwin import manual, reference

RULES = ("relu", "gelu", "softmax", "linear", "mse_loss", "embedding", "linear_regression")
NAMES = (*RULES, "cosine_annealing_lr", "sgd", "adam")
CELL = Cell("linear_regression", "line", "sgd", 0.1, steps=12)


def shrink(monkeypatch):
    """Few steps, settings and cells: a measurement takes a second."""
    monkeypatch.setattr(measure, "configurations", lambda name: configurations(name)[:2])
    monkeypatch.setattr(measure, "JUDGED", 8)
    monkeypatch.setattr(measure, "GRID", (CELL,))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def stored():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return record.measured(NAMES, repeats=1)


def swapped(side, op, change):
    """A patch: the rule gives change(y, list of gradients) instead."""
    module = getattr(side, ops.named(op).family)
    right = getattr(module, op)

    @functools.wraps(right)
    def rule(*args, **kwargs):
        y, pullback = right(*args, **kwargs)

        def changed(dy):
            found = pullback(dy)
            several = isinstance(found, tuple)
            made = change(y, list(found) if several else [found])[1]
            return tuple(made) if several else made[0]

        changed.constant = getattr(pullback, "constant", None)
        return change(y, [])[0], changed

    if side is reference:  # the torch function, for what is made of torch alone
        rule.__wrapped__ = right.__wrapped__
    return lambda monkeypatch: monkeypatch.setattr(module, op, rule)


def rewritten(module, name, old, new):
    """A patch: the function with a piece of its text in another form."""
    function = inspect.unwrap(getattr(module, name))
    source = inspect.getsource(function)
    assert source.count(old) == 1
    scope = dict(function.__globals__)
    exec(source.replace(old, new), scope)
    return lambda monkeypatch: monkeypatch.setattr(module, name, scope[name])


def scaled(factor, at=None):
    """A change of the gradients, or of the one at this place."""

    def change(y, found):
        made = [
            g if at is not None and i != at else g * g.dtype.type(factor)
            for i, g in enumerate(found)
        ]
        return y, [np.asarray(g) for g in made]

    return change


def value(function):
    return lambda y, found: (np.asarray(function(y)), found)


def single(y, found):
    return y, [np.asarray(g.astype(np.float32).astype(g.dtype)) for g in found]


def single_ndtr(x):
    return ndtr(np.float32(x)).astype(x.dtype)


def doubled_inputs(monkeypatch):
    right = evaluate.drawn

    def drawn(op, row, dtype, seed):
        args, kwargs, dy = right(op, row, dtype, seed)
        return (args, kwargs, 2 * dy) if op == "relu" else (args, kwargs, dy)

    monkeypatch.setattr(evaluate, "drawn", drawn)


def another_step(side, name, change):
    """A patch: an optimizer whose settings are changed first."""
    module = side.optimizers
    right = getattr(module, name)

    @functools.wraps(right, updated=())
    def step(param, grad, state, **settings):
        return right(param, grad, state, **(settings | change(settings)))

    if hasattr(right, "run"):
        step.run = lambda p, g, settings, *rest: right.run(p, g, settings | change(settings), *rest)
    return lambda monkeypatch: monkeypatch.setattr(module, name, step)


def of(name, *arguments, dtype="", where=lambda q: True):
    """The rows of these arguments that have a finite number other than 0."""
    return lambda q: (
        q.name == name
        and q.table == "gradients"
        and (not arguments or argument(q) in arguments)
        and dtype in q.id
        and bool(np.any(np.isfinite(q.manual) & (q.manual != 0)))
        and where(q)
    )


def argument(q):
    """Of a gradient's id, op(sample)/argument/dtype/seed."""
    return q.id.split("/")[-3]


def quantity(q):
    """Of an optimizer's id, name(settings)/stream/quantity/step/dtype/seed."""
    return q.id.split("/")[-4]


def is_tanh(q):
    return "tanh" in q.id and not is_far(q)


def is_erf(q):
    return "tanh" not in q.id and not is_far(q)


def is_far(q):
    return "1000.0" in q.id


def steps(name, *names):
    return lambda q: q.table == "optimizers" and q.name == name and quantity(q) in names


def curve_and(rows):
    """These rows, and the one training, which is of linear_regression by sgd."""
    return lambda q: q.table == "curves" or rows(q)


PLANTED = {
    "a slope by a millionth": (
        swapped(manual, "gelu", scaled(1 + 1e-6)),
        of("gelu", "x"),
        "manual",
    ),
    "a value by one ulp": (
        swapped(manual, "softmax", value(lambda y: np.nextafter(y, 2))),
        of("softmax", "value"),
        "manual",
    ),
    "a forgotten term": (
        rewritten(manual.activations, "softmax", " - (p * h).sum(axis=-1, keepdims=True)", ""),
        of("softmax", "x", where=lambda q: q.manual.size > 1),
        "manual",
    ),
    "a constant of a loss": (
        swapped(manual, "mse_loss", scaled(1.001)),
        curve_and(of("mse_loss", "x", "target", "weight")),
        "manual",
    ),
    "a sign": (
        swapped(manual, "embedding", scaled(-1)),
        lambda q: q.name == "embedding" and argument(q) == "weight" and q.manual.size,
        "manual",
    ),
    "the second of three gradients": (
        swapped(manual, "linear", scaled(0.5, at=1)),
        of("linear", "weight"),
        "manual",
    ),
    "lower precision": (
        swapped(manual, "linear", single),
        of("linear", "x", "weight", "bias", dtype="float64"),
        "manual",
    ),
    "another dtype": (
        swapped(manual, "linear", value(lambda y: y.astype(float))),
        lambda q: q.name == "linear" and argument(q) == "value" and "float32" in q.id,
        "manual",
    ),
    "another shape": (
        swapped(manual, "relu", value(lambda y: y[np.newaxis])),
        lambda q: q.name == "relu" and argument(q) == "value",
        "manual",
    ),
    "a constant inside": (
        rewritten(
            manual.activations, "_gelu_tanh", "(1 + 0.044715 * square)", "(1 + 0.0447 * square)"
        ),
        of("gelu", "value", "x", where=is_tanh),
        "manual",
    ),
    "a dependency": (
        lambda m: m.setattr(manual.normal, "ndtr", single_ndtr),
        of("gelu", "value", "x", dtype="float64", where=is_erf),
        "manual",
    ),
    "lower precision of torch": (
        swapped(reference, "gelu", single),
        of("gelu", "x", dtype="float64"),
        "torch",
    ),
    "torch's slope": (swapped(reference, "gelu", scaled(1 + 1e-6)), of("gelu", "x"), "torch"),
    "torch's value": (
        swapped(reference, "relu", value(lambda y: y * y.dtype.type(1.0001))),
        of("relu", "value"),
        "torch",
    ),
    "both sides at once": (doubled_inputs, of("relu", "x"), "stored"),
    "a schedule": (
        rewritten(manual.schedules, "cosine_annealing_lr", "/ T_max", "/ (T_max + 1e-5)"),
        lambda q: q.name == "cosine_annealing_lr",
        "manual",
    ),
    "a step's size": (
        another_step(manual, "sgd", lambda s: {"lr": s.get("lr", 1e-3) * (1 + 1e-5)}),
        curve_and(steps("sgd", "param")),
        "manual",
    ),
    "a guard of an optimizer": (
        another_step(manual, "adam", lambda s: {"eps": 1e-6}),
        steps("adam", "param"),
        "manual",
    ),
    "a decay rate": (
        another_step(manual, "adam", lambda s: {"betas": (0.9, 0.99)}),
        steps("adam", "param", "exp_avg_sq"),
        "manual",
    ),
    "torch's step": (
        another_step(reference, "sgd", lambda s: {"lr": s.get("lr", 1e-3) * (1 + 1e-5)}),
        curve_and(steps("sgd", "param")),
        "torch",
    ),
    "a gradient of a model": (
        rewritten(manual.models, "linear_regression", '"bias": dbias', '"bias": 3 * dbias'),
        curve_and(of("linear_regression", "parameters.bias")),
        "manual",
    ),
}


def changed(stored, names=NAMES):
    found = diff.compare(stored, record.measured(names))
    return found.moved.set_index("id")


# Of two that are alike one is planted with --sweep.
ALIKE = {
    *("lower precision", "lower precision of torch", "torch's value", "a decay rate", "a sign"),
    *("a step's size", "a constant inside", "a gradient of a model"),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "what", [pytest.param(w, marks=pytest.mark.sweep if w in ALIKE else ()) for w in PLANTED]
)
def test_what_is_planted_is_found_and_only_there(what, stored, monkeypatch):
    plant, expected, side = PLANTED[what]
    plant(monkeypatch)
    moved = changed(stored)
    print(moved)
    must = {q.id for q in stored.quantities.values() if expected(q)}
    assert must
    assert not sorted({*moved.index} ^ must)
    assert set(moved["side"]) == {side}
    assert what == "a value by one ulp" or diff.DIFFERENT in set(moved["class"])


def test_a_second_measurement_is_identical(stored):
    found = diff.compare(stored, record.measured(NAMES))
    assert found.moved.empty
    assert not found.environment


def elsewhere(new, changes):
    about = new.about | {"environment": new.environment | changes}
    return Baseline(new.quantities, about)


def test_what_the_environment_alone_explains_says_so(stored, monkeypatch):
    plant, _, _ = PLANTED["a value by one ulp"]
    plant(monkeypatch)
    new = record.measured(NAMES)
    assert not diff.compare(stored, new).moved["explained"].any()
    changes = {"numpy": "9.9.9", "torch": "9.9.9"}
    other = Baseline(new.quantities, new.about | {"environment": new.environment | changes})
    found = diff.compare(stored, other)
    assert set(found.environment) == {"numpy", "torch"}
    assert set(found.moved["explained"]) == {f"numpy {stored.environment['numpy']} → 9.9.9"}
    changes["source manual"] = "another"
    other = Baseline(new.quantities, new.about | {"environment": new.environment | changes})
    assert not diff.compare(stored, other).moved["explained"].any()


def test_rows_that_come_and_go(stored, monkeypatch):
    gone, *rest = ACTIVATIONS["relu"]
    monkeypatch.setitem(ACTIVATIONS, "relu", [*rest, samples.call(samples.array(2, 2, 2))])
    moved = changed(stored)
    kinds = {kind: set(moved.index[moved["class"] == kind]) for kind in (NEW, REMOVED)}
    assert kinds[REMOVED] == {i for i in stored.quantities if i.startswith(f"relu({gone})/")}
    assert kinds[NEW] == {i.replace(repr(gone), "array(2, 2, 2)") for i in kinds[REMOVED]}
    assert len(moved) == sum(map(len, kinds.values()))


def test_what_raises_is_a_row_and_different(stored, monkeypatch):
    def softmax(x, dim=None, *, dtype=None):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(manual.activations, "softmax", softmax)
    moved = changed(stored)
    of_softmax = {q.id for q in stored.quantities.values() if q.name == "softmax"}
    assert set(moved.index[moved["class"] == REMOVED]) == of_softmax
    raised = moved[moved["class"] == diff.DIFFERENT]
    assert len(raised) == len(moved) - len(of_softmax) == 2 * len([*ops.named("softmax").rows()])
    assert all("raises ZeroDivisionError" in i for i in raised.index)
    assert set(moved["group"]) == {"activations"}


@pytest.mark.parametrize(
    ("old", "margins", "new", "expected"),
    [
        (0.1, (0.1, 0.15), 0.24, "rounding"),  # far from the limit
        (0.3, (0.3, 0.35), 0.39, "rounding"),  # within what one ulp does
        (0.3, (0.3, 0.35), 0.41, WORSE),
        (0.1, (0.1, 0.1), 0.26, WORSE),
        (0.5, (0.5, 0.4), 0.29, BETTER),
        (0.5, (0.5, 0.4), 0.31, "rounding"),
        (0.2, (0.2, 0.2), 0.01, "rounding"),
    ],
)
def test_worse_and_better(old, margins, new, expected):
    a, b = np.array([1.0]), np.array([np.nextafter(1.0, 2)])
    allowed = np.array([1e-15])
    then = Quantity("i", "gradients", "n", a, a, allowed, old, "rounding", margins)
    now = Quantity("i", "gradients", "n", b, a, allowed, new, "rounding", (new,))
    about = {"environment": {}}
    before = Baseline({"i": then}, about)
    found = diff.compare(before, Baseline({"i": now}, about))
    assert list(found.table["class"]) == [expected]
    still = replace(now, manual=a)  # no number has moved
    found = diff.compare(before, Baseline({"i": still}, about))
    assert list(found.table["class"]) == ["identical"]


def test_the_spread_is_that_of_all_rows_of_a_name():
    a, b = np.array([1.0]), np.array([np.nextafter(1.0, 2)])
    allowed = np.array([1e-15])

    def row(i, name, numbers, *margins):
        return Quantity(i, "gradients", name, numbers, a, allowed, margins[0], "rounding", margins)

    before = [
        row("steady", "n", a, 0.3, 0.3),
        row("volatile", "n", a, 0.1, 0.5),
        row("outside", "n", a, 0.1, 40.0),  # a repeat across a kink says nothing about the others
        row("other", "m", a, 0.3, 0.3),
    ]
    old = Baseline({q.id: q for q in before}, {"environment": {}})
    for margin, expected in ((0.69, "rounding"), (0.71, WORSE)):
        now = [row(q.id, q.name, b, margin) for q in before]
        new = Baseline({q.id: q for q in now}, {"environment": {}})
        found = diff.compare(old, new).table.set_index("id")["class"]
        assert found["steady"] == expected
        assert found["volatile"] == "rounding"
        assert found["other"] == WORSE


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (1.0, 2.0, ("1", "2")),
        (1.0, np.nextafter(1.0, 2), ("1", "1.0000000000000002")),
        (0.0, -0.0, ("0", "-0")),
        (3.5, np.nan, ("3.5", "nan")),
        (np.nan, np.nan, ("", "")),  # nothing moved that could be shown
    ],
)
def test_two_numbers_are_told_apart(before, now, expected):
    assert diff_report.told_apart(before, now) == expected


def test_a_file_is_read_as_it_was_written(stored, tmp_path):
    path = tmp_path / "b.parquet"
    file.write(path, stored.quantities.values(), stored.about)
    again = file.read(path)
    for q in stored.quantities.values():
        other = again.quantities[q.id]
        for name in ARRAYS:
            a, b = getattr(q, name), getattr(other, name)
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert (q.margin, q.margins, q.kind) == (other.margin, other.margins, other.kind)
    assert diff.compare(stored, again).moved.empty


def test_what_is_no_whole_baseline_is_refused(stored, tmp_path):
    few = {i: q for i, q in stored.quantities.items() if q.name == "relu"}
    path = tmp_path / "b.parquet"
    file.write(path, few.values(), stored.about)
    whole = path.read_bytes()
    refused = 0
    for cut in (0, 1, 4, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(NotComparable, match="no Parquet file, or damaged"):
            file.read(path)
    for at in range(4, len(whole) - 8, len(whole) // 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = file.read(path)
        except NotComparable:
            refused += 1
        else:  # a byte that means nothing, like the name of the program
            assert list(found.quantities) == list(few)
    assert refused > 40
    path.write_bytes(whole)
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(NotComparable, match=r"damaged: expected \d+ rows"):
        file.read(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(NotComparable, match="a baseline of gradtwin, got another"):
        file.read(path)
    with pytest.raises(NotComparable, match="No such file"):
        file.read(tmp_path / "none.parquet")


def test_a_baseline_of_other_text_is_not_comparable_and_says_why(stored):
    curve = next(q for q in stored.quantities.values() if q.table == "curves")
    of_gpt = replace(curve, id="curve(gpt)", name="gpt")

    def trained_on(digest, *quantities):
        about = {**stored.about, "environment": {**stored.environment, "text": digest}}
        return Baseline({q.id: q for q in quantities}, about)

    both = curve, of_gpt
    assert len(diff.compare(trained_on("a", *both), trained_on("a", *both)).table) == 2
    with pytest.raises(
        NotComparable, match=r"curve\(gpt\) is trained on other text: .* a and has b"
    ):
        diff.compare(trained_on("a", *both), trained_on("b", *both))
    assert len(diff.compare(trained_on("a", curve), trained_on("b", *both)).table) == 2
    assert diff.compare(trained_on("a", curve), trained_on("b", curve)).environment["text"]


def test_objects_are_never_stored():
    with pytest.raises(TypeError, match="expected numbers"):
        file._stored(np.array([object()]))


def said(output):
    """The words of a boxed message."""
    return " ".join(output.replace("│", " ").split())


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_commands(tmp_path, monkeypatch):
    path = tmp_path / "b.parquet"
    record = ("record", "relu", "cosine_annealing_lr", "--out", path, "--jobs", 1, "--repeats", 0)
    result = command(*record)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.parquet"]
    before = path.read_bytes()
    assert command(*record).exit_code == 2  # without a reason
    assert path.read_bytes() == before
    assert command("diff", path, "--jobs", 1).exit_code == 0

    PLANTED["a schedule"][0](monkeypatch)
    saved = [tmp_path / f"d{suffix}" for suffix in FORMATS]
    result = command("diff", path, "--jobs", 1, *(part for p in saved for part in ("--save", p)))
    assert result.exit_code == 1
    assert "2 of 30 rows worse or different" in result.output
    texts = {p.suffix: p.read_text(encoding="utf-8") for p in saved}
    assert "| different | manual | cosine_annealing_lr(" in texts[".md"]
    assert "<details open>" in texts[".md"]
    assert 'data-kind="different"' in texts[".html"]
    assert json.loads(texts[".json"])["counts"]["different"] == 2
    assert len(ElementTree.fromstring(texts[".xml"]).findall(".//failure")) == 2
    assert texts[".csv"].count("\n") == 31
    assert command("diff", path, "--jobs", 1, "--fail-on", "removed").exit_code == 0
    assert command("diff", path, "--fail-on", "nothing").exit_code == 2
    assert command("diff", path, "--save", tmp_path / "d.doc").exit_code == 2
    assert command("diff", tmp_path / "d.csv").exit_code == 2

    assert command(*record, "--reason", "another cosine").exit_code == 0
    history = file.read(path).about["history"]
    assert [entry["reason"] for entry in history] == ["first recording", "another cosine"]
    assert history[1]["classes"]["different"] == 2
    result = command("diff", path, "--jobs", 1, "--json")
    assert json.loads(result.stdout)["failed"] is False

    swapped(manual, "relu", value(lambda y: y + np.inf))(monkeypatch)
    before = path.read_bytes()
    result = command(*record, "--reason", "infinity")
    assert result.exit_code == 2
    assert "not finite where torch's is: relu(" in said(result.output)
    assert path.read_bytes() == before


def test_recordings_that_are_killed_run_at_once_or_find_no_room(tmp_path):
    script = Path(__file__).with_name("recordings.py")
    result = subprocess.run(
        [sys.executable, script, tmp_path, "relu", "gelu", "softmax", "mse_loss"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    print(told)
    whole = file.read(tmp_path / "whole" / "b.parquet")

    assert len(told["killed"]) == 10
    assert any(death["parts"] for death in told["killed"])  # in the middle
    for number, death in enumerate(told["killed"]):
        path = tmp_path / f"killed{number}" / "b.parquet"
        assert death["there"] or death["signal"] == signal.SIGKILL
        if death["there"]:
            assert list(file.read(path).quantities) == list(whole.quantities)
    for number in (0, 1):  # which were gone on with
        folder = tmp_path / f"resumed{number}"
        assert diff.compare(whole, file.read(folder / "b.parquet")).moved.empty
        assert [p.name for p in folder.iterdir()] == ["b.parquet"]

    assert sorted(told["codes"]) == [0, 2]  # the second is refused before it measures
    assert [p.name for p in (tmp_path / "both").iterdir()] == ["b.parquet"]
    assert diff.compare(whole, file.read(tmp_path / "both" / "b.parquet")).moved.empty

    assert told["full"]["code"] == 2
    assert told["full"]["same"]
    assert "the old one is as it was" in said(told["full"]["text"])
    assert all(p.suffix in (".parquet", ".parts") for p in (tmp_path / "full").iterdir())


def test_the_spread_is_sampled_only_where_a_margin_is_near_what_counts(monkeypatch):
    plain = measure._gradients

    def with_margins(task, disturb, row, dtype):
        for q in plain(task, disturb, row, dtype):
            yield replace(q, margin=NEAR if dtype == "float32" else NEAR / 3)

    monkeypatch.setattr(measure, "_gradients", with_margins)
    found = measure.Task("gradients", "relu", 0, 0).measure(repeats=2)
    dtypes = {(q.id.rsplit("/", 2)[1], len(q.margins)) for q in found}
    assert dtypes == {("float32", 3), ("float64", 1)}
