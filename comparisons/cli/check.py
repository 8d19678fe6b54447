"""The command `gradtwin check`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .net import say
from .options import Json, Quiet, Seed, Settings, Strict, settings_of
from .waiting import bar

if TYPE_CHECKING:
    from ..check.report import Report

RIGHT, WRONG, NOT_RUN = 0, 1, 2  # exit statuses of `gradtwin check`
ANSWER = "GRADTWIN_ANSWER"  # the file that a check in a process of its own answers through


# What `check` is given as it came, and what a call is repeated with.
AS_THEY_ARE = (
    *("strict", "constant", "seed", "kinks", "allow", "order", "forward_mode", "rounds_once"),
    *("quick", "thorough", "budget"),
)
AGAIN = (
    *("against", "shape", "values", "settings", "constant", "kinks", "allow", "gradient"),
    *("order", "forward_mode", "rounds_once", "strict", "dtype", "seed", "probe"),
)
DEFAULTS = {"constant": "", "kinks": "torch", "allow": 0.0, "order": 1}

Named = Annotated[
    str,
    typer.Argument(
        metavar="FILE:NAME",
        help="A rule, a torch.autograd.Function, a torch callable, a layer, a loss with its "
        "gradients, a function of JAX or a pair of functions (FILE:FORWARD,BACKWARD) in a Python "
        "file, which is run; a layer with its parameters as NAME = gradtwin.functional(…).",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="A torch callable by its full name or as FILE:NAME, or one of our rules; without, "
        "differences. Of a torch.nn.Module also the file that --record has made of the original."
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N,N…",
        help="An array of normal numbers as the next argument; repeatable. Without, our "
        "samples or torch's own.",
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        metavar="V,V…",
        help="An array of these numbers as the next argument, behind those of --shape: of "
        "integers (0,2,1), floats (0.5,2e-3) or truth values (true,false); repeatable.",
    ),
]
Constant = Annotated[str, typer.Option(help="Arguments that have no gradient on purpose, by name.")]
Dtype = Annotated[
    list[str] | None,
    typer.Option(help="float64, float32, bfloat16 or float16; the first two. Repeatable."),
]
Kinks = Annotated[
    str, typer.Option(help="At a kink, the slope of torch, or any between those around it.")
]
Allow = Annotated[float, typer.Option(help="A relative deviation that is accepted, and reported.")]
Gradient = Annotated[
    str | None,
    typer.Option(help="Whose gradient is meant, where not that of --against; named as that."),
]
Probes = Annotated[
    list[str] | None,
    typer.Option(help="A probe that is wanted, or with a minus, one that is not. Repeatable."),
]
Order = Annotated[
    int, typer.Option(help="2: the second derivatives of a subject of torch as well.")
]
ForwardMode = Annotated[
    bool, typer.Option("--forward-mode", help="The forward mode of a subject of torch as well.")
]
RoundsOnce = Annotated[
    bool,
    typer.Option(
        "--rounds-once", help="Hold a kernel of 16 bits to one rounding of what float32 computes."
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Only the few probes that find most mistakes.")
]
Thorough = Annotated[
    bool,
    typer.Option("--thorough", help="Also those that found nothing which others do not find too."),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:NAME",
        help="Two modules are compared, subject and --against, each a torch.nn.Module or what "
        "makes one: what both are given, a tuple of positional arguments, a dict of keyword ones, "
        "both as (tuple, dict), or what makes it.",
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:NAME",
        help="Beside --inputs, what is called otherwise in the subject: a dict from its names to "
        "those of --against.",
    ),
]
Steps = Annotated[
    int,
    typer.Option(
        metavar="N", help="Beside --inputs: so many steps, of which each is judged.", min=0
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        metavar="FILE:NAME",
        help="Beside --steps: a function that makes an optimizer of a list of parameters or of a "
        "module; or FILE:NAME,NAME, for the subject and for --against.",
    ),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Beside --inputs: the subject is the original, and all that a port is held to is kept "
        "in this file, for --against elsewhere. Nothing is judged.",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        help="Of two modules, save a page: the tree of submodules, and all results of each.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="End it after so long, with status 2.", min=0),
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Judge what can be judged in so long, and say what could not."
    ),
]
Folder = Annotated[
    Path | None, typer.Option(help="Folder for the table as CSV, Parquet, Markdown and HTML.")
]


def check_command(
    subject: Named,
    against: Against = None,
    shape: Shape = None,
    values: Values = None,
    settings: Settings = None,
    constant: Constant = "",
    dtype: Dtype = None,
    kinks: Kinks = "torch",
    allow: Allow = 0.0,
    gradient: Gradient = None,
    probe: Probes = None,
    inputs: Inputs = None,
    names: Names = None,
    steps: Steps = 0,
    optimizer: Optimizer = None,
    record: Record = None,
    save: Save = None,
    order: Order = 1,
    forward_mode: ForwardMode = False,
    rounds_once: RoundsOnce = False,
    quick: Quick = False,
    thorough: Thorough = False,
    budget: Budget = None,
    timeout: Timeout = 0,
    out: Folder = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Is a gradient right, and if not, what is wrong with it?

    Exit status: 0 right, 1 wrong, 2 it could not be run.
    """
    given = dict(locals())
    shapes = [_shape(s) for s in shape or ()]
    numbers = [_numbers(text) for text in values or ()]
    chosen = settings_of(settings)
    if timeout:
        raise typer.Exit(_within(timeout))
    if out:  # before all that takes time
        from ..report import files

        files.folder(out)
    of_two = inputs or names or steps or optimizer or record or save
    if of_two or str(against).endswith(".npz"):
        from . import modules

        if record:
            raise typer.Exit(_told(modules.recorded(given), {"file": str(record)}, as_json, quiet))
        found = modules.examined(given)
        _write(out, found, save)
        raise typer.Exit(_told(found, modules.plain(found), as_json, quiet))
    from .subjects import loaded, named

    rule_or_file = named(against) if against else None
    thing = loaded(subject)
    import numpy as np

    from ..check.verify import check

    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(s) for s in shapes]
    arrays = [*drawn, *map(np.array, numbers)] or None
    try:
        with bar(subject, quiet) as told:
            found = check(
                thing,
                rule_or_file,
                arrays,
                chosen,
                dtype or ("float64", "float32"),
                gradient=named(gradient) if gradient else None,
                probes=probe or (),
                progress=told,
                **{name: given[name] for name in AS_THEY_ARE},
            )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    if (first := found.first) is not None:
        found = replace(found, again=_again_at(given, first["probe"], first["dtype"]))
    _write(out, found)
    raise typer.Exit(_told(found, _plain(found) if as_json else {}, as_json, quiet))


