"""The command `gradtwin record`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import joblib
import typer
from rich.console import Console

from ..baselines import file, record
from ..baselines.measure import choices
from ..report import files
from .diff import Threads, or_exit, progress
from .options import Device, Jobs, Seed, known


def record_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Tables, ops, optimizers, schedules, models; all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of the baseline.")] = Path("baseline.parquet"),
    reason: Annotated[str, typer.Option(help="Why a baseline is replaced; it is kept.")] = "",
    repeats: Annotated[
        int, typer.Option(help="Further measurements, one ulp away, for the spread.", min=0)
    ] = 2,
    threads: Threads = 1,
    jobs: Jobs = 0,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Measures gradients, optimizers, schedules and curves, and writes one baseline. What was
    interrupted goes on where it was."""
    for name in names or ():
        known("name", name, choices())
    console = Console(highlight=False)
    before = record.identity(out)
    old = None
    if before:
        old = or_exit(file.read, out)
        if not reason:
            raise typer.BadParameter(
                f"{out} is there: say why it is replaced", param_hint="--reason"
            )
    try:
        files.folder(out.parent)
        with record.folder_of_parts(out) as parts, progress(console) as done:
            found = record.measured(
                names or (), seed=seed, repeats=repeats, jobs=jobs or joblib.cpu_count(),
                threads=threads, parts=parts, done=done,
            )  # fmt: skip
            new = record.updated(found, old, reason or "first recording")
            if record.identity(out) != before:
                raise typer.BadParameter(f"{out} was written by another in the meantime")
            file.write(out, new.quantities.values(), new.about)
    except ValueError as error:
        raise typer.BadParameter(f"nothing was written: {error}") from None
    except OSError as error:
        kept = "the old one is as it was" if old else "nothing was written"
        full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
        raise typer.BadParameter(f"{out}: {error.strerror}{full}; {kept}") from None
    counts = ", ".join(f"{n} {k}" for k, n in new.about["history"][-1]["classes"].items())
    console.print(f"{len(new.quantities)} quantities in {out}: {counts}")
