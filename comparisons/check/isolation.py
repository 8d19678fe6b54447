"""Tasks in a process of their own, so that one which ends it costs nothing but itself.

A kernel that does not look at its arguments may end the process, at once or, having written where
it must not, later.
"""

from __future__ import annotations

import faulthandler
import gc
import math
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
BUSY = 10  # times as long one may take that gets little of the processor, but not beyond PATIENCE
MEMORY = 4 * 2**30  # bytes that tasks may take beside what there is: a product may grow too large
AGAIN = 6  # times that each suspect is tried alone
HEADER = struct.Struct("q")
OVER = "no time left"


@dataclass(frozen=True)
class Died:
    """What a task that ended its process leaves behind."""

    how: str


def apart(
    run: Callable[[Any], Any],
    tasks: Sequence[Any],
    patience: float = PATIENCE,
    until: float = math.inf,
    step: Callable[[], None] = lambda: None,
    fork: bool = True,
) -> list[Any]:
    """What `run` gives for each task, or that it Died; results are handed over as pickles.

    All tasks run in one fork of this process. If that dies, the task that it was at is tried AGAIN
    in forks of its own. If none of them dies, each that ran before is suspect, since a heap may be
    corrupted long before it breaks, and is tried so as well. The rest goes on in the next fork.
    One that computes longer than `patience`, in seconds, is not tried again; what is not done at
    the time `until`, of the monotonic clock, has Died of being OVER. `step` is called after each.
    Where there is no fork that is safe, or none is wanted, all run here.
    """
    if not fork or not sys.platform.startswith("linux"):
        return [_here(run, task, until, step) for task in tasks]
    wait = _Wait(patience, until, step)
    found: list[Any] = []
    while len(found) < len(tasks):
        rest = tasks[len(found) :]
        if time.monotonic() > until:
            return found + [Died(OVER)] * len(rest)
        done, how = _fork(run, rest, wait)
        if how in (OVER, wait.late):
            done.append(Died(how))
        elif how:
            last = _alone(run, rest[len(done)], wait)
            if not isinstance(last, Died):
                done = [_alone(run, task, wait) for task in rest[: len(done)]]
            done.append(last)
        found += done
    return found


def _here(run: Callable[[Any], Any], task: Any, until: float, step: Callable[[], None]) -> Any:
    if time.monotonic() > until:
        return Died(OVER)
    result = run(task)
    step()
    return result


@dataclass(frozen=True)
class _Wait:
    """How long a result is waited for, and what is done when it is there."""

    patience: float
    until: float
    step: Callable[[], None]

    @property
    def late(self) -> str:
        return f"not done after {self.patience:g} seconds"

    def of(self, child: int) -> Callable[[], float]:
        """What gives the seconds that are left for the next result of a process. What others take
        of the processor does not count, so that a busy machine decides nothing."""
        end = min(time.monotonic() + min(BUSY * self.patience, PATIENCE), self.until)
        computed = _computed(child) + self.patience
        return lambda: min(end - time.monotonic(), computed - _computed(child))


def _alone(run: Callable[[Any], Any], task: Any, wait: _Wait) -> Any:
    for _ in range(AGAIN):
        done, how = _fork(run, [task], wait)
        if how:
            return Died(how)
    return done[0]


def _fork(run: Callable[[Any], Any], tasks: Sequence[Any], wait: _Wait) -> tuple[list[Any], str]:
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
        return _results(child, reading, len(tasks), wait)
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


def _results(child: int, reading: int, tasks: int, wait: _Wait) -> tuple[list[Any], str]:
    found: list[Any] = []
    while len(found) < tasks:
        content = _message(reading, wait.of(child))
        if not content:
            break
        well, result = pickle.loads(content)
        if not well:
            _end(child)
            raise RuntimeError(f"in a process of its own: {result}")
        found.append(result)
        wait.step()
    late = len(found) < tasks and content is None
    if late:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(_end(child))
    if late:
        return found, OVER if time.monotonic() > wait.until else wait.late
    if len(found) == tasks:
        return found, ""
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return found, f"it ends the process: {name}"


def _end(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _message(reading: int, left: Callable[[], float]) -> bytes | None:
    """The next result; nothing where the other end is closed, None where there is none in time."""
    header = _read(reading, HEADER.size, left)
    return _read(reading, HEADER.unpack(header)[0], left) if header else header


def _read(reading: int, size: int, left: Callable[[], float]) -> bytes | None:
    content = b""
    while len(content) < size:
        while not select.select([reading], [], [], max(left(), 0))[0]:
            if left() <= 0:
                return None
        part = os.read(reading, size - len(content))
        if not part:
            return b""
        content += part
    return content


def _computed(child: int) -> float:
    """The seconds that a process has computed."""
    after_name = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")
