"""The command `gradtwin history`: how the margins went, over the baselines of a folder."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import baseline, report, verdict
from .baseline import NotComparable
from .session import RESULTS, Json, Out, known

SHOWN = 10  # names, where none is named
RECENT = 40  # recordings in a spark line
TICKS = 12  # dates beneath the picture
BARS = "▁▂▃▄▅▆▇█"
DRAWN = (1e-4, 1e2)  # a margin outside is drawn at the edge: zero has no place on a log axis
PACKAGES = ("torch", "numpy")


@dataclass(frozen=True)
class Recording:
    """What is kept of a baseline: when it was made, with what, and the worst of each name."""

    file: str
    at: datetime.datetime
    packages: dict[str, str]
    worst: dict[str, tuple[float, str]]  # name → margin and class

    @property
    def date(self) -> str:
        return f"{self.at:%Y-%m-%d}"


def history_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of baselines.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…",
            help=f"Ops, optimizers, schedules, models; the {SHOWN} that grew most without.",
        ),
    ] = None,
    out: Out = RESULTS,
    as_json: Json = False,
) -> None:
    """How margins went, over all baselines of a folder in the order of their recording: a table,
    history.csv and history.png. Exit status: 0, or 2 if there is no baseline."""
    console = Console(stderr=as_json, highlight=False)
    if not folder.is_dir():
        raise typer.BadParameter(f"expected a folder, got {folder}", param_hint="DIR")
    paths = sorted(folder.glob("*.parquet"))
    found, skipped = recordings(track(paths, "reading", console=console, transient=True))
    for reason in skipped:
        console.print(f"skipped {reason}", style="yellow", markup=False, soft_wrap=True)
    if not found:
        text = f"{folder}: expected one baseline or more, got none among {len(paths)} *.parquet"
        raise typer.BadParameter(text, param_hint="DIR")
    every = list(dict.fromkeys(name for recording in found for name in recording.worst))
    for name in names or ():
        known("name in these baselines", name, every)
    rows = sorted((line(name, found) for name in every), key=_growth_first)
    shown = rows[:SHOWN] if not names else [line(name, found) for name in dict.fromkeys(names)]
    picture = report.png(figure(found, [row["name"] for row in shown]))
    try:
        report.folder(out)
        report.write(out / "history.csv", table(found).to_csv(index=False).encode())
        report.write(out / "history.png", picture)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {out}: {error.strerror}", param_hint="--out"
        ) from None
    if as_json:
        print(as_text(found, skipped, shown))
        return
    show(console, found, shown)
    if not names and len(rows) > len(shown):
        console.print(f"and {len(rows) - len(shown)} names that grew no more", style="dim")
    console.print(f"files: {out}/history.csv, history.png", style="dim", markup=False)


def recordings(paths: Iterable[Path]) -> tuple[list[Recording], list[str]]:
    """The baselines among the files, the oldest first, and of the others why they are none."""
    found, skipped = [], []
    for path in paths:
        try:
            found.append(_recording(path))
        except NotComparable as error:
            skipped.append(str(error))
    return sorted(found, key=lambda recording: (recording.at, recording.file)), skipped


def _recording(path: Path) -> Recording:
    read = baseline.read(path)
    try:
        at = datetime.datetime.fromisoformat(read.about["history"][-1]["at"])
    except (LookupError, TypeError, ValueError):
        raise NotComparable(f"{path}: does not say when it was recorded") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    groups: dict[str, list[tuple[float, str]]] = {}
    for q in read.quantities.values():
        groups.setdefault(q.name, []).append((q.margin, q.kind))
    environment = read.about.get("environment", {})
    packages = {name: environment.get(name, "") for name in PACKAGES}
    worst = {name: _worst(pairs) for name, pairs in groups.items()}
    return Recording(path.name, at, packages, worst)


def _worst(pairs: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest margin, and the worst class. A margin that is no number is beyond any limit:
    something has another shape, or is NaN where it should not be."""
    margins = [math.inf if math.isnan(margin) else margin for margin, _ in pairs]
    return max(margins), verdict.worst(kind for _, kind in pairs)


