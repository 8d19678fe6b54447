"""The command `gradtwin coverage`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import RESULTS, Jobs, Json, Out, Quiet, Seed, Strict, known


def coverage_command(
    ops: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]…",
            help="Our ops, optimizers and schedules, the tape, or entries of op_db; all without.",
        ),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """The coverage table: the rules on PyTorch's own test inputs, error inputs, and bad calls."""
    import itertools

    from ..gradients import coverage
    from ..report import tables
    from ..report.console import Column
    from .runner import Runner

    entries = coverage.entries()
    known("op", ops, sorted({name for names in entries.values() for name in names} | {*others()}))
    tasks: list[Any] = [
        (coverage.entry, (e, seed)) for e, names in entries.items() if not ops or names & set(ops)
    ]
    tasks += [(entry, (name,)) for name, entry in others().items() if not ops or name in ops]
    columns = [
        Column("entry of op_db", 24, lambda r: r["op"], grows=True),
        Column("samples", -11, lambda r: f"{r['explained']} / {r['samples']}"),
        Column("not expr.", -9, lambda r: r["inexpressible"] or "", rank=3),
        Column("errors", -7, lambda r: _share(r["refused"], r["error_inputs"]), rank=1),
        Column("bad calls", -9, lambda r: _share(r["matched"], r["bad_calls"])),
        Column("not comp.", -9, lambda r: r["incomparable"] or "", rank=4),
        Column("margin", -9, lambda r: r["margin"], rank=2),
        Column("class", 19, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, strict, quiet, ops)
    found = runner.run("Coverage", tasks, columns, lambda result: [result[0]])
    rows = [row for row, _ in found]
    runner.frames["coverage"] = tables.table(rows)
    cases = list(itertools.chain.from_iterable(cases for _, cases in found))
    if cases:
        runner.frames["coverage_cases"] = tables.table(cases)
    runner.finish(outcome=coverage.totals(rows))


def others() -> dict[str, Any]:
    """What has bad calls alone, by name: the optimizers, the schedules and the tape."""
    from ..gradients import bad_tape
    from ..ops.optimizers import every
    from ..optimizers import bad_calls as optimizers
    from ..samples.schedules import SAMPLES
    from ..schedules import bad_calls as schedules

    return {
        **{optimizer.name: optimizers.entry for optimizer in every() if optimizer.mirror},
        **dict.fromkeys(SAMPLES, schedules.entry),
        bad_tape.NAME: bad_tape.entry,
    }


def _share(part: int, whole: int) -> str:
    return f"{part} / {whole}" if whole else ""
