"""One call of a command: its console, its processes, and what it has found."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..parallel import side_by_side
from ..report import console, files, pages, tables
from ..report.console import STYLES, Column, Terminal
from ..report.tables import SCHEMA
from ..verdict.classes import CLASSES, DIFFERENT, IMPRECISE, PARTED, UNDECIDED

HOURS = 86400.0  # of a task may pass until the next is done: the time left is estimated from all

WHY = {  # what a class of failure means, and how to go on
    DIFFERENT: "the numbers are in report.html, and `gradtwin show NAME` has both sides",
    UNDECIDED: "what is undecided repeats differently, or too little of it is seen",
    PARTED: "--strict asks that no run parts; without it they pass",
    IMPRECISE: "--strict asks for all digits; without it they pass",
}


class Runner:
    """One call: its console, its processes, and what it has found so far. A call that names what it
    wants writes into a folder of these names, beside what a whole call has written."""

    def __init__(
        self,
        out: Path,
        as_json: bool = False,
        jobs: int = 1,
        strict: bool = False,
        quiet: bool = False,
        named: Sequence[str] | None = None,
    ) -> None:
        self.console = Terminal(stderr=as_json, quiet=quiet)
        self.last = Terminal(stderr=as_json)
        self.as_json, self.strict, self.quiet = as_json, strict, quiet
        self.jobs = jobs or joblib.cpu_count()
        self.frames: dict[str, pd.DataFrame] = {}
        self.pictures: dict[str, dict[str, pages.Picture]] = {}
        self.out = files.folder(out / files.stem("+".join(named)) if named else out)

    def run(
        self,
        title: str,
        tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        columns: Sequence[Column],
        rows_of: Callable[[Any], Sequence[Mapping[str, Any]]],
        found: Mapping[int, Any] | None = None,
        keep: Callable[[Any], None] = lambda result: None,
        cluster: str | None = None,
    ) -> list[Any]:
        """Does the tasks side by side, or on a cluster, shows lines as they come, and returns the
        results in order. Those that were `found` are not done again; `keep` is given each of the
        others as it is done."""
        found = found or {}
        results = [found.get(i) for i in range(len(tasks))]
        left = [i for i in range(len(tasks)) if i not in found]
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.quiet,
            speed_estimate_period=HOURS,
        )
        shown = console.fitting(columns, self.console.width)
        if not self.as_json:
            self.console.print(f"\n{title}", style="bold")
            self.console.print(console.line(shown), style="dim", soft_wrap=True)

        def show(result: Any) -> None:
            for row in rows_of(result) if not self.as_json else ():
                style = STYLES[row["class"]]
                self.console.print(console.line(shown, row), style=style, soft_wrap=True)
                if text := row.get("written_manual"):
                    self.console.print(f"  writes {text!r}", style="dim", soft_wrap=True)

        for result in found.values():
            show(result)
        with progress:
            bar = progress.add_task(title, total=len(tasks), completed=len(found))
            chosen = [tasks[i] for i in left]
            for i, result in side_by_side(chosen, self.jobs, cluster=cluster) if left else ():
                keep(result)
                results[left[i]] = result
                show(result)
                progress.advance(bar)
        return results

    def finish(self, outcome: str = "", onward: bool = True) -> None:
        """Writes the files, prints the summary, and exits with 0 if all is explained, else 1.

        The last line says how many rows are explained, or the `outcome`, and of what failed why and
        how to go `onward`, unless the outcome says that itself.
        """
        bad = {DIFFERENT, UNDECIDED}
        bad |= {IMPRECISE, PARTED} if self.strict else set()
        failed = {n: f[f["class"].isin(bad)] for n, f in self.frames.items()}
        count = sum(map(len, failed.values()))
        total = sum(map(len, self.frames.values()))
        outcome = outcome or f"{total - count} of {total} rows explained."
        title = f"gradtwin: {', '.join(self.frames)}"
        page = pages.page(title, outcome, self.frames, self.pictures, command=command())
        contents = {"report.html": page}
        for name, frame in self.frames.items():
            contents |= tables.contents(frame, name)
        for pictures in self.pictures.values():
            contents |= {name: picture.content for name, picture in pictures.items()}
        files.write_all({self.out / name: content for name, content in contents.items()})
        if self.as_json:
            found = {
                n: json.loads(f.to_json(orient="records", double_precision=15))
                for n, f in self.frames.items()
            }
            print(json.dumps({"schema": SCHEMA, "explained": not count, "tables": found}))
        else:
            self._summary(failed)
            self.console.print(
                f"files: {self.out}{os.sep}{{{', '.join(sorted(contents))}}}",
                style="dim",
                soft_wrap=True,
            )
            last = self._outcome(outcome, failed) if onward else outcome
            self.last.print(last, style="bold red" if count else "bold green")
        raise typer.Exit(1 if count else 0)

    def _outcome(self, outcome: str, failed: Mapping[str, pd.DataFrame]) -> str:
        kinds = [k for f in failed.values() for k in f["class"]]
        if not kinds:
            return outcome
        worst = max(kinds, key=CLASSES.index)
        counts = ", ".join(f"{kinds.count(k)} {k}" for k in CLASSES if k in kinds)
        return f"{outcome} Not so: {counts}; {WHY[worst]}."

    def _summary(self, failed: Mapping[str, pd.DataFrame]) -> None:
        kinds = [k for k in CLASSES if any((f["class"] == k).any() for f in self.frames.values())]
        summary = Table(title="\nSummary", title_justify="left", title_style="bold", box=None)
        summary.pad_edge = False
        summary.add_column("table", no_wrap=True)
        for column in ("rows", *kinds, "worst margin"):
            summary.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
        for name, frame in self.frames.items():
            counts = [str(n) if (n := int((frame["class"] == k).sum())) else "" for k in kinds]
            margin = frame[_margin(frame)]
            summary.add_row(name, str(len(frame)), *counts, f"{margin.max():.3g}")
        self.console.print(summary)
        for name, frame in self.frames.items():
            at = str(frame["id"].iloc[int(frame[_margin(frame)].argmax())])
            self.console.print(f"worst of {name}: {at}", style="dim", soft_wrap=True)
        for frame in failed.values():
            for row in frame.head(10).to_dict("records"):
                where = (
                    f" at step {row['outside_step']:.0f}: {row['outside_tensor']}"
                    if row.get("outside_tensor")
                    else ""
                )
                where = f": {row['begins']}" if row.get("begins") else where
                note = f" ({row['note']})" if row["note"] else ""
                self.console.print(
                    f"{row['class']}: {row['id']}{where}{note}",
                    style=STYLES[row["class"]],
                    soft_wrap=True,
                )


def command() -> str:
    """The command that runs, as it was typed; "" where another program has called it."""
    name = Path(sys.argv[0]).name
    return shlex.join(["gradtwin", *sys.argv[1:]]) if name in ("gradtwin", "__main__.py") else ""


def _margin(frame: pd.DataFrame) -> str:
    return "lockstep_margin" if "lockstep_margin" in frame else "margin"
