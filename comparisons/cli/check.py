"""The command `gradtwin check`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .net import say
from .options import Json, Quiet, Seed, Settings, Strict, settings_of

if TYPE_CHECKING:
    from ..check.report import Report

RIGHT, WRONG, NOT_RUN = 0, 1, 2  # exit statuses of `gradtwin check`


def check_command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="FILE:NAME",
            help="A rule, a torch.autograd.Function, a torch callable or a pair of functions "
            "(FILE:FORWARD,BACKWARD) in a Python file, which is run.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            help="A torch callable by its full name or as FILE:NAME, or one of our rules; without, "
            "differences."
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,N…",
            help="An array of normal numbers as the next argument; repeatable. Without, our "
            "samples or torch's own.",
        ),
    ] = None,
    settings: Settings = None,
    constant: Annotated[
        str, typer.Option(help="Arguments that have no gradient on purpose, by name.")
    ] = "",
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; both.")] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="End it after so long, with status 2.", min=0),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table as CSV, Parquet, Markdown and HTML.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Is a gradient right, and if not, what is wrong with it?

    Exit status: 0 right, 1 wrong, 2 it could not be run.
    """
    shapes = [_shape(s) for s in shape or ()]
    chosen = settings_of(settings)
    if timeout:
        raise typer.Exit(_within(timeout))
    from .subjects import loaded, named

    rule_or_file = named(against) if against else None
    thing = loaded(subject)
    import numpy as np

    from ..check.verify import check
    from ..report import files

    if out:
        files.folder(out)
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in shapes] if shapes else None
    dtypes = dtype or ("float64", "float32")
    try:
        found = check(
            thing, rule_or_file, arrays, chosen, dtypes, strict, constant=constant, seed=seed
        )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    if out:
        files.write_all({out / name: content for name, content in _files(found).items()})
    if as_json:
        print(json.dumps(_plain(found)))
    else:
        _show(found, quiet)
    raise typer.Exit(RIGHT if found.passed else WRONG)


def _within(seconds: float) -> int:
    """The status of the same command in a process of its own, which is ended after so long: a loop
    in a library hears no signal."""
    command = [sys.executable, "-P", "-m", "gradtwin", *sys.argv[1:], "--timeout", "0"]
    try:
        done = subprocess.run(command, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        say(f"gradtwin check: not done after {seconds:g} seconds (--timeout)")
        return NOT_RUN
    if done.returncode < 0:
        say(f"gradtwin check: died of signal {-done.returncode}")
        return NOT_RUN
    return done.returncode


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in text.split(",") if n)
    except ValueError:
        shape = (-1,)
    if any(n < 0 for n in shape):
        raise typer.BadParameter(f"expected lengths like 3,4, got {text!r}", param_hint="--shape")
    return shape


def _show(found: Report, quiet: bool) -> None:
    from ..report.console import Terminal

    lines = str(found).splitlines()
    Terminal().print("\n".join(lines[:1] if quiet else lines), soft_wrap=True)


def _files(found: Report) -> dict[str, bytes]:
    from ..report import pages, tables

    page = pages.page({f"check of {found.subject}": found.table}, {}, "", str(found))
    return {"check.html": page, **tables.contents(found.table, "check")}


def _plain(found: Report) -> dict[str, Any]:
    from ..report.tables import SCHEMA

    cause = {"name": found.cause.name, "text": found.cause.text} if found.cause else None
    rows = json.loads(found.table.to_json(orient="records", double_precision=15))
    return {
        "schema": SCHEMA,
        "passed": found.passed,
        "cause": cause,
        "warnings": list(found.warnings),
        "table": rows,
    }
