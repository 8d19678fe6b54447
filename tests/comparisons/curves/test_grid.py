"""A grid loses nothing when it is interrupted, and runs nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons import environment
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.curves import kept, pictures
from gradtwin.comparisons.curves.divergence import compare
from gradtwin.comparisons.curves.grid import from_words
from gradtwin.comparisons.curves.kept import Shelf, thinned
from gradtwin.comparisons.training.cells import OPTIMIZERS, Cell
from typer.testing import CliRunner

LINE = Cell("linear_regression", "line", "sgd", 0.1, steps=4)
SMALL = [LINE, replace(LINE, dtype="float32")]
WORDS = ["--model", "linear_regression", "--steps", "4", "--dtype", "all", "--seeds", "1"]


@pytest.fixture(scope="module")
def done():
    return [kept.run(cell) for cell in SMALL]


def same(a, b):
    """Whether two Kept are the same to the bit, NaN too."""
    return a.content == b.content


def test_what_is_kept_comes_back_to_the_bit(done, tmp_path):
    shelf = Shelf(tmp_path / "cells")
    for one in done:
        shelf.keep(one)
    found = Shelf(tmp_path / "cells").found(SMALL)
    assert all(same(found[i], one) for i, one in enumerate(done))
    assert {type(v) for v in found[0].row.values()} <= {str, int, float, type(None)}
    shelf.clear(SMALL)
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize("change", ["torch", "source manual", "processor", "text"])
def test_a_cell_of_another_version_is_run_again_and_that_is_said(
    change, done, tmp_path, monkeypatch
):
    shelf = Shelf(tmp_path)
    for one in done:
        shelf.keep(one)
    other = {**environment.fingerprint(), change: "9.9"}
    monkeypatch.setattr(environment, "fingerprint", lambda: other)
    for anywhere in (False, True):
        later = Shelf(tmp_path, anywhere)
        counts = anywhere and change == "processor"
        assert len(later.found(SMALL)) == (2 if counts else 0)
        assert counts or f"run again: 2, {change} " in later.told({})
        assert counts or "→ 9.9" in later.told({})


@pytest.mark.parametrize("beside", ["revision", "threads openmp"])
def test_what_no_result_depends_on_has_no_part_in_it(beside, done, tmp_path, monkeypatch):
    Shelf(tmp_path).keep(done[0])
    other = {**environment.fingerprint(), beside: "9"}
    monkeypatch.setattr(environment, "fingerprint", lambda: other)
    assert Shelf(tmp_path).found(SMALL).keys() == {0}


def test_a_worker_with_other_versions_is_refused(done, tmp_path):
    other = replace(done[0], environment={**done[0].environment, "torch": "1.0"})
    with pytest.raises(ConnectionError, match=r"torch 1\.0 → "):
        Shelf(tmp_path, anywhere=True).keep(other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["", "[]", "{}", "{", "row", "another"])
def test_a_damaged_file_is_no_cell(damage, done, tmp_path):
    shelf = Shelf(tmp_path)
    shelf.keep(done[0])
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    if damage == "row":
        content = {name: v for name, v in content.items() if name != "row"}
    elif damage == "another":
        content["row"]["id"] = "curve(x)/float64/0"
    path.write_text(json.dumps(content) if damage in ("row", "another") else damage)
    assert shelf.found(SMALL) == {}
    assert shelf.told({}) == "run again: 1, it cannot be read"


def test_of_a_long_run_some_steps_are_kept_and_those_that_the_row_tells_of(monkeypatch):
    monkeypatch.setattr(kept, "POINTS", 20)
    found = compare(replace(LINE, steps=90))
    row = {**found.row, "max_drift_step": 2, "outside_step": 4}
    few = thinned(replace(found, row=row))
    assert len(few.steps) < 24
    assert {1, 2, 4, row["max_ratio_step"], 90} <= {*few.steps}
    assert np.array_equal(few.reference, found.reference[few.steps - 1])
    assert len(few.content) < 2**16


def test_all_is_each_choice_and_what_does_not_exist_is_left_out_and_said():
    grid = from_words({"model": ["all"], "data": ["line", "breast_cancer"]}, {})
    models = {cell.model for cell in grid.cells}
    assert models == {"linear_regression", "logistic_regression", "mlp"}
    assert "do not exist: data: " in grid.told
    every = from_words({"model": ["linear_regression"], "optimizer": ["all"]}, {})
    assert [cell.optimizer for cell in every.cells] == OPTIMIZERS
    assert every.told == ""
    some = from_words({"model": ["linear_regression"], "optimizer": ["all"]}, {"momentum": 0.9})
    assert {cell.optimizer for cell in some.cells} == {"sgd", "rmsprop"}


@pytest.mark.parametrize(
    ("given", "settings", "text"),
    [
        ({"model": ["mlp", "logistic_regression"], "data": ["digits"]}, {}, "needs binary data"),
        ({"model": ["all", "mpl"]}, {}, "did you mean mlp"),
        ({"model": ["mlp"], "lr": [0.1, -1.0]}, {}, "expected at least 0"),
        ({"model": ["mlp"], "optimizer": ["all"]}, {"nothing": 1}, "no setting of"),
    ],
)
def test_what_was_named_and_is_in_no_cell_is_an_error(given, settings, text):
    with pytest.raises(ValueError, match=text):
        from_words(given, settings)


def test_what_a_model_does_not_have_makes_no_cell_twice():
    words = {"model": ["linear_regression"], "activation": ["relu", "tanh"]}
    assert len(from_words(words, {}).cells) == 1


def test_of_many_cells_the_worst_are_shown(done, monkeypatch):
    monkeypatch.setattr(pictures, "SHOWN", 2)
    rows = [("rounding", 0.1), ("different", 0.2), ("rounding", 0.9), ("rounding", 0.3)]
    made = [
        replace(done[0], row={**done[0].row, "id": str(i), "class": kind, "lockstep_margin": m})
        for i, (kind, m) in enumerate(rows)
    ]
    assert [k.row["id"] for k in pictures.worst(made)] == ["1", "2"]
    shown = pictures.of(made)
    assert (
        "2 trainings of 4, those nearest to their limits. 1: different" in shown["curves.png"].alt
    )
    assert "at most 0.9, of linear_regression, sgd, float64" in shown["heat.png"].alt
    assert "y = 2x + 1" in shown["line.png"].alt


def command(out, *words):
    return [sys.executable, "-m", "gradtwin", "curves", *WORDS, *words, "--out", str(out)]


def started(out, *words):
    return subprocess.Popen(
        command(out, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(folder, count, process):
    while len(list(folder.glob("*/curves.cells/*.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.sweep
def test_a_grid_that_is_killed_goes_on(tmp_path):
    words = ["--optimizer", "all", "--jobs", "2", "--steps", "40"]
    process = started(tmp_path, *words)
    wait_for(tmp_path, 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2)  # its workers end with it
    (folder,) = tmp_path.iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "curves.cells").iterdir()}
    assert 5 <= len(before) < 2 * 2 * len(OPTIMIZERS)
    later = started(tmp_path, *words)
    wait_for(tmp_path, len(before) + 1, later)
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "curves.cells").iterdir()}
    assert before.items() <= after.items()  # none was written again
    text = later.communicate()[0]
    assert later.returncode == 0, text
    assert f"done before: {len(before)}" in text
    frame = pd.read_parquet(folder / "curves.parquet")
    assert len(frame) == frame["id"].nunique() == 2 * 2 * len(OPTIMIZERS)
    assert not (folder / "curves.cells").exists()


@pytest.mark.sweep
def test_a_worker_of_a_cluster_that_is_killed_is_replaced_by_the_others(tmp_path):
    pytest.importorskip("distributed", reason="the extra cluster")
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        out = tmp_path / "out"
        words = ["--optimizer", "all", "--steps", "40", "--cluster", cluster.scheduler_address]
        process = started(out, *words)
        wait_for(out, 3, process)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        text = process.communicate()[0]
    assert process.returncode == 0, text
    (folder,) = out.iterdir()
    frame = pd.read_parquet(folder / "curves.parquet")
    assert len(frame) == frame["id"].nunique() == 2 * 2 * len(OPTIMIZERS)
    assert set(frame["class"]) <= {"identical", "rounding"}


def test_the_command_goes_on_from_what_is_kept(tmp_path):
    """As after a kill: one of two cells lies in the folder, marked, and is not run again."""
    out = tmp_path / "results"
    words = command(out, "--jobs", "1")[3:]
    probe = CliRunner().invoke(app, words)
    assert probe.exit_code == 0, probe.output
    (folder,) = out.iterdir()
    assert not (folder / "curves.cells").exists()
    one = kept.run(LINE)
    marked = replace(one, row={**one.row, "note": "kept"})
    Shelf(folder / "curves.cells").keep(marked)
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert "done before: 1" in again.output
    notes = pd.read_parquet(folder / "curves.parquet").set_index("id")["note"]
    assert notes[one.row["id"]] == "kept"
    assert sorted(notes) == ["", "kept"]
