"""The command `gradtwin gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RESULTS, Device, Jobs, Json, Out, Quiet, Seed, Strict, known

if TYPE_CHECKING:
    from .runner import Runner


def gradients_command(
    ops: Annotated[
        list[str] | None, typer.Argument(metavar="[OP]…", help="Ops; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
    truth: Annotated[
        bool, typer.Option("--truth", help="Both sides beside the exact value instead.")
    ] = False,
) -> None:
    """The gradient-parity table: every rule and its mirror, argument by argument."""
    from ..ops import names

    known("op", ops, names())
    from .runner import Runner

    runner = Runner(out, as_json, jobs, strict, quiet, ops)
    if truth:
        _run_accuracy(runner, ops or names(), seed)
    else:
        run_gradients(runner, ops or names(), seed, detail=bool(ops))
    runner.finish()


def run_gradients(runner: Runner, ops: Sequence[str], seed: int, detail: bool) -> None:
    """A line for each op, or in detail one for each result."""
    import itertools

    from ..gradients import table
    from ..report import tables
    from ..report.console import Column

    summed = [
        Column("op", 20, lambda r: r["op"], grows=True),
        Column("results", -7, lambda r: r["results"], rank=2),
        Column("identical", -9, lambda r: r["identical"], rank=3),
        Column("max ulp", -9, lambda r: r["max_ulp"]),
        Column("margin", -9, lambda r: r["margin"]),
        Column("resolution", -10, lambda r: r["resolution"], rank=1),
        Column("largest at", 40, lambda r: r["at"], rank=4, grows=True),
        Column("class", 19, lambda r: r["class"]),
    ]
    detailed = [
        Column("op", 14, lambda r: r["op"]),
        Column("sample", 16, lambda r: r["sample"], grows=True),
        Column("argument", 8, lambda r: r["argument"]),
        Column("dtype", 7, lambda r: r["dtype"]),
        Column("ulp", -9, lambda r: r["max_ulp"], rank=1),
        Column("index", 9, lambda r: r["index"], rank=4),
        Column("manual", -10, lambda r: r["manual"], rank=2),
        Column("reference", -10, lambda r: r["reference"], rank=2),
        Column("exact", -10, lambda r: r["exact"], rank=3),
        Column("margin", -9, lambda r: r["margin"]),
        Column("class", 19, lambda r: r["class"]),
    ]
    tasks = [(table.rows, (op, seed)) for op in ops]
    columns, rows_of = (detailed, list) if detail else (summed, lambda rows: [table.summed(rows)])
    found = runner.run("Gradients", tasks, columns, rows_of)
    runner.frames["gradients"] = tables.table(itertools.chain(*found))


def _run_accuracy(runner: Runner, ops: Sequence[str], seed: int) -> None:
    import itertools

    from ..gradients import accuracy
    from ..report import tables
    from ..report.console import Column

    columns = [
        Column("op", 20, lambda r: r["op"], grows=True),
        Column("result", 8, lambda r: r["argument"]),
        Column("dtype", 7, lambda r: r["dtype"]),
        Column("elements", -8, lambda r: r["elements"], rank=5),
        Column("by convention", -13, lambda r: r["conventions"] or "", rank=4),
        Column("manual ulp", -10, lambda r: r["manual_ulp"]),
        Column("torch ulp", -10, lambda r: r["torch_ulp"]),
        Column("manual", -10, lambda r: r["manual"], rank=3),
        Column("torch", -10, lambda r: r["torch"], rank=2),
        Column("exact", -10, lambda r: r["exact"], rank=1),
        Column("nearer", 6, lambda r: r["nearer"]),
    ]
    tasks = [(accuracy.rows, (op, seed)) for op in ops]
    found = runner.run("Accuracy", tasks, columns, accuracy.summed)
    runner.frames["accuracy"] = tables.table(itertools.chain(*found))
