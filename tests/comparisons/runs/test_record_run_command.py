"""One command that makes all runs of a recording."""

import json
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.runs import parts, turns
from gradtwin.comparisons.runs.comparison import compare
from gradtwin.comparisons.runs.driving import FIRST_STEP, RUNS, Script
from gradtwin.comparisons.runs.recording import AGAIN, read
from torch import nn
from typer.testing import CliRunner

from gradtwin import record_run

SCRIPT = """
import sys, torch, gradtwin
from torch import nn
torch.manual_seed(0)
model = nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]) if sys.argv[1:] else 0.1)
with gradtwin.record_run("anything.parquet", model) as run:
    for step in range(3):
        loss = model(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        run.step(loss)
        optimizer.step()
"""

DEAR = pytest.mark.sweep  # each process imports torch


def dear(*values):
    return pytest.param(*values, marks=DEAR)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def called(text, *arguments):
        (tmp_path / "train.py").write_text(text)
        command = ["record-run", "train.py", *arguments, "--out", "old.parquet"]
        result = CliRunner().invoke(app, command)
        assert "Traceback" not in result.output
        return result.exit_code, " ".join(result.output.replace("│", "").split())

    return called


@DEAR
def test_all_runs_by_one_command(call, tmp_path):
    status, said = call(SCRIPT, "0.2")
    assert (status, said) == (
        0, "old.parquet: 3 steps, which repeat themselves, and six perturbed runs.",
    )  # fmt: skip
    found = read(tmp_path / "old.parquet")
    assert sorted(map(int, found.runs)) == sorted(RUNS)
    assert (found.losses() == found.losses(7)).all()
    assert (found.losses() != found.losses(1)).any()
    assert {p.name for p in tmp_path.iterdir()} == {"train.py", "old.parquet"}
    subprocess.run([sys.executable, "train.py", "0.2"], cwd=tmp_path, check=True)
    new = read(tmp_path / "anything.parquet")
    assert compare(found, new).row["class"] == "identical"
    subprocess.run([sys.executable, "train.py", "0.2001"], cwd=tmp_path, check=True)
    row = compare(found, read(tmp_path / "anything.parquet")).row
    assert (row["class"], row["outside_step"], row["kind"]) == ("different", 2, "optimizer")


def train(path, lr=0.1):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with record_run(path, model) as run:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            run.step(loss)
            optimizer.step()


def test_a_script_learns_its_turn_from_the_environment(tmp_path, monkeypatch):
    """Its own path is left alone; --first-step ends the six after their first step."""
    (tmp_path / "train.py").write_text("")
    for runs in (RUNS, FIRST_STEP):
        made = Script(tmp_path / "train.py", [], tmp_path / "old.parquet")
        for run in made.missing(runs):
            for name, value in turns.given(run, made.out).items():
                monkeypatch.setenv(name, value)
            with pytest.raises(SystemExit) if run > AGAIN else nullcontext():
                train(tmp_path / "mine.parquet")
            with pytest.raises(ValueError, match=r"expected one call .*, got a second"):
                train(tmp_path / "mine.parquet")
        monkeypatch.delenv(turns.TURN)
        assert not (tmp_path / "mine.parquet").exists()
        assert made.missing(runs) == []
        assert made.merge(runs).keys() == set(map(str, runs))
        monkeypatch.setattr(turns, "_taken", [])
        train(tmp_path / "new.parquet", lr=0.101)
        row = compare(read(made.out), read(tmp_path / "new.parquet")).row
        assert row["class"] == ("different" if runs == RUNS else "undecided")
    assert {p.name for p in tmp_path.iterdir()} == {"train.py", "old.parquet", "new.parquet"}


@DEAR
def test_the_first_step_alone(call, tmp_path):
    status, said = call(SCRIPT, "--first-step")
    assert (status, said.endswith("six perturbed runs of the first step.")) == (0, True)
    found = read(tmp_path / "old.parquet")
    assert sorted(map(int, found.runs)) == [0, 7, *range(11, 17)]
    assert [found.runs[str(run)]["steps"] for run in (0, 7, 11)] == [3, 3, 1]
    changed = SCRIPT.replace(".mean()", ".mean() * 1.00001")
    (tmp_path / "train.py").write_text(changed)
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)
    row = compare(found, read(tmp_path / "anything.parquet")).row
    assert (row["class"], row["outside_step"]) == ("different", 1)


@DEAR
def test_a_run_that_does_not_repeat_itself_is_told_at_once(call):
    status, said = call(
        SCRIPT.replace("randn(8, 4)", "randn(8, 4) + torch.seed() % 7 * (step > 0)")
    )
    assert status == 1
    assert "does not repeat itself: from step 2, " in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import gradtwin\n", "train.py never called gradtwin.record_run"),
        ("1 / 0\n", "the run itself ended with 1: ZeroDivisionError: division by zero"),
        dear(
            SCRIPT + SCRIPT, "expected one call in a script under gradtwin record-run, got a second"
        ),
        dear(SCRIPT.replace("optimizer.step()", "1 / 0"), "ZeroDivisionError: division by zero"),
        dear(
            SCRIPT.replace("optimizer.step()", "sys.exit()"), "ended before the block of record_run"
        ),
        dear(SCRIPT.replace(", model)", ")"), "model: expected a model or its named parameters"),
    ],
    ids=["never", "at once", "twice", "raises", "exits", "no model"],
)
def test_a_script_that_makes_no_recording(call, tmp_path, text, said):
    status, output = call(text, "--jobs", "1")
    assert status == 2
    assert "".join(said.split()) in "".join(output.split())
    assert not (tmp_path / "old.parquet").exists()


def test_a_script_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["record-run", "nowhere.py"])
    assert (result.exit_code, "there is no such file" in result.output) == (2, True)
    assert not list(tmp_path.iterdir())


@DEAR
def test_what_was_made_before_a_kill_is_not_made_again(tmp_path):
    script, out = tmp_path / "train.py", tmp_path / "old.parquet"
    script.write_text(SCRIPT)
    made = Script(script, [], out)
    assert made.missing(RUNS) == list(RUNS)
    assert list(made.make([0, 7], 1)) == [0, 7]
    again = Script(script, [], out)
    assert again.missing(RUNS) == [1, 2, 3, 4, 5, 6]
    kept = json.loads((parts.folder(out) / "0.json").read_bytes())
    assert (kept["ended"], kept["steps"]) == (True, 3)
    assert Script(script, ["0.3"], out).missing(RUNS) == list(RUNS)  # another training
