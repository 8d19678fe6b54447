"""The command `gradtwin show`: all that there is about one op, optimizer or schedule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import known

if TYPE_CHECKING:
    from ..report.console import Terminal


def show_command(
    op: Annotated[str, typer.Argument(help="An op, an optimizer or a schedule.")],
    save: Annotated[
        Path | None, typer.Option(help="Save the plot of value and slope as a picture.")
    ] = None,
) -> None:
    """Rule, mirror, torch's nodes, dialects with the step at which any two part, samples, corners
    with what torch follows there, and a plot of value and slope."""
    from ...manual.optimizers import elsewhere
    from .. import ops
    from ..samples.optimizers import SAMPLES as OPTIMIZERS
    from ..samples.schedules import SAMPLES as SCHEDULES

    known("op", op, [*ops.names(), *OPTIMIZERS, *SCHEDULES, *elsewhere.__all__])
    import itertools

    from rich.syntax import Syntax

    from ...manual import dialects
    from ..dialects.lines import print_lines
    from ..report import files, pages
    from ..report.console import Terminal
    from ..show.elementwise import drawn_lines, figure, plotted
    from ..show.sources import sources, tried_on

    if save:
        files.writable(save)
    console = Terminal()
    curve = plotted(op) if op in ops.names() else None
    if save and curve is None:
        raise typer.BadParameter(
            f"expected an op that works element by element, got {op}", param_hint="--save"
        )
    for place, text in sources(op):
        console.print(place, style="bold")
        console.print(Syntax(text, "python", background_color="default", word_wrap=True))
    if op in ops.names():
        _in_torch(console, op)
    for dialect in dialects.of("adam" if op == "adamw" else op):
        console.print(f"\n{dialect.about}: {dialect.name}", style="bold")
        console.print(f"  {dialect.source}", style="dim")
        print_lines(console, dialect)
    _apart(console, "adam" if op == "adamw" else op)
    for kind, group in itertools.groupby(tried_on(op), key=lambda row: row[0]):
        console.print(f"\n{kind}", style="bold")
        for _, text in group:
            console.print(f"  {op}({text})")
    if op in ops.names():
        _corners(console, op)
    if curve:
        console.print(f"\n{op} • and its slope ∘", style="bold")
        console.print("\n".join(drawn_lines(*curve)))
        if save:
            files.write(save, pages.png(figure(op, *curve)))


def _apart(console: Terminal, optimizer: str) -> None:
    from rich.table import Table

    from ...manual import dialects
    from ..show.apart import STEPS, parted

    if not dialects.of(optimizer):
        return
    names, steps = parted(optimizer)
    title = f"\nthe step at which two of them part, of {STEPS}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("  ")
    for i in range(len(names)):
        table.add_column(str(i), justify="right")
    for i, (name, row) in enumerate(zip(names, steps, strict=True)):
        cells = ["·" if i == j else str(s or "–") for j, s in enumerate(row)]
        table.add_row(f"  {i} {name}", *cells)
    console.print(table)


def _in_torch(console: Terminal, op: str) -> None:
    from ..show.anatomy import anatomy

    nodes, forward, backward = anatomy(op)
    console.print("\ntorch", style="bold")
    for title, names in (("nodes", nodes), ("forward", forward), ("backward", backward)):
        if names:
            console.print(f"  {title:<9}{', '.join(dict.fromkeys(names))}")


def _corners(console: Terminal, op: str) -> None:
    from rich.table import Table

    from ..show.elementwise import corners

    found = list(corners(op))
    if not found:
        return
    table = Table(
        box=None, pad_edge=False, title="\nkinks", title_justify="left", title_style="bold"
    )
    for column in ("x", "left", "right", "manual", "torch", "convention"):
        table.add_column(f"  {column}" if column == "x" else column, justify="right")
    for r in found:
        numbers = (f"{r[name]:.6g}" for name in ("x", "left", "right", "manual", "torch"))
        table.add_row(*numbers, r["convention"])
    console.print(table)
