"""How margins went, over the baselines of a folder."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..report import tables
from ..report.tables import SCHEMA
from ..verdict import classes
from . import file
from .file import NotComparable

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
    read = file.read(path)
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
    return max(margins), classes.worst(kind for _, kind in pairs)


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


def growth_first(row: Mapping[str, Any]) -> tuple[float, float]:
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
    return tables.table(
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
    told = {"schema": SCHEMA, "recordings": recorded, "skipped": skipped, "names": rows}
    return json.dumps(told, ensure_ascii=False)


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
