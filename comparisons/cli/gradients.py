"""The command `gradtwin gradients`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
import typer

from ..gradients import accuracy, table
from ..ops import names
from ..report import tables
from ..report.console import Column
from ..verdict import classes
from ..verdict.classes import IDENTICAL
from .options import RESULTS, Device, Jobs, Json, Out, Seed, Strict, known
from .runner import Runner


def _gradient_rows(op: str, seed: int) -> list[dict[str, Any]]:
    return list(table.rows(op, seed))


GRADIENT_COLUMNS: list[Column] = [
    ("op", 34, lambda r: r["op"]),
    ("results", -8, lambda r: r["results"]),
    ("identical", -10, lambda r: r["identical"]),
    ("max ulp", -9, lambda r: r["max_ulp"]),
    ("worst margin", -13, lambda r: r["margin"]),
    ("resolution", -11, lambda r: r["resolution"]),
    ("class", 20, lambda r: r["class"]),
]
GRADIENT_DETAIL: list[Column] = [
    ("op", 20, lambda r: r["op"]),
    ("sample", 40, lambda r: r["sample"]),
    ("argument", 12, lambda r: r["argument"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("ulp", -8, lambda r: r["max_ulp"]),
    ("index", 10, lambda r: r["index"]),
    ("manual", -11, lambda r: r["manual"]),
    ("reference", -11, lambda r: r["reference"]),
    ("exact", -11, lambda r: r["exact"]),
    ("margin", -10, lambda r: r["margin"]),
    ("class", 20, lambda r: r["class"]),
]
ACCURACY_COLUMNS: list[Column] = [
    ("op", 34, lambda r: r["op"]),
    ("result", 12, lambda r: r["argument"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("elements", -9, lambda r: r["elements"]),
    ("by convention", -13, lambda r: r["conventions"] or ""),
    ("manual ulp", -11, lambda r: r["manual_ulp"]),
    ("torch ulp", -11, lambda r: r["torch_ulp"]),
    ("manual", -11, lambda r: r["manual"]),
    ("torch", -11, lambda r: r["torch"]),
    ("exact", -11, lambda r: r["exact"]),
    ("nearer", 8, lambda r: r["nearer"]),
]


def _summed_gradients(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    frame = pd.DataFrame(rows)
    return [
        {
            "op": frame["op"][0],
            "results": len(frame),
            "identical": int((frame["class"] == IDENTICAL).sum()),
            "max_ulp": int(frame["max_ulp"].max()),
            "margin": float(frame["margin"].max()),
            "resolution": float(frame["resolution"].median()),
            "class": classes.worst(frame["class"]),
        }
    ]


def run_gradients(runner: Runner, ops: Sequence[str], seed: int, detail: bool) -> None:
    tasks = [(_gradient_rows, (op, seed)) for op in ops]
    columns, rows_of = (GRADIENT_DETAIL, list) if detail else (GRADIENT_COLUMNS, _summed_gradients)
    found = runner.run("Gradients", tasks, columns, rows_of)
    runner.frames["gradients"] = tables.table(itertools.chain(*found))


def _summed_accuracy(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each result and dtype: the worst case of either side."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["argument"], row["dtype"]), []).append(row)
    found = []
    for group in groups.values():
        ours, theirs = (max(r[side] for r in group) for side in ("manual_ulp", "torch_ulp"))
        found.append(
            {
                **max(group, key=lambda r: r["manual_ulp"] + r["torch_ulp"]),
                "manual_ulp": ours,
                "torch_ulp": theirs,
                "elements": sum(r["elements"] for r in group),
                "conventions": sum(r["conventions"] for r in group),
                "nearer": accuracy.nearer(ours, theirs),
                "class": classes.worst(r["class"] for r in group),
            }
        )
    return found


def _run_accuracy(runner: Runner, ops: Sequence[str], seed: int) -> None:
    tasks = [(_accuracy_rows, (op, seed)) for op in ops]
    found = runner.run("Accuracy", tasks, ACCURACY_COLUMNS, _summed_accuracy)
    runner.frames["accuracy"] = tables.table(itertools.chain(*found))


def _accuracy_rows(op: str, seed: int) -> list[dict[str, Any]]:
    return list(accuracy.rows(op, seed))


def gradients_command(
    ops: Annotated[
        list[str] | None, typer.Argument(metavar="[OP]…", help="Ops; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
    truth: Annotated[
        bool, typer.Option("--truth", help="Both sides beside the exact value instead.")
    ] = False,
) -> None:
    """The gradient-parity table: every rule and its mirror, argument by argument."""
    for op in ops or ():
        known("op", op, names())
    runner = Runner(out, as_json, jobs, strict)
    if truth:
        _run_accuracy(runner, ops or names(), seed)
    else:
        run_gradients(runner, ops or names(), seed, detail=bool(ops))
    runner.finish()
