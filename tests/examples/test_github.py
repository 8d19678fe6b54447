"""What GitHub reads: the action, tried in the project of examples/guard; forms, workflows."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from gradtwin.comparisons.runs import turns
from gradtwin.comparisons.runs.driving import RUNS, Script

import gradtwin

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/guard/action.yml"
GUARD = ROOT / "examples/guard"
# A relative change of the gradient of x by 1e-6.
RIGHT, PLANTED = "dx = r * (", "dx = 1.000001 * r * ("


def parsed(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(environment, cwd, **given):
    """(id, exit status, output) of the action's steps, run as a runner does: after one that failed
    those alone that say so. Nothing is installed."""
    action, failed = parsed(ACTION), False
    (used,) = [
        step
        for step in parsed(GUARD / "guard.yml")["jobs"]["guard"]["steps"]
        if "/guard@" in step["uses"]
    ]
    inputs = (
        {name: each["default"] for name, each in action["inputs"].items()} | used["with"] | given
    )
    for step in action["runs"]["steps"][1:]:
        condition = step.get("if", "")
        assert condition in (
            "",
            "${{ !cancelled() }}",
            "${{ !cancelled() && inputs.training != '' }}",
        )
        if (failed and not condition) or ("training" in condition and not inputs["training"]):
            continue
        own = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: inputs[m[1]], value)
            for name, value in step["env"].items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=cwd, env=environment | own, capture_output=True, text=True, check=False,
        )  # fmt: skip
        failed = failed or done.returncode != 0
        yield step["id"], done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The example with its baseline and its recording, and the environment of a step."""
    folder = tmp_path / "project"
    shutil.copytree(GUARD, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    made = Script(folder / "train.py", [], folder / "training.parquet")
    for run in made.missing(RUNS):  # what gradtwin record-run does, in this process
        for name, value in turns.given(run, made.out).items():
            monkeypatch.setenv(name, value)
        runpy.run_path("train.py")
    made.merge(RUNS)
    monkeypatch.delenv(turns.TURN)
    monkeypatch.setattr(turns, "_taken", [])
    monkeypatch.delitem(sys.modules, "layer")
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--regen-all",
        "-k",
        "last_time",
        "test_layer.py",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder, environment


@pytest.mark.sweep
def test_the_action_is_green(project):
    folder, environment = project
    found = list(steps(environment, folder))
    assert [(step, status) for step, status, _ in found] == [
        ("gradients", 0), ("training", 0), ("summary", 0),
    ], found  # fmt: skip
    assert "2 passed" in found[0][2]
    assert "identical" in found[1][2]
    assert "### training" in (folder.parent / "summary.md").read_text(encoding="utf-8")


@pytest.mark.sweep
@pytest.mark.parametrize("training", ["", "train.py"])
def test_the_action_is_red_at_a_change_of_a_millionth(project, training):
    folder, environment = project
    text = (folder / "layer.py").read_text(encoding="utf-8")
    assert text.count(RIGHT) == 1
    (folder / "layer.py").write_text(text.replace(RIGHT, PLANTED), encoding="utf-8")
    found = {step: rest for step, *rest in steps(environment, folder, training=training)}
    assert found["gradients"][0] == 1
    assert "2 failed" in found["gradients"][1]
    assert "cause: " in found["gradients"][1]
    assert found["summary"][0] == 0
    summary = (folder.parent / "summary.md").read_text(encoding="utf-8")
    assert "2 failed" in summary
    assert ("training" in found) == bool(training)
    if training:
        assert found["training"][0] == 1
        assert "different from step 1" in found["training"][1]
        assert "different from step 1" in summary
    written = {path.name for path in (folder / "guard").iterdir()}
    assert {"junit.xml", "gradients.html", "gradients.csv"} <= written


def test_the_action_installs_the_copy_that_it_belongs_to():
    install, *_ = parsed(ACTION)["runs"]["steps"]
    (place,) = re.findall(r"\$GITHUB_ACTION_PATH(/[./]+)", install["run"])
    assert (Path(f"{ACTION.parent}{place}").resolve() / "pyproject.toml").is_file()


def test_what_github_reads_can_be_read():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = parsed(path)
        assert {"name", "description", "body"} <= form.keys()
        assert all({"type", "attributes"} <= part.keys() for part in form["body"])
    for path in [*(ROOT / ".github/workflows").glob("*.yml"), GUARD / "guard.yml"]:
        for job in parsed(path)["jobs"].values():
            assert {"runs-on", "timeout-minutes", "steps"} <= job.keys()


def test_the_citation_is_of_this_version():
    """https://github.com/citation-file-format, 1.2.0: what must be there, and no key beyond it."""
    found = parsed(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found["cff-version"] == "1.2.0"
    assert found["authors"] == [{"name": "The gradtwin authors"}]
    assert (found["version"], found["license"]) == (project["version"], project["license"])
    assert found["version"] == gradtwin.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {found['version']} ({found['date-released']})\n" in changes