def _write(out: Path | None, found: Any, save: Path | None = None) -> None:
    """All files into the folder, and a page of two modules, or none."""
    from ..report import files

    contents = {out / name: content for name, content in _files(found).items()} if out else {}
    if save:
        from ..check.modules.page import page

        contents[save] = page(found)
    files.write_all(contents)


def _again_at(given: Mapping[str, Any], probe: str, dtype: str) -> str:
    """The command that finds the first wrong element again: with the same call, at one probe."""
    words = ["gradtwin", "check", given["subject"]]
    asked = {**given, "probe": [probe], "dtype": [dtype]}
    for name in AGAIN:
        value, option = asked[name], f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False and value != DEFAULTS.get(name):
            for text in map(str, value if isinstance(value, list) else [value]):
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


def _told(found: Any, plain: Mapping[str, Any], as_json: bool, quiet: bool) -> int:
    """The exit status, after what was found is shown, and who waits for it knows."""
    if as_json:
        print(json.dumps(plain))
    else:
        _show(found, quiet)
    sys.stdout.flush()
    for file in _answering():
        os.write(file, b"!")
    return RIGHT if found.passed else WRONG


def alone(arguments: Sequence[str]) -> bool:
    """Whether a check with these arguments has to run in a process of its own, which a subject may
    end without a word, with any status."""
    return ANSWER not in os.environ and not {"--help", "-h"} & set(arguments)


