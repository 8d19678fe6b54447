"""The command line and the plug-in for pytest, as a newcomer uses them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons.check.adapt import named_rule
from gradtwin.comparisons.cli.app import app
from gradtwin.comparisons.mutants import sixteen_bits
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[3] / "examples"
RULES = """
import numpy as np

def right(x):
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)

def wrong(x):
    return np.tanh(x), lambda dy: dy

def forward(x):
    y = np.tanh(x)
    return y, y

def backward(y, dy):
    return dy * (1 - y * y)

number = 3
"""
TESTS = """
import torch
from gradtwin import assert_gradient
from rules import right, wrong

def test_right(check_gradient):
    assert check_gradient(right, torch.tanh).passed

def test_wrong(assert_gradient):
    assert_gradient(wrong, torch.tanh)

def test_function():
    assert_gradient(right, "tanh")
"""

MODULES = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, eps=1e-5):
        super().__init__(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4, eps=eps))

def other():
    return Net(1e-3)

def batch():
    return torch.arange(6.0).reshape(2, 3)

def adamw(parameters):
    return torch.optim.AdamW(parameters)

def partly(parameters):
    return torch.optim.AdamW(parameters[:-1])
"""
MODULE_TESTS = """
from gradtwin import assert_gradient
from modules import Net, adamw, batch, other, partly

def test_right(check_gradient):
    assert check_gradient(Net(), Net(), [batch()], steps=2, optimizer=adamw).passed

def test_wrong(assert_gradient):
    assert_gradient(other(), Net(), [batch()])

def test_steps():
    assert_gradient(Net(), Net(), [batch()], steps=1, optimizer=(partly, adamw))
"""


@pytest.fixture
def gradtwin(monkeypatch):
    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.delitem(sys.modules, "rules", raising=False)
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rules.py").write_text(RULES)
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "test_rules.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["rules.py:right", "--against", "torch.tanh"], 0, "right"),
        (["rules.py:forward,backward", "--against", "tanh"], 0, "right"),
        (["rules.py:right", "--shape", "3,4"], 0, "differences"),
        (["rules.py:wrong", "--against", "torch.tanh", "--shape", "5"], 1, "WRONG"),
        (["none.py:right"], 2, "no file none.py"),
        (["rules.py:rigth"], 2, "unknown name in rules.py 'rigth': did you mean right"),
        (["rules.py"], 2, "expected FILE:NAME"),
        (["rules.py:number", "--shape", "3"], 2, "subject: expected"),
        (["broken.py:f"], 2, "ModuleNotFoundError"),
        (
            ["rules.py:right", "--against", "torch.tahn"],
            2,
            "unknown name in torch 'tahn'",
        ),
        (["rules.py:right", "--against", "nowhere"], 2, "unknown rule 'nowhere'"),
        (["rules.py:right", "--shape", "x"], 2, "--shape: expected"),
        (["rules.py:right", "--shape", "3", "--settings", "3"], 2, "expected NAME=VALUE"),
        (["rules.py:right", "--shape", "3", "--dtype", "float8"], 2, "dtypes: expected"),
        (["rules.py:right"], 2, "needed"),
        (["rules.py:right", "--shape", "3", "--budget", "0"], 2, "budget: expected seconds"),
    ],
)
def test_the_command_says_what_it_found(gradtwin, folder, arguments, status, words):
    done = gradtwin("check", *arguments, cwd=folder)
    assert done.exit_code == status, done.stdout + done.stderr
    assert words in (done.stdout if status < 2 else done.stderr)
    if status == 2:
        assert len(done.stderr.splitlines()) == 1


def test_the_command_writes_files_and_json(gradtwin, folder):
    arguments = ["rules.py:wrong", "--against", "torch.tanh", "--json", "--out", "found"]
    done = gradtwin("check", *arguments, cwd=folder)
    found = json.loads(done.stdout)
    assert found["passed"] is False
    assert found["cause"]["name"] == "missing term" or found["cause"]["text"]
    table = pd.read_parquet(folder / "found" / "check.parquet")
    assert len(table) == len(found["table"])
    assert {p.suffix for p in (folder / "found").iterdir()} == {".csv", ".html", ".md", ".parquet"}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (
            [
                *("wrong_softmax.py:softmax", "--against", "torch.nn.functional.softmax"),
                *("--shape", "3,4", "--settings", "dim=-1"),
            ],
            1,
            "missing term",
        ),
        (["forgotten_term.py:Silu", "--against", "torch.nn.functional.silu"], 1, "missing term"),
        (
            [
                *("fused_kernel.py:forward,backward", "--against", "fused_kernel.py:twin"),
                *("--shape", "6,4", "--shape", "4"),
            ],
            0,
            "right",
        ),
    ],
)
def test_the_examples(gradtwin, arguments, status, words):
    done = gradtwin("check", *arguments, cwd=EXAMPLES)
    assert done.exit_code == status, done.stdout + done.stderr
    assert words in done.stdout


