"""The command `gradtwin calibrate`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table

from .. import environment, ops
from ..curves import divergence
from ..curves.grid import GRID
from ..gradients import table as gradients
from ..ops.optimizers import configurations
from ..optimizers import table as optimizers
from ..parallel import limited
from ..report import tables
from ..report.console import Column
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..training.cells import Cell
from ..verdict.classes import DTYPES, IDENTICAL, LIMIT, ROUNDING
from .options import RESULTS, Jobs, Json, Out, known
from .runner import Runner


def calibrate_command(
    seeds: Annotated[int, typer.Option(help="Seeds for rules and optimizers.", min=1)] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="curves, optimizers or gradients; all without. Can be repeated."),
    ] = None,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Once for each set of kernels that this processor can run."),
    ] = False,
    threads: Annotated[int, typer.Option(help="Threads of each process.", min=1)] = 1,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
) -> None:
    """How far all that is correct stays below the limit of the verdict, with all the noise
    drawn."""
    chosen = only or list(CALIBRATED)
    for what in chosen:
        known("measurement", what, CALIBRATED)
    runner = Runner(out, as_json, jobs, strict=False)
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
        tasks = [(_threaded, (threads, *task)) for w in chosen for task in CALIBRATED[w](seeds)]
        found = runner.run("Calibration", tasks, CALIBRATION_COLUMNS, lambda rows: rows[:1])
        frame = tables.table(itertools.chain(*found))
        runner.console.print(_floors(frame))
    tables.save(frame, "calibration", runner.out)
    if as_json:
        print(frame.to_json(orient="records", double_precision=15))
    raise typer.Exit(int(len(_rounding(frame)) < len(frame)))


def _calibrated_under(
    variables: Mapping[str, str], seeds: int, only: Sequence[str], jobs: int
) -> pd.DataFrame:
    """The same measurement in a process of its own, whose environment has these variables."""
    command = [sys.executable, "-m", "gradtwin", "calibrate", "--json", f"--seeds={seeds}"]
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


def _rounding(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["class"].isin([IDENTICAL, ROUNDING])]


def _floors(frame: pd.DataFrame) -> Table:
    """What was measured, in floors, for a person."""
    table = Table(
        title="\nIn floors", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in ("what", "measured", "median", "99 %", "largest", "limit", "not rounding"):
        table.add_column(column, justify="left" if column == "what" else "right")
    measured = _rounding(frame)
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


CALIBRATION_COLUMNS: list[Column] = [
    ("what", 34, lambda r: r["what"]),
    ("where", 70, lambda r: r["id"]),
    ("floors", -9, lambda r: r["floors"]),
    ("class", 20, lambda r: r["class"]),
]


def _calibrated(what: str, where: str, floors: float, kind: str) -> dict[str, Any]:
    return {"id": where, "what": what, "floors": floors, "class": kind}


def _calibrated_op(op: str, seed: int) -> list[dict[str, Any]]:
    rows = gradients.rows(op, seed, thorough=True)
    return [
        _calibrated("values and gradients", r["id"], LIMIT * r["margin"], r["class"]) for r in rows
    ]


def _calibrated_optimizer(
    name: str, settings: dict[str, Any], dtype: str, seed: int
) -> list[dict[str, Any]]:
    found = []
    for r in optimizers.rows(name, settings, dtype, seed=seed, thorough=True):
        if r["step"] == r["steps"]:
            found.append(
                _calibrated(
                    "optimizers, lockstep",
                    r["id"],
                    LIMIT * r["lockstep_margin"],
                    r["class"],
                )
            )
            found.append(_calibrated("optimizers, free", r["id"], r["max_ratio"], r["class"]))
    return found


def _calibrated_curve(cell: Cell) -> list[dict[str, Any]]:
    r = divergence.compare(cell, thorough=True).row
    return [
        _calibrated("curves, lockstep", r["id"], LIMIT * r["lockstep_margin"], r["class"]),
        _calibrated("curves, free", r["id"], r["max_ratio"], r["class"]),
    ]


def _threaded(threads: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with limited(threads):
        return function(*args)


Tasks = list[tuple[Callable[..., Any], tuple[Any, ...]]]

# What is calibrated → the tasks that measure it with so many seeds.
CALIBRATED: dict[str, Callable[[int], Tasks]] = {
    "curves": lambda seeds: [(_calibrated_curve, (cell,)) for cell in GRID],
    "optimizers": lambda seeds: [
        (_calibrated_optimizer, (name, settings, dtype, seed))
        for name in OPTIMIZERS
        for settings in configurations(name)
        for dtype in DTYPES
        for seed in range(seeds)
    ],
    "gradients": lambda seeds: [
        (_calibrated_op, (op, seed)) for op in ops.names() for seed in range(seeds)
    ],
}
