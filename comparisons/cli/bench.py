"""The command `gradtwin bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import RESULTS, Json, Out, Quiet, known

if TYPE_CHECKING:
    from .runner import Runner

SUBJECTS = ("optimizers", "tape")


def bench_command(
    what: Annotated[str, typer.Argument(metavar="optimizers|tape", help="What to time.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Optimizers; all without.")
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How fast it is: an optimizer's step by hand beside torch's loop, foreach and fused, and the
    memory, on a million float32 elements; or a node of the tape beside one of torch's graph.

    One thread, medians of interleaved runs.
    """
    from ..samples.optimizers import SAMPLES

    known("subject", what, SUBJECTS)
    known("optimizer", names, SAMPLES)
    if names and what == "tape":
        raise typer.BadParameter(
            f"expected none with tape, got {', '.join(names)}", param_hint="NAME"
        )
    from ..report import tables
    from .runner import Runner

    named = names and [what, *names]
    runner = Runner(out, as_json, quiet=quiet, named=named)
    with runner.console.status("timing"):
        found = _timed_tape() if what == "tape" else _timed_optimizers(names or list(SAMPLES))
    frame = tables.table(found)
    tables.save(frame, "bench_tape" if what == "tape" else "bench", runner.out)
    if as_json:
        print(frame.to_json(orient="records"))
    elif what == "tape":
        _print_tape(runner, found)
    else:
        _print_optimizers(runner, found)


def _timed_tape() -> list[dict[str, Any]]:
    from ..bench import tape

    return tape.rows()


def _timed_optimizers(names: Sequence[str]) -> list[dict[str, Any]]:
    from ..bench import optimizers
    from ..ops.optimizers import named

    there = [name for name in names if named(name).mirror is not None]
    return [row for name in there for row in optimizers.rows(name)]


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
        ratios = (*growth, r["manual"] / r["torch"])
        table.add_row(f"{r['nodes']:,}", *(f"{ratio:.2f}" for ratio in ratios))
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
