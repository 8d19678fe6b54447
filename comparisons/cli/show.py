"""The command `gradtwin show`: all that there is about one op, optimizer or schedule."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ... import manual, reference
from ...manual import dialects
from .. import ops, samples
from ..dialects.lines import print_lines
from ..environment import ROOT
from ..ops.optimizers import configurations, named
from ..report import files, pages
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..samples.schedules import SAMPLES as SCHEDULES
from ..show.anatomy import anatomy
from ..show.elementwise import corners, drawn_lines, figure, plotted
from .options import known


def show_command(
    op: Annotated[str, typer.Argument(help="An op, an optimizer or a schedule.")],
    save: Annotated[
        Path | None, typer.Option(help="Save the plot of value and slope as a picture.")
    ] = None,
) -> None:
    """Rule, mirror, torch's nodes, dialects, samples, corners with what torch follows there, and a
    plot of value and slope."""
    known("op", op, [*ops.names(), *OPTIMIZERS, *SCHEDULES])
    console = Console(highlight=False)
    curve = plotted(op) if op in ops.names() else None
    if save and curve is None:
        raise typer.BadParameter(
            f"expected an op that works element by element, got {op}", param_hint="--save"
        )
    _sources(console, op)
    if op in ops.names():
        _in_torch(console, op)
    for dialect in dialects.of("adam" if op == "adamw" else op):
        console.print(Text(f"\n{dialect.about}: {dialect.name}", style="bold"))
        console.print(Text(f"  {dialect.source}", style="dim"))
        print_lines(console, dialect)
    if op in ops.names():
        rows = [(f"{kind}s", repr(row)) for kind, row in ops.named(op).rows()]
    else:
        settings = configurations(op) if op in OPTIMIZERS else SCHEDULES[op]
        rows = [("settings", samples.written(s) or "defaults") for s in settings]
    for kind, group in itertools.groupby(rows, key=lambda row: row[0]):
        console.print(Text(f"\n{kind}", style="bold"))
        for _, text in group:
            console.print(f"  {op}({text})", markup=False)
    if op in ops.names():
        _corners(console, op)
    if curve:
        console.print(Text(f"\n{op} • and its slope ∘", style="bold"))
        console.print("\n".join(drawn_lines(*curve)), markup=False)
        if save:
            files.write(save, pages.png(figure(op, *curve)))


def _sources(console: Console, op: str) -> None:
    """The rule and its mirror, with the helpers that this names."""

    def code(title: str, text: str) -> None:
        console.print(Text(title, style="bold"))
        console.print(Syntax(text.rstrip(), "python", background_color="default", word_wrap=True))

    module: ModuleType
    if op in OPTIMIZERS:
        rule, module = named(op).rule, reference.optimizers
    elif op in SCHEDULES:
        rule, module = getattr(manual.schedules, op), reference.schedules
    else:
        rule, module = ops.named(op).rule, getattr(reference, ops.named(op).family)
    code(_place(rule), inspect.getsource(rule))
    source = inspect.getsource(module)
    parts: dict[str, str] = {}  # by the name that each has
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            name = getattr(target, "id", getattr(target, "name", ""))
            first = min([node, *getattr(node, "decorator_list", [])], key=lambda n: n.lineno)
            parts[name] = "\n".join(source.splitlines()[first.lineno - 1 : node.end_lineno])
    helpers = [parts[name] for name in re.findall(r"\b_\w+", parts[op]) if name in parts]
    code(f"\n{_place(module)}", "\n\n".join([*dict.fromkeys(helpers), parts[op]]))


def _place(thing: Any) -> str:
    """The file of a rule or of mirrors, as it is called in the source tree."""
    return Path(inspect.getfile(thing)).resolve().relative_to(ROOT).as_posix()


def _in_torch(console: Console, op: str) -> None:
    nodes, forward, backward = anatomy(op)
    console.print(Text("\ntorch", style="bold"))
    for title, names in (("nodes", nodes), ("forward", forward), ("backward", backward)):
        if names:
            console.print(f"  {title:<9}{', '.join(dict.fromkeys(names))}", markup=False)


def _corners(console: Console, op: str) -> None:
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
