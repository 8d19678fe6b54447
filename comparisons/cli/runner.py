"""One call of a command: its console, its processes, and what it has found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import typer
from rich.console import Console
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
from rich.text import Text

from ..parallel import side_by_side
from ..report import console, files, pages, tables
from ..report.console import STYLES, Column
from ..report.tables import SCHEMA
from ..verdict.classes import CLASSES, DIFFERENT, IMPRECISE, PARTED, UNDECIDED


class Runner:
    """One call: its console, its processes, and what it has found so far."""

    def __init__(self, out: Path, as_json: bool, jobs: int, strict: bool) -> None:
        self.console = Console(stderr=as_json, highlight=False)
        self.as_json, self.strict = as_json, strict
        self.jobs = jobs or joblib.cpu_count()
        self.frames: dict[str, pd.DataFrame] = {}
        self.pictures: dict[str, dict[str, bytes]] = {}
        try:
            self.out = files.folder(out)
        except OSError as error:
            raise typer.BadParameter(
                f"cannot write to {out}: {error.strerror}", param_hint="--out"
            ) from None

    def run(
        self,
        title: str,
        tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        columns: Sequence[Column],
        rows_of: Callable[[Any], Sequence[Mapping[str, Any]]],
    ) -> list[Any]:
        """Does the tasks side by side, shows lines as they come, and returns the results in
        order."""
        results: list[Any] = [None] * len(tasks)
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
        )
        if not self.as_json:
            self.console.print(Text(f"\n{title}", style="bold"))
            self.console.print(console.line(columns), style="dim", soft_wrap=True)
        try:
            with progress:
                bar = progress.add_task(title, total=len(tasks))
                for i, result in side_by_side(tasks, self.jobs):
                    results[i] = result
                    if not self.as_json:
                        for row in rows_of(result):
                            style = STYLES[row["class"]]
                            progress.console.print(
                                console.line(columns, row), style=style, soft_wrap=True
                            )
                    progress.advance(bar)
        except KeyboardInterrupt:
            self.console.print("interrupted; no file was written", style="bold red")
            raise typer.Exit(130) from None
        return results

    def finish(self, outcome: str = "") -> None:
        """Writes the files, prints the summary, and exits with 0 if all is explained, else 1.

        The last line, `outcome`, says without one how many rows are explained.
        """
        written = []
        for name, frame in self.frames.items():
            written += tables.save(frame, name, self.out)
        for pictures in self.pictures.values():
            written += [files.write(self.out / name, data) for name, data in pictures.items()]
        bad = {DIFFERENT, UNDECIDED}
        bad |= {IMPRECISE, PARTED} if self.strict else set()
        failed = {n: f[f["class"].isin(bad)] for n, f in self.frames.items()}
        count = sum(map(len, failed.values()))
        total = sum(map(len, self.frames.values()))
        outcome = outcome or f"{total - count} of {total} rows explained."
        page = pages.page(
            self.frames, {t: [*p.values()] for t, p in self.pictures.items()}, outcome
        )
        written.append(files.write(self.out / "report.html", page))
        if self.as_json:
            found = {
                n: json.loads(f.to_json(orient="records", double_precision=15))
                for n, f in self.frames.items()
            }
            print(json.dumps({"schema": SCHEMA, "explained": not count, "tables": found}))
        else:
            self._summary(failed, outcome)
            self.console.print(
                f"files: {self.out}{os.sep}" + ", ".join(sorted(p.name for p in written)),
                style="dim",
            )
        raise typer.Exit(1 if count else 0)

    def _summary(self, failed: Mapping[str, pd.DataFrame], outcome: str) -> None:
        kinds = [k for k in CLASSES if any((f["class"] == k).any() for f in self.frames.values())]
        summary = Table(title="\nSummary", title_justify="left", title_style="bold", box=None)
        summary.pad_edge, summary.expand = False, True
        summary.add_column("table", no_wrap=True)
        for column in ("rows", *kinds, "worst margin"):
            summary.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
        summary.add_column("at", no_wrap=True, ratio=1)  # has what room there is
        for name, frame in self.frames.items():
            margin = frame["lockstep_margin" if "lockstep_margin" in frame else "margin"]
            counts = [str(n) if (n := int((frame["class"] == k).sum())) else "" for k in kinds]
            at = str(frame["id"].iloc[int(margin.argmax())])
            summary.add_row(
                name,
                str(len(frame)),
                *counts,
                f"{margin.max():.3g}",
                at,
            )
        self.console.print(summary)
        for frame in failed.values():
            for row in frame.head(10).to_dict("records"):
                where = (
                    f" at step {row['outside_step']:.0f}: {row['outside_tensor']}"
                    if row.get("outside_tensor")
                    else ""
                )
                note = f" ({row['note']})" if row["note"] else ""
                self.console.print(
                    f"{row['class']}: {row['id']}{where}{note}",
                    style=STYLES[row["class"]],
                    soft_wrap=True,
                )
        self.console.print(
            outcome, style="bold red" if any(map(len, failed.values())) else "bold green"
        )
