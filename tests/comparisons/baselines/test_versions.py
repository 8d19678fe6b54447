"""Versions side by side: what is asked of pip, what is refused, what fails, and what is said of the
results. No test installs anything."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradtwin.comparisons import environment, ops
from gradtwin.comparisons.baselines import file, installation, measure, record, versions
from gradtwin.comparisons.baselines.diff import REMOVED
from gradtwin.comparisons.baselines.file import Baseline
from gradtwin.comparisons.baselines.installation import DISTRIBUTED, LAZILY
from gradtwin.comparisons.baselines.measure import tasks
from gradtwin.comparisons.cli.app import app
from typer.testing import CliRunner

import gradtwin
from gradtwin import reference

LIGHT = ["torch", "numpy", "gradtwin"]


@pytest.fixture(scope="module")
def stored():
    return record.measured(["relu", "cosine_annealing_lr"])


@pytest.fixture(scope="module")
def moved(stored):
    """The same, but that torch's relu has moved far, and one of ours by one ulp."""
    found = dict(stored.quantities)
    far = next(i for i in found if i.startswith("relu") and found[i].reference.any())
    near = next(i for i in found if i.startswith("cosine") and found[i].manual.any())
    found[far] = replace(found[far], reference=2 * found[far].reference)
    ours = found[near].manual
    found[near] = replace(found[near], manual=np.nextafter(ours, 2 * ours))
    environment = {**stored.environment, "torch": "9.0"}
    return Baseline(found, {**stored.about, "environment": environment})


class Machine:
    """Stands for what is run: environments appear, pip answers, baselines are written."""

    def __init__(self, answers, packages=LIGHT, broken=()):
        self.answers, self.packages, self.broken = answers, packages, broken
        self.commands = []

    def __call__(self, command, folder):
        assert Path(folder).is_dir()
        self.commands.append(command)
        words = " ".join(map(str, command))
        for pattern in self.broken:
            if re.search(pattern, words):
                lines = [*(f"line {i}" for i in range(40)), "WARNING: fast-deps"]
                return subprocess.CompletedProcess(command, 1, "", "\n".join(lines))
        return subprocess.CompletedProcess(command, 0, self.done(command, words), "")

    def done(self, command, words):
        if "venv" in command:
            Path(command[-1]).mkdir()
            (Path(command[-1]) / "pyvenv.cfg").touch()
        elif "--dry-run" in command:
            install = [{"metadata": {"name": name, "version": "1"}} for name in self.packages]
            return json.dumps({"install": install})
        elif "record" in command:
            path = Path(command[command.index("--out") + 1])
            found = next(b for name, b in self.answers.items() if name in path.name)
            if "--reason" not in command:
                assert not path.exists()
            file.write(path, found.quantities.values(), found.about)
        return ""

    def ran(self, *words):
        return [c for c in self.commands if all(any(w in str(p) for p in c) for w in words)]


@pytest.fixture
def machine(stored, moved, monkeypatch):
    def make(*args, **kwargs):
        made = Machine({"torch-1": stored, "torch-2": moved, "numpy": stored}, *args, **kwargs)
        monkeypatch.setattr(installation, "run", made)
        return made

    return make


def run_versions(*arguments):
    result = CliRunner().invoke(app, ["versions", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("2.12.0", ("torch==2.12.0",)),
        ("2.13.0+cpu", ("torch==2.13.0+cpu",)),
        ("numpy==2.3.5", ("numpy==2.3.5",)),
        ("torch==2.12.0, numpy==2.2.0", ("torch==2.12.0", "numpy==2.2.0")),
        ("2.12.0,numpy>=2,<2.3", ("torch==2.12.0", "numpy<2.3,>=2")),
    ],
)
def test_specs(spec, expected):
    assert versions.pins(spec) == expected


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        (("2.12.0", "relu"), "got 'relu'"),  # no package is fetched for a slip
        (("2.12.0", "--", "-r"), "got '-r'"),
        (("2.12.0", "numpy=2"), "got 'numpy=2'"),
        (("2.12.0", ""), "got ''"),
        (("2.12.0", "numpy==2,"), "got ''"),
        (("2.12.0", "torch==2,Torch==3"), "expected each package once"),
        (("2.12.0",), "expected two or more, got 1"),
        (("2.12.0", "torch==2.12.0"), "expected each once"),
        (("1.0", "2.0", "--only", "rleu"), "did you mean relu"),
        (("1.0", "2.0", "--fail-on", "all"), "unknown class 'all'"),
    ],
)
def test_what_is_no_spec_is_refused(machine, tmp_path, specs, told):
    made = machine()
    code, text = run_versions("--out", tmp_path, *specs)
    assert code == 2
    assert told in text
    assert not made.commands
    assert not [*tmp_path.iterdir()]