def in_a_process_of_its_own() -> int:
    """The status of the same command in another process, if that says that it came to its end."""
    reading, writing = os.pipe()
    try:
        status = _again({**os.environ, ANSWER: str(writing)}, writing)
    finally:
        os.close(writing)
    with os.fdopen(reading) as pipe:
        answered = pipe.read()
    if status in (RIGHT, WRONG) and not answered:
        say(f"gradtwin check: the subject ended the process, with {status}")
        return NOT_RUN
    return status


def _within(seconds: float) -> int:
    """The status of the same command in a process that is ended after so long: a loop in a library
    hears no signal."""
    try:
        return _again(dict(os.environ), *_answering(), timeout=seconds)
    except subprocess.TimeoutExpired:
        say(f"gradtwin check: not done after {seconds:g} seconds (--timeout)")
        return NOT_RUN


def _again(environment: dict[str, str], *files: int, timeout: float | None = None) -> int:
    last = ["--timeout", "0"] if timeout else []
    command = [sys.executable, "-P", "-m", "gradtwin", *sys.argv[1:], *last]
    done = subprocess.run(command, env=environment, pass_fds=files, timeout=timeout, check=False)
    if done.returncode < 0:
        say(f"gradtwin check: died of signal {-done.returncode}")
        return NOT_RUN
    return done.returncode


def _answering() -> list[int]:
    """Where it is to be said that the check came to its end, if somebody waits."""
    return [int(os.environ[ANSWER])] if ANSWER in os.environ else []


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in text.split(",") if n)
    except ValueError:
        shape = (-1,)
    if any(n < 0 for n in shape):
        raise typer.BadParameter(f"expected lengths like 3,4, got {text!r}", param_hint="--shape")
    return shape


def _numbers(text: str) -> list[Any]:
    """0,2,1 or 0.5,2 or true,false as a list, of one kind."""
    words = [word.strip().lower() for word in text.split(",")]
    known: dict[str, Any] = {"true": True, "false": False}
    if all(word in known for word in words):
        return [known[word] for word in words]
    for kind in (int, float):
        try:
            return [kind(word) for word in words]
        except ValueError:
            continue
    raise typer.BadParameter(
        f"expected numbers like 0,2,1, or true,false, got {text!r}", param_hint="--values"
    )


def _show(found: Any, quiet: bool) -> None:
    from ..report.console import Terminal

    lines = str(found).splitlines()
    Terminal().print("\n".join(lines[:1] if quiet else lines), soft_wrap=True)


def _files(found: Any) -> dict[str, bytes]:
    from ..report import pages, tables
    from .runner import command

    name = f"{found.subject} against {found.against}"
    checks = [pages.Check(name, found.passed, str(found))]
    counts = f"{len(found.failed)} of {len(found.table)} rows fail."
    page = pages.page(name, counts, {"check": found.table}, checks=checks, command=command())
    return {"check.html": page, **tables.contents(found.table, "check")}


def _plain(found: Report) -> dict[str, Any]:
    from ..report.tables import SCHEMA

    cause = {"name": found.cause.name, "text": found.cause.text} if found.cause else None
    rows = json.loads(found.table.to_json(orient="records", double_precision=15))
    return {
        "schema": SCHEMA,
        "passed": found.passed,
        "cause": cause,
        "facts": list(found.facts),
        "again": found.again,
        "still_wrong_at": [list(shape) for shape in found.smallest.shapes]
        if found.smallest
        else None,
        "warnings": list(found.warnings),
        "table": rows,
    }
