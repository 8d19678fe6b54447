"""Changes of trainings that were written blind, for `gradtwin mutants`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def shown(chosen: Sequence[str] | None, out: Path, as_json: bool, quiet: bool, jobs: int) -> int:
    """The exit status, after the table of the changes of these trainings, or of all, is shown and
    saved."""
    from ..mutants import trainings
    from ..report import tables
    from ..report.console import Column
    from .mutants import outcome, print_json, titled
    from .options import known
    from .runner import Runner

    known("training", chosen, dict.fromkeys(trainings.trainings()))
    names = chosen or trainings.trainings()
    columns = [
        Column("id", 40, lambda r: r["id"], grows=True),
        Column("planted", 10, lambda r: r["planted"]),
        Column("named", 10, lambda r: r["named"]),
        Column("step", -5, lambda r: r["step"]),
        Column("tensor", 30, lambda r: r["tensor"], rank=1),
        Column("class", 9, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (trainings.rows, (name,)) for name in names
    ]
    found = runner.run("Trainings", tasks, columns, lambda made: made)
    rows = [row for made in found for row in made]
    frame = tables.table(rows)
    tables.save(frame, "mutants_of_trainings", runner.out)
    if as_json:
        print_json(frame)
    else:
        counts = titled("\nTrainings")
        for head in ("training", *trainings.counted(rows)):
            counts.add_column(head, justify="left" if head == "training" else "right")
        for title, at_first in trainings.FIRST_SIGHT.items():
            mine = [name for name in trainings.trainings(title) if name in names]
            for name in mine:
                part = trainings.counted([r for r in rows if r["training"] == name])
                counts.add_row(name, *map(str, part.values()))
            now = trainings.counted([r for r in rows if r["training"] in mine])
            counts.add_row(f"all {title}, at first sight", *map(str, at_first.values()))
            counts.add_row(f"{title}, now", *map(str, now.values()), end_section=True)
        runner.console.print(counts)
        runner.last.print(outcome(frame, "mutants_of_trainings"))
    return int(frame["class"].isin(["missed", "alarm"]).any())
