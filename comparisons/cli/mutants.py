"""The command `gradtwin mutants`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Jobs, Json, Out, Quiet, Seed, known

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


class Precision(StrEnum):
    SINGLE = "float32"
    DOUBLE = "float64"
    BRAIN = "bfloat16"
    HALF = "float16"


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
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Instead, the same in bfloat16 and float16, before fixed tolerances."
        ),
    ] = False,
    alone: Annotated[
        bool,
        typer.Option(
            "--no-reference", help="Instead, held to differences of their own forward alone."
        ),
    ] = False,
    blind: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME",
            help="Instead, a set of mistakes written blind: third to sixth. Repeatable.",
        ),
    ] = None,
    ports: Annotated[
        bool,
        typer.Option(
            "--ports", help="Instead, ports of modules written blind; an OP is a network then."
        ),
    ] = False,
    trainings: Annotated[
        bool,
        typer.Option(
            "--trainings",
            help="Instead, changes of recorded trainings written blind; an OP is a training then.",
        ),
    ] = False,
    dtype: Annotated[
        Precision, typer.Option(help="With --ports, in which the networks are.")
    ] = Precision.SINGLE,
    speed: Annotated[bool, typer.Option(help="Measure the two ratios of speed.")] = True,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
) -> None:
    """Planted wrong rules before `check` and before torch's gradcheck; and right ones, for alarms.

    With --half, kernels of 16 bits before the measured tolerance and before that of
    torch.testing.assert_close: with every step rounded, rounded once, and known to be. With
    --no-reference, each right rule on another of its rows at each seed, and those mistakes whose
    forward is right. With --set, mistakes written blind beside the right functions that they are
    made in, at first sight and now. With --ports, faults of re-implementations of whole networks,
    and other right ways to write these. With --trainings, faulty and harmless changes of trainings,
    each recorded and held to the recording without it.

    Exit status: 0 all caught and no alarm, 1 something missed or an alarm, 2 wrong usage.
    """
    from ..mutants.corpus import AGAINST
    from ..ops import names

    if ports:
        from .ports import shown

        raise typer.Exit(shown(ops, dtype.value, out, as_json, quiet, jobs))
    if trainings:
        from . import trainings as changes

        raise typer.Exit(changes.shown(ops, out, as_json, quiet, jobs))
    known("op", ops, dict.fromkeys([*AGAINST, *names()]) if alone else AGAINST)
    if blind:
        raise typer.Exit(_of_sets(blind, seed, out, as_json, quiet, jobs))
    if half and alone:
        raise typer.BadParameter("expected one of --half and --no-reference, got both")
    if half or alone:
        instead = _in_16_bits if half else _without_reference
        raise typer.Exit(instead(ops, range(seed, seed + seeds), out, as_json, quiet, jobs))
    raise typer.Exit(
        _of_mistakes(ops, range(seed, seed + seeds), torch_ops, speed, out, as_json, quiet, jobs)
    )


def _of_mistakes(
    ops: list[str] | None,
    seeds: range,
    torch_ops: bool,
    speed: bool,
    out: Path,
    as_json: bool,
    quiet: bool,
    jobs: int,
) -> int:
    """The exit status, after the tables of planted mistakes and of right rules are shown and
    saved."""
    from ..mutants import table
    from ..mutants.corpus import AGAINST
    from ..ops import named, names
    from ..report import tables
    from ..report.console import Column
    from .runner import Runner

    columns = [
        Column("op", 20, lambda r: r["op"]),
        Column("planted", 13, lambda r: r["planted"]),
        Column("named", 13, lambda r: r["named"]),
        Column("gradcheck", 9, lambda r: _caught(r["gradcheck_slow"]), rank=2),
        Column("fast", 6, lambda r: _caught(r["gradcheck_fast"]), rank=3),
        Column("class", 7, lambda r: r["class"]),
        Column("says", 20, lambda r: r["says"], rank=1, grows=True),
    ]
    chosen = ops or list(AGAINST)
    sloped = [op for op in names() if named(op).has_gradient]
    runner = Runner(out, as_json, jobs, quiet=quiet, named=ops)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (table.mutant_row, (op, number, seeds[0]))
        for op in chosen
        for number in range(len(table.MUTANTS.get(op, ())))
    ]
    tasks += [(table.right_row, (op, s)) for op in chosen for s in seeds]
    if not ops:
        tasks += [(table.manual_row, (op, s)) for op in sloped for s in seeds]
    if torch_ops:
        tasks += [
            (table.torch_row, (name, s, s > seeds[0], speed and s == seeds[0]))
            for name in table.public()
            for s in seeds
        ]
    rows = runner.run("Mutants", tasks, columns, lambda row: [row])
    frame = tables.table(rows)
    tables.save(frame, "mutants", runner.out)
    speeds = list(table.speeds(chosen)) if speed else []
    if as_json:
        print_json(frame, speed=speeds)
    else:
        for shown in _summaries(frame, speeds):
            runner.console.print(shown)
        runner.last.print(outcome(frame))
    return int(frame["class"].isin(["missed", "alarm"]).any())


def _in_16_bits(
    ops: list[str] | None, seeds: range, out: Path, as_json: bool, quiet: bool, jobs: int
) -> int:
    """The exit status, after the table of kernels in 16 bits is shown and saved."""
    from ..mutants.corpus import AGAINST
    from ..mutants.sixteen_bits import VISIBLE, numbers, rows
    from ..report import tables
    from ..report.console import Column
    from ..verdict.classes import HALF_DTYPES
    from .runner import Runner

    columns = [
        Column("id", 40, lambda r: r["id"], grows=True),
        Column("effect", 8, lambda r: f"{r['effect']:.2g}"),
        Column("resolution", 10, lambda r: f"{r['resolution_in_u']:.3g} u"),
        Column("margin", 8, lambda r: f"{r['margin']:.2g}", rank=1),
        Column("class", 10, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet, named=ops)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (rows, (op, number, dtype, s))
        for op in ops or AGAINST
        for number in numbers(op)
        for dtype in HALF_DTYPES
        for s in seeds
    ]
    found = runner.run("Mutants in 16 bits", tasks, columns, lambda made: made)
    frame = tables.table(row for made in found for row in made)
    tables.save(frame, "mutants_in_16_bits", runner.out)
    visible = frame["effect"] > frame["kernel"].map(VISIBLE)
    missed = int((visible & ~frame["found"]).sum())
    alarms = int((frame["found"] & (frame["effect"] == 0)).sum())
    if as_json:
        print_json(frame)
    else:
        runner.console.print(_by_kernel(frame, visible))
        runner.last.print(
            f"{visible.sum()} results of mistakes above the resolution, {missed} missed, "
            f"{alarms} alarms. NumPy cannot run {int(frame['effect'].isna().sum())} kernels."
        )
    return int(missed > 0 or alarms > 0)


def _of_sets(chosen: list[str], seed: int, out: Path, as_json: bool, quiet: bool, jobs: int) -> int:
    """The exit status, after the table of what was written blind is shown and saved."""
    from ..mutants import sets
    from ..report import tables
    from ..report.console import Column
    from .runner import Runner

    known("set", chosen, dict.fromkeys(sets.SETS))
    columns = [
        Column("op", 30, lambda r: r["op"], grows=True),
        Column("planted", 30, lambda r: r["planted"], rank=1),
        Column("named", 18, lambda r: r["named"]),
        Column("class", 7, lambda r: r["class"]),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    for name in chosen:
        tasks += [(sets.mistake_row, (name, *place, seed)) for place in sets.mistakes(name)]
        tasks += [(sets.right_row, (name, *place, seed)) for place in sets.subjects(name)]
    rows = list(runner.run("Written blind", tasks, columns, lambda row: [row]))
    frame = tables.table(rows)
    tables.save(frame, "mutants_written_blind", runner.out)
    if as_json:
        print_json(frame)
    else:
        shown = titled("\nWritten blind")
        for head in ("set", "seen", *sets.counted(rows)):
            shown.add_column(head, justify="left" if head in ("set", "seen") else "right")
        for name in chosen:
            now = sets.counted([r for r in rows if r["set"] == name])
            if first := sets.FIRST_SIGHT.get(name):
                shown.add_row(name, "at first", *map(str, first.values()))
            shown.add_row(name, "now", *map(str, now.values()))
        runner.console.print(shown)
        for name in chosen:
            part = frame[frame["set"] == name]
            mistakes = part["kind"] == "mistake"
            runner.console.print(_judges(f"\n{name}: who objects", part[mistakes], part[~mistakes]))
        runner.last.print(outcome(frame, "mutants_written_blind"))
    return int(frame["class"].isin(["missed", "alarm"]).any())


def _judges(title: str, mistakes: pd.DataFrame, right: pd.DataFrame) -> Table:
    """How many mistakes each judge objects to, and how many of the right ones where it was asked;
    calls and seconds of one mistake, by the median."""
    from ..mutants.judges import JUDGES

    shown = titled(title)
    for head in ("judge", "mistakes", "found", "right", "alarms", "calls", "seconds"):
        shown.add_column(head, justify="left" if head == "judge" else "right")
    sides = [(mistakes, mistakes["class"] == "caught"), (right, right["class"] == "alarm")]
    counts = [str(n) for part, found in sides for n in (len(part), found.sum())]
    cost = f"{mistakes['calls'].median():.0f}", f"{mistakes['seconds'].median():.2g}"
    shown.add_row("check", *counts, *cost)
    for judge in JUDGES:
        asked = [part[judge].dropna().astype(bool) for part in (mistakes, right)]
        counts = [
            str(n) if len(found) else "" for found in asked for n in (len(found), found.sum())
        ]
        column = f"{judge.removeprefix('gradcheck_')}_seconds"
        took = f"{mistakes[column].median():.2g}" if column in mistakes else ""
        shown.add_row(judge.replace("_", " ").replace("torchs", "torch's"), *counts, "", took)
    return shown


def _without_reference(
    ops: list[str] | None, seeds: range, out: Path, as_json: bool, quiet: bool, jobs: int
) -> int:
    """The exit status, after the table of what is held to nothing is shown and saved."""
    from ..mutants.corpus import AGAINST, MUTANTS
    from ..mutants.without_reference import mutant_row, right_row
    from ..ops import named, names
    from ..report import tables
    from ..report.console import Column
    from .runner import Runner

    columns = [
        Column("id", 40, lambda r: r["id"]),
        Column("class", 14, lambda r: r["class"]),
        Column("call", 30, lambda r: r["call"], rank=1, grows=True),
    ]
    runner = Runner(out, as_json, jobs, quiet=quiet, named=ops)
    sloped = [op for op in names() if named(op).has_gradient and (not ops or op in ops)]
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (right_row, (op, s)) for op in sloped for s in seeds
    ]
    tasks += [
        (mutant_row, (op, number, seeds[0]))
        for op in ops or AGAINST
        for number in range(len(MUTANTS.get(op, ())))
    ]
    rows = runner.run("Without a reference", tasks, columns, lambda row: [row])
    frame = tables.table(rows)
    tables.save(frame, "mutants_without_reference", runner.out)
    if as_json:
        print_json(frame)
    else:
        for shown in _held_to_nothing(frame):
            runner.console.print(shown)
        runner.last.print(outcome(frame, "mutants_without_reference"))
    return int(frame["class"].isin(["missed", "alarm"]).any())


def _held_to_nothing(frame: pd.DataFrame) -> list[Table]:
    counts = titled("\nHeld to nothing")
    heads = ("what", "checks", "classes", "own results", "judged", "at other probes", "judged")
    for head in heads:
        counts.add_column(head, justify="left" if head in ("what", "classes") else "right")
    for kind, part in frame.groupby("kind", sort=False):
        classes = part["class"].value_counts()
        sums = part[["own", "own_judged", "elsewhere", "elsewhere_judged"]].sum()
        counts.add_row(
            str(kind),
            str(len(part)),
            ", ".join(f"{n} {name}" for name, n in classes.items()),
            *(str(n) for n in sums),
        )
    right = frame[(frame["kind"] == "right") & (frame["reasons"] != "")]
    reasons = right["reasons"].str.split("; ").explode()
    purpose = frame[frame["class"] == "on purpose"]
    on_purpose = purpose["op"] + ": " + purpose["says"]
    return [
        counts,
        *_counted("Right results at the own point, not judged", "reason", reasons),
        *_counted("Right, and not the derivative on purpose", "why", on_purpose),
    ]


def _counted(title: str, what: str, texts: pd.Series) -> list[Table]:
    """How often each text occurs, if any does."""
    shown = titled(f"\n{title}")
    shown.add_column("results" if what == "reason" else "checks", justify="right")
    shown.add_column(what, min_width=len(title))
    for text, n in texts.value_counts().items():
        shown.add_row(str(n), str(text))
    return [shown] if len(texts) else []


def print_json(frame: pd.DataFrame, **more: Any) -> None:
    from ..report.tables import SCHEMA

    rows = json.loads(frame.to_json(orient="records"))
    print(json.dumps({"schema": SCHEMA, "table": rows, **more}))


def _by_kernel(frame: pd.DataFrame, visible: pd.Series) -> Table:
    shown = titled("\nResults of kernels in 16 bits")
    heads = (
        *("dtype", "kernel", "right", "alarms", "assert_close", "resolution"),
        *("mistakes", "found", "assert_close", "above resolution", "found"),
    )
    for head in heads:
        shown.add_column(head, justify="left" if head in heads[:2] else "right")
    kinds = frame["kernel"].unique()
    for dtype, kernel in itertools.product(frame["dtype"].unique(), kinds):
        part = frame[(frame["dtype"] == dtype) & (frame["kernel"] == kernel)]
        right, wrong = part[part["effect"] == 0], part[part["effect"] > 0]
        seen = wrong[visible[wrong.index]]
        shown.add_row(
            str(dtype),
            str(kernel),
            *(str(n) for n in (len(right), right["found"].sum(), right["assert_close"].sum())),
            f"{right['resolution_in_u'].median():.3g} u",
            *(str(n) for n in (len(wrong), wrong["found"].sum(), wrong["assert_close"].sum())),
            *(str(n) for n in (len(seen), seen["found"].sum())),
        )
    return shown


def outcome(frame: pd.DataFrame, name: str = "mutants") -> str:
    kinds = frame["class"].replace("found", "caught")  # as it is of trainings
    counts = {kind: int((kinds == kind).sum()) for kind in ("caught", "missed", "alarm")}
    text = (
        f"{counts['caught']} mistakes caught, {counts['missed']} missed, {counts['alarm']} alarms."
    )
    if counts["missed"] or counts["alarm"]:
        text += f" {name}.csv has each with what `check` said of it."
    return text


def _caught(found: Any) -> str:
    return "" if found is None else "caught" if found else "missed"


def _summaries(frame: pd.DataFrame, speeds: Sequence[dict[str, Any]]) -> list[Any]:
    mutants = frame[frame["kind"] == "mutant"]
    shown = []
    for title, part in (
        ("Written before the diagnoses", mutants[~mutants["frozen"].astype(bool)]),
        ("Written after them", mutants[mutants["frozen"].astype(bool)]),
    ):
        if len(part):
            shown.append(_rates(f"\n{title}", part))
    quiet = titled("\nRight rules")
    for column in ("what", "checks", "alarms", "not judged"):
        quiet.add_column(column, justify="left" if column == "what" else "right")
    for what, part in frame[frame["kind"] != "mutant"].groupby("kind", sort=False):
        alarms, missing = (part["class"] == k for k in ("alarm", "n/a"))
        quiet.add_row(str(what), str(len(part)), str(alarms.sum()), str(missing.sum()))
    took = mutants[["seconds", "slow_seconds", "fast_seconds"]].sum()
    times = titled("\nSpeed")
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
    judges = _judges("\nWho objects", mutants, frame[frame["kind"] == "corpus"])
    return [*shown, judges, quiet, times]


def _rates(title: str, part: pd.DataFrame) -> Table:
    rates = titled(title)
    for column in ("cause", "mutants", "caught", "cause named", "slow gradcheck", "fast"):
        rates.add_column(column, justify="left" if column == "cause" else "right")
    first = part["planted"].str.partition(" / ")[0]
    groups = [*part.groupby(first, sort=True), ("all", part)]
    for cause, group in groups:
        n = len(group)
        counts = [
            int(c.sum())
            for c in (
                group["class"] == "caught",
                group["rightly"],
                group["gradcheck_slow"].astype(bool),
                group["gradcheck_fast"].astype(bool),
            )
        ]
        shares = [f"{c}" if cause != "all" else f"{c} = {c / n:.0%}" for c in counts]
        rates.add_row(str(cause), str(n), *shares)
    return rates


def titled(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
