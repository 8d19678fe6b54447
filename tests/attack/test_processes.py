"""What misbehaves, and what is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUBJECTS = """
import itertools, sys
import numpy as np

def relu(x):
    y = np.maximum(x, 0)
    def pullback(dy):
        return np.where(x > 0, dy, 0)
    return y, pullback

class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")

def broken(x):
    raise Mute

def endless(x):
    sum(itertools.count())

def leaving(x):
    sys.exit(0)
"""


@pytest.fixture
def checked(tmp_path):
    """A file that is called as an installed package is, and one of its functions, checked."""
    (tmp_path / "torch.py").write_text(SUBJECTS)
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")

    def check(subject, *args):
        command = [sys.executable, "-P", "-m", "gradtwin", "check", subject, "--shape", "3", *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done

    return check


@pytest.mark.parametrize(
    ("subject", "args", "status", "words"),
    [
        pytest.param("torch.py:relu", ["--against", "relu"], 0, "right", marks=pytest.mark.sweep),
        ("torch.py:relu", ["--against", "relu", "--timeout", "100"], 0, "right"),
        ("torch.py:broken", ["--against", "relu"], 1, "Mute: (its text raises ValueError)"),
        ("torch.py:endless", ["--timeout", "3"], 2, "not done after 3 seconds"),
        ("torch.py:leaving", ["--against", "relu"], 1, "sys.exit(0)"),
        ("leaves.py:f", [], 2, "leaves.py cannot be run: SystemExit"),
    ],
)
def test_a_subject_that_misbehaves(checked, subject, args, status, words):
    done = checked(subject, *args)
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout + done.stderr


def test_nobody_listens(tmp_path):
    command = [sys.executable, "-m", "gradtwin", "gradients", "relu", "--jobs", "1"]
    with Path("/dev/full").open("w") as device:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=device, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["gradtwin: No space left on device"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")


def children(process):
    """The processes that it has started, by number."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def is_there(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "kill", [pytest.param(signal.SIGTERM, marks=pytest.mark.sweep), signal.SIGKILL]
)
def test_workers_end_with_what_started_them(tmp_path, kill):
    command = [sys.executable, "-m", "gradtwin", "gradients", "--jobs", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        next(row for row in process.stdout if "identical" in row and "class" not in row)
        workers = children(process.pid)
        process.send_signal(kill)
    assert len(workers) >= 2
    ends = time.monotonic() + 2
    while any(map(is_there, workers)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not {number for number in workers if is_there(number)}
