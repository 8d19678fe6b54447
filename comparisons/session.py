"""One call of the command line: its options, its console, its processes, what it found."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import joblib
import pandas as pd
import torch
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
from threadpoolctl import threadpool_limits

from ..reference import adapters
from . import report, verdict

Out = Annotated[Path, typer.Option(help="Folder for the tables and pictures.")]
Json = Annotated[bool, typer.Option("--json", help="Print the tables as JSON, and nothing else.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn.", min=0)]
Strict = Annotated[bool, typer.Option("--strict", help="Fail on imprecise and parted as well.")]
RESULTS = Path("results")


def use(device: str) -> str:
    """Lets torch's side run there, in this process and in those that it starts. BadParameter where
    that cannot be."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise typer.BadParameter(f"expected cpu, cuda or mps, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter(f"torch {torch.__version__} sees no cuda device here")
    if kind == "mps":
        raise typer.BadParameter("mps has no float64, which the reference is computed in")
    adapters.DEVICE = os.environ["GRADTWIN_DEVICE"] = device
    return device


Device = Annotated[str, typer.Option(help="Where torch's side runs: cpu or cuda.", callback=use)]


class Session:
    """One call: its console, its processes, and what it has found so far."""

    def __init__(self, out: Path, as_json: bool, jobs: int, strict: bool) -> None:
        self.console = Console(stderr=as_json, highlight=False)
        self.as_json, self.strict = as_json, strict
        self.jobs = jobs or joblib.cpu_count()
        self.frames: dict[str, pd.DataFrame] = {}
        self.pictures: dict[str, dict[str, bytes]] = {}
        try:
            self.out = report.folder(out)
        except OSError as error:
            raise typer.BadParameter(
                f"cannot write to {out}: {error.strerror}", param_hint="--out"
            ) from None

    def run(
        self,
        title: str,
        tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
        columns: Sequence[report.Column],
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
            self.console.print(report.line(columns), style="dim", soft_wrap=True)
        try:
            with progress:
                bar = progress.add_task(title, total=len(tasks))
                for i, result in side_by_side(tasks, self.jobs):
                    results[i] = result
                    if not self.as_json:
                        for row in rows_of(result):
                            style = report.STYLES[row["class"]]
                            progress.console.print(
                                report.line(columns, row), style=style, soft_wrap=True
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
            written += report.save(frame, name, self.out)
        for pictures in self.pictures.values():
            written += [report.write(self.out / name, data) for name, data in pictures.items()]
        bad = {verdict.DIFFERENT, verdict.UNDECIDED}
        bad |= {verdict.IMPRECISE, verdict.PARTED} if self.strict else set()
        failed = {n: f[f["class"].isin(bad)] for n, f in self.frames.items()}
        count = sum(map(len, failed.values()))
        total = sum(map(len, self.frames.values()))
        outcome = outcome or f"{total - count} of {total} rows explained."
        page = report.page(
            self.frames, {t: [*p.values()] for t, p in self.pictures.items()}, outcome
        )
        written.append(report.write(self.out / "report.html", page))
        if self.as_json:
            tables = {
                n: json.loads(f.to_json(orient="records", double_precision=15))
                for n, f in self.frames.items()
            }
            print(json.dumps({"schema": report.SCHEMA, "explained": not count, "tables": tables}))
        else:
            self._summary(failed, outcome)
            self.console.print(
                f"files: {self.out}{os.sep}" + ", ".join(sorted(p.name for p in written)),
                style="dim",
            )
        raise typer.Exit(1 if count else 0)

    def _summary(self, failed: Mapping[str, pd.DataFrame], outcome: str) -> None:
        kinds = [
            k for k in verdict.CLASSES if any((f["class"] == k).any() for f in self.frames.values())
        ]
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
                    style=report.STYLES[row["class"]],
                    soft_wrap=True,
                )
        self.console.print(
            outcome, style="bold red" if any(map(len, failed.values())) else "bold green"
        )


def side_by_side(
    tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], jobs: int, threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """(index, result) of each task as it is done; one task, or one job, stays in this process."""
    work = (
        joblib.delayed(_work)(i, function, args, threads)
        for i, (function, args) in enumerate(tasks)
    )
    jobs = min(jobs, max(len(tasks), 1))
    yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def _work(
    i: int, function: Callable[..., Any], args: tuple[Any, ...], threads: int
) -> tuple[int, Any]:
    """So many threads each: the processes do not disturb each other, and results repeat."""
    with limited(threads):
        return i, function(*args)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads, for torch and for BLAS."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def known(what: str, name: Any, allowed: Any) -> None:
    """BadParameter, with what may have been meant, unless the name is one of those allowed."""
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise typer.BadParameter(f"unknown {what} {name!r}: {hint}Choices: {', '.join(allowed)}")
