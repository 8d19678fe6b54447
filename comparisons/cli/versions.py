"""The command `gradtwin versions`: which results change from one release of a package to the
next."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..baselines.classes import FAILING, MOVED
from .diff import STYLES, FailOn
from .options import Jobs, Quiet, known

if TYPE_CHECKING:
    from ..baselines.diff import Diff
    from ..baselines.file import Baseline
    from ..baselines.versions import Say, Subject
    from ..report.console import Terminal


def versions_command(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC SPEC…",
            help="A version of torch, 2.12.0, or requirements: numpy==2.3.5, joined by commas.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Table, op, optimizer, schedule or model; repeated. All without."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps baselines, versions.csv and environments."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Install, even if that brings gigabytes.")
    ] = False,
    repeats: Annotated[
        int, typer.Option(help="Further measurements, one ulp away, for the spread.", min=0)
    ] = 0,
    fail_on: FailOn = None,
    quiet: Quiet = False,
    jobs: Jobs = 0,
) -> None:
    """Installs each SPEC in an environment of its own, records a baseline there, and shows what
    moved from each to the next.

    What a SPEC does not name stays as it is here, where pip allows it. Exit status: 0 nothing
    worse, 1 something worse or different, 2 a SPEC that could not be installed or measured.
    """
    known("class", fail_on, MOVED)
    import pandas as pd

    from ..baselines.installation import source, without_halves
    from ..baselines.measure import choices
    from ..baselines.versions import held, summary
    from ..report import files
    from ..report.console import Terminal

    failing = tuple(fail_on or FAILING)
    known("name", only, choices())
    console = Terminal(quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="gradtwin-") as temporary:
        folder = files.folder(out.resolve()) if out else Path(temporary)  # commands run elsewhere
        asked = _asked(specs, folder)
        record = ["record", *(only or ()), "--repeats", str(repeats), "--jobs", str(jobs)]
        try:
            found = _all_measured(asked, source(Path(temporary)), record, yes, console)
        finally:
            without_halves(asked)
        diffs = {(old, new): held(found[old], found[new]) for old, new in itertools.pairwise(found)}
        for (old, new), moved in diffs.items():
            show(console, f"{old.title} → {new.title}", moved, failing)
        if out and found:
            frames = [
                summary(moved).assign(old=old.title, new=new.title)
                for (old, new), moved in diffs.items()
            ]
            if frames:
                frame = pd.concat(frames, ignore_index=True)
                files.write(folder / "versions.csv", frame.to_csv(index=False).encode())
            console.print(f"files: {out}{os.sep}", style="dim")
    if len(found) < len(asked):
        missing = [subject.title for subject in asked if subject not in found]
        console.print(f"not measured: {'; '.join(missing)}", style="bold red")
        raise typer.Exit(2)
    bad = any(moved.counts[kind] for moved in diffs.values() for kind in failing)
    raise typer.Exit(1 if bad else 0)


def _asked(specs: Sequence[str], folder: Path) -> list[Subject]:
    from ..baselines.versions import subjects

    try:
        return subjects(specs, folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SPEC") from None


def _all_measured(
    subjects: Sequence[Subject], source: str, record: Sequence[str], yes: bool, console: Terminal
) -> dict[Subject, Baseline]:
    """The baselines of all that can be installed and measured, in order. What pip would bring is
    asked of all before anything is installed of one."""
    from ..baselines.installation import install, measured, planned
    from ..baselines.versions import Failed

    def attempts(todo: Sequence[Subject], work: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
        for subject in todo:

            def say(text: str, title: str = subject.title) -> None:
                console.print(f"{title}: {text}", style="dim", soft_wrap=True)

            try:
                yield subject, work(subject, say)
            except Failed as error:
                console.print(f"{subject.title}: {error}", style="red")

    plans = dict(attempts(subjects, lambda subject, say: planned(subject, source, say)))
    heavy = {subject: plan.heavy for subject, plan in plans.items() if plan.heavy}
    for subject, packages in heavy.items():
        text = f"{subject.title} brings gigabytes: {', '.join(packages)}"
        console.print(text, style="yellow")
    if heavy and not yes:
        console.print("nothing was installed: --yes installs it", style="bold red")
        raise typer.Exit(2)

    def work(subject: Subject, say: Say) -> Baseline:
        install(subject, plans[subject], source, say)
        return measured(subject, record, say)

    return dict(attempts(list(plans), work))


def show(console: Terminal, title: str, found: Diff, fail_on: Sequence[str]) -> None:
    """What changed around it, a line for each name that moved, and the outcome."""
    from rich.table import Table

    from ..baselines import diff_report
    from ..baselines.versions import summary

    console.print(f"\n{title}", style="bold")
    for name, (old, new) in found.environment.items():
        console.print(f"{name}: {old} → {new}", style="dim", soft_wrap=True)
    rows = summary(found)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "classes", "of", "side", "moved", "most at"):
        table.add_column(column, overflow="fold")
    for row in rows.to_dict("records"):
        cells = (row["name"], row["classes"], str(row["of"]), row["side"], f"{row['moved']:.2g}")
        table.add_row(*cells, row["at"], style=STYLES[row["class"]])
    if len(rows):
        console.print(table)
    if not len(found.table):
        console.print("neither has anything that was asked for", style="bold yellow")
        return
    bad = any(found.counts[kind] for kind in fail_on)
    console.print(diff_report.outcome(found, fail_on), style="bold red" if bad else "bold green")
