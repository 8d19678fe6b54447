"""The command `gradtwin trace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import RESULTS, Json, Out, Quiet, Seed, known

if TYPE_CHECKING:
    from ..trace.steps import Trace
    from .runner import Runner


def trace_command(
    model: Annotated[
        str, typer.Argument(help="One of linear_regression, logistic_regression, mlp.")
    ],
    data: Annotated[
        str | None, typer.Option(help="What it is fed with; what fits it without.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Its loss; that of the data's task without.")
    ] = None,
    activation: Annotated[str, typer.Option(help="Of an mlp's hidden layers.")] = "tanh",
    save: Annotated[
        Path | None, typer.Option(help="Save it as a page: the graph, and all about each step.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
) -> None:
    """One forward and backward of a model on a small batch, step by step: each rule beside the
    nodes that torch made, with the verdict on it."""
    from .. import ops
    from ..report import files, tables
    from ..trace.models import traced
    from ..trace.page import page
    from ..training.cells import MODELS
    from ..training.datasets import DATASETS, load
    from .runner import Runner

    known("model", model, MODELS)
    known("data", data, DATASETS)
    data = data or [name for name in DATASETS if load(name).task in MODELS[model]][-1]
    known("loss", loss, [op for op in ops.names() if ops.named(op).family == "losses"])
    if save:
        files.writable(save)
    runner = Runner(out, as_json, quiet=quiet, named=[model, data])
    try:
        found = traced(model, data, loss or "", seed, activation)
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


def _print(runner: Runner, found: Trace) -> None:
    """Two columns, in the order of execution: what is here, and what torch made. Below each step
    stand its edges, from an argument to the next node."""
    from rich.table import Table

    from ..verdict.classes import DIFFERENT

    table = Table(box=None, pad_edge=False)
    for column in ("", "by hand", "torch", "verdict"):
        table.add_column(column)
    for step, row in zip(found.steps, found.table.to_dict("records"), strict=True):
        table.add_row(
            str(row["step"]),
            f"{row['rule'] or row['function']} → {row['shape']}\n"
            f"  value {row['value_norm']:.4g}, gradient {row['gradient_norm']:.4g}\n"
            f"  keeps {row['kept_bytes']:,} bytes",
            f"{row['nodes']} → {row['next'] or 'nothing'}\n"
            f"  saves {row['saved_bytes']:,} bytes: {row['saved'] or 'nothing'}",
            f"{row['class']}\nmargin {row['margin']:.3g}",
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
    runner.last.print(f"{covered}{wrong}.", soft_wrap=True)