@pytest.mark.parametrize(
    "workers", [[], pytest.param(["-n", "2"], marks=pytest.mark.sweep)], ids=["alone", "xdist"]
)
def test_the_plug_in(folder, workers):
    command = [sys.executable, "-m", "pytest", "-q", *workers, "--gradient-report=out/report"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "1 failed" in done.stdout
    assert "cause: " in done.stdout
    assert "gradient report: 3 checks, 1 wrong" in done.stdout
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "✗ WRONG</span> test_rules.py::test_wrong" in page[: page.index("<table")]
    for ours in ("raise_for_failure", "pytest_plugin.py", "report.py"):
        assert ours not in done.stdout  # no frame of ours
    table = pd.read_csv(folder / "out" / "report.csv")
    assert table["test"].nunique() == 3


def test_the_plug_in_takes_two_modules(folder):
    (folder / "modules.py").write_text(MODULES)
    (folder / "test_rules.py").write_text(MODULE_TESTS)
    files = "--gradient-report=report", "--junitxml=junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "gradient report: 3 checks, 2 wrong" in done.stdout
    table = pd.read_csv(folder / "report.csv")
    assert {"output", "bias after step 1", "exp_avg of weight after step 2"} <= set(table["result"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    junit = (folder / "junit.xml").read_text(encoding="utf-8")
    for text in (page, junit):
        assert "first: output in 1" in text
        assert "first: bias after step 1 in 1" in text


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 0, "right"),
        (["--optimizer", "modules.py:adamw", "--steps", "2"], 0, "right"),
        (["--optimizer", "modules.py:partly,adamw", "--steps", "1"], 1, "bias after step 1 in 1"),
        (["--steps", "2"], 2, "steps: expected an optimizer beside them"),
        (["--optimizer", "modules.py:adamw"], 2, "optimizer: expected steps beside it"),
        (["--optimizer", "modules.py:batch", "--steps", "1"], 2, "but it raises TypeError"),
    ],
)
def test_two_modules(gradtwin, folder, arguments, status, words):
    (folder / "modules.py").write_text(MODULES)
    pair = "modules.py:Net", "--against", "modules.py:Net", "--inputs", "modules.py:batch"
    done = gradtwin("check", *pair, *arguments, cwd=folder)
    assert done.exit_code == status, done.stdout + done.stderr
    assert words in (done.stdout if status < 2 else done.stderr)
    assert status < 2 or len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", [("--steps", "1"), ("--optimizer", "modules.py:adamw")])
def test_steps_are_for_two_modules(gradtwin, folder, option):
    done = gradtwin("check", "rules.py:right", *option, cwd=folder)
    assert done.exit_code == 2
    assert f"{option[0]}: expected --inputs beside it" in done.stderr


def test_the_plug_in_does_not_import_torch(folder):
    (folder / "test_rules.py").write_text(
        "import sys\ndef test_torch():\n    assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-W", "error"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout


def test_mutants(gradtwin, tmp_path):
    done = gradtwin("mutants", "relu", "--no-speed", "--jobs", "1", "--out", "found", cwd=tmp_path)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "Written before the diagnoses" in done.stdout
    table = pd.read_csv(tmp_path / "found/relu/mutants.csv")
    assert set(table["kind"]) == {"mutant", "corpus"}
    known = gradtwin("mutants", "rulu", cwd=tmp_path)
    assert known.exit_code == 2
    assert "did you mean relu" in known.stderr


def test_the_tour(tmp_path):
    """Eight steps, none longer than a screen, and a picture."""
    tour = EXAMPLES / "tour.py"
    run = subprocess.run(
        [sys.executable, tour], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    _, *parts = re.split(r"\n(\d\. .*)\n---+\n", run.stdout)
    headings, steps = parts[::2], parts[1::2]
    assert len(steps) == 8
    assert all(len(step.splitlines()) < 22 for step in steps)
    assert all(len(line) <= 100 for line in run.stdout.splitlines())
    w = re.findall(r"dw = (\S+)|w.grad = (\S+),", run.stdout)
    assert w[0][0] == w[1][1]  # by pullbacks and by the tape
    assert "mse_loss against mse_loss: right" in steps[4]
    assert re.search("on the whole run: (rounding|identical)", steps[7])
    for picture in ("functions.png", "tour.png"):
        assert (tmp_path / "results" / picture).stat().st_size > 10_000
    learnt = re.findall(r"SGD is at (\S+), Adam .* at (\S+)\.\n", steps[6])
    assert float(learnt[0][0]) > float(learnt[0][1])
    cells = re.findall(r"\n# %%\n# (.*)\n# -+\n", tour.read_text(encoding="utf-8"))
    assert cells == headings  # of the page that the docs make of it
    assert run.stderr == ""


ENDS = """
import os

def at_once(x):
    os._exit(0)

def later(x):
    return x, lambda dy: os._exit(1)
"""


@pytest.mark.parametrize("name", ["at_once", "later"])
def test_a_subject_that_ends_the_process_is_neither_right_nor_wrong(name, tmp_path):
    (tmp_path / "ends.py").write_text(ENDS)
    command = [sys.executable, "-m", "gradtwin", "check", f"ends.py:{name}", "--shape", "3"]
    done = subprocess.run(
        [*command, "--against", "torch.tanh"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "the subject ended the process" in done.stderr


def test_mutants_in_16_bits(gradtwin, tmp_path):
    command = ("mutants", "softmax", "--half", "--jobs", "1", "--out", "found")
    done = gradtwin(*command, cwd=tmp_path)
    assert done.exit_code == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "found").rglob("mutants_in_16_bits.csv")
    table = pd.read_csv(file)
    assert set(table["dtype"]) == {"bfloat16", "float16"}
    assert set(table["kernel"]) == {"every step rounded", "rounded once", "known to be"}
    seen = table["effect"] > 2
    assert not table[table["right"]]["found"].any()
    assert table[seen]["found"].all()
    assert seen.sum() > 10
    assert " 0 missed, 0 alarms." in done.stdout


def test_a_kernel_that_numpy_cannot_run_is_a_row(monkeypatch):
    def refuses(x, dim):
        if x.dtype != np.float64:
            raise TypeError("float64 alone")
        return named_rule("softmax")(x, dim)

    monkeypatch.setattr(sixteen_bits, "right", lambda op: refuses)
    made = sixteen_bits.rows("softmax", None, "bfloat16", 0)
    assert [row["class"] for row in made] == ["n/a"] * 3
    assert all("float64 alone" in row["says"] for row in made)
