"""What is imported, and when: the light things start at once."""

import subprocess
import sys

import pytest

import gradtwin

HEAVY = ("torch", "pandas", "scipy", "matplotlib", "sklearn", "pyarrow", "joblib", "pytest")
PUBLIC = {
    *("Cause", "Cell", "Report", "Trace"),
    *("assert_gradient", "check", "compare_curves", "functional"),
    *("record_module", "record_optimizer", "record_run", "trace"),
}


def imported(*args):
    """Those of the heavy packages that a Python with these arguments imports."""
    command = [sys.executable, "-X", "importtime", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "encodings" in names
    return done, {package for package in HEAVY if package in names}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["--help"], 0),
        (["-h"], 0),
        (["--version"], 0),
        (["check", "--help"], 0),
        (["gradiens"], 2),
        (["gradients", "--sed", "1"], 2),
        (["gradients", "reluu"], 2),
        (["optimizers", "adan"], 2),
        (["schedules", "steplr"], 2),
        (["show", "reluu"], 2),
        (["check", "rules.py:f", "--against", "reluu"], 2),
        (["check", "none.py:f"], 2),
    ],
)
def test_the_command_line_is_light(args, status):
    done, heavy = imported("-m", "gradtwin", *args)
    assert done.returncode == status, done.stderr
    assert not heavy
    assert done.stdout or done.stderr


@pytest.mark.parametrize("name", ["check", "record_run", "assert_gradient"])
def test_what_is_imported_in_a_test_or_a_loop_has_no_data_sets_and_no_pictures(name):
    done, heavy = imported("-c", f"from gradtwin import {name}")
    assert done.returncode == 0, done.stderr
    assert not heavy & {"sklearn", "matplotlib", "pytest"}


def test_the_package_itself_imports_nothing():
    assert not imported("-c", "import gradtwin, gradtwin.manual")[1]


def test_the_public_names():
    assert set(gradtwin.__all__) == PUBLIC
    assert all(getattr(gradtwin, name) is not None for name in PUBLIC)
    assert set(dir(gradtwin)) >= PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        _ = gradtwin.chek
