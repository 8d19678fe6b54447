"""The command `gradtwin curves`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Device, Jobs, Json, Out, Quiet, Settings, Strict, settings_of

if TYPE_CHECKING:
    from ..curves.kept import Kept
    from ..training.cells import Cell
    from .runner import Runner


def _address(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[a-z]+://\S+:\d+", text):
        raise typer.BadParameter(f"expected tcp://HOST:PORT, got {text!r}")
    return text


Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT",
        callback=_address,
        help="The scheduler of a Dask cluster, on whose workers all is run.",
    ),
]


def curves_command(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model; every option here can be repeated, which makes a grid, and all stands "
            "for each choice there is."
        ),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="Data set.")] = None,
    optimizer: Annotated[list[str] | None, typer.Option(help="Optimizer.")] = None,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate.")] = None,
    settings: Settings = None,
    regime: Annotated[
        list[str] | None, typer.Option(help="batch, stochastic or mini-batch.")
    ] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="Samples in a mini-batch.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Steps.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="So many seeds, from 0 on, instead.", min=1)
    ] = None,
    hidden: Annotated[
        list[str] | None, typer.Option(help="Widths of an mlp's hidden layers, 32 or 32,16.")
    ] = None,
    activation: Annotated[list[str] | None, typer.Option(help="Activation of an mlp.")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="gpt: accumulation, clipping, groups that decay, a schedule; gpt-bfloat16 and "
            "gpt-float16: in 16 bits too, the latter with a scaler."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="OLD NEW",
            help="Two recordings by gradtwin.record_run, instead, or two logs: CSV, JSON lines, "
            "TensorBoard's event files.",
        ),
    ] = None,
    scalar: Annotated[
        str | None, typer.Option(help="Of logs with --compare, which of several scalars.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    strict: Strict = False,
    device: Device = "cpu",
    cluster: Cluster = None,
) -> None:
    """The loss-curve divergence table: training by hand and by torch. Without options, the default
    grid. A grid that was interrupted, or killed, goes on where it was with the same command.

    With --compare two recorded runs, those of all ranks where {rank} stands in the names, or two
    logs of one scalar; exit status: 0 identical or rounding, 1 different, 2 it cannot be said.
    """
    if seed and seeds:
        raise typer.BadParameter("goes without --seed", param_hint="--seeds")
    named: dict[str, Sequence[Any] | None] = {
        "model": model,
        "data": data,
        "optimizer": optimizer,
        "lr": lr,
        "regime": regime,
        "batch_size": batch_size,
        "steps": steps,
        "dtype": dtype,
        "seed": seed or range(seeds or 0),
        "hidden": hidden and [_widths(h) for h in hidden],
        "activation": activation,
        "recipe": recipe,
    }
    given = {name: values for name, values in named.items() if values}
    chosen = settings_of(settings)
    if compare and (given or chosen):
        raise typer.BadParameter("goes without the options of a grid", param_hint="--compare")
    if compare:
        _recorded(compare, scalar, out, as_json, quiet)
    if scalar is not None:
        raise typer.BadParameter("goes with --compare", param_hint="--scalar")
    values = ([f"{seeds} seeds"] if seeds and n == "seed" else v for n, v in given.items())
    words = [str(word) for several in values for word in several] + (settings or [])
    _train(given, chosen, cluster, (out, as_json, jobs, strict, quiet, words))


def _recorded(
    pair: tuple[Path, Path], scalar: str | None, out: Path, as_json: bool, quiet: bool
) -> None:
    from ..runs.logs import is_log

    if any(map(is_log, pair)):
        _compare_logs(*pair, scalar, out, as_json, quiet)
    if scalar is not None:
        raise typer.BadParameter("goes with two logs alone", param_hint="--scalar")
    _compare(*pair, out, as_json, quiet)


def _train(
    given: dict[str, Sequence[Any]],
    settings: dict[str, Any],
    cluster: str | None,
    call: tuple[Any, ...],
) -> None:
    """Makes the table of a grid, from the cells that were done before on, by a Runner of this call,
    and exits."""
    from ..curves.grid import GRID, Grid, from_words
    from ..curves.kept import Shelf
    from .runner import Runner

    try:
        grid = from_words(given, settings) if given or settings else Grid(list(GRID), [])
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    runner = Runner(*call)
    shelf = Shelf(runner.out / "curves.cells", anywhere=cluster is not None)
    done = shelf.found(grid.cells)
    for line in filter(None, (grid.told, shelf.told(done))):
        runner.console.print(line, style="dim", soft_wrap=True)
    try:
        run_curves(runner, grid.cells, done, shelf.keep, cluster)
    except ConnectionError as error:
        raise typer.BadParameter(str(error), param_hint="--cluster") from None
    try:
        runner.finish()
    except typer.Exit:
        shelf.clear(grid.cells)  # for now the table is there
        raise


def run_curves(
    runner: Runner,
    cells: Sequence[Cell],
    done: Mapping[int, Kept] | None = None,
    keep: Callable[[Kept], None] = lambda kept: None,
    cluster: str | None = None,
) -> None:
    """A line for each training; those that are done are not trained again, and each of the others
    is kept as soon as it is done."""
    from ..curves import kept, pictures
    from ..report import tables
    from ..report.console import Column

    columns = [
        Column("model", 14, lambda r: r["model"], grows=True),
        Column("data", 13, lambda r: r["data"], rank=1),
        Column(
            "optimizer",
            14,
            lambda r: f"{r['optimizer']} {r['lr']:g}{' +' if r['settings'] else ''}",
        ),
        Column("regime", 10, lambda r: r["regime"], rank=3),
        Column("dtype", 7, lambda r: r["dtype"]),
        Column("end loss", -9, lambda r: r["end_manual"], rank=4),
        Column("max drift", -9, lambda r: r["max_drift"], rank=5),
        Column("at", -5, lambda r: r["max_drift_step"], rank=6),
        Column("/floor", -8, lambda r: r["max_ratio"]),
        Column("e-folds", -8, lambda r: r["chaos"] or None, rank=8),
        Column("/torch", -7, lambda r: r["seconds_ratio"], rank=7),
        Column("margin", -8, lambda r: r["lockstep_margin"], rank=2),
        Column("class", 9, lambda r: r["class"]),
    ]
    tasks = [(kept.run, (cell,)) for cell in cells]
    found = runner.run("Loss curves", tasks, columns, lambda c: [c.row], done, keep, cluster)
    runner.frames["curves"] = tables.table(c.row for c in found)
    runner.pictures["curves"] = pictures.of(found)


def _compare(old: Path, new: Path, out: Path, as_json: bool, quiet: bool) -> None:
    """Holds the run in `new` against that in `old`, and exits with 0 if it is identical or
    rounding, with 1 if it is different, and with 2 if that cannot be said."""
    from ..report import pages, tables
    from ..report.console import Column
    from ..runs.figure import alternative, figure, told
    from ..runs.ranks import compare_ranks
    from ..verdict.classes import UNDECIDED, worst
    from .runner import Runner

    columns = [
        Column("run", 14, lambda r: Path(r["new"]).name, grows=True),
        Column("against", 14, lambda r: Path(r["old"]).name, grows=True),
        Column("steps", -6, lambda r: r["steps"]),
        Column("dtype", 7, lambda r: r["dtype"], rank=3),
        Column("end loss", -9, lambda r: r["end_new"], rank=2),
        Column("leaves at", -9, lambda r: r["first_step"]),
        Column("max drift", -9, lambda r: r["max_drift"], rank=4),
        Column("at", -6, lambda r: r["max_drift_step"], rank=5),
        Column("/floor", -8, lambda r: r["max_ratio"]),
        Column("resolution", -10, lambda r: r["resolution"], rank=1),
        Column("out", 12, lambda r: r["kind"]),
        Column("class", 9, lambda r: r["class"]),
    ]
    try:
        found = compare_ranks(old, new)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--compare") from None
    runner = Runner(out, as_json, 1, strict=True, quiet=quiet)
    rows = [one.row for one in found]
    runner.run("Recorded runs", [(lambda: found, ())], columns, lambda c: [one.row for one in c])
    runner.frames["compare"] = tables.table(rows)
    pictures = {
        f"compare{one.row['rank']}.png": pages.picture(figure(one), alternative(one))
        for one in found
    }
    runner.pictures["compare"] = pictures
    try:
        runner.finish(told(rows), onward=False)
    except typer.Exit as end:
        undecided = worst(row["class"] for row in rows) == UNDECIDED
        raise typer.Exit(2 if undecided else end.exit_code) from None


def _compare_logs(
    old: Path, new: Path, scalar: str | None, out: Path, as_json: bool, quiet: bool
) -> None:
    """Holds the log in `new` against that in `old`, and exits with 0 if they are identical, with 1
    if they are different, and with 2 if that cannot be said."""
    from ..report import pages, tables
    from ..report.console import Column
    from ..runs.log_comparison import alternative, compare, figure, told
    from ..runs.logs import is_log, read
    from ..verdict.classes import UNDECIDED
    from .runner import Runner

    columns = [
        Column("log", 14, lambda r: Path(r["new"]).name, grows=True),
        Column("against", 14, lambda r: Path(r["old"]).name, grows=True),
        Column("scalar", 10, lambda r: r["scalar"], rank=1, grows=True),
        Column("steps", -6, lambda r: r["steps"]),
        Column("end old", -9, lambda r: r["end_old"], rank=3),
        Column("end new", -9, lambda r: r["end_new"], rank=3),
        Column("leaves at", -9, lambda r: r["first_step"]),
        Column("max drift", -9, lambda r: r["max_drift"]),
        Column("at", -6, lambda r: r["max_drift_step"], rank=2),
        Column("class", 9, lambda r: r["class"]),
    ]
    try:
        if not (is_log(old) and is_log(new)):
            raise ValueError(f"expected two recordings or two logs, got {old} and {new}")
        found = compare(read(old, scalar), read(new, scalar))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--compare") from None
    runner = Runner(out, as_json, 1, strict=True, quiet=quiet)
    runner.run("Logs", [(lambda: found, ())], columns, lambda c: [c.row])
    runner.frames["compare"] = tables.table([found.row])
    picture = pages.picture(figure(found), alternative(found))
    runner.pictures["compare"] = {"compare.png": picture}
    try:
        runner.finish(told(found.row), onward=False)
    except typer.Exit as end:
        undecided = found.row["class"] == UNDECIDED
        raise typer.Exit(2 if undecided else end.exit_code) from None


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"expected widths like 32 or 32,16, got {text!r}", param_hint="--hidden"
        ) from None
