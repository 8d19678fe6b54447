"""The command `gradtwin schedules`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..report import pages, tables
from ..report.console import Column
from ..samples.schedules import SAMPLES as SCHEDULES
from ..schedules import figure, table
from .options import RESULTS, Jobs, Json, Out, Seed, Strict, known
from .runner import Runner

SCHEDULE_COLUMNS: list[Column] = [
    ("schedule", 30, lambda r: r["schedule"]),
    ("settings", 46, lambda r: r["settings"] or "defaults"),
    ("quantity", 8, lambda r: r["quantity"]),
    ("at", -4, lambda r: r["step"]),
    ("manual", -11, lambda r: r["manual"]),
    ("torch", -11, lambda r: r["reference"]),
    ("margin", -10, lambda r: r["margin"]),
    ("class", 20, lambda r: r["class"]),
]


def run_schedules(runner: Runner, names: Sequence[str], seed: int) -> None:
    chosen = [(name, settings) for name in names for settings in SCHEDULES[name]]
    tasks = [
        (_schedule_rows, (name, i, seed)) for name in names for i in range(len(SCHEDULES[name]))
    ]
    found = runner.run("Schedules", tasks, SCHEDULE_COLUMNS, list)
    frame = tables.table(itertools.chain(*found))
    runner.frames["schedules"] = frame
    texts = [rows[0]["settings"] for rows in found]
    drawn = [
        (f"{name}({text})", table.curves(name, settings, seed))
        for (name, settings), text in zip(chosen, texts, strict=True)
    ]
    picture = pages.png(figure.schedules_figure(drawn))
    runner.pictures["schedules"] = {"schedules.png": picture}


def _schedule_rows(name: str, number: int, seed: int) -> list[dict[str, Any]]:
    """By number, because a function among the settings cannot be sent to another process."""
    return table.rows(name, SCHEDULES[name][number], seed)


def schedules_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Schedules; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """The schedule-parity table and picture: every closed form beside torch's, step by step."""
    for name in names or ():
        known("schedule", name, SCHEDULES)
    runner = Runner(out, as_json, jobs, strict)
    run_schedules(runner, names or list(SCHEDULES), seed)
    runner.finish()