def line(name: str, found: Sequence[Recording]) -> dict[str, Any]:
    """What became of a name: its first, last and largest margin, and all of them in a spark line.
    Where it is missing there is a gap."""
    margins = [recording.worst.get(name, (math.nan, ""))[0] for recording in found]
    there = [margin for margin in margins if not math.isnan(margin)]
    grown = 0.0 if there[0] == there[-1] else there[-1] - there[0]  # ∞ − ∞ is no number
    return {
        "name": name,
        "recordings": len(there),
        "first": there[0],
        "last": there[-1],
        "largest": max(there),
        "grown": grown,
        "moved": len(set(there)) > 1,
        "there": not math.isnan(margins[-1]),
        "margins": margins,
        "spark": spark(margins[-RECENT:]),
    }


def _growth_first(row: Mapping[str, Any]) -> tuple[float, float]:
    return -row["grown"], -row["largest"]


def spark(margins: Sequence[float]) -> str:
    """A bar for each margin, from the smallest to the largest of them; a space where there is
    none, and a line of points if nothing moved."""
    finite = [margin for margin in margins if math.isfinite(margin)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low == high and not any(map(math.isinf, margins)):
        return "".join(" " if math.isnan(margin) else "·" for margin in margins)
    return "".join(_bar(margin, low, high) for margin in margins)


def _bar(margin: float, low: float, high: float) -> str:
    if math.isnan(margin):
        return " "
    if math.isinf(margin):
        return BARS[-1]
    part = (margin - low) / (high - low) if high > low else 0.0
    return BARS[round(part * (len(BARS) - 1))]


def table(found: Sequence[Recording]) -> pd.DataFrame:
    """One row for each name of each recording."""
    return report.table(
        {
            "id": f"{recording.file}/{name}",
            "file": recording.file,
            "at": recording.at.isoformat(),
            **recording.packages,
            "name": name,
            "margin": margin,
            "class": kind,
        }
        for recording in found
        for name, (margin, kind) in recording.worst.items()
    )


def as_text(
    found: Sequence[Recording], skipped: Sequence[str], shown: Sequence[Mapping[str, Any]]
) -> str:
    """The same as JSON, in which a margin that is missing, or not finite, is null."""
    recorded = [{"file": r.file, "at": r.at.isoformat(), **r.packages} for r in found]
    rows = json.loads(pd.DataFrame(shown).to_json(orient="records", double_precision=15))
    told = {"schema": report.SCHEMA, "recordings": recorded, "skipped": skipped, "names": rows}
    return json.dumps(told, ensure_ascii=False)


def show(console: Console, found: Sequence[Recording], shown: Sequence[Mapping[str, Any]]) -> None:
    """From when to when, and a line for each name."""
    first, last = found[0], found[-1]
    console.print(f"{len(found)} recordings, {first.date} to {last.date}; margins, 1 is the limit")
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("name", overflow="fold")
    for column in ("first", "last", "largest", "grown"):
        drawn.add_column(column, justify="right")
    drawn.add_column(f"last {RECENT}" if len(found) > RECENT else "all", no_wrap=True)
    for row in shown:
        grown = f"{row['grown']:+.2g}" if row["moved"] else "unmoved"
        numbers = [f"{row[column]:.3g}" for column in ("first", "last", "largest")]
        missing = "" if row["there"] else " missing in the last"
        style = "bold red" if row["last"] > 1 else "yellow" if row["largest"] > 1 else None
        drawn.add_row(row["name"], *numbers, grown, row["spark"] + missing, style=style)
    console.print(drawn)


def figure(found: Sequence[Recording], names: Sequence[str]) -> Figure:
    """The worst margin of each name over the recordings, and the limit."""
    drawn = Figure(figsize=(max(6.0, min(16.0, 0.7 * len(found) + 4)), 4.5), layout="constrained")
    axes = drawn.subplots()
    for name in names:
        margins = [recording.worst.get(name, (math.nan, ""))[0] for recording in found]
        axes.plot(np.clip(margins, *DRAWN), ".-", linewidth=1, label=name)
    axes.axhline(1, color="tab:red", linewidth=1, linestyle="--", label="limit")
    axes.set_yscale("log")
    axes.set_ylabel("worst margin")
    ticks = labels(found)
    axes.set_xticks([*ticks], [*ticks.values()], fontsize=7)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def labels(found: Sequence[Recording]) -> dict[int, str]:
    """The dates, by number of the recording, as many as there is room for; a version stands
    beneath the first, and wherever it changed."""
    every = -(-len(found) // TICKS)
    texts = {}
    for i, recording in enumerate(found):
        before = found[i - 1].packages if i else {}
        now = [f"{k} {v}" for k, v in recording.packages.items() if v and before.get(k) != v]
        if now or i % every == 0:
            texts[i] = "\n".join([recording.date, *now])
    return texts
