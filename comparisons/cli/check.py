"""The command `gradtwin check`."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from .. import ops
from ..check.report import Report
from ..check.verify import check
from ..report import files, pages, tables
from ..report.tables import SCHEMA
from .options import Json, Seed, Strict

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
            help="An array of normal numbers as the next argument; can be repeated. Without, our "
            "samples or torch's own.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A keyword argument of the call; repeatable."),
    ] = None,
    constant: Annotated[
        str, typer.Option(help="Arguments that have no gradient on purpose, by name.")
    ] = "",
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; both.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table as CSV, Parquet, Markdown and HTML.")
    ] = None,
    as_json: Json = False,
    seed: Seed = 0,
    strict: Strict = False,
) -> None:
    """Is a gradient right, and if not, what is wrong with it?

    Exit status: 0 right, 1 wrong, 2 it could not be run.
    """
    try:
        thing = _loaded(subject)
        target = _named(against) if against else None
        rng = np.random.default_rng(seed)
        arrays = [rng.standard_normal(_shape(s)) for s in shape] if shape else None
        found = check(
            thing,
            target,
            arrays,
            dict(map(_setting, settings or ())),
            dtype or ("float64", "float32"),
            strict,
            constant=constant,
            seed=seed,
        )
    except (ValueError, TypeError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"gradtwin check: {error}", soft_wrap=True)
        raise typer.Exit(NOT_RUN) from None
    if out:
        for name, content in _files(found).items():
            files.write(files.folder(out) / name, content)
    if as_json:
        print(json.dumps(_plain(found)))
    else:
        print(found)
    raise typer.Exit(RIGHT if found.passed else WRONG)


def _loaded(text: str) -> Any:
    """What FILE:NAME names; the file is run as a module of its own."""
    file, colon, names = text.rpartition(":")
    if not colon or not names:
        raise ValueError(f"expected FILE:NAME, like rules.py:softmax, got {text!r}")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a Python file, got {file}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as for a script
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    found = []
    for name in names.split(","):
        if not hasattr(module, name):
            own = [n for n in vars(module) if not n.startswith("_")]
            raise ValueError(f"no {name!r} in {file}; there are {', '.join(own) or 'no names'}")
        found.append(getattr(module, name))
    return found[0] if len(found) == 1 else tuple(found)


def _named(text: str) -> Any:
    """A rule's name as it is, else the callable behind a dotted name, or in a file."""
    if ":" in text:
        return _loaded(text)
    if "." not in text:
        if text not in ops.names():
            raise ValueError(
                f"--against: no rule {text!r}; expected one of {', '.join(ops.names())}, or a "
                "full name like torch.nn.functional.gelu"
            )
        return text
    parts = text.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise ValueError(f"--against: no {part!r} in {'.'.join(parts[:cut])}")
            found = getattr(found, part)
        return found
    raise ValueError(f"--against: there is no module {parts[0]!r}")


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in text.split(",") if n)
    except ValueError:
        shape = (-1,)
    if any(n < 0 for n in shape):
        raise ValueError(f"--shape: expected lengths like 3,4, got {text!r}")
    return shape


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--settings: expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
    except (ValueError, SyntaxError):
        return name, value  # a word, like approximate=tanh


def _files(found: Report) -> dict[str, bytes]:
    page = pages.page({f"check of {found.subject}": found.table}, {}, "", str(found))
    return {"check.html": page, **tables.contents(found.table, "check")}


def _plain(found: Report) -> dict[str, Any]:
    cause = {"name": found.cause.name, "text": found.cause.text} if found.cause else None
    rows = json.loads(found.table.to_json(orient="records", double_precision=15))
    return {
        "schema": SCHEMA,
        "passed": found.passed,
        "cause": cause,
        "warnings": list(found.warnings),
        "table": rows,
    }
