"""The command `gradtwin schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RESULTS, Jobs, Json, Out, Quiet, Seed, Strict, known

if TYPE_CHECKING:
    from .runner import Runner


def schedules_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Schedules; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """The schedule-parity table and picture: every closed form beside torch's, step by step."""
    from ..samples.schedules import SAMPLES

    known("schedule", names, SAMPLES)
    from .runner import Runner

    runner = Runner(out, as_json, jobs, strict, quiet, names)
    run_schedules(runner, names or list(SAMPLES), seed)
    runner.finish()


def run_schedules(runner: Runner, names: Sequence[str], seed: int) -> None:
    """A line for each schedule, choice of settings and quantity."""
    import itertools

    from ..report import pages, tables
    from ..report.console import Column
    from ..samples.schedules import SAMPLES
    from ..schedules import figure, table

    columns = [
        Column("schedule", 25, lambda r: r["schedule"]),
        Column("settings", 16, lambda r: r["settings"] or "defaults", grows=True),
        Column("quantity", 8, lambda r: r["quantity"], rank=1),
        Column("at", -4, lambda r: r["step"], rank=2),
        Column("manual", -10, lambda r: r["manual"], rank=4),
        Column("torch", -10, lambda r: r["reference"], rank=3),
        Column("margin", -9, lambda r: r["margin"]),
        Column("class", 19, lambda r: r["class"]),
    ]
    chosen = [(name, i) for name in names for i in range(len(SAMPLES[name]))]
    tasks = [(table.numbered, (name, i, seed)) for name, i in chosen]
    found = runner.run("Schedules", tasks, columns, list)
    runner.frames["schedules"] = tables.table(itertools.chain(*found))
    drawn = [
        (f"{name}({rows[0]['settings']})", table.curves(name, SAMPLES[name][i], seed))
        for (name, i), rows in zip(chosen, found, strict=True)
    ]
    picture = pages.picture(figure.schedules_figure(drawn), figure.alternative(drawn))
    runner.pictures["schedules"] = {"schedules.png": picture}
