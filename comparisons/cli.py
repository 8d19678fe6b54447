"""The command line: `gradtwin`, also `python -m gradtwin`."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from rich.table import Table

from .. import manual, reference
from . import (
    accuracy,
    curves,
    environment,
    gradients,
    optimizers,
    report,
    samples,
    schedules,
    training,
    verdict,
)
from .bench import bench_command
from .check_commands import check_command, mutants_command
from .compare_command import compare_command
from .coverage_command import coverage_command
from .curves import Comparison
from .dialect_command import dialect_command
from .history_command import history_command
from .lockstep import JUDGED
from .record_command import diff_command, record_command
from .samples.optimizers import SAMPLES as OPTIMIZERS
from .samples.optimizers import configurations
from .samples.schedules import SAMPLES as SCHEDULES
from .session import RESULTS, Device, Jobs, Json, Out, Seed, Session, Strict, known, limited
from .show_command import show
from .trace_command import trace_command
from .training import Cell
from .versions_command import versions_command

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

LR = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01, "adamw": 0.01}  # where not torch's default
DATA = {"linear_regression": "line", "logistic_regression": "breast_cancer", "mlp": "digits"}


def _gradient_rows(op: str, seed: int) -> list[dict[str, Any]]:
    return list(gradients.rows(op, seed))


GRADIENT_COLUMNS: list[report.Column] = [
    ("op", 34, lambda r: r["op"]),
    ("results", -8, lambda r: r["results"]),
    ("identical", -10, lambda r: r["identical"]),
    ("max ulp", -9, lambda r: r["max_ulp"]),
    ("worst margin", -13, lambda r: r["margin"]),
    ("resolution", -11, lambda r: r["resolution"]),
    ("class", 20, lambda r: r["class"]),
]
GRADIENT_DETAIL: list[report.Column] = [
    ("op", 20, lambda r: r["op"]),
    ("sample", 40, lambda r: r["sample"]),
    ("argument", 12, lambda r: r["argument"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("ulp", -8, lambda r: r["max_ulp"]),
    ("index", 10, lambda r: r["index"]),
    ("manual", -11, lambda r: r["manual"]),
    ("reference", -11, lambda r: r["reference"]),
    ("exact", -11, lambda r: r["exact"]),
    ("margin", -10, lambda r: r["margin"]),
    ("class", 20, lambda r: r["class"]),
]
ACCURACY_COLUMNS: list[report.Column] = [
    ("op", 34, lambda r: r["op"]),
    ("result", 12, lambda r: r["argument"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("elements", -9, lambda r: r["elements"]),
    ("by convention", -13, lambda r: r["conventions"] or ""),
    ("manual ulp", -11, lambda r: r["manual_ulp"]),
    ("torch ulp", -11, lambda r: r["torch_ulp"]),
    ("manual", -11, lambda r: r["manual"]),
    ("torch", -11, lambda r: r["torch"]),
    ("exact", -11, lambda r: r["exact"]),
    ("nearer", 8, lambda r: r["nearer"]),
]
OPTIMIZER_COLUMNS: list[report.Column] = [
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
SCHEDULE_COLUMNS: list[report.Column] = [
    ("schedule", 30, lambda r: r["schedule"]),
    ("settings", 46, lambda r: r["settings"] or "defaults"),
    ("quantity", 8, lambda r: r["quantity"]),
    ("at", -4, lambda r: r["step"]),
    ("manual", -11, lambda r: r["manual"]),
    ("torch", -11, lambda r: r["reference"]),
    ("margin", -10, lambda r: r["margin"]),
    ("class", 20, lambda r: r["class"]),
]
CURVE_COLUMNS: list[report.Column] = [
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


def _summed_gradients(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    frame = pd.DataFrame(rows)
    return [
        {
            "op": frame["op"][0],
            "results": len(frame),
            "identical": int((frame["class"] == verdict.IDENTICAL).sum()),
            "max_ulp": int(frame["max_ulp"].max()),
            "margin": float(frame["margin"].max()),
            "resolution": float(frame["resolution"].median()),
            "class": verdict.worst(frame["class"]),
        }
    ]


def _summed_optimizer(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    largest = ("lockstep_margin", "drift", "max_ratio", "torch_spread")
    return [
        {
            **rows[0],
            **{name: max(r[name] for r in rows) for name in largest},
            "class": verdict.worst(r["class"] for r in rows),
        }
    ]


def _run_gradients(session: Session, ops: Sequence[str], seed: int, detail: bool) -> None:
    tasks = [(_gradient_rows, (op, seed)) for op in ops]
    columns, rows_of = (GRADIENT_DETAIL, list) if detail else (GRADIENT_COLUMNS, _summed_gradients)
    found = session.run("Gradients", tasks, columns, rows_of)
    session.frames["gradients"] = report.table(itertools.chain(*found))


def _summed_accuracy(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each result and dtype: the worst case of either side."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["argument"], row["dtype"]), []).append(row)
    found = []
    for group in groups.values():
        ours, theirs = (max(r[side] for r in group) for side in ("manual_ulp", "torch_ulp"))
        found.append(
            {
                **max(group, key=lambda r: r["manual_ulp"] + r["torch_ulp"]),
                "manual_ulp": ours,
                "torch_ulp": theirs,
                "elements": sum(r["elements"] for r in group),
                "conventions": sum(r["conventions"] for r in group),
                "nearer": accuracy.nearer(ours, theirs),
                "class": verdict.worst(r["class"] for r in group),
            }
        )
    return found


def _run_accuracy(session: Session, ops: Sequence[str], seed: int) -> None:
    tasks = [(_accuracy_rows, (op, seed)) for op in ops]
    found = session.run("Accuracy", tasks, ACCURACY_COLUMNS, _summed_accuracy)
    session.frames["accuracy"] = report.table(itertools.chain(*found))


def _accuracy_rows(op: str, seed: int) -> list[dict[str, Any]]:
    return list(accuracy.rows(op, seed))


def _run_optimizers(
    session: Session,
    names: Sequence[str],
    streams: Sequence[str],
    seed: int,
    steps: int = optimizers.STEPS,
) -> None:
    tasks = [
        (optimizers.rows, (name, settings, dtype, stream, seed, steps))
        for name in names
        for settings in configurations(name)
        for dtype in verdict.DTYPES
        for stream in streams
    ]
    found = session.run("Optimizers", tasks, OPTIMIZER_COLUMNS, _summed_optimizer)
    lacking = [name for name in names if getattr(reference.optimizers, name) is None]
    if lacking:
        session.console.print(f"not in torch {torch.__version__}: {', '.join(lacking)}")
    session.frames["optimizers"] = report.table(itertools.chain(*found))


def _run_schedules(session: Session, names: Sequence[str], seed: int) -> None:
    chosen = [(name, settings) for name in names for settings in SCHEDULES[name]]
    tasks = [
        (_schedule_rows, (name, i, seed)) for name in names for i in range(len(SCHEDULES[name]))
    ]
    found = session.run("Schedules", tasks, SCHEDULE_COLUMNS, list)
    frame = report.table(itertools.chain(*found))
    session.frames["schedules"] = frame
    texts = [rows[0]["settings"] for rows in found]
    drawn = [
        (f"{name}({text})", schedules.curves(name, settings, seed))
        for (name, settings), text in zip(chosen, texts, strict=True)
    ]
    picture = report.png(report.schedules_figure(drawn))
    session.pictures["schedules"] = {"schedules.png": picture}


def _schedule_rows(name: str, number: int, seed: int) -> list[dict[str, Any]]:
    """By number, because a function among the settings cannot be sent to another process."""
    return schedules.rows(name, SCHEDULES[name][number], seed)


def _run_curves(session: Session, cells: Sequence[Cell]) -> None:
    tasks = [(curves.compare, (cell,)) for cell in cells]
    found: list[Comparison] = session.run("Loss curves", tasks, CURVE_COLUMNS, lambda c: [c.row])
    session.frames["curves"] = report.table(c.row for c in found)
    pictures = {"curves.png": report.png(report.curves_figure(found))}
    lines = [c for c in found if c.cell.data == "line" and c.cell.model == "linear_regression"]
    if lines:
        figure = report.fit_figure(lines[0].manual_parameters, lines[0].reference_parameters)
        pictures["line.png"] = report.png(figure)
    session.pictures["curves"] = pictures


app.command("check")(check_command)
app.command("mutants")(mutants_command)
app.command("dialect")(dialect_command)
app.command("bench")(bench_command)
app.command()(show)
app.command("trace")(trace_command)
app.command("coverage")(coverage_command)
app.command("record")(record_command)
app.command("diff")(diff_command)
app.command("history")(history_command)
app.command("versions")(versions_command)


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
    session = Session(out, as_json, jobs, strict)
    _run_gradients(session, samples.ops(), seed, detail=False)
    _run_optimizers(session, list(OPTIMIZERS), ["mixed"], seed, steps=JUDGED)
    _run_schedules(session, list(SCHEDULES), seed)
    _run_curves(session, [_reseeded(cell, seed) for cell in curves.GRID])
    session.finish()


@app.command("gradients")
def gradients_command(
    ops: Annotated[
        list[str] | None, typer.Argument(metavar="[OP]…", help="Ops; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    strict: Strict = False,
    device: Device = "cpu",
    truth: Annotated[
        bool, typer.Option("--truth", help="Both sides beside the exact value instead.")
    ] = False,
) -> None:
    """The gradient-parity table: every rule and its mirror, argument by argument."""
    for op in ops or ():
        known("op", op, samples.ops())
    session = Session(out, as_json, jobs, strict)
    if truth:
        _run_accuracy(session, ops or samples.ops(), seed)
    else:
        _run_gradients(session, ops or samples.ops(), seed, detail=bool(ops))
    session.finish()


@app.command("optimizers")
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
        known("stream", kind, optimizers.STREAMS)
    session = Session(out, as_json, jobs, strict)
    _run_optimizers(session, names or list(OPTIMIZERS), stream or list(optimizers.STREAMS), seed)
    session.finish()


@app.command("schedules")
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
    session = Session(out, as_json, jobs, strict)
    _run_schedules(session, names or list(SCHEDULES), seed)
    session.finish()


@app.command("curves")
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
        "model": training.MODELS,
        "data": training.DATASETS,
        "optimizer": training.OPTIMIZERS,
        "regime": training.REGIMES,
        "dtype": verdict.DTYPES,
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
        cells = list(curves.GRID)
    session = Session(out, as_json, jobs, strict)
    _run_curves(session, cells)
    session.finish()


@app.command()
def calibrate(
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
    session = Session(out, as_json, jobs, strict=False)
    frames: dict[str, pd.DataFrame] = {}
    if kernels:
        for variables in environment.kernels():
            named = " ".join(f"{name}={value}" for name, value in variables.items())
            session.console.print(f"\n{named}", style="bold", soft_wrap=True)
            frames[named] = _calibrated_under(variables, seeds, chosen, session.jobs)
            session.console.print(_floors(frames[named]))
        frame = report.table(
            {"kernels": named, **row, "id": f"{row['id']}/{named}"}
            for named, rows in frames.items()
            for row in rows.to_dict("records")
        )
    else:
        tasks = [(_threaded, (threads, *task)) for w in chosen for task in CALIBRATED[w](seeds)]
        found = session.run("Calibration", tasks, CALIBRATION_COLUMNS, lambda rows: rows[:1])
        frame = report.table(itertools.chain(*found))
        session.console.print(_floors(frame))
    report.save(frame, "calibration", session.out)
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
    return frame[frame["class"].isin([verdict.IDENTICAL, verdict.ROUNDING])]


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
            f"{verdict.LIMIT:g}",
            str(len(group) - len(floors)),
        )
    return table


CALIBRATION_COLUMNS: list[report.Column] = [
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
        _calibrated("values and gradients", r["id"], verdict.LIMIT * r["margin"], r["class"])
        for r in rows
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
                    verdict.LIMIT * r["lockstep_margin"],
                    r["class"],
                )
            )
            found.append(_calibrated("optimizers, free", r["id"], r["max_ratio"], r["class"]))
    return found


def _calibrated_curve(cell: Cell) -> list[dict[str, Any]]:
    r = curves.compare(cell, thorough=True).row
    return [
        _calibrated("curves, lockstep", r["id"], verdict.LIMIT * r["lockstep_margin"], r["class"]),
        _calibrated("curves, free", r["id"], r["max_ratio"], r["class"]),
    ]


def _threaded(threads: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with limited(threads):
        return function(*args)


Tasks = list[tuple[Callable[..., Any], tuple[Any, ...]]]
# What is calibrated → the tasks that measure it with so many seeds.
CALIBRATED: dict[str, Callable[[int], Tasks]] = {
    "curves": lambda seeds: [(_calibrated_curve, (cell,)) for cell in curves.GRID],
    "optimizers": lambda seeds: [
        (_calibrated_optimizer, (name, settings, dtype, seed))
        for name in OPTIMIZERS
        for settings in configurations(name)
        for dtype in verdict.DTYPES
        for seed in range(seeds)
    ],
    "gradients": lambda seeds: [
        (_calibrated_op, (op, seed)) for op in samples.ops() for seed in range(seeds)
    ],
}


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
    if given["optimizer"] in training.OPTIMIZERS:
        accepted = inspect.signature(getattr(manual.optimizers, given["optimizer"])).parameters
        given.setdefault("lr", LR.get(given["optimizer"], accepted["lr"].default))
    try:
        return Cell(settings=settings, **given)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None


def _reseeded(cell: Cell, seed: int) -> Cell:
    return replace(cell, seed=seed)


def main() -> None:
    app(prog_name="gradtwin")
