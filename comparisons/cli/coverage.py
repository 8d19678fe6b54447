"""The command `gradtwin coverage`."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import typer

from ..gradients import coverage
from ..report import tables
from ..report.console import Column
from .options import RESULTS, Jobs, Json, Out, Seed, Strict, known
from .runner import Runner

COLUMNS: list[Column] = [
    ("entry of op_db", 48, lambda r: r["op"]),
    ("samples", -11, lambda r: f"{r['explained']} / {r['samples']}"),
    ("not expr.", -9, lambda r: r["inexpressible"] or ""),
    ("errors", -7, lambda r: _share(r["refused"], r["error_inputs"])),
    ("bad calls", -9, lambda r: _share(r["matched"], r["bad_calls"])),
    ("not comp.", -9, lambda r: r["incomparable"] or ""),
    ("margin", -8, lambda r: r["margin"]),
    ("class", 20, lambda r: r["class"]),
]


def coverage_command(
    ops: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OP]…", help="Our ops or entries of op_db; all without."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """The coverage table: the rules on PyTorch's own test inputs, error inputs, and bad calls."""
    names = _chosen(ops)
    runner = Runner(out, as_json, jobs, strict)
    tasks = [(coverage.entry, (name, seed)) for name in names]
    found = runner.run("Coverage", tasks, COLUMNS, lambda result: [result[0]])
    rows = [row for row, _ in found]
    runner.frames["coverage"] = tables.table(rows)
    cases = list(itertools.chain.from_iterable(cases for _, cases in found))
    if cases:
        runner.frames["coverage_cases"] = tables.table(cases)
    runner.finish(outcome=totals(rows))


def totals(rows: list[dict[str, Any]]) -> str:
    """The totals of the table in one line."""
    ruled = [r for r in rows if r["rule"]]

    def total(column: str) -> int:
        return sum(r[column] for r in ruled)

    complete = sum(r["explained"] == r["samples"] > 0 for r in ruled)
    return (
        f"{complete} of {len(rows)} entries complete; with a rule, "
        f"{total('explained')} of {total('samples')} samples explained "
        f"({total('inexpressible')} not expressible), "
        f"{total('refused')} of {total('error_inputs')} error inputs refused, "
        f"{total('matched')} of {total('bad_calls')} bad calls answered as torch does "
        f"({total('incomparable')} not comparable: whole or complex numbers, which only torch "
        "takes, and what crashes it)."
    )


def _chosen(ops: list[str] | None) -> list[str]:
    entries = coverage.entries()
    if not ops:
        return list(entries)
    for op in ops:
        known("op", op, sorted({name for names in entries.values() for name in names}))
    return [entry for entry, names in entries.items() if names & set(ops)]


def _share(part: int, whole: int) -> str:
    return f"{part} / {whole}" if whole else ""
