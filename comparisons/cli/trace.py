"""The command `gradtwin trace`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Json, Out, Quiet, Seed, known

if TYPE_CHECKING:
    from ..trace.steps import Trace
    from .runner import Runner

    Traced = tuple[Callable[[], Trace], list[str]]


def trace_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FILE:NAME",
            help="One of linear_regression, logistic_regression, mlp; or a torch.nn.Module, a "
            "function of torch or what makes one, in a Python file, which is run.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="What it is fed with; what fits it without.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Its loss; that of the data's task without.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of an mlp's hidden layers; tanh without.")
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:NAME",
            help="What a model of a file is given: a tuple of positional arguments, a dict of "
            "keyword ones, both as (tuple, dict), or what makes it.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save it as a page: the graph, and all about each step.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """One forward and backward of a model, step by step: each rule beside the nodes that torch
    made, with the verdict on it. A model of ours runs on a small batch, one of a FILE:NAME on
    --inputs."""
    from ..report import files, tables
    from ..trace.page import page
    from .runner import Runner

    settings = {"data": data, "loss": loss, "activation": activation}
    if save:
        files.writable(save)
    if ":" in model:
        traced, names = _of_a_file(model, inputs, settings, seed)
    elif inputs:
        raise typer.BadParameter("--inputs: expected FILE:NAME beside it, the model")
    else:
        traced, names = _of_ours(model, settings, seed)
    runner = Runner(out, as_json, quiet=quiet, named=names)
    try:
        found = traced()
    except (ValueError, TypeError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from error
    contents = tables.contents(found.table, "trace")
    pages = {save: page(found)} if save else {}
    files.write_all({**{runner.out / name: c for name, c in contents.items()}, **pages})
    if as_json:
        print(found.table.to_json(orient="records"))
    else:
        _print(runner, found)
    raise typer.Exit(1 if found.wrong else 0)


def _of_ours(model: str, settings: dict[str, str | None], seed: int) -> Traced:
    """What traces one of our models, and the names of its folder."""
    from .. import ops
    from ..trace.models import traced
    from ..training.cells import MODELS
    from ..training.datasets import DATASETS, load

    known("model", model, MODELS)
    known("data", settings["data"], DATASETS)
    data = settings["data"] or [n for n in DATASETS if load(n).task in MODELS[model].losses][-1]
    known("loss", settings["loss"], [n for n in ops.names() if ops.named(n).family == "losses"])
    activation = settings["activation"] or "tanh"
    return partial(traced, model, data, settings["loss"] or "", seed, activation), [model, data]


def _of_a_file(
    model: str, inputs: str | None, settings: dict[str, str | None], seed: int
) -> Traced:
    """The same of what FILE:NAME names. BadParameter for what says nothing about that."""
    from ..trace.recorder import trace
    from .modules import call_of
    from .subjects import loaded

    for option, value in settings.items():
        if value is not None:
            raise typer.BadParameter(f"--{option}: not beside {model}, which is no model of ours")
    if not inputs:
        raise typer.BadParameter("--inputs: expected it beside FILE:NAME, what the model is given")
    module = _callable(loaded(model))
    args, kwargs = call_of(inputs)
    file, _, name = model.rpartition(":")
    return partial(trace, module, args, seed, kwargs), [Path(file).stem, name]


def _callable(thing: Any) -> Any:
    """A module, a function of torch, or what makes one, which can be called without arguments."""
    import torch

    from .modules import made

    if isinstance(thing, torch.nn.Module) or not callable(thing):
        return thing
    if not isinstance(thing, type):  # of which none is a function of torch
        try:
            inspect.signature(thing).bind()
        except (TypeError, ValueError):
            return thing
    return made(thing)


def _print(runner: Runner, found: Trace) -> None:
    """Two columns, in the order of execution: what is here, and what torch made. Below each step
    stand its edges, from an argument to the next node."""
    from rich.table import Table

    from ..trace.steps import told
    from ..verdict.classes import DIFFERENT

    table = Table(box=None, pad_edge=False)
    for column in ("", "by hand", "torch", "verdict"):
        table.add_column(column)
    for step, row in zip(found.steps, found.table.to_dict("records"), strict=True):
        table.add_row(
            str(row["step"]),
            f"{step.op or step.name} → {row['shape']}\n"
            f"  value {row['value_norm']:.4g}, gradient {row['gradient_norm']:.4g}\n"
            f"  keeps {row['kept_bytes']:,} bytes",
            f"{row['nodes']} → {row['next'] or 'nothing'}\n"
            f"  saves {row['saved_bytes']:,} bytes: {row['saved'] or 'nothing'}",
            f"{row['class']}\n" + (told(step) or f"margin {row['margin']:.3g}"),
            style="bold red" if row["class"] == DIFFERENT else None,
        )
        for edge in step.edges:
            judged = edge.verdict
            table.add_row(
                "",
                f"  {edge.argument}",
                f"→ {edge.next}",
                f"{judged.kind}, margin {judged.margin:.3g}",
                style="bold red" if judged.kind == DIFFERENT else "dim",
            )
    runner.console.print(table)
    covered = f"{found.covered:.0%} of torch's nodes have a rule here"
    wrong = f"; wrong: {', '.join(step.name for step in found.wrong)}" if found.wrong else ""
    for line in found.beside():
        runner.console.print(line, soft_wrap=True)
    runner.last.print(f"{covered}{wrong}.", soft_wrap=True)
