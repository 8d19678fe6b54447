"""The command `gradtwin optimizers`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import typer

from ..ops.optimizers import configurations, named
from ..optimizers import table
from ..optimizers.streams import STEPS, STREAMS
from ..report import tables
from ..report.console import Column
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..verdict import classes
from ..verdict.classes import DTYPES
from .options import RESULTS, Device, Jobs, Json, Out, Seed, Strict, known
from .runner import Runner

OPTIMIZER_COLUMNS: list[Column] = [
    ("optimizer", 11, lambda r: r["optimizer"]),
    ("settings", 46, lambda r: r["settings"] or "defaults"),
    ("stream", 7, lambda r: r["stream"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("margin", -9, lambda r: r["lockstep_margin"]),
    ("drift", -10, lambda r: r["drift"]),
    ("drift/floor", -11, lambda r: r["max_ratio"]),
    ("torch's own", -11, lambda r: r["torch_spread"]),
    ("class", 20, lambda r: r["class"]),
]


def _summed_optimizer(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    largest = ("lockstep_margin", "drift", "max_ratio", "torch_spread")
    return [
        {
            **rows[0],
            **{name: max(r[name] for r in rows) for name in largest},
            "class": classes.worst(r["class"] for r in rows),
        }
    ]


def run_optimizers(
    runner: Runner,
    names: Sequence[str],
    streams: Sequence[str],
    seed: int,
    steps: int = STEPS,
) -> None:
    tasks = [
        (table.rows, (name, settings, dtype, stream, seed, steps))
        for name in names
        for settings in configurations(name)
        for dtype in DTYPES
        for stream in streams
    ]
    found = runner.run("Optimizers", tasks, OPTIMIZER_COLUMNS, _summed_optimizer)
    lacking = [name for name in names if named(name).mirror is None]
    if lacking:
        runner.console.print(f"not in torch {torch.__version__}: {', '.join(lacking)}")
    runner.frames["optimizers"] = tables.table(itertools.chain(*found))


def optimizers_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Optimizers; all without.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(help="mixed, trained or fading gradients; all without. Can be repeated."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
) -> None:
    """The trajectory-parity table: 1,000 steps of every optimizer, in lockstep and free."""
    for name in names or ():
        known("optimizer", name, OPTIMIZERS)
    for kind in stream or ():
        known("stream", kind, STREAMS)
    runner = Runner(out, as_json, jobs, strict)
    run_optimizers(runner, names or list(OPTIMIZERS), stream or list(STREAMS), seed)
    runner.finish()
