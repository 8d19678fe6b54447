"""The command `gradtwin curves`."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..curves import divergence
from ..curves.divergence import Comparison
from ..curves.figure import curves_figure, fit_figure
from ..curves.grid import GRID
from ..ops.optimizers import named
from ..report import pages, tables
from ..report.console import Column
from ..runs.comparison import compare
from ..runs.figure import figure, told
from ..runs.recording import read
from ..training.cells import MODELS, OPTIMIZERS, REGIMES, Cell
from ..training.datasets import DATASETS
from ..verdict.classes import DTYPES, UNDECIDED
from .options import RESULTS, Device, Jobs, Json, Out, Strict, known
from .runner import Runner

COMPARE_COLUMNS: list[Column] = [
    ("run", 24, lambda r: Path(r["new"]).name),
    ("against", 24, lambda r: Path(r["old"]).name),
    ("steps", -6, lambda r: r["steps"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("end loss", -9, lambda r: r["end_new"]),
    ("leaves at", -9, lambda r: r["first_step"]),
    ("max drift", -10, lambda r: r["max_drift"]),
    ("at", -6, lambda r: r["max_drift_step"]),
    ("/floor", -8, lambda r: r["max_ratio"]),
    ("resolution", -10, lambda r: r["resolution"]),
    ("class", 20, lambda r: r["class"]),
]


def compare_command(old: Path, new: Path, out: Path, as_json: bool) -> None:
    """Holds the run in `new` against that in `old`, and exits with 0 if it is identical or
    rounding, with 1 if it has parted, and with 2 if that cannot be said."""
    try:
        found = compare(read(old), read(new))
    except (ValueError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(text, param_hint="--compare") from None
    runner = Runner(out, as_json, jobs=1, strict=True)
    runner.run("Recorded runs", [(lambda: found, ())], COMPARE_COLUMNS, lambda c: [c.row])
    runner.frames["compare"] = tables.table([found.row])
    runner.pictures["compare"] = {"compare.png": pages.png(figure(found))}
    try:
        runner.finish(told(found.row))
    except typer.Exit as end:
        undecided = found.row["class"] == UNDECIDED
        raise typer.Exit(2 if undecided else end.exit_code) from None


LR = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01, "adamw": 0.01}  # where not torch's default
DATA = {"linear_regression": "line", "logistic_regression": "breast_cancer", "mlp": "digits"}
CURVE_COLUMNS: list[Column] = [
    ("model", 19, lambda r: r["model"]),
    ("data", 13, lambda r: r["data"]),
    ("optimizer", 16, lambda r: f"{r['optimizer']} {r['lr']:g}{' +' if r['settings'] else ''}"),
    ("regime", 13, lambda r: r["regime"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("end loss", -9, lambda r: r["end_manual"]),
    ("max drift", -10, lambda r: r["max_drift"]),
    ("at", -5, lambda r: r["max_drift_step"]),
    ("/floor", -7, lambda r: r["max_ratio"]),
    ("margin", -8, lambda r: r["lockstep_margin"]),
    ("class", 20, lambda r: r["class"]),
]


def run_curves(runner: Runner, cells: Sequence[Cell]) -> None:
    tasks = [(divergence.compare, (cell,)) for cell in cells]
    found: list[Comparison] = runner.run("Loss curves", tasks, CURVE_COLUMNS, lambda c: [c.row])
    runner.frames["curves"] = tables.table(c.row for c in found)
    pictures = {"curves.png": pages.png(curves_figure(found))}
    lines = [c for c in found if c.cell.data == "line" and c.cell.model == "linear_regression"]
    if lines:
        figure = fit_figure(lines[0].manual_parameters, lines[0].reference_parameters)
        pictures["line.png"] = pages.png(figure)
    runner.pictures["curves"] = pictures


def curves_command(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model; every option here can be repeated, which makes a grid."),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="Data set.")] = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="Optimizer.")] = None,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A setting of the optimizer; all of them go together."
        ),
    ] = None,
    regime: Annotated[
        list[str] | None, typer.Option(help="batch, stochastic or mini-batch.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="Samples in a mini-batch.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed.")] = None,
    hidden: Annotated[
        list[str] | None, typer.Option(help="Widths of an mlp's hidden layers, 32 or 32,16.")
    ] = None,
    activation: Annotated[list[str] | None, typer.Option(help="Activation of an mlp.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Two recordings by gradtwin.record_run, instead."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    strict: Strict = False,
    device: Device = "cpu",
) -> None:
    """The loss-curve divergence table: training by hand and by torch. Without options, the default
    grid.

    With --compare two recorded runs; exit status: 0 identical or rounding, 1 parted, 2 it cannot
    be said.
    """
    chosen: dict[str, Any] = {
        "model": model,
        "data": data,
        "optimizer": optimizer,
        "lr": lr,
        "regime": regime,
        "batch_size": batch_size,
        "steps": steps,
        "dtype": dtype,
        "seed": seed,
        "hidden": hidden and [_widths(h) for h in hidden],
        "activation": activation,
    }
    choices = {
        "model": MODELS,
        "data": DATASETS,
        "optimizer": OPTIMIZERS,
        "regime": REGIMES,
        "dtype": DTYPES,
    }
    for name, allowed in choices.items():
        for value in chosen[name] or ():
            known(name, value, allowed)
    given = {name: values for name, values in chosen.items() if values}
    if compare:
        if given or setting:
            raise typer.BadParameter("goes without the options of a grid", param_hint="--compare")
        compare_command(*compare, out, as_json)
    if given or setting:
        settings = dict(map(_setting, setting or ()))
        cells = [
            _cell(dict(zip(given, combination, strict=True)), settings)
            for combination in itertools.product(*given.values())
        ]
    else:
        cells = list(GRID)
    runner = Runner(out, as_json, jobs, strict)
    run_curves(runner, cells)
    runner.finish()


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        raise typer.BadParameter(
            f"expected NAME=VALUE with a number, true or false, got {text!r}",
            param_hint="--setting",
        ) from None


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"expected widths like 32 or 32,16, got {text!r}", param_hint="--hidden"
        ) from None


def _cell(given: dict[str, Any], settings: dict[str, Any]) -> Cell:
    given = {"model": "mlp", "optimizer": "sgd", **given}
    given.setdefault("data", DATA[given["model"]])
    if given["optimizer"] in OPTIMIZERS:
        accepted = inspect.signature(named(given["optimizer"]).rule).parameters
        given.setdefault("lr", LR.get(given["optimizer"], accepted["lr"].default))
    try:
        return Cell(settings=settings, **given)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
