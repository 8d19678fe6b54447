"""The command line, as a user meets it."""

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
import torch
from gradtwin.comparisons import environment, samples
from gradtwin.comparisons.bench import calibration, costs, noise
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.curves.grid import GRID
from gradtwin.comparisons.report import files
from gradtwin.comparisons.report.tables import SCHEMA
from gradtwin.comparisons.verdict.classes import LIMIT, PARTED, ROUNDING
from gradtwin.reference import adapters
from typer.testing import CliRunner

from gradtwin import manual

SHORT = ["curves", "--model", "linear_regression", "--steps", "20", "--jobs", "1"]


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, list(args))


def test_gradients_of_one_op(call, tmp_path):
    result = call("gradients", "relu", "--jobs", "1")
    assert result.exit_code == 0
    assert "rows explained" in result.output
    frames = [
        pd.read_csv(tmp_path / "results/relu/gradients.csv"),
        pd.read_parquet(tmp_path / "results/relu/gradients.parquet"),
    ]
    for frame in frames:
        assert frame["id"].is_unique
        assert set(frame["schema"]) == {SCHEMA}
        assert {
            "op", "sample", "argument", "dtype", "max_ulp", "index", "manual", "reference",
            "error", "floor", "margin", "resolution", "class",
        } <= set(frame.columns)  # fmt: skip
    assert (
        frames[0]["manual"].dropna().to_numpy() == frames[1]["manual"].dropna().to_numpy()
    ).all()
    assert (tmp_path / "results/relu/gradients.md").read_text().startswith("| op")
    assert "<table>" in (tmp_path / "results/relu/report.html").read_text()