def test_names_of_files_are_told_apart():
    slugs = {versions._slug([pin]) for pin in ("numpy==2", "numpy>=2", "numpy~=2")}
    assert len(slugs) == 3
    assert all(re.fullmatch(r"[\w.+-]+", slug) for slug in slugs)


def test_what_moved_between_two(machine, tmp_path):
    made = machine()
    code, text = run_versions("1.0", "2.0", "numpy==1", "--only", "relu", "--out", tmp_path)
    assert code == 1
    assert "torch==1.0 → torch==2.0" in text
    assert "torch==2.0 → numpy==1" in text
    assert "torch: 2.13.0+cpu → 9.0" in text or re.search(r"torch: \S+ → 9\.0", text)
    frame = pd.read_csv(tmp_path / "versions.csv").head(2)
    assert list(frame["name"]) == ["relu", "cosine_annealing_lr"]
    assert list(frame["classes"]) == ["1 different", "1 rounding"]
    assert list(frame["side"]) == ["torch", "manual"]
    assert list(frame["new"]) == ["torch==2.0"] * 2
    assert "relu 1 different" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("environments", "numpy-1.parquet", "torch-1.0.parquet", "torch-2.0.parquet"),
        "versions.csv",
    ]
    assert made.ran("record")[0][3:9] == ["record", "relu", "--repeats", "0", "--jobs", "0"]
    assert run_versions("1.0", "2.0", "--out", tmp_path, "--fail-on", "removed")[0] == 0


def test_all_else_is_kept_as_it_is_here(machine):
    made = machine()
    assert run_versions("1.0", "numpy==1")[0] == 0
    first, second = made.ran("install", "--dry-run")
    here = f"numpy=={np.__version__}"
    assert here in first
    assert here not in second
    assert any(pin.startswith("torch==") and pin != "torch==1.0" for pin in second)
    assert not any("+" in part for part in first + second)

    made = machine(broken=[f"dry-run.* torch==1.0 .*{re.escape(here)}"])
    code, text = run_versions("1.0", "numpy==1")
    assert code == 0
    assert f"torch==1.0: does not go with {here}" in text
    (install,) = made.ran("--quiet", "torch==1.0")[2:]
    assert "--dry-run" not in install
    assert here not in install


def test_gigabytes_are_asked_for(machine, tmp_path):
    heavy = [*LIGHT, "nvidia-cudnn-cu13", "cuda-bindings", "triton"]
    made = machine(heavy)
    code, text = run_versions("1.0", "2.0", "--out", tmp_path)
    assert code == 2
    assert "torch==1.0 brings gigabytes: nvidia-cudnn-cu13 1, cuda-bindings 1, triton 1" in text
    assert "--yes" in text
    assert len(made.ran("--dry-run")) == 2
    assert made.ran("install") == made.ran("--dry-run")
    assert not [*tmp_path.iterdir()]
    assert run_versions("1.0", "2.0", "--yes")[0] == 1
    assert len(made.ran("install")) == 6


