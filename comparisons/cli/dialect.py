"""`gradtwin dialect`: which optimizer made this trajectory?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Jobs, Json, Quiet, known

if TYPE_CHECKING:
    from ..dialects.search import Match
    from ..dialects.trajectory import Trajectory
    from ..report.console import Terminal


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
    quiet: Quiet = False,
    jobs: Jobs = 0,
) -> None:
    """The optimizer, dialect and settings that reproduce a recorded trajectory to rounding.

    Or the nearest, and the step where it leaves. Exit status: 0 reproduced, 1 not, 2 wrong usage.
    """
    import joblib

    from ..dialects import search, trajectory
    from ..dialects.candidates import OPTIMIZERS
    from ..report.console import Terminal

    names = tuple(optimizer or OPTIMIZERS)
    known("optimizer", names, OPTIMIZERS)
    try:
        record = trajectory.read(run)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="RUN.npz") from None
    console = Terminal(stderr=as_json, quiet=quiet)
    with console.status("trying every optimizer in every dialect"):
        matches = search.search(record, jobs or joblib.cpu_count(), names)
    if as_json:
        print(json.dumps([_row(match) for match in matches]))
    else:
        _tell(console, run, record, matches)
        Terminal().print(_outcome(matches[0]))
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


def _outcome(match: Match) -> str:
    """The last line: what it is, or how to go on."""
    if match.leaves is None:
        return f"reproduced by {match.candidate.name}"
    return (
        f"not reproduced: {match.candidate.name} comes nearest and leaves at step {match.leaves}; "
        "a setting that changed on the way, or an optimizer that is not known, looks so"
    )


def _tell(console: Terminal, run: Path, record: Trajectory, matches: list[Match]) -> None:
    from ..dialects.lines import print_lines
    from ..samples import written

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
        console.print(f"\n{lead} {candidate.name}({settings})", style=style)
        for dialect in candidate.dialects:
            console.print(f"  {dialect.about}: {dialect.name} ({dialect.source})")
            print_lines(console, dialect)
        console.print(f"  {reach}")
