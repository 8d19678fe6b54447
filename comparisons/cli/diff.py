"""The command `gradtwin diff`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import joblib
import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from ..baselines import diff, diff_report, file, record
from ..baselines.diff import BETTER, CLASSES, NEW, REMOVED, WORSE, Diff
from ..baselines.diff_report import FORMATS, SHOWN
from ..baselines.file import Baseline, NotComparable
from ..baselines.record import Progress
from ..report import files
from .options import Device, Jobs, Json, known

STYLES = {
    diff.DIFFERENT: "bold red", WORSE: "red", REMOVED: "magenta",
    BETTER: "cyan", NEW: "cyan", "rounding": "green", "identical": "green",
}  # fmt: skip
Threads = Annotated[int, typer.Option(help="Threads of each process.", min=1)]


def diff_command(
    old: Annotated[Path, typer.Argument(help="A baseline.")],
    new: Annotated[Path | None, typer.Argument(help="Another; a fresh run without.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(CLASSES[1:])}; can be repeated. worse and different."),
    ] = None,
    save: Annotated[
        list[Path] | None,
        typer.Option(help="A file that ends in .md, .html, .xml (JUnit), .json or .csv; repeated."),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of each process of a fresh run; 0 as then.", min=0)
    ] = 0,
    jobs: Jobs = 0,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """What moved between two baselines, or since one: on which side, how far, and whether that is
    rounding. Exit status: 0 nothing worse, 1 something worse or different, 2 not comparable."""
    failing = tuple(fail_on or (WORSE, diff.DIFFERENT))
    for kind in failing:
        known("class", kind, CLASSES[1:])
    for path in save or ():
        known("format", path.suffix, FORMATS)
        if not path.parent.is_dir():
            raise typer.BadParameter(f"no folder {path.parent}", param_hint="--save")
    console = Console(stderr=as_json, highlight=False)
    then = or_exit(file.read, old)
    now = or_exit(file.read, new) if new else _fresh(then, console, threads, jobs)
    found = or_exit(diff.compare, then, now)
    for path in save or ():
        files.write(path, FORMATS[path.suffix](found, failing))
    if as_json:
        print(diff_report.as_json(found, failing).decode())
    else:
        show(console, found, failing)
    raise typer.Exit(1 if any(found.counts[kind] for kind in failing) else 0)


def show(console: Console, found: Diff, fail_on: Sequence[str]) -> None:
    """What changed around it, then the rows that moved, group by group, the worst first."""
    for text in diff_report.surroundings(found):
        console.print(text, style="dim", soft_wrap=True, markup=False)
    for name, rows in diff_report.groups(found):
        table = Table(title=f"\n{name}", title_justify="left", title_style="bold", box=None)
        table.pad_edge = False
        for column in ("class", "side", "quantity", "moved", "ulp", "margin"):
            table.add_column(column, overflow="fold" if column == "quantity" else "ellipsis")
        for row in rows.head(SHOWN).to_dict("records"):
            margins = f"{row['margin_old']:.2g} → {row['margin_new']:.2g}".replace("nan", "–")
            where = f"{row['id']} {row['index']}\n{row['explained']}".rstrip()
            table.add_row(row["class"], row["side"], where, f"{row['size']:.2g}",
                          str(row["ulp"]), margins, style=STYLES[row["class"]])  # fmt: skip
        console.print(table)
        if len(rows) > SHOWN:
            console.print(f"and {len(rows) - SHOWN} more", style="dim")
    bad = any(found.counts[kind] for kind in fail_on)
    console.print(diff_report.outcome(found, fail_on), style="bold red" if bad else "bold green")


def or_exit(work: Callable[..., Any], *args: Any) -> Any:
    """What the work gives; BadParameter, with the reason, where nothing can be compared."""
    try:
        return work(*args)
    except NotComparable as error:
        raise typer.BadParameter(str(error)) from None


def _fresh(then: Baseline, console: Console, threads: int, jobs: int) -> Baseline:
    """What the baseline asked for, measured now."""
    with progress(console) as done:
        return record.measured(
            then.about["names"], seed=then.about["seed"], jobs=jobs or joblib.cpu_count(),
            threads=threads or then.about["threads"], done=done,
        )  # fmt: skip


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """A bar that goes on with every task."""
    with Bar(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=None)
        yield lambda total: progress.update(bar, total=total, advance=1)
