"""The command `gradtwin calibrate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RESULTS, Jobs, Json, Out, Quiet, known

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


def calibrate_command(
    seeds: Annotated[int, typer.Option(help="Seeds for rules and optimizers.", min=1)] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="curves, optimizers or gradients; all without. Repeatable."),
    ] = None,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Once for each set of kernels that this processor can run.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of each process.", min=1)] = 1,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
) -> None:
    """How far all that is correct stays below the limit of the verdict, with all the noise
    drawn."""
    import itertools

    from .. import environment
    from ..bench.calibration import CALIBRATED, rounding, tasks
    from ..report import tables
    from ..report.console import Column
    from .runner import Runner

    known("measurement", only, CALIBRATED)
    chosen = only or list(CALIBRATED)
    columns = [
        Column("what", 22, lambda r: r["what"]),
        Column("where", 24, lambda r: r["id"], grows=True),
        Column("floors", -9, lambda r: r["floors"]),
        Column("class", 19, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet)
    frames: dict[str, pd.DataFrame] = {}
    if kernels:
        for variables in environment.kernels():
            named = " ".join(f"{name}={value}" for name, value in variables.items())
            runner.console.print(f"\n{named}", style="bold", soft_wrap=True)
            frames[named] = _calibrated_under(variables, seeds, chosen, runner.jobs)
            runner.console.print(_floors(frames[named]))
        frame = tables.table(
            {"kernels": named, **{str(k): v for k, v in row.items()}, "id": f"{row['id']}/{named}"}
            for named, rows in frames.items()
            for row in rows.to_dict("records")
        )
    else:
        work = [task for what in chosen for task in tasks(what, seeds, threads)]
        found = runner.run("Calibration", work, columns, lambda rows: rows[:1])
        frame = tables.table(itertools.chain(*found))
        runner.console.print(_floors(frame))
    tables.save(frame, "calibration", runner.out)
    if as_json:
        print(frame.to_json(orient="records", double_precision=15))
    else:
        outside = len(frame) - len(rounding(frame))
        hint = f"; {outside} are not: calibration.csv has them" if outside else ""
        runner.last.print(f"{len(frame) - outside} of {len(frame)} are rounding{hint}.")
    raise typer.Exit(int(len(rounding(frame)) < len(frame)))


def _calibrated_under(
    variables: Mapping[str, str], seeds: int, only: Sequence[str], jobs: int
) -> pd.DataFrame:
    """The same measurement in a process of its own, whose environment has these variables."""
    import json
    import os
    import subprocess
    import sys
    import tempfile

    import pandas as pd

    command = [sys.executable, "-P", "-m", "gradtwin", "calibrate", "--json", f"--seeds={seeds}"]
    command += [f"--jobs={jobs}", f"--threads={variables['OMP_NUM_THREADS']}"]
    command += [f"--only={what}" for what in only]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, f"--out={folder}"],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise typer.Exit(done.returncode)  # it has said why
    return pd.DataFrame(json.loads(done.stdout))


def _floors(frame: pd.DataFrame) -> Table:
    """What was measured, in floors, for a person."""
    from rich.table import Table

    from ..bench.calibration import rounding
    from ..verdict.classes import LIMIT

    table = Table(
        title="\nIn floors", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in ("what", "measured", "median", "99 %", "largest", "limit", "not rounding"):
        table.add_column(column, justify="left" if column == "what" else "right")
    measured = rounding(frame)
    for what, group in frame.groupby("what", sort=False):
        floors = measured[measured["what"] == what]["floors"]
        table.add_row(
            str(what),
            str(len(floors)),
            f"{floors.median():.3g}",
            f"{floors.quantile(0.99):.3g}",
            f"{floors.max():.3g}",
            f"{LIMIT:g}",
            str(len(group) - len(floors)),
        )
    return table
