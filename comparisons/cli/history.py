"""The command `gradtwin history`: how the margins went, over the baselines of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Json, Out, Quiet, known

if TYPE_CHECKING:
    from ..baselines.history import Recording
    from ..report.console import Terminal

LISTED = 10  # names listed if none is asked for


def history_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of baselines.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…",
            help=f"Ops, optimizers, schedules, models; the {LISTED} that grew most without.",
        ),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How margins went, over all baselines of a folder in the order of their recording: a table,
    history.csv and history.png. Exit status: 0, or 2 if there is no baseline."""
    from rich.progress import track

    from ..baselines.history import as_text, figure, growth_first, line, recordings, table
    from ..report import files, pages
    from ..report.console import Terminal

    console = Terminal(stderr=as_json, quiet=quiet)
    if not folder.is_dir():
        raise typer.BadParameter(f"expected a folder, got {folder}", param_hint="DIR")
    paths = sorted(folder.glob("*.parquet"))
    bar = track(paths, "reading", console=console, transient=True, disable=quiet)
    found, skipped = recordings(bar)
    for reason in skipped:
        console.print(f"skipped {reason}", style="yellow", soft_wrap=True)
    if not found:
        text = f"{folder}: expected one baseline or more, got none among {len(paths)} *.parquet"
        raise typer.BadParameter(text, param_hint="DIR")
    every = list(dict.fromkeys(name for recording in found for name in recording.worst))
    known("name in these baselines", names, every)
    rows = sorted((line(name, found) for name in every), key=growth_first)
    shown = rows[:LISTED] if not names else [line(name, found) for name in dict.fromkeys(names)]
    picture = pages.png(figure(found, [row["name"] for row in shown]))
    files.folder(out)
    contents = {"history.csv": table(found).to_csv(index=False).encode(), "history.png": picture}
    files.write_all({out / name: content for name, content in contents.items()})
    if as_json:
        print(as_text(found, skipped, shown))
        return
    show(console, found, shown)
    if not names and len(rows) > len(shown):
        console.print(f"and {len(rows) - len(shown)} names that grew no more", style="dim")
    console.print(f"files: {out}/history.csv, history.png", style="dim")
    Terminal(stderr=as_json).print(_outcome(found, rows))


def _outcome(found: Sequence[Recording], rows: Sequence[Mapping[str, Any]]) -> str:
    """The last line."""
    most = max(rows, key=lambda row: row["last"])
    beyond = sum(row["last"] > 1 for row in rows)
    left = f"{beyond} of {len(rows)} names are beyond the limit" if beyond else "none is beyond 1"
    return (
        f"{len(found)} recordings: {left}; the largest margin in the last is {most['last']:.3g}, "
        f"of {most['name']}."
    )


def show(console: Terminal, found: Sequence[Recording], shown: Sequence[Mapping[str, Any]]) -> None:
    """From when to when, and a line for each name."""
    from rich.table import Table

    from ..baselines.history import RECENT

    first, last = found[0], found[-1]
    console.print(f"{len(found)} recordings, {first.date} to {last.date}; margins, 1 is the limit")
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("name", overflow="fold")
    for column in ("first", "last", "largest", "grown"):
        drawn.add_column(column, justify="right")
    drawn.add_column(f"last {RECENT}" if len(found) > RECENT else "all", no_wrap=True)
    for row in shown:
        grown = f"{row['grown']:+.2g}" if row["moved"] else "unmoved"
        numbers = [f"{row[column]:.3g}" for column in ("first", "last", "largest")]
        missing = "" if row["there"] else " missing in the last"
        style = "bold red" if row["last"] > 1 else "yellow" if row["largest"] > 1 else None
        drawn.add_row(row["name"], *numbers, grown, row["spark"] + missing, style=style)
    console.print(drawn)
