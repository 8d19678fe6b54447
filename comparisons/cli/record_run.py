"""The command `gradtwin record-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Jobs, Quiet


def record_run_command(
    script: Annotated[
        Path, typer.Argument(metavar="SCRIPT.py", help="A training, which calls record_run once.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]…", help="Its arguments; behind -- those that we have too."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The recording.")] = Path("run.parquet"),
    first_step: Annotated[
        bool,
        typer.Option("--first-step", help="End the six perturbed runs after their first step."),
    ] = False,
    jobs: Jobs = 0,
    quiet: Quiet = False,
) -> None:
    """Record a training with its floor: the script runs once, once more, and six times while all
    moves by one ulp, side by side.

    The script calls `gradtwin.record_run` as it would alone; which run it makes and where it is
    written, the environment says. What was done before a kill is not done again. With --first-step
    the floor is that of the first step, for the price of two runs.

    Exit status: 0 recorded, and the run repeats itself; 1 it does not repeat itself; 2 the script
    makes no recording.
    """
    import joblib
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..report.console import Terminal
    from ..runs.driving import FIRST_STEP, RUNS, Failed, Script
    from ..runs.recording import read
    from ..runs.repeating import repeats

    if not script.is_file():
        raise typer.BadParameter(f"expected a script, got {script}: there is no such file")
    console, last = Terminal(quiet=quiet), Terminal()
    try:
        made = Script(script, arguments or (), out)
        runs = FIRST_STEP if first_step else RUNS
        missing = made.missing(runs)
        if len(missing) < len(runs):
            console.print(f"{len(runs) - len(missing)} of {len(runs)} runs were made before")
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
            bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(missing))
            for _ in made.make(missing, jobs or joblib.cpu_count()):
                progress.advance(bar)
        about = made.merge(runs)
    except Failed as error:
        raise typer.BadParameter(str(error), param_hint="SCRIPT.py") from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    wrong = repeats(read(out))
    steps = about["0"]["steps"]
    if wrong:
        last.print(f"{out}: {steps} steps, but {wrong}", style="bold red", soft_wrap=True)
        raise typer.Exit(1)
    last.print(
        f"{out}: {steps} steps, which repeat themselves, and six perturbed runs"
        f"{' of the first step' if first_step else ''}.",
        style="bold green",
        soft_wrap=True,
    )
