"""The command `gradtwin bench`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .options import RESULTS, Json, Out, Quiet, known

if TYPE_CHECKING:
    from .runner import Runner

# What is timed, and what stands above its table.
SUBJECTS = {
    "rules": "Forward and backward by hand take this many times as long as torch's (quartiles)",
    "models": "Forward and backward by hand take this many times as long as torch's (quartiles)",
    "optimizers": "One step by hand takes this many times as long as torch's, or as copying what "
    "it touches",
    "tape": "A node of a chain takes this many times as long as one of the shortest, or as torch's",
    "noise": "One draw of noise takes as long as this many plain evaluations (quartiles)",
    "modules": "A port is held to its original in as many forward and backward passes of that, or "
    "in as many times their memory",
    "check": "A check takes as long as this many forward and backward passes of torch (quartiles)",
    "trace": "A trace takes as long as this many plain forward and backward passes (quartiles)",
    "curves": "A cell is judged in this many times the time of its plain training (quartiles)",
    "trajectories": "Steps are judged in this many times the time of torch's run (quartiles)",
    "recording": "A recorded step takes as much CPU time as this many plain ones (quartiles)",
    "memory": "Forward and backward by hand take this many times as much memory as torch's, in MiB",
    "start": "CPU time until the end, as a share of an import of torch (quartiles)",
    "job": "CPU time of the main job, in imports of torch; once",
}
NAMED = {"rules": "op", "optimizers": "optimizer", "trajectories": "optimizer"}  # what NAMEs are

Row = Mapping[Any, Any]
Found = Sequence[Row]
Was = Callable[[Row, str], str]  # row, which of its ratios → what it was, as text


class Page(NamedTuple):
    """What is shown of a subject: the table, for each line its cells and whether it is wrong; what
    has a bound; and the last line."""

    heads: Sequence[str]
    lines: Sequence[tuple[Sequence[str], bool]]
    held: Found
    last: str


def bench_command(
    what: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help=f"One of {', '.join(SUBJECTS)}; all without."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Rules or optimizers; all without."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="An earlier bench_SUBJECT.csv, to compare with."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What it costs, in multiples of something plain.

    Of rules, models, optimizers and the tape: how many times as long they take as torch. Of a draw
    of noise, a check, a port, a trace, a cell of the curves and an optimizer's trajectory: how many
    plain evaluations or runs. Of a step that is recorded: how many plain ones. Of commands: how
    many imports of torch. Of memory: how much of torch's.

    One thread, medians of interleaved runs; the main job (job) and its parts run once, as they are.
    """
    chosen = _chosen(what, names or (), against)
    from ..bench.costs import outcome
    from ..report import files, tables
    from .runner import Runner

    old = _earlier(against) if against else {}
    runner = Runner(out, as_json, quiet=quiet, named=[what, *names] if what and names else None)
    found: dict[str, Found] = {}
    for subject in chosen:
        with runner.console.status(f"timing: {subject}"):
            found[subject] = _timed(subject, names or ())
    contents: dict[str, bytes] = {}
    for subject, rows in found.items():
        contents |= tables.contents(tables.table(rows), f"bench_{subject}")
    if "rules" in found:
        contents["bench_rules.png"] = _picture(found["rules"])
    files.write_all({runner.out / name: content for name, content in contents.items()})
    if as_json:
        shown = {s: tables.table(rows).to_json(orient="records") for s, rows in found.items()}
        named = ", ".join(f'"{subject}": {text}' for subject, text in shown.items())
        print(shown[what] if what else f"{{{named}}}")
        return
    pages = [_page(subject, rows, old, not names) for subject, rows in found.items()]
    for subject, page in zip(found, pages, strict=True):
        _print(runner, SUBJECTS[subject], page)
    held = [
        {**row, "case": f"{subject}: {row['case']}"}
        for subject, page in zip(found, pages, strict=True)
        for row in page.held
    ]
    runner.last.print(pages[0].last if what else outcome(held), soft_wrap=True)


def _chosen(what: str | None, names: Sequence[str], against: Path | None) -> list[str]:
    """The subjects. BadParameter for one that is not there, and for names and tables that do not
    go with it."""
    from ..samples import large
    from ..samples.optimizers import SAMPLES

    if what is None:
        if against:
            raise typer.BadParameter("expected it with one subject", param_hint="--against")
        return list(SUBJECTS)
    known("subject", what, SUBJECTS)
    kind = NAMED.get(what)
    if kind:
        known(kind, names, [*large.calls(1)] if kind == "op" else SAMPLES)
    elif names:
        raise typer.BadParameter(
            f"expected none with {what}, got {', '.join(names)}", param_hint="NAME"
        )
    return [what]


def _timed(subject: str, names: Sequence[str]) -> Found:
    """The rows of a subject. What this torch lacks is left out."""
    from .. import ops
    from ..bench import judging, memory, models, modules, noise, optimizers, recording, rules, tape
    from ..ops import optimizers as of_optimizers
    from ..samples import large
    from ..samples.optimizers import SAMPLES

    if subject in ("start", "job"):
        from ..bench import commands

        return commands.starts() if subject == "start" else commands.job()
    if subject == "trace":
        from ..trace.models import built
        from ..trace.recorder import trace

        return judging.traces(trace, built)
    if subject in NAMED:
        of_rules = subject == "rules"
        named: Callable[[str], Any] = ops.named if of_rules else of_optimizers.named
        every = names or (large.calls(1) if of_rules else SAMPLES)
        rows: dict[str, Callable[[str], Found]] = {
            "rules": rules.rows,
            "optimizers": optimizers.rows,
            "trajectories": judging.trajectories,
        }
        there = [name for name in every if named(name).mirror is not None]
        return [row for name in there for row in rows[subject](name)]
    alone: dict[str, Callable[[], Found]] = {
        "models": models.rows,
        "tape": tape.rows,
        "noise": noise.rows,
        "modules": modules.rows,
        "check": judging.checks,
        "curves": judging.curves,
        "memory": memory.rows,
        "recording": recording.rows,
    }
    return alone[subject]()