def test_a_pip_that_reads_whole_packages_is_asked_as_well(machine, monkeypatch):
    made = machine()
    monkeypatch.setattr(installation, "run", lambda command, folder: (
        subprocess.CompletedProcess(command, 2, "", "invalid choice: 'fast-deps'")
        if LAZILY in command else made(command, folder)
    ))  # fmt: skip
    assert run_versions("1.0", "2.0")[0] == 1
    assert len(made.ran("--dry-run")) == 2


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (r"-m venv .*torch-2\.0", "no environment can be made"),
        (r"dry-run.*torch==2\.0", "cannot be installed"),
        (r"install --no-input --quiet .*torch==2\.0", "could not be installed"),
        (r"record.*torch-2\.0", "could not be measured"),
    ],
)
def test_what_fails_is_told_and_the_others_go_on(machine, tmp_path, broken, told):
    machine(broken=[broken])
    code, text = run_versions("1.0", "2.0", "numpy==1", "--out", tmp_path)
    assert code == 2
    assert f"torch==2.0: {told} (exit status 1) line 28 " in text
    assert "line 39" in text
    assert "torch==1.0 → numpy==1" in text
    assert "not measured: torch==2.0" in text
    whole = {p.name.split("-cpython")[0] for p in (tmp_path / "environments").iterdir()}
    assert whole == {"torch-1.0", "numpy-1"} | ({"torch-2.0"} if "record" in broken else set())


def test_a_second_call_uses_what_is_there(machine, tmp_path, monkeypatch):
    made = machine()
    run_versions("1.0", "2.0", "--out", tmp_path)
    made.commands.clear()
    assert run_versions("1.0", "2.0", "--out", tmp_path)[0] == 1
    assert not made.ran("venv")
    assert not made.ran("install")
    assert all("--reason" in command for command in made.ran("record"))
    monkeypatch.setattr(installation, "_kept", lambda subject: ["numpy==1"])
    made.commands.clear()
    run_versions("1.0", "2.0", "--out", tmp_path)
    assert len(made.ran("install")) == 4  # both, after a dry run
    assert not made.ran("venv")


def test_a_folder_of_ones_own_is_left_alone(machine, tmp_path):
    tag = sys.implementation.cache_tag
    own = tmp_path / "environments" / f"torch-1.0-{tag}" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.touch()
    machine()
    code, text = run_versions("1.0", "2.0", "--out", tmp_path)
    assert code == 2
    assert "no virtual environment" in text
    assert own.exists()


def test_the_source_is_a_copy(tmp_path):
    copy = Path(installation.source(tmp_path))
    here = environment.ROOT
    for name in ("pyproject.toml", "manual/activations.py", "gradtwin/__main__.py"):
        assert (copy / name).read_bytes() == (here / name).read_bytes()
    assert {p.name for p in copy.iterdir()} == set(DISTRIBUTED)


def test_without_a_source_tree_the_release_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    monkeypatch.setattr(installation.metadata, "distribution", lambda name: Installed(None))
    assert installation.source(tmp_path) == f"gradtwin=={gradtwin.__version__}"
    for name in ("pyproject.toml", "manual", "reference", "comparisons"):
        (tmp_path / "from here" / name).mkdir(parents=True)
    text = json.dumps({"url": (tmp_path / "from here").as_uri(), "dir_info": {}})
    monkeypatch.setattr(installation.metadata, "distribution", lambda name: Installed(text))
    assert installation._source_tree() == tmp_path / "from here"


class Installed:
    """A distribution that knows where it was installed from."""

    def __init__(self, text):
        self.text = text

    def read_text(self, name):
        return self.text


def test_what_is_run_sees_neither_threads_nor_paths(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "1")
    code = "import os; print(sorted(k for k in os.environ if k[:3] in ('OMP', 'PYT', 'PIP')))"
    told = installation.run([sys.executable, "-c", code], tmp_path).stdout
    assert "PIP_FIND_LINKS" in told  # pip's index is the one used here
    assert "OMP_NUM_THREADS" not in told
    assert "PYTHONPATH" not in told


def test_a_function_that_torch_lacks_is_a_row(stored, monkeypatch):
    monkeypatch.setattr(reference.activations, "relu", None)
    monkeypatch.setattr(reference.optimizers, "muon", None)
    assert not tasks(["relu", "muon"])
    assert {"relu", "muon"} <= set(measure.choices())
    assert ops.named("relu").mirror is None
    old = record.measured(["relu", "cosine_annealing_lr"])
    found = versions.summary(versions.held(old, stored))
    count = sum(q.name == "relu" for q in stored.quantities.values())
    assert list(found["name"]) == ["relu"]
    assert list(found["classes"]) == [f"{count} new"]
    none = record.measured(["relu"])
    back = versions.held(stored, none)
    assert back.counts[REMOVED] == len(back.table) == len(stored.quantities)
    assert not len(versions.held(none, none).table)