def test_curves_make_a_grid_and_pictures(call, tmp_path):
    result = call(*SHORT, "--dtype", "float32", "--dtype", "float64", "--lr", "0.1", "--lr", "0.2")
    assert result.exit_code == 0, result.output
    (out,) = (tmp_path / "results").iterdir()
    assert len(pd.read_csv(out / "curves.csv")) == 4
    for name in ("curves.png", "line.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_json_is_all_there_is_on_standard_output(call):
    result = call(*SHORT, "--json")
    found = json.loads(result.stdout)
    assert found["explained"] is True
    assert found["tables"]["curves"][0]["class"] in ("identical", "rounding")


def test_something_different_exits_with_1(call, monkeypatch):
    right = manual.activations.tanh

    def wrong(x):
        y, pullback = right(x)
        return y, lambda dy: 0.999 * pullback(dy)

    monkeypatch.setattr(manual.activations, "tanh", wrong)
    result = call("gradients", "tanh", "--jobs", "1")
    assert result.exit_code == 1
    assert "different: tanh(array(3, 4))/x/float64/0" in result.output


def test_the_first_different_step_and_tensor_are_named(call, monkeypatch):
    right = manual.optimizers.sgd
    monkeypatch.setattr(
        manual.optimizers, "sgd", lambda p, g, s, *, lr: right(p, g, s, lr=lr * 1.000001)
    )
    result = call(*SHORT)
    assert result.exit_code == 1
    assert ": step 1, " in result.output


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["gradients", "sigmod"], "did you mean sigmoid"),
        (["optimizers", "adan"], "did you mean adam"),
        (["curves", "--model", "mpl"], "did you mean mlp"),
        (["curves", "--optimizer", "sdg"], "did you mean sgd"),
        (["curves", "--lr", "-1"], "lr: expected at least 0"),
        (["curves", "--steps", "0"], "steps: expected at least 1"),
        (["curves", "--seeds", "0"], "greater than or equal to 1"),
        (["curves", "--model", "logistic_regression", "--data", "digits"], "needs binary data"),
        (["curves", "--setting", "momentum"], "NAME=VALUE"),
        (["curves", "--hidden", "a"], "widths like 32"),
        (["curves", "--regime", "minibatch"], "did you mean mini-batch"),
        (["show", "gelo"], "did you mean gelu"),
        (["schedules", "cosine"], "the nearest are cosine_annealing_lr"),
        (["optimizers", "--stream", "smooth"], "expected one of mixed, trained, fading"),
        (["--seed", "1", "gradients"], "behind gradients"),
        (["gradients", "relu", "--device", "gpu"], "expected cpu, cuda or mps, got 'gpu'"),
        (["record", "relu", "--device", "mps"], "mps has no float64"),
        (["mutants", "--half", "--no-reference"], "one of --half and --no-reference, got both"),
        (["mutants", "tahn", "--no-reference"], "did you mean tanh"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(call, args, text):
    result = call(*args)
    assert result.exit_code == 2
    assert text in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output


def test_an_out_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = call("gradients", "relu", "--out", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'}: expected a folder, got a file" in result.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["relu", "mlp", "cross_entropy", "adam", "lbfgs", "cyclic_lr"])
def test_show_fits_the_rule_and_its_mirror(call, name):
    result = call("show", name)
    assert result.exit_code == 0
    assert f"def {name}(" in result.output
    assert "reference/" in result.output
    assert f"  {name}(" in result.output


def test_the_schedules_are_a_table_and_a_picture(call, tmp_path):
    result = call("schedules", "step_lr", "cyclic_lr", "--out", str(tmp_path))
    assert result.exit_code == 0
    out = tmp_path / "step_lr+cyclic_lr"
    assert (out / "schedules.png").read_bytes().startswith(b"\x89PNG")
    assert set(pd.read_csv(out / "schedules.csv")["quantity"]) == {"lr", "momentum"}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = files.write(tmp_path / "table.csv", b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    "kill",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.sweep),
        pytest.param(signal.SIGKILL, marks=pytest.mark.sweep),
    ],
)
def test_an_interrupted_run_writes_nothing(tmp_path, kill):
    command = [sys.executable, "-m", "gradtwin", "gradients", "--jobs", "2", "--out", "out"]
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            # a shell in the background hands down that SIGINT is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    while "rounding" not in printed.read_text():  # the first row
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(kill)
    process.wait(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in printed.read_text()
    assert list((tmp_path / "out").iterdir()) == []


def test_bench_gives_ratios(call, tmp_path):
    result = call("bench", "optimizers", "sgd", "sparse_adam")
    assert result.exit_code == 0
    assert "momentum=0.9" in result.output
    frame = pd.read_csv(tmp_path / "results/optimizers+sgd+sparse_adam/bench_optimizers.csv")
    assert (frame["to_loop"] == frame["manual"] / frame["loop"]).all()
    assert frame.set_index("optimizer").loc["sparse_adam", "to_fused"] != 0
    table = "results/optimizers+sgd+sparse_adam/bench_optimizers.csv"
    assert call("bench", "optimizers", "sgd", "--against", table).output.count(", was ") > 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rule"], "did you mean rules?"),
        (["trajectory"], "did you mean trajectories?"),
        (["rules", "reluu"], "did you mean relu"),
        (["trajectories", "adan"], "did you mean adam"),
        (["noise", "relu"], "expected none with noise"),
        (["tape", "--against", "old.csv"], "old.csv"),
        (["--against", "old.csv"], "with one subject"),
    ],
)
def test_what_bench_does_not_know(call, args, said):
    result = call("bench", *args)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def small_bench(monkeypatch):
    """Two subjects, of one small case each, whose bound is missed, and met."""
    monkeypatch.setattr("gradtwin.comparisons.cli.bench.SUBJECTS", {"noise": "Noise", "tape": "T"})
    monkeypatch.setattr("gradtwin.comparisons.bench.tape.rows.__defaults__", ((10,), 1))
    monkeypatch.setattr(costs, "TURN", 1e-9)
    monkeypatch.setattr(noise.rows, "__defaults__", (1,))
    networks = {
        "slow": (noise.pointwise, samples.call(samples.array(2)), 1e-3),
        "fast": (noise.pointwise, samples.call(samples.array(3)), 1e6),
    }
    monkeypatch.setattr(noise, "NETWORKS", networks)


def test_bench_holds_what_it_finds_to_bounds_and_to_an_earlier_table(call, tmp_path, small_bench):
    result = call("bench", "noise")
    assert result.exit_code == 0, result.output
    assert result.output.count(", missed") == 1
    assert "1 of 2 bounds are met; the largest excess is " in result.output
    table = (tmp_path / "results/bench_noise.csv").rename(tmp_path / "old.csv")
    frame = pd.read_csv(table)
    assert list(frame["id"]) == ["noise/slow", "noise/fast"]
    assert {"ratio", "low", "high", "bound"} <= set(frame.columns)
    again = call("bench", "noise", "--against", str(table), "--quiet")
    assert again.output.startswith("1 of 2 bounds")
    assert len(again.output.splitlines()) == 1
    again = call("bench", "noise", "--against", str(table))
    assert again.output.count(f", was {frame['ratio'][0]:.2f}") >= 1
    assert again.output.count(", was ") == 2


