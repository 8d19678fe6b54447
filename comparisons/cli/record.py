"""The command `gradtwin record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .diff import Threads, or_exit, progress
from .options import Device, Jobs, Quiet, Seed, known


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
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Measures gradients, optimizers, schedules and curves, and writes one baseline. What was
    interrupted goes on where it was."""
    import joblib

    from ..baselines import file, record
    from ..baselines.measure import choices
    from ..report import files
    from ..report.console import Terminal

    known("name", names, choices())
    console = Terminal(quiet=quiet)
    before = record.identity(out)
    old = None
    if before:
        old = or_exit(file.read, out)
        if not reason:
            raise typer.BadParameter(
                f"{out} is there: say why it is replaced", param_hint="--reason"
            )
    files.folder(out.parent)
    files.writable(out)
    kept = "the old one is as it was" if old else "nothing was written"
    try:
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
        raise OSError(error.errno, f"{error.strerror}; {kept}", str(out)) from None
    counts = ", ".join(f"{n} {k}" for k, n in new.about["history"][-1]["classes"].items())
    Terminal().print(f"{len(new.quantities)} quantities in {out}: {counts}", soft_wrap=True)
