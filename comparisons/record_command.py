"""The commands `gradtwin record` and `gradtwin diff`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import joblib
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from . import baseline, diff, diff_report, recorder, report
from .baseline import Baseline, NotComparable
from .quantities import choices
from .session import Device, Jobs, Json, Seed, known

STYLES = {
    diff.DIFFERENT: "bold red", diff.WORSE: "red", diff.REMOVED: "magenta",
    diff.BETTER: "cyan", diff.NEW: "cyan", "rounding": "green", "identical": "green",
}  # fmt: skip
Threads = Annotated[int, typer.Option(help="Threads of each process.", min=1)]


def record_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Tables, ops, optimizers, schedules, models; all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of the baseline.")] = Path("baseline.parquet"),
    reason: Annotated[str, typer.Option(help="Why a baseline is replaced; it is kept.")] = "",
    repeats: Annotated[
        int, typer.Option(help="Further measurements, one ulp away, for the spread.", min=0)
    ] = 2,
    threads: Threads = 1,
    jobs: Jobs = 0,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Measures gradients, optimizers, schedules and curves, and writes one baseline. What was
    interrupted goes on where it was."""
    for name in names or ():
        known("name", name, choices())
    console = Console(highlight=False)
    before = recorder.identity(out)
    old = None
    if before:
        old = _or_exit(baseline.read, out)
        if not reason:
            raise typer.BadParameter(
                f"{out} is there: say why it is replaced", param_hint="--reason"
            )
    try:
        report.folder(out.parent)
        with recorder.folder_of_parts(out) as parts, _progress(console) as done:
            found = recorder.measured(
                names or (), seed=seed, repeats=repeats, jobs=jobs or joblib.cpu_count(),
                threads=threads, parts=parts, done=done,
            )  # fmt: skip
            new = recorder.updated(found, old, reason or "first recording")
            if recorder.identity(out) != before:
                raise typer.BadParameter(f"{out} was written by another in the meantime")
            baseline.write(out, new.quantities.values(), new.about)
    except ValueError as error:
        raise typer.BadParameter(f"nothing was written: {error}") from None
    except OSError as error:
        kept = "the old one is as it was" if old else "nothing was written"
        full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
        raise typer.BadParameter(f"{out}: {error.strerror}{full}; {kept}") from None
    counts = ", ".join(f"{n} {k}" for k, n in new.about["history"][-1]["classes"].items())
    console.print(f"{len(new.quantities)} quantities in {out}: {counts}")


def diff_command(
    old: Annotated[Path, typer.Argument(help="A baseline.")],
    new: Annotated[Path | None, typer.Argument(help="Another; a fresh run without.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(diff.CLASSES[1:])}; can be repeated. worse and different."),
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
    failing = tuple(fail_on or (diff.WORSE, diff.DIFFERENT))
    for kind in failing:
        known("class", kind, diff.CLASSES[1:])
    for path in save or ():
        known("format", path.suffix, diff_report.FORMATS)
        if not path.parent.is_dir():
            raise typer.BadParameter(f"no folder {path.parent}", param_hint="--save")
    console = Console(stderr=as_json, highlight=False)
    then = _or_exit(baseline.read, old)
    now = _or_exit(baseline.read, new) if new else _fresh(then, console, threads, jobs)
    found = _or_exit(diff.compare, then, now)
    for path in save or ():
        report.write(path, diff_report.FORMATS[path.suffix](found, failing))
    if as_json:
        print(diff_report.as_json(found, failing).decode())
    else:
        show(console, found, failing)
    raise typer.Exit(1 if any(found.counts[kind] for kind in failing) else 0)


def show(console: Console, found: diff.Diff, fail_on: Sequence[str]) -> None:
    """What changed around it, then the rows that moved, group by group, the worst first."""
    for text in diff_report.surroundings(found):
        console.print(text, style="dim", soft_wrap=True, markup=False)
    for name, rows in diff_report.groups(found):
        table = Table(title=f"\n{name}", title_justify="left", title_style="bold", box=None)
        table.pad_edge = False
        for column in ("class", "side", "quantity", "moved", "ulp", "margin"):
            table.add_column(column, overflow="fold" if column == "quantity" else "ellipsis")
        for row in rows.head(diff_report.SHOWN).to_dict("records"):
            margins = f"{row['margin_old']:.2g} → {row['margin_new']:.2g}".replace("nan", "–")
            where = f"{row['id']} {row['index']}\n{row['explained']}".rstrip()
            table.add_row(row["class"], row["side"], where, f"{row['size']:.2g}",
                          str(row["ulp"]), margins, style=STYLES[row["class"]])  # fmt: skip
        console.print(table)
        if len(rows) > diff_report.SHOWN:
            console.print(f"and {len(rows) - diff_report.SHOWN} more", style="dim")
    bad = any(found.counts[kind] for kind in fail_on)
    console.print(diff_report.outcome(found, fail_on), style="bold red" if bad else "bold green")


def _or_exit(work: Callable[..., Any], *args: Any) -> Any:
    """What the work gives; BadParameter, with the reason, where nothing can be compared."""
    try:
        return work(*args)
    except NotComparable as error:
        raise typer.BadParameter(str(error)) from None


def _fresh(then: Baseline, console: Console, threads: int, jobs: int) -> Baseline:
    """What the baseline asked for, measured now."""
    with _progress(console) as done:
        return recorder.measured(
            then.about["names"], seed=then.about["seed"], jobs=jobs or joblib.cpu_count(),
            threads=threads or then.about["threads"], done=done,
        )  # fmt: skip


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[recorder.Progress]:
    """A bar that goes on with every task."""
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=None)
        yield lambda total: progress.update(bar, total=total, advance=1)
