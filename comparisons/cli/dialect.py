"""`gradtwin dialect`: which optimizer made this trajectory?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Quiet, known

if TYPE_CHECKING:
    from ..dialects.groups import Tensor
    from ..dialects.judged import Match
    from ..dialects.search import Answer, Clock
    from ..dialects.trajectory import Trajectory
    from ..report.console import Terminal

MOST_SHOWN = 4  # answers


def dialect_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN.npz",
            help="params (steps + 1, …) and grads (steps, …); or params.NAME and grads.NAME for "
            "each of several; and lr (steps,) if it is known. record_optimizer writes it.",
        ),
    ],
    optimizer: Annotated[
        list[str] | None, typer.Option(help="Try this one alone; can be repeated.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Seconds of computing after which nothing more is begun; else 20 for one "
            "optimizer, and at most 150.",
            min=0.0,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Annotated[int, typer.Option(help="Processes; 0 for one per core.", min=0)] = 1,
) -> None:
    """The optimizer, dialect and settings that reproduce a recorded trajectory to rounding, for
    each group of tensors, with the schedule of a rate that changed.

    Or the nearest, and the step where it leaves. Exit status: 0 reproduced, 1 not, 2 wrong usage.
    """
    import joblib

    from ..dialects import search, trajectory
    from ..dialects.facts import OPTIMIZERS
    from ..report.console import Terminal

    names = tuple(optimizer or OPTIMIZERS)
    known("optimizer", names, OPTIMIZERS)
    try:
        record = trajectory.read(run)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="RUN.npz") from None
    console = Terminal(stderr=as_json, quiet=quiet)
    with console.status("trying every optimizer in every dialect"):
        answers, clock = search.search(record, jobs or joblib.cpu_count(), names, budget)
    if as_json:
        print(json.dumps([_row(answer, clock) for answer in answers]))
    else:
        _tell(console, run, record, answers, clock)
        Terminal().print(_outcome(answers[0]))
    raise typer.Exit(int(not answers[0].reproduced))


def _row(answer: Answer, clock: Clock) -> dict[str, Any]:
    return {
        **_match(answer.match),
        "reproduced": answer.reproduced,
        "not_tried": clock.skipped,
        "groups": [
            {"tensors": [t.name for t in group], "still": group[0].still, **_match(group[0].match)}
            for group in answer.groups
        ],
    }


def _match(match: Match) -> dict[str, Any]:
    candidate = match.candidate
    rate = candidate.rate
    return {
        "optimizer": candidate.name,
        "dialects": [
            {"about": d.about, "name": d.name, "lines": d.lines, "source": d.source}
            for d in candidate.dialects
        ],
        "settings": dict(candidate.settings),
        "rate": rate and {**vars(rate), "settings": dict(rate.settings)},
        "drift_in_floors": match.ratio,
        "resolution": match.resolution,
        "leaves_at": match.leaves,
    }


def _outcome(answer: Answer) -> str:
    """The last line: what it is, or how to go on."""
    match = answer.match
    if answer.reproduced:
        names = dict.fromkeys(g[0].match.candidate.name for g in answer.groups if not g[0].still)
        return f"reproduced by {' and '.join(names)}"
    if match.unseen:
        return (
            f"not told: it moves by no more than {1 / match.resolution:.1g} times what can be "
            "seen; record in float64, or over more steps"
        )
    if match.any_rate:
        return (
            f"not reproduced: {match.candidate.name} follows it, but only with a rate of its own "
            "at every step, of no known schedule; save the rate as lr, if it changed"
        )
    name = next((t.name for t in answer.tensors if t.match is match), "")
    where = f" on {name}" if name and len(answer.tensors) > 1 else ""
    why = (
        "from there on it follows with a state that begins anew: the state was lost"
        if match.again
        else "a setting that changed on the way, or an optimizer that is not known, looks so"
    )
    return (
        f"not reproduced: {match.candidate.name} comes nearest and leaves at step "
        f"{match.leaves}{where}; {why}"
    )


def _tell(
    console: Terminal, run: Path, record: Trajectory, answers: list[Answer], clock: Clock
) -> None:
    elements = sum(p[0].size for p, _ in record.tensors)
    console.print(f"{run}: {record.steps} steps of {elements} elements, {record.dtype}")
    for i, answer in enumerate(answers[:MOST_SHOWN]):
        if answer.reproduced:
            lead, style = ("Also by" if i else "Reproduced by"), "bold green"
        else:
            lead, style = "Nearest, but not it:", "bold red"
        groups = answer.groups
        for group in groups:
            of = f" on {_names(group)}" if len(groups) > 1 else ""
            if group[0].still:
                console.print(f"\nStill{of}", style="bold")
                continue
            _tell_group(console, f"{lead}", of, style, group[0].match, record)
    if len(answers) > MOST_SHOWN:
        console.print(f"\nand by {len(answers) - MOST_SHOWN} more: --json has them")
    if clock.skipped:
        console.print(
            f"\n{clock.budget:g} seconds were not enough: {clock.skipped} candidates or kinds of "
            "them were not tried; --budget gives more, --optimizer tries one alone",
            style="yellow",
        )


def _tell_group(
    console: Terminal, lead: str, of: str, style: str, match: Match, record: Trajectory
) -> None:
    from ..dialects.candidates import CLIPS
    from ..dialects.lines import print_lines
    from ..samples import written

    candidate = match.candidate
    unusual = candidate.unusual()
    settings = {n: v for n, v in unusual.items() if n not in CLIPS}
    console.print(f"\n{lead} {candidate.name}({written(settings) or 'defaults'}){of}", style=style)
    if candidate.rate:
        console.print(f"  rate: {candidate.rate.said()}")
    for clip in CLIPS:
        if clip in unusual:
            console.print(f"  gradient: {CLIPS[clip]}, {unusual[clip]:g}")
    for dialect in candidate.dialects:
        console.print(f"  {dialect.about}: {dialect.name} ({dialect.source})")
        print_lines(console, dialect)
    if match.leaves is None:
        console.print(
            f"  all {record.steps} steps within {match.ratio:.2g} floors of rounding; a deviation "
            f"of {match.resolution:.1e} of the movement would be seen"
        )
    else:
        console.print(
            f"  follows it for {match.leaves - 1} steps and leaves at {match.leaves}, by "
            f"{match.off:.2g} of the movement until then"
        )


def _names(group: list[Tensor]) -> str:
    names = [t.name for t in group]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
