"""`gradtwin dialect`: which optimizer made this trajectory?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import joblib
import typer
from rich.console import Console
from rich.text import Text

from ..dialects import search, trajectory
from ..dialects.candidates import OPTIMIZERS
from ..dialects.lines import print_lines
from ..dialects.search import Match
from ..dialects.trajectory import Trajectory
from ..samples import written
from .options import Jobs, Json, known


def dialect_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN.npz",
            help="params (steps + 1, …) and grads (steps, …); or params.NAME and grads.NAME for "
            "each of several; and lr (steps,) if the rate changes.",
        ),
    ],
    optimizer: Annotated[
        list[str] | None, typer.Option(help="Try this one alone; can be repeated.")
    ] = None,
    as_json: Json = False,
    jobs: Jobs = 0,
) -> None:
    """The optimizer, dialect and settings that reproduce a recorded trajectory to rounding.

    Or the nearest, and the step where it leaves. Exit status: 0 reproduced, 1 not, 2 wrong usage.
    """
    names = tuple(optimizer or OPTIMIZERS)
    for name in names:
        known("optimizer", name, OPTIMIZERS)
    try:
        record = trajectory.read(run)
    except (ValueError, OSError) as error:
        text = f"{run}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(text, param_hint="RUN.npz") from None
    console = Console(stderr=as_json, highlight=False)
    with console.status("trying every optimizer in every dialect"):
        matches = search.search(record, jobs or joblib.cpu_count(), names)
    if as_json:
        print(json.dumps([_row(match) for match in matches]))
    else:
        _tell(console, run, record, matches)
    raise typer.Exit(int(matches[0].leaves is not None))


def _row(match: Match) -> dict[str, Any]:
    candidate = match.candidate
    return {
        "optimizer": candidate.name,
        "dialects": [
            {"about": d.about, "name": d.name, "lines": d.lines, "source": d.source}
            for d in candidate.dialects
        ],
        "settings": dict(candidate.settings),
        "drift_in_floors": match.ratio,
        "leaves_at": match.leaves,
    }


def _tell(console: Console, run: Path, record: Trajectory, matches: list[Match]) -> None:
    elements = sum(p[0].size for p, _ in record.tensors)
    console.print(f"{run}: {record.steps} steps of {elements} elements, {record.dtype}")
    for i, match in enumerate(matches):
        candidate = match.candidate
        if match.leaves is None:
            lead, style = ("Also by" if i else "Reproduced by"), "bold green"
            reach = f"all {record.steps} steps within {match.ratio:.2g} floors of rounding"
        else:
            lead, style = "Nearest, but not it:", "bold red"
            reach = f"follows it for {match.leaves - 1} steps and leaves at {match.leaves}"
        settings = written(candidate.unusual()) or "defaults"
        console.print(Text(f"\n{lead} {candidate.name}({settings})", style=style))
        for dialect in candidate.dialects:
            console.print(f"  {dialect.about}: {dialect.name} ({dialect.source})", markup=False)
            print_lines(console, dialect)
        console.print(f"  {reach}")