def test_bench_without_a_subject_times_all(call, tmp_path, small_bench):
    result = call("bench", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {s: len(rows) for s, rows in found.items()} == {"noise": 2, "tape": 1}
    assert len(json.loads(call("bench", "noise", "--json").stdout)) == 2
    names = {path.name for path in (tmp_path / "results").glob("*.csv")}
    assert names == {"bench_noise.csv", "bench_tape.csv"}
    (last,) = call("bench", "--quiet").output.splitlines()
    assert last.startswith("1 of 2 bounds are met")
    assert last.endswith("of noise: slow.")


def test_bench_of_rules_is_held_against_an_earlier_one(call, tmp_path, monkeypatch):
    monkeypatch.setattr("gradtwin.comparisons.bench.rules.rows.__defaults__", ((100, 1000), 3))
    assert call("bench", "rules", "relu").exit_code == 0
    table = tmp_path / "results/rules+relu/bench_rules.csv"
    assert list(pd.read_csv(table)["elements"]) == [100, 1000]
    assert table.with_suffix(".png").stat().st_size > 1000
    result = call("bench", "rules", "relu", "--against", str(table))
    assert result.output.count(", was ") == 2
    assert "of 1 bounds are met" in result.output  # those of the means are for all rules
    table.write_text("a,b\n1,2\n")
    assert call("bench", "rules", "relu", "--against", str(table)).exit_code == 2


def test_calibrate_measures_what_is_chosen(call, tmp_path, monkeypatch):
    cells = [replace(cell, steps=5) for cell in GRID[-3:]]
    monkeypatch.setattr(calibration, "GRID", tuple(cells))
    result = call("calibrate", "--only", "curves", "--jobs", "1", "--threads", "2")
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(tmp_path / "results/calibration.csv")
    assert frame["what"].value_counts().to_dict() == {"curves, lockstep": 3, "curves, free": 3}
    assert (frame["floors"] <= LIMIT).all()
    assert "not rounding" in result.output
    result = call("calibrate", "--only", "curve")
    assert result.exit_code == 2
    assert "did you mean curves" in " ".join(result.output.replace("│", " ").split())


def test_calibrate_measures_again_on_each_set_of_kernels(call, tmp_path, monkeypatch):
    def measured(command, env, **kwargs):
        assert {"calibrate", "--only=curves", f"--threads={env['OMP_NUM_THREADS']}"} <= {*command}
        beyond = env["OPENBLAS_CORETYPE"] == "Prescott"
        kind = PARTED if beyond else ROUNDING
        rows = [calibration._row("curves, free", "a", 9.0 if beyond else 0.5, kind)]
        return subprocess.CompletedProcess(command, int(beyond), json.dumps(rows))

    monkeypatch.setattr(subprocess, "run", measured)
    monkeypatch.setattr(environment, "_cpuinfo", lambda name: "pni avx2")
    result = call("calibrate", "--kernels", "--only", "curves")
    assert result.exit_code == 1
    assert result.output.count("not rounding") == 4
    frame = pd.read_csv(tmp_path / "results/calibration.csv")
    assert frame["id"].is_unique
    assert frame["kernels"].str.contains("Prescott").tolist() == [True, True, False, False]
    assert frame["floors"].tolist() == [9, 9, 0.5, 0.5]


def test_only_the_kernels_of_the_processor_are_asked_for(monkeypatch):
    for flags, count in (("", 1), ("fpu pni", 1), ("pni avx2", 2), ("pni avx2 avx512f", 3)):
        monkeypatch.setattr(environment, "_cpuinfo", lambda name, flags=flags: flags)
        found = environment.kernels()
        assert [each["OMP_NUM_THREADS"] for each in found] == ["1", "2"] * count
        assert all(("OPENBLAS_CORETYPE" in each) == bool(flags) for each in found)


def test_without_a_device_there_is_one_clear_line(call, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = call("gradients", "relu", "--device", "cuda")
    assert result.exit_code == 2
    assert "sees no cuda device here" in " ".join(result.output.replace("│", " ").split())


def test_torchs_side_is_computed_on_the_device(monkeypatch):
    monkeypatch.setenv("GRADTWIN_DEVICE", "meta")
    assert adapters.tensor(np.ones(3)).device.type == "meta"
    assert adapters.tensor(3.0) == 3.0
