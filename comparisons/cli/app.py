"""The command line: `gradtwin`, also `python -m gradtwin`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ... import __version__
from .bench import bench_command
from .calibrate import calibrate_command
from .check import alone, check_command, in_a_process_of_its_own
from .coverage import coverage_command
from .curves import curves_command
from .dialect import dialect_command
from .diff import diff_command
from .everything import run_everything
from .gradients import gradients_command
from .history import history_command
from .mutants import mutants_command
from .net import Command, Net
from .optimizers import optimizers_command
from .options import RESULTS, Device, Jobs, Json, Out, Quiet, Seed, Strict
from .record import record_command
from .record_run import record_run_command
from .schedules import schedules_command
from .show import show_command
from .trace import trace_command
from .versions import versions_command

# By what a person wants: a command, what it is for, and an example.
COMMANDS: dict[str, dict[str, tuple[Callable[..., None], str, str]]] = {
    "Verify": {
        "check": (
            check_command,
            "Is a gradient right, and if not, what is wrong with it?",
            "check rules.py:softmax --against torch.softmax --shape 3,4",
        ),
        "dialect": (
            dialect_command,
            "Which optimizer made this trajectory?",
            "dialect run.npz",
        ),
    },
    "Study": {
        "show": (show_command, "All about one op, optimizer or schedule.", "show gelu"),
        "trace": (
            trace_command,
            "A backward pass, node by node, beside torch's.",
            "trace mlp --save trace.html",
        ),
    },
    "Regression": {
        "record": (record_command, "Record a baseline.", "record --out before.parquet"),
        "diff": (diff_command, "What moved since a baseline.", "diff before.parquet"),
        "record-run": (
            record_run_command,
            "Record a training and how far rounding drives it.",
            "record-run train.py --out old.parquet",
        ),
        "history": (history_command, "How margins went.", "history baselines/"),
        "versions": (
            versions_command,
            "What moves from one release of a package to the next.",
            "versions 2.12.0 2.13.0",
        ),
    },
    "Tables": {
        "gradients": (gradients_command, "Every rule beside torch's.", "gradients gelu relu"),
        "optimizers": (optimizers_command, "Every optimizer beside torch's.", "optimizers adam"),
        "schedules": (schedules_command, "Every schedule beside torch's.", "schedules step_lr"),
        "curves": (
            curves_command,
            "Trainings beside torch's, or two recorded ones.",
            "curves --model mlp --optimizer adam --lr 0.01",
        ),
        "coverage": (coverage_command, "The rules on torch's own test inputs.", "coverage relu"),
    },
    "Measure": {
        "mutants": (mutants_command, "Planted mistakes before check.", "mutants softmax"),
        "calibrate": (
            calibrate_command,
            "How far all that is right stays below the limit.",
            "calibrate --only curves",
        ),
        "bench": (bench_command, "How fast it is.", "bench tape"),
    },
}


def flowing(text: str | None) -> str:
    """A docstring whose paragraphs have no line breaks, for a terminal of any width."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text or ""))


app = typer.Typer(
    cls=Net,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _commands in COMMANDS.items():
    for _name, (_command, _purpose, _example) in _commands.items():
        app.command(
            _name,
            cls=Command,
            # What is not known of a script's own options is the script's.
            context_settings={"ignore_unknown_options": _name == "record-run"},
            help=flowing(_command.__doc__),
            short_help=f"{_purpose}\n[dim]gradtwin {_example}[/dim]",
            epilog=f"Example: gradtwin {_example}",
            rich_help_panel=_panel,
        )(_command)


def _version(asked: bool) -> None:
    if asked:
        print(f"gradtwin {__version__}")
        raise typer.Exit


def everything(
    ctx: typer.Context,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Every gradient twice: by hand in NumPy, by PyTorch, and compared.

    Without a command: the tables of gradients, optimizers, schedules and curves, in some minutes
    on two cores. Exit status: 0 all explained, 1 something is different, 2 it cannot be said.
    """
    if ctx.invoked_subcommand:
        sources = map(ctx.get_parameter_source, ctx.params)
        if any(getattr(source, "name", "DEFAULT") != "DEFAULT" for source in sources):
            raise typer.BadParameter(f"put the options behind {ctx.invoked_subcommand}", ctx=ctx)
        return
    run_everything(out, as_json, quiet, jobs, seed, strict)


app.callback(invoke_without_command=True, help=flowing(everything.__doc__))(everything)


def main() -> None:
    if sys.argv[1:2] == ["check"] and alone(sys.argv[2:]):
        sys.exit(in_a_process_of_its_own())
    app(prog_name="gradtwin")
