"""The commands `gradtwin check` and `gradtwin mutants`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from . import report, samples
from .check import Report, check
from .session import RESULTS, Jobs, Json, Out, Seed, Session, Strict, known

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
            report.write(report.folder(out) / name, content)
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
        if text not in samples.ops():
            raise ValueError(
                f"--against: no rule {text!r}; expected one of {', '.join(samples.ops())}, or a "
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
    page = report.page({f"check of {found.subject}": found.table}, {}, "", str(found))
    return {"check.html": page, **report.contents(found.table, "check")}


def _plain(found: Report) -> dict[str, Any]:
    cause = {"name": found.cause.name, "text": found.cause.text} if found.cause else None
    rows = json.loads(found.table.to_json(orient="records", double_precision=15))
    return {
        "schema": report.SCHEMA,
        "passed": found.passed,
        "cause": cause,
        "warnings": list(found.warnings),
        "table": rows,
    }


# The mutation table ----------------------------------------------------------------------------

MUTANT_COLUMNS: list[report.Column] = [
    ("op", 20, lambda r: r["op"]),
    ("planted", 13, lambda r: r["planted"]),
    ("named", 13, lambda r: r["named"]),
    ("gradcheck", 9, lambda r: _caught(r["gradcheck_slow"])),
    ("fast", 6, lambda r: _caught(r["gradcheck_fast"])),
    ("class", 7, lambda r: r["class"]),
    ("", 60, lambda r: r["says"]),
]


def _caught(found: Any) -> str:
    return "" if found is None else "caught" if found else "missed"


def mutants_command(
    ops: Annotated[
        list[str] | None, typer.Argument(metavar="[OP]…", help="Ops; all without.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Seeds for the rules that are right and must cause no alarm.", min=1)
    ] = 1,
    torch_ops: Annotated[
        bool,
        typer.Option("--torch", help="Also torch's own functions, as subjects, on its samples."),
    ] = False,
    speed: Annotated[bool, typer.Option(help="Measure the two ratios of speed.")] = True,
    out: Out = RESULTS,
    as_json: Json = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
) -> None:
    """Planted wrong rules before `check` and before torch's gradcheck; and right ones, for alarms.

    Exit status: 0 all caught and no alarm, 1 something missed or an alarm, 2 wrong usage.
    """
    from .mutants import table

    for op in ops or ():
        known("op", op, table.AGAINST)
    chosen = ops or list(table.AGAINST)
    session = Session(out, as_json, jobs, strict=False)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (table.mutant_row, (op, number, seed))
        for op in chosen
        for number in range(len(table.MUTANTS.get(op, ())))
    ]
    tasks += [(table.right_row, (op, s)) for op in chosen for s in range(seed, seed + seeds)]
    if not ops:
        tasks += [
            (table.manual_row, (op, s)) for op in samples.ops() for s in range(seed, seed + seeds)
        ]
    if torch_ops:
        tasks += [(table.torch_row, (name, speed)) for name in table.public()]
    rows = session.run("Mutants", tasks, MUTANT_COLUMNS, lambda row: [row])
    frame = report.table(rows)
    report.save(frame, "mutants", session.out)
    speeds = list(table.speeds(chosen)) if speed else []
    if as_json:
        rows_out = json.loads(frame.to_json(orient="records"))
        print(json.dumps({"schema": report.SCHEMA, "table": rows_out, "speed": speeds}))
    else:
        for shown in _summaries(frame, speeds):
            session.console.print(shown)
    raise typer.Exit(int(frame["class"].isin(["missed", "alarm"]).any()))


def _summaries(frame: pd.DataFrame, speeds: Sequence[dict[str, Any]]) -> list[Any]:
    mutants = frame[frame["kind"] == "mutant"]
    shown = []
    for title, part in (
        ("Written before the diagnoses", mutants[~mutants["frozen"].astype(bool)]),
        ("Written after them", mutants[mutants["frozen"].astype(bool)]),
    ):
        if len(part):
            shown.append(_rates(f"\n{title}", part))
    quiet = _titled("\nRight rules")
    for column in ("what", "checks", "alarms", "not judged"):
        quiet.add_column(column, justify="left" if column == "what" else "right")
    for what, part in frame[frame["kind"] != "mutant"].groupby("kind", sort=False):
        alarms, missing = (part["class"] == k for k in ("alarm", "n/a"))
        quiet.add_row(str(what), str(len(part)), str(alarms.sum()), str(missing.sum()))
    took = mutants[["seconds", "slow_seconds", "fast_seconds"]].sum()
    times = _titled("\nSpeed")
    for column in ("what", "check", "slow gradcheck", "ratio"):
        times.add_column(column, justify="left" if column == "what" else "right")
    for s in speeds:
        times.add_row(
            s["what"], f"{s['seconds']:.3g} s", f"{s['slow_seconds']:.3g} s", f"{s['ratio']:.3g}"
        )
    timed = frame[(frame["kind"] == "torch") & frame["slow_seconds"].notna()]
    if len(timed):
        ours, slow = timed["seconds"].sum(), timed["slow_seconds"].sum()
        what = f"torch's samples of {len(timed)} of its functions, at least"
        times.add_row(what, f"{ours:.3g} s", f"{slow:.3g} s", f"{slow / ours:.3g}")
    times.add_row(
        "all mutants",
        f"{took['seconds']:.3g} s",
        f"{took['slow_seconds']:.3g} s (fast {took['fast_seconds']:.3g} s)",
        "",
    )
    return [*shown, quiet, times]


def _rates(title: str, part: pd.DataFrame) -> Table:
    rates = _titled(title)
    for column in ("cause", "mutants", "caught", "cause named", "slow gradcheck", "fast"):
        rates.add_column(column, justify="left" if column == "cause" else "right")
    groups = [*part.groupby("planted", sort=True), ("all", part)]
    for cause, group in groups:
        n = len(group)
        counts = [
            int(c.sum())
            for c in (
                group["class"] == "caught",
                group["named"] == group["planted"],
                group["gradcheck_slow"].astype(bool),
                group["gradcheck_fast"].astype(bool),
            )
        ]
        shares = [f"{c}" if cause != "all" else f"{c} = {c / n:.0%}" for c in counts]
        rates.add_row(str(cause), str(n), *shares)
    return rates


def _titled(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
