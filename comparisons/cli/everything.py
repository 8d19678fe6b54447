"""`gradtwin` without a command: all four tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path


def run_everything(
    out: Path, as_json: bool, quiet: bool, jobs: int, seed: int, strict: bool
) -> None:
    from .. import ops
    from ..curves.grid import GRID
    from ..samples.optimizers import SAMPLES as OPTIMIZERS
    from ..samples.schedules import SAMPLES as SCHEDULES
    from ..verdict.lockstep import JUDGED
    from .curves import run_curves
    from .gradients import run_gradients
    from .optimizers import run_optimizers
    from .runner import Runner
    from .schedules import run_schedules

    runner = Runner(out, as_json, jobs, strict, quiet)
    run_gradients(runner, ops.names(), seed, detail=False)
    run_optimizers(runner, list(OPTIMIZERS), ["mixed"], seed, steps=JUDGED)
    run_schedules(runner, list(SCHEDULES), seed)
    run_curves(runner, [replace(cell, seed=seed) for cell in GRID])
    runner.finish()
