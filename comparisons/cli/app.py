"""The command line: `gradtwin`, also `python -m gradtwin`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import typer

from .. import ops
from ..curves.grid import GRID
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..samples.schedules import SAMPLES as SCHEDULES
from ..verdict.lockstep import JUDGED
from .bench import bench_command
from .calibrate import calibrate_command
from .check import check_command
from .coverage import coverage_command
from .curves import curves_command, run_curves
from .dialect import dialect_command
from .diff import diff_command
from .gradients import gradients_command, run_gradients
from .history import history_command
from .mutants import mutants_command
from .optimizers import optimizers_command, run_optimizers
from .options import RESULTS, Device, Jobs, Json, Out, Seed, Strict
from .record import record_command
from .runner import Runner
from .schedules import run_schedules, schedules_command
from .show import show_command
from .trace import trace_command
from .versions import versions_command

COMMANDS: dict[str, Callable[..., None]] = {
    "gradients": gradients_command,
    "coverage": coverage_command,
    "optimizers": optimizers_command,
    "schedules": schedules_command,
    "curves": curves_command,
    "check": check_command,
    "dialect": dialect_command,
    "bench": bench_command,
    "mutants": mutants_command,
    "show": show_command,
    "trace": trace_command,
    "record": record_command,
    "diff": diff_command,
    "history": history_command,
    "versions": versions_command,
    "calibrate": calibrate_command,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def everything(
    ctx: typer.Context,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
) -> None:
    """Every gradient twice: by hand in NumPy, by PyTorch, and compared.

    Without a command: all four tables. Exit status: 0 all explained, 1 something different, 2
    wrong usage.
    """
    if ctx.invoked_subcommand:
        sources = map(ctx.get_parameter_source, ctx.params)
        if any(getattr(source, "name", "DEFAULT") != "DEFAULT" for source in sources):
            raise typer.BadParameter(f"put the options behind {ctx.invoked_subcommand}", ctx=ctx)
        return
    runner = Runner(out, as_json, jobs, strict)
    run_gradients(runner, ops.names(), seed, detail=False)
    run_optimizers(runner, list(OPTIMIZERS), ["mixed"], seed, steps=JUDGED)
    run_schedules(runner, list(SCHEDULES), seed)
    run_curves(runner, [replace(cell, seed=seed) for cell in GRID])
    runner.finish()


def main() -> None:
    app(prog_name="gradtwin")
