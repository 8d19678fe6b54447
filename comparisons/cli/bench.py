"""The command `gradtwin bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Json, Out, Quiet, known

if TYPE_CHECKING:
    import pandas as pd

    from .runner import Runner

SUBJECTS = ("rules", "optimizers", "tape")


def bench_command(
    what: Annotated[str, typer.Argument(metavar="|".join(SUBJECTS), help="What to time.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Rules or optimizers; all without."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="An earlier bench_rules.csv, to compare with."),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How fast it is: a rule's forward and backward pass beside torch eager, over the size of its
    arrays; an optimizer's step by hand beside torch's loop, foreach and fused, and the memory, on a
    million float32 elements; or a node of the tape beside one of torch's graph.

    One thread, medians of interleaved runs.
    """
    from ..samples import large
    from ..samples.optimizers import SAMPLES

    known("subject", what, SUBJECTS)
    if what != "tape":
        known(
            *(
                ("op", names, [*large.calls(1)])
                if what == "rules"
                else ("optimizer", names, SAMPLES)
            )
        )
    elif names:
        raise typer.BadParameter(
            f"expected none with tape, got {', '.join(names)}", param_hint="NAME"
        )
    if against and what != "rules":
        raise typer.BadParameter(f"expected it with rules only, got {what}", param_hint="--against")
    from ..report import files, tables
    from .runner import Runner

    old = _earlier(against) if against else {}
    named = names and [what, *names]
    runner = Runner(out, as_json, quiet=quiet, named=named)
    with runner.console.status("timing"):
        found = {"rules": _timed_rules, "optimizers": _timed_optimizers, "tape": _timed_tape}[what](
            names or ()
        )
    frame = tables.table(found)
    stem = "bench" if what == "optimizers" else f"bench_{what}"
    contents = tables.contents(frame, stem)
    if what == "rules":
        contents[f"{stem}.png"] = _picture(frame)
    files.write_all({runner.out / name: content for name, content in contents.items()})
    if as_json:
        print(frame.to_json(orient="records"))
    elif what == "rules":
        _print_rules(runner, found, old)
    elif what == "tape":
        _print_tape(runner, found)
    else:
        _print_optimizers(runner, found)


def _earlier(path: Path) -> dict[str, float]:
    """The ratios of an earlier table, by id."""
    import io

    import pandas as pd

    from ..report import files

    try:
        frame = pd.read_csv(io.BytesIO(files.read(path)))
        return {str(i): float(ratio) for i, ratio in zip(frame["id"], frame["ratio"], strict=True)}
    except (OSError, ValueError, KeyError) as error:
        raise typer.BadParameter(
            f"expected a bench_rules.csv, got {path}: {error}", param_hint="--against"
        ) from None


def _picture(frame: pd.DataFrame) -> bytes:
    from ..bench import rules
    from ..report import pages

    return pages.png(rules.figure(frame))


def _timed_rules(names: Sequence[str]) -> list[dict[str, Any]]:
    from ..bench import rules
    from ..ops import named
    from ..samples import large

    there = [name for name in names or large.calls(1) if named(name).mirror is not None]
    return [row for name in there for row in rules.rows(name)]


def _timed_tape(names: Sequence[str]) -> list[dict[str, Any]]:
    from ..bench import tape

    return tape.rows()


def _timed_optimizers(names: Sequence[str]) -> list[dict[str, Any]]:
    from ..bench import optimizers
    from ..ops.optimizers import named
    from ..samples.optimizers import SAMPLES

    there = [name for name in names or SAMPLES if named(name).mirror is not None]
    return [row for name in there for row in optimizers.rows(name)]


def _print_rules(runner: Runner, found: Sequence[dict[str, Any]], old: Mapping[str, float]) -> None:
    import pandas as pd
    from rich.table import Table

    from ..bench import rules

    frame = pd.DataFrame(found)
    sizes = sorted({r["elements"] for r in found})
    table = Table(
        box=None,
        pad_edge=False,
        title="Forward and backward by hand take this many times as long as torch's (quartiles)",
        title_justify="left",
    )
    table.add_column("op")
    for n in sizes:
        table.add_column(f"{n:,} elements", justify="right")
    for op, of_op in frame.groupby("op", sort=False):
        cells = []
        for r in of_op.to_dict("records"):
            before = f", was {old[r['id']]:.2f}" if r["id"] in old else ""
            cells.append(f"{r['ratio']:.2f} ({r['low']:.2f}–{r['high']:.2f}){before}")
        table.add_row(str(op), *cells)
    runner.console.print(table)
    means = ", ".join(f"{mean:.2f} at {n:,}" for n, mean in rules.means(frame).items())
    worst = frame.nlargest(1, "ratio").iloc[0]
    runner.last.print(
        f"Geometric mean {means} elements; the largest {worst['ratio']:.2f}, of {worst['op']} at "
        f"{worst['elements']:,}."
    )


def _print_tape(runner: Runner, found: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    runner.console.print(
        "A node of a chain takes this many times as long as one of the shortest, or as torch's"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("nodes", "by hand", "torch", "by hand / torch"):
        table.add_column(column, justify="right")
    for r in found:
        growth = [r[side] / found[0][side] for side in ("manual", "torch")]
        shown = (*growth, r["manual"] / r["torch"])
        table.add_row(f"{r['nodes']:,}", *(f"{ratio:.2f}" for ratio in shown))
    runner.console.print(table)
    ratios = [r["manual"] / r["torch"] for r in found]
    runner.last.print(
        f"A node by hand takes {min(ratios):.2f} to {max(ratios):.2f} times as long as torch's."
    )


def _print_optimizers(runner: Runner, found: Sequence[dict[str, Any]]) -> None:
    import math

    from rich.table import Table

    from ..bench.optimizers import OTHERS

    title = (
        "One step by hand takes this many times as long as torch's, or as copying what it touches"
    )
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("optimizer")
    for other in OTHERS:
        table.add_column(other, justify="right")
    for r in found:
        ratios = (r[f"to_{other}"] for other in OTHERS)
        table.add_row(
            f"{r['optimizer']}({r['settings']})",
            *("" if math.isnan(x) else f"{x:.2f}" for x in ratios),
        )
    runner.console.print(table)
    loops = [r["to_loop"] for r in found]
    runner.last.print(
        f"A step by hand takes {min(loops):.2f} to {max(loops):.2f} times as long as torch's loop."
    )