def _ratios(row: Row) -> dict[str, float]:
    """The ratios of a row of any of the tables, by what they are to. KeyError for another row."""
    from ..bench.optimizers import OTHERS

    if "ratio" in row:
        return {"": float(row["ratio"])}
    if "nodes" in row:
        return {"torch": float(row["manual"]) / float(row["torch"])}
    return {other: float(row[f"to_{other}"]) for other in OTHERS}


def _earlier(path: Path) -> dict[str, dict[str, float]]:
    """The ratios of an earlier table, by id."""
    import io

    import pandas as pd

    from ..report import files

    try:
        frame = pd.read_csv(io.BytesIO(files.read(path)))
        return {str(row["id"]): _ratios(row) for row in frame.to_dict("records")}
    except (OSError, ValueError, KeyError, ArithmeticError) as error:
        raise typer.BadParameter(
            f"expected a table of this command, got {path}: {error!r}", param_hint="--against"
        ) from None


def _picture(found: Found) -> bytes:
    import pandas as pd

    from ..bench import rules
    from ..report import pages

    return pages.png(rules.figure(pd.DataFrame(found)))


def _page(subject: str, found: Found, old: Mapping[str, Mapping[str, float]], every: bool) -> Page:
    def was(row: Row, to: str) -> str:
        before = old.get(row["id"], {}).get(to, math.nan)
        return "" if math.isnan(before) else f", was {before:.2f}"

    if subject == "rules":
        return _rules(found, was, every)
    if subject == "tape":
        return _tape(found, was)
    return _optimizers(found, was) if subject == "optimizers" else _costs(found, was)


def _print(runner: Runner, title: str, page: Page) -> None:
    from rich.table import Table

    runner.console.print(title, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(page.heads):
        table.add_column(head, justify="right" if i else "left")
    for cells, wrong in page.lines:
        table.add_row(*cells, style="bold red" if wrong else None)
    runner.console.print(table)


def _figure(row: Row, was: Was) -> str:
    spread = f" ({row['low']:.2f}–{row['high']:.2f})" if row["low"] < row["high"] else ""
    return f"{row['ratio']:.2f}{spread}{was(row, '')}"


def _costs(found: Found, was: Was) -> Page:
    from ..bench.costs import missed, outcome
    from ..report.tables import number

    further = [n for n in ("share", "seconds", "manual", "torch") if n in found[0]]
    bounds = any(not math.isnan(row["bound"]) for row in found)
    lines = []
    for row in found:
        cells = [row["case"], _figure(row, was), *(number(row[name]) for name in further)]
        if bounds:
            cells.append(f"{number(float(row['bound']))}{', missed' if missed(row) else ''}")
        lines.append((cells, missed(row)))
    heads = ["", "times", *further, *(["bound"] if bounds else [])]
    return Page(heads, lines, found, outcome(found))


def _rules(found: Found, was: Was, every: bool) -> Page:
    import pandas as pd

    from ..bench import rules
    from ..bench.costs import outcome

    frame = pd.DataFrame(found)
    sizes = sorted({row["elements"] for row in found})
    held = rules.held(frame, every)
    lines = []
    for op, of_op in frame.groupby("op", sort=False):
        cells = [_figure(row, was) for row in of_op.to_dict("records")]
        lines.append(([str(op), *cells], bool((of_op["ratio"] > rules.LARGEST).any())))
    means = ", ".join(f"{mean:.2f} at {n:,}" for n, mean in rules.means(frame).items())
    last = f"Geometric mean {means} elements; the largest {held[-1]['ratio']:.2f}, of "
    last += f"{held[-1]['case']}. {outcome(held)}"
    return Page(["op", *(f"{n:,} elements" for n in sizes)], lines, held, last)


def _tape(found: Found, was: Was) -> Page:
    ratios = [_ratios(row)["torch"] for row in found]
    lines = []
    for row, ratio in zip(found, ratios, strict=True):
        growth = [f"{row[side] / found[0][side]:.2f}" for side in ("manual", "torch")]
        cells = [f"{row['nodes']:,}", *growth, f"{ratio:.2f}{was(row, 'torch')}"]
        lines.append((cells, False))
    last = f"A node by hand takes {min(ratios):.2f} to {max(ratios):.2f} times as long as torch's."
    return Page(["nodes", "by hand", "torch", "by hand / torch"], lines, [], last)


def _optimizers(found: Found, was: Was) -> Page:
    from ..bench.optimizers import OTHERS

    lines = []
    for row in found:
        cells = [
            "" if math.isnan(ratio) else f"{ratio:.2f}{was(row, other)}"
            for other, ratio in _ratios(row).items()
        ]
        lines.append(([f"{row['optimizer']}({row['settings']})", *cells], False))
    loops = [row["to_loop"] for row in found]
    last = f"A step by hand takes {min(loops):.2f} to {max(loops):.2f} times as long as torch's "
    return Page(["optimizer", *OTHERS], lines, [], f"{last}loop.")
