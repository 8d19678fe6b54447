"""The command `gradtwin bench`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from ..bench import optimizers, tape
from ..bench.optimizers import OTHERS
from ..ops.optimizers import named
from ..report import tables
from ..samples.optimizers import SAMPLES
from .options import RESULTS, Json, Out, known
from .runner import Runner


def _print_tape(runner: Runner, found: Sequence[dict[str, Any]]) -> None:
    runner.console.print(
        "A node of a chain takes this many times as long as one of the shortest, or as torch's"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("nodes", "by hand", "torch", "by hand / torch"):
        table.add_column(column, justify="right")
    for r in found:
        growth = [r[side] / found[0][side] for side in ("manual", "torch")]
        ratios = (*growth, r["manual"] / r["torch"])
        table.add_row(f"{r['nodes']:,}", *(f"{ratio:.2f}" for ratio in ratios))
    runner.console.print(table)


def bench_command(
    what: Annotated[str, typer.Argument(metavar="optimizers|tape", help="What to time.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Optimizers; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
) -> None:
    """How fast it is: an optimizer's step by hand beside torch's loop, foreach and fused, and the
    memory, on a million float32 elements; or a node of the tape beside one of torch's graph.

    One thread, medians of interleaved runs.
    """
    known("subject", what, ["optimizers", "tape"])
    for name in names or ():
        known("optimizer", name, SAMPLES)
    if names and what == "tape":
        raise typer.BadParameter(
            f"expected none with tape, got {', '.join(names)}", param_hint="NAME"
        )
    runner = Runner(out, as_json, 1, strict=False)
    if what == "tape":
        with runner.console.status("timing"):
            found = tape.rows()
        tables.save(tables.table(found), "bench_tape", runner.out)
        if as_json:
            print(tables.table(found).to_json(orient="records"))
        else:
            _print_tape(runner, found)
        return
    chosen: Sequence[str] = names or list(SAMPLES)
    with runner.console.status("timing"):
        found = [
            row
            for name in chosen
            if named(name).mirror is not None
            for row in optimizers.rows(name)
        ]
    frame = tables.table(found)
    tables.save(frame, "bench", runner.out)
    if as_json:
        print(frame.to_json(orient="records"))
        return
    title = (
        "One step by hand takes this many times as long as torch's, or as copying what it touches"
    )
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("optimizer")
    for other in OTHERS:
        table.add_column(other, justify="right")
    for r in found:
        ratios = (r[f"to_{other}"] for other in OTHERS)
        table.add_row(
            f"{r['optimizer']}({r['settings']})",
            *("" if math.isnan(x) else f"{x:.2f}" for x in ratios),
        )
    runner.console.print(table)
