"""Whole commands, each in a process of its own, beside one that imports torch."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..verdict.classes import CLASSES
from .costs import REPEATS, Row, row
from .timing import interleaved

TORCH = ("-c", "import torch")

# What starts at once → its arguments and its exit status
STARTS: dict[str, tuple[tuple[str, ...], int]] = {
    "gradtwin --help": (("-m", "gradtwin", "--help"), 0),
    "gradtwin --version": (("-m", "gradtwin", "--version"), 0),
    "gradtwin gradiens": (("-m", "gradtwin", "gradiens"), 2),
    "import gradtwin": (("-c", "import gradtwin"), 0),
}
SHARE = 0.5  # of an import of torch, which each may cost

# The optimizers as the main job has them, on one stream and for as many steps as are all judged.
_OPTIMIZERS = """
import sys
from pathlib import Path
from gradtwin.comparisons.cli.optimizers import run_optimizers
from gradtwin.comparisons.cli.runner import Runner
from gradtwin.comparisons.samples.optimizers import SAMPLES
from gradtwin.comparisons.verdict.lockstep import JUDGED

runner = Runner(Path(sys.argv[-1]), quiet=True, jobs=0)
run_optimizers(runner, list(SAMPLES), ["mixed"], 0, JUDGED)
runner.finish()
"""
# The parts of the main job, before their folder.
PARTS: dict[str, tuple[str, ...]] = {
    "gradients": ("-m", "gradtwin", "gradients", "-q", "--out"),
    "optimizers": ("-c", _OPTIMIZERS),
    "schedules": ("-m", "gradtwin", "schedules", "-q", "--out"),
    "curves": ("-m", "gradtwin", "curves", "-q", "--out"),
}
WHOLE = ("-m", "gradtwin", "--out")
EXPLAINED = (0, 1)  # exit status of a job that was done


@dataclass(frozen=True)
class Spent:
    """What a process took, in seconds: of the processors, with those that it started; of the
    clock; and of the clock until it printed a row of a table, NaN if it did not."""

    cpu: float
    wall: float
    row: float


def starts(repeats: int = REPEATS) -> list[Row]:
    """One row for each: its CPU time, in imports of torch."""
    tasks = {what: lambda a=args, s=status: run(a, (s,)) for what, (args, status) in STARTS.items()}
    seconds = interleaved({"torch": lambda: run(TORCH), **tasks}, repeats, _cpu)
    return [row("start", what, seconds[what], seconds["torch"], SHARE) for what in STARTS]


def job() -> list[Row]:
    """The main job and its parts, one run of each: the CPU time, in imports of torch and as a share
    of that of the whole, whose parts import it anew; and how long it is until the first row. Beside
    them the seconds of the clock."""
    run(TORCH)  # which fills the caches
    torch = run(TORCH)
    with tempfile.TemporaryDirectory() as out:
        whole = run((*WHOLE, out), EXPLAINED)
        parts = {part: run((*args, out), EXPLAINED) for part, args in PARTS.items()}
    spent = {"whole": whole, **parts}
    rows = [
        {
            **row("job", part, [s.cpu], [torch.cpu]),
            "share": s.cpu / whole.cpu,
            "seconds": s.wall,
        }
        for part, s in spent.items()
    ]
    first = row("job", "until the first row", [whole.row], [torch.wall])
    return [*rows, {**first, "share": math.nan, "seconds": whole.row}]


def run(arguments: Sequence[str], statuses: Collection[int] = (0,)) -> Spent:
    """Runs Python with these arguments. RuntimeError, with the last line that it printed, for any
    other exit status."""
    cpu, begin = _cpu(), time.perf_counter()
    first, line = math.nan, ""
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            if math.isnan(first) and any(kind in line for kind in CLASSES):
                first = time.perf_counter() - begin
    if process.returncode not in statuses:
        raise RuntimeError(f"{' '.join(arguments)}: exit status {process.returncode}: {line}")
    return Spent(_cpu() - cpu, time.perf_counter() - begin, first)


def _cpu() -> float:
    """The CPU seconds of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
