"""All runs of a recording, by one script that makes one of them each time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec
import pyarrow as pa

from ..report import files
from ..report.text import line
from . import parts, turns
from .recording import AGAIN, PERTURBED, STARTS, About, describe, write

RUNS = (0, AGAIN, *range(1, PERTURBED + 1))
FIRST_STEP = (0, AGAIN, *STARTS)  # the runs whose floor is that of the first step alone
MANIFEST = "turns.json"


class Failed(ValueError):
    """A script that makes no recording, and why."""


class Script:
    """A script, its arguments, and the recording that its runs make."""

    def __init__(self, script: Path, arguments: Sequence[str], out: Path) -> None:
        """FileNotFoundError for a script that is not there; OSError or ValueError for a place that
        cannot be written, or has no recording to be replaced."""
        self.script, self.arguments, self.out = script, list(arguments), out
        content = files.read(script)
        if out.suffix != ".parquet":
            raise ValueError(f"--out: expected a name that ends in .parquet, got {out}")
        files.folder(out.parent)
        files.writable(out)
        if out.exists():
            describe(out)
        self.place = files.folder(parts.folder(out))
        self.manifest = {
            "script": hashlib.sha256(content).hexdigest(),
            "arguments": self.arguments,
            "python": sys.version,
        }
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()
        self.ended = False

    def missing(self, runs: Sequence[int]) -> list[int]:
        """The runs that were not made yet. What another script, or other arguments, have left is
        removed."""
        kept = self.place / MANIFEST
        if not kept.exists() or json.loads(files.read(kept)) != self.manifest:
            shutil.rmtree(self.place)
            files.folder(self.place)
            files.write(kept, json.dumps(self.manifest).encode())
        return [run for run in runs if not self._about(run).exists()]

    def make(self, runs: Sequence[int], jobs: int) -> Iterator[int]:
        """Makes runs side by side, and gives the number of each as it is done. Failed for the first
        that makes no recording; the others are ended then."""
        threads = max(1, (os.cpu_count() or 1) // max(1, min(jobs, len(runs))))
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            waiting: set[Future[int]] = {pool.submit(self._run, run, threads) for run in runs}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                self._end()
                for future in waiting:
                    future.cancel()

    def merge(self, runs: Sequence[int]) -> dict[str, About]:
        """Makes one recording of all, and removes what they were made of. Failed if they do not
        have the same steps."""
        abouts = {
            run: msgspec.json.decode(files.read(self._about(run)), type=About) for run in runs
        }
        for run, about in abouts.items():
            if run not in STARTS and about["steps"] != abouts[0]["steps"]:
                raise Failed(
                    f"{self.script}: expected the same number of steps in every run, got "
                    f"{abouts[0]['steps']} and {about['steps']}"
                )
        tables: dict[int, Callable[[], Iterator[pa.Table]]] = {
            run: parts.Stream(self.place, run).tables for run in runs
        }
        write(self.out, {run: (abouts[run], tables[run]()) for run in runs})
        shutil.rmtree(self.place)
        return {str(run): about for run, about in abouts.items()}

    def _about(self, run: int) -> Path:
        return self.place / f"{run}.json"

    def _run(self, run: int, threads: int) -> int:
        log = self.place / f"{run}.log"
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        environment |= turns.given(run, self.out.absolute())
        command = [sys.executable, str(self.script), *self.arguments]
        with log.open("wb") as file:
            with self.lock:
                if self.ended:
                    return run
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
                )
                self.running[run] = process
            status = process.wait()
        if not self.ended and (status or not self._about(run).exists()):
            self._about(run).unlink(missing_ok=True)
            raise Failed(self._why(run, status, log))
        return run

    def _why(self, run: int, status: int, log: Path) -> str:
        """Why a run has made no recording."""
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        which = {0: "the run itself", AGAIN: "the run once more"}.get(run, f"run {run}")
        if status:
            died = f"died of signal {-status}" if status < 0 else f"ended with {status}"
            return f"{self.script}: {which} {died}: {line(lines[-1])} (all it said is in {log})"
        if (self.place / f"{run}.arrows").exists():
            return f"{self.script}: {which} ended before the block of record_run did"
        return f"{self.script} never called gradtwin.record_run, or no step of it"

    def _end(self) -> None:
        with self.lock:
            self.ended = True
            for process in self.running.values():
                if process.poll() is None:
                    process.terminate()
