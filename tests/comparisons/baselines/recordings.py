"""Recordings that are killed at random moments, that run at once, and that find no room; what
became of each is printed as JSON. A process of its own, so that one start serves them all."""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from gradtwin.comparisons.baselines.record import measured
from gradtwin.comparisons.cli.app import app

NOT_WAITING = os.WEXITED | os.WNOHANG | os.WNOWAIT  # a look at whether it has ended
FOLDER, NAMES = Path(sys.argv[1]), sys.argv[2:]


def record(name, *more, room=None):
    """The process that records to b.parquet in a folder of this name."""
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    arguments = ["record", *NAMES, "--out", str(folder / "b.parquet"), "--jobs", "1"]
    child = os.fork()
    if child:
        return child
    said = io.StringIO()
    code = 1
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        if room:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            app([*arguments, "--repeats", "0", *more])
        except SystemExit as end:
            code = end.code
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    if more:
        (FOLDER / f"{name}.txt").write_text(said.getvalue(), encoding="utf-8")
    os._exit(code)


def ended(child):
    return os.waitpid(child, 0)[1]


def parts(folder):
    return [*folder.glob(".b.parquet.parts/*.parquet")]


def killed(number, moment):
    """A recording that is killed, the first one in the middle; of the first two, another goes on
    with what is left."""
    child = record(f"killed{number}")
    if number:
        time.sleep(moment)
    else:
        while not parts(FOLDER / "killed0") and not os.waitid(os.P_PID, child, NOT_WAITING):
            time.sleep(1e-3)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    status = ended(child)
    folder = FOLDER / f"killed{number}"
    found = {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "there": (folder / "b.parquet").exists(),
        "parts": len(parts(folder)),
    }
    if number < 2:
        shutil.copytree(folder, FOLDER / f"resumed{number}")
        (FOLDER / f"resumed{number}" / "b.parquet").unlink(missing_ok=True)
        assert ended(record(f"resumed{number}")) == 0
    return found


def main():
    torch.set_num_threads(1)
    measured(NAMES)  # so that a child has nothing left to import
    started = time.monotonic()
    assert ended(record("whole")) == 0
    took = time.monotonic() - started
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    moments = rng.uniform(0.05, 1.05, 10) * took
    told = {"killed": [killed(number, moment) for number, moment in enumerate(moments)]}
    both = [record("both") for _ in range(2)]
    told["codes"] = [os.waitstatus_to_exitcode(ended(child)) for child in both]
    assert ended(record("full")) == 0
    path = FOLDER / "full" / "b.parquet"
    before = path.read_bytes()
    code = os.waitstatus_to_exitcode(ended(record("full", "--reason", "no room", room=2000)))
    text = (FOLDER / "full.txt").read_text(encoding="utf-8")
    told["full"] = {"code": code, "same": path.read_bytes() == before, "text": text}
    print(json.dumps(told))


main()
