"""Tasks in a process of their own, so that one which ends it costs nothing but itself.

A kernel that does not look at its arguments may end the process, at once or, having written where
it must not, later.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..report.text import raised

PATIENCE = 60.0  # seconds for one task
MEMORY = 4 * 2**30  # bytes that tasks may take beside what there is: a product may grow too large
AGAIN = 6  # times that each suspect is tried alone
HEADER = struct.Struct("q")


@dataclass(frozen=True)
class Died:
    """What a task that ended its process leaves behind."""

    how: str


def apart(
    run: Callable[[Any], Any],
    tasks: Sequence[Any],
    patience: float = PATIENCE,
    fork: bool = True,
) -> list[Any]:
    """What `run` gives for each task, or that it Died; results are handed over as pickles.

    All tasks run in one fork of this process. If that dies, the task that it was at is tried AGAIN
    in forks of its own. If none of them dies, each that ran before is suspect, since a heap may be
    corrupted long before it breaks, and is tried so as well. The rest goes on in the next fork.
    One that takes longer than `patience`, in seconds, is not tried again. Where there is no fork
    that is safe, or none is wanted, all run here.
    """
    if not fork or not sys.platform.startswith("linux"):
        return list(map(run, tasks))
    found: list[Any] = []
    while len(found) < len(tasks):
        rest = tasks[len(found) :]
        done, how = _fork(run, rest, patience)
        if how == _late(patience):
            done.append(Died(how))
        elif how:
            last = _alone(run, rest[len(done)], patience)
            if not isinstance(last, Died):
                done = [_alone(run, task, patience) for task in rest[: len(done)]]
            done.append(last)
        found += done
    return found


def _late(patience: float) -> str:
    return f"not done after {patience:g} seconds"


def _alone(run: Callable[[Any], Any], task: Any, patience: float) -> Any:
    for _ in range(AGAIN):
        done, how = _fork(run, [task], patience)
        if how:
            return Died(how)
    return done[0]


def _fork(
    run: Callable[[Any], Any], tasks: Sequence[Any], patience: float
) -> tuple[list[Any], str]:
    """The results until it died, and how it did; "" if it did not."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            _work(run, tasks, writing)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        return _results(child, reading, len(tasks), patience)
    finally:
        os.close(reading)


def _work(run: Callable[[Any], Any], tasks: Sequence[Any], writing: int) -> None:
    torch.set_num_threads(1)  # a fork hangs in a parallel region of OpenMP
    gc.disable()  # a collection copies every page
    faulthandler.disable()  # the parent says what there is to say
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, most))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with os.fdopen(writing, "wb") as pipe:
        for task in tasks:
            try:
                result = True, run(task)
            except Exception as error:
                result = False, f"{raised(error)}"
            content = pickle.dumps(result)
            pipe.write(HEADER.pack(len(content)) + content)
            pipe.flush()
    os._exit(0)


def _results(child: int, reading: int, tasks: int, patience: float) -> tuple[list[Any], str]:
    found: list[Any] = []
    while len(found) < tasks:
        content = _message(reading, time.monotonic() + patience)
        if not content:
            break
        well, result = pickle.loads(content)
        if not well:
            _end(child)
            raise RuntimeError(f"in a process of its own: {result}")
        found.append(result)
    late = len(found) < tasks and content is None
    if late:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(_end(child))
    if late:
        return found, _late(patience)
    if len(found) == tasks:
        return found, ""
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return found, f"it ends the process: {name}"


def _end(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _message(reading: int, until: float) -> bytes | None:
    """The next result; nothing where the other end is closed, None where there is none in time."""
    header = _read(reading, HEADER.size, until)
    return _read(reading, HEADER.unpack(header)[0], until) if header else header


def _read(reading: int, size: int, until: float) -> bytes | None:
    content = b""
    while len(content) < size:
        if not select.select([reading], [], [], max(until - time.monotonic(), 0))[0]:
            return None
        part = os.read(reading, size - len(content))
        if not part:
            return b""
        content += part
    return content
