"""The command `gradtwin diff`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..baselines.classes import FAILING, FORMATS, MOVED
from .options import Device, Jobs, Json, Quiet, known

if TYPE_CHECKING:
    from ..baselines.diff import Diff
    from ..baselines.file import Baseline
    from ..baselines.record import Progress
    from ..report.console import Terminal

STYLES = {
    "different": "bold red", "worse": "red", "removed": "magenta",
    "better": "cyan", "new": "cyan", "rounding": "green", "identical": "green",
}  # fmt: skip
Threads = Annotated[int, typer.Option(help="Threads of each process.", min=1)]
FailOn = Annotated[
    list[str] | None,
    typer.Option(help=f"{', '.join(MOVED)}; repeatable. Without, {' and '.join(FAILING)}."),
]


def diff_command(
    old: Annotated[Path, typer.Argument(help="A baseline.")],
    new: Annotated[Path | None, typer.Argument(help="Another; a fresh run without.")] = None,
    fail_on: FailOn = None,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that ends in .md, .html, .xml (JUnit), .json or .csv; repeatable."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of each process of a fresh run; 0 as then.", min=0)
    ] = 0,
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    device: Device = "cpu",
) -> None:
    """What moved between two baselines, or since one: on which side, how far, and whether that is
    rounding. Exit status: 0 nothing worse, 1 something worse or different, 2 not comparable."""
    known("class", fail_on, MOVED)
    for path in save or ():
        known("format", path.suffix, FORMATS)
    from ..baselines import diff, diff_report, file
    from ..report import files
    from ..report.console import Terminal

    for path in save or ():
        files.writable(path)
    failing = tuple(fail_on or FAILING)
    console = Terminal(stderr=as_json, quiet=quiet)
    then = or_exit(file.read, old)
    missing = [name for name in ("names", "seed", "threads") if name not in then.about]
    if missing and not new:
        raise typer.BadParameter(f"{old}: cannot be repeated: it does not say its {missing[0]}")
    now = or_exit(file.read, new) if new else _fresh(then, console, threads, jobs)
    found = or_exit(diff.compare, then, now)
    files.write_all({p: diff_report.FORMATS[p.suffix](found, failing) for p in save or ()})
    bad = any(found.counts[kind] for kind in failing)
    if as_json:
        print(diff_report.as_json(found, failing).decode())
    else:
        show(console, found)
        outcome = diff_report.outcome(found, failing)
        Terminal().print(outcome, style="bold red" if bad else "bold green", soft_wrap=True)
    raise typer.Exit(1 if bad else 0)


def show(console: Terminal, found: Diff) -> None:
    """What changed around it, then the rows that moved, group by group, the worst first."""
    from rich.table import Table

    from ..baselines.diff_report import ROWS_SHOWN, groups, surroundings

    for text in surroundings(found):
        console.print(text, style="dim", soft_wrap=True)
    for name, rows in groups(found):
        table = Table(title=f"\n{name}", title_justify="left", title_style="bold", box=None)
        table.pad_edge = False
        for column in ("class", "side", "quantity", "moved", "ulp", "margin"):
            table.add_column(column, overflow="fold" if column == "quantity" else "ellipsis")
        for row in rows.head(ROWS_SHOWN).to_dict("records"):
            margins = f"{row['margin_old']:.2g} → {row['margin_new']:.2g}".replace("nan", "–")
            where = f"{row['id']} {row['index']}\n{row['explained']}".rstrip()
            table.add_row(row["class"], row["side"], where, f"{row['size']:.2g}",
                          str(row["ulp"]), margins, style=STYLES[row["class"]])  # fmt: skip
        console.print(table)
        if len(rows) > ROWS_SHOWN:
            console.print(f"and {len(rows) - ROWS_SHOWN} more", style="dim")


def or_exit(work: Callable[..., Any], *args: Any) -> Any:
    """What the work gives; BadParameter, with the reason, where nothing can be compared."""
    from ..baselines.file import NotComparable

    try:
        return work(*args)
    except NotComparable as error:
        raise typer.BadParameter(str(error)) from None


def _fresh(then: Baseline, console: Terminal, threads: int, jobs: int) -> Baseline:
    """What the baseline asked for, measured now."""
    import joblib

    from ..baselines import record

    with progress(console) as done:
        return record.measured(
            then.about["names"], seed=then.about["seed"], jobs=jobs or joblib.cpu_count(),
            threads=threads or then.about["threads"], done=done,
        )  # fmt: skip


@contextlib.contextmanager
def progress(console: Terminal) -> Iterator[Progress]:
    """A bar that goes on with every task."""
    from rich.progress import Progress as Bar

    with Bar(console=console, transient=True, disable=console.quiet) as progress:
        bar = progress.add_task("measuring", total=None)
        yield lambda total: progress.update(bar, total=total, advance=1)
