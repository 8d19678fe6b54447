"""Ports of modules that were written blind, for `gradtwin mutants`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def shown(
    chosen: Sequence[str] | None, dtype: str, out: Path, as_json: bool, quiet: bool, jobs: int
) -> int:
    """The exit status, after the table of the ports of these networks, or of all, is shown and
    saved."""
    from ..mutants import porting
    from ..report import tables
    from ..report.console import Column
    from .mutants import outcome, print_json, titled
    from .options import known
    from .runner import Runner

    known("network", chosen, dict.fromkeys(porting.architectures()))
    networks = chosen or porting.architectures()

    columns = [
        Column("id", 40, lambda r: r["id"], grows=True),
        Column("planted", 12, lambda r: r["planted"]),
        Column("named", 12, lambda r: r["named"]),
        Column("first", 30, lambda r: r["first"], rank=1),
        Column("class", 7, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    for name in networks:
        tasks += [(porting.fault_row, (name, number, dtype)) for number in porting.faults(name)]
        tasks += [(porting.right_row, (name, number, dtype)) for number in porting.rights(name)]
    rows = list(runner.run("Ports", tasks, columns, lambda row: [row]))
    frame = tables.table(rows)
    tables.save(frame, "mutants_of_modules", runner.out)
    if as_json:
        print_json(frame)
    else:
        counts = titled("\nPorts")
        for head in ("architecture", *porting.counted(rows)):
            counts.add_column(head, justify="left" if head == "architecture" else "right")
        for title, at_first in porting.FIRST_SIGHT.items():
            names = [name for name in porting.architectures(title) if name in networks]
            for name in names:
                part = porting.counted([r for r in rows if r["architecture"] == name])
                counts.add_row(name, *map(str, part.values()))
            now = porting.counted([r for r in rows if r["architecture"] in names])
            counts.add_row(f"all {title}, at first sight", *map(str, at_first.values()))
            counts.add_row(f"{title}, now", *map(str, now.values()), end_section=True)
        runner.console.print(counts)
        runner.last.print(outcome(frame, "mutants_of_modules"))
    return int(frame["class"].isin(["missed", "alarm"]).any())
