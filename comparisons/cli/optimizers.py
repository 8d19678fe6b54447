"""The command `gradtwin optimizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RESULTS, Device, Jobs, Json, Out, Quiet, Seed, Strict, known

if TYPE_CHECKING:
    from .runner import Runner


def optimizers_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Optimizers; all without.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(help="mixed, trained or fading gradients; all without. Repeatable."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
) -> None:
    """The trajectory-parity table: 1,000 steps of every optimizer, in lockstep and free."""
    from ..samples.optimizers import SAMPLES

    known("optimizer", names, SAMPLES)
    from ..optimizers.streams import STEPS, STREAMS
    from .runner import Runner

    known("stream", stream, STREAMS)
    named = [*(names or ()), *(stream or ())]
    runner = Runner(out, as_json, jobs, strict, quiet, named)
    run_optimizers(runner, names or list(SAMPLES), stream or list(STREAMS), seed, STEPS)
    runner.finish()


def run_optimizers(
    runner: Runner, names: Sequence[str], streams: Sequence[str], seed: int, steps: int
) -> None:
    """A line for each optimizer, choice of settings, dtype and stream."""
    import itertools

    import torch

    from ..ops.optimizers import configurations, named
    from ..optimizers import table
    from ..report import tables
    from ..report.console import Column
    from ..verdict.classes import DTYPES

    columns = [
        Column("optimizer", 11, lambda r: r["optimizer"]),
        Column("settings", 16, lambda r: r["settings"] or "defaults", grows=True),
        Column("stream", 7, lambda r: r["stream"], rank=2),
        Column("dtype", 7, lambda r: r["dtype"]),
        Column("margin", -9, lambda r: r["lockstep_margin"]),
        Column("drift", -9, lambda r: r["drift"], rank=3),
        Column("drift/floor", -11, lambda r: r["max_ratio"], rank=1),
        Column("torch's own", -11, lambda r: r["torch_spread"], rank=4),
        Column("class", 19, lambda r: r["class"]),
    ]
    tasks = [
        (table.rows, (name, settings, dtype, stream, seed, steps))
        for name in names
        for settings in configurations(name)
        for dtype in DTYPES
        for stream in streams
    ]
    found = runner.run("Optimizers", tasks, columns, lambda rows: [table.summed(rows)])
    lacking = [name for name in names if named(name).mirror is None]
    if lacking:
        runner.console.print(f"not in torch {torch.__version__}: {', '.join(lacking)}")
    runner.frames["optimizers"] = tables.table(itertools.chain(*found))
