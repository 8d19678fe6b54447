"""The recordings of all processes of a distributed training, compared together."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..verdict.classes import CLASSES, DIFFERENT
from .comparison import RunComparison, compare
from .recording import PARAMETER, Recorded, read
from .traces import NEW, windows

RANK = "{rank}"
RANKS = "ranks"  # the kind of what the processes do not agree in


def files_of(path: Path) -> dict[str, Path]:
    """The file of each rank, or the one file. FileNotFoundError if there is none."""
    if RANK not in path.name:
        return {"": path}
    before, _, after = path.name.partition(RANK)
    pattern = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    folder = path.parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    found = {m[1]: folder / m[0] for m in map(pattern.fullmatch, names) if m}
    if not found:
        raise FileNotFoundError(2, "there is no file of any rank", str(path))
    return {rank: found[rank] for rank in sorted(found, key=int)}


def compare_ranks(old: Path, new: Path) -> list[RunComparison]:
    """Holds the run of each rank against the older one of the same rank; where {rank} stands in no
    name, the one against the other.

    In a training whose old ranks had the same parameters, bit for bit, a rank of the new ones that
    parts from the others is different, whatever it is held against. ValueError for other ranks.
    """
    theirs, ours = ({rank: read(p) for rank, p in files_of(path).items()} for path in (old, new))
    if theirs.keys() != ours.keys():
        were, are = (", ".join(filter(None, names)) or "none" for names in (theirs, ours))
        raise ValueError(f"ranks: expected {were} as in {old}, got {are}")
    found = {rank: compare(theirs[rank], ours[rank]) for rank in theirs}
    for rank, one in found.items():
        one.row["rank"] = rank
    if len(found) > 1:
        return list(_agreeing(found, theirs, ours).values())
    return list(found.values())


def _agreeing(
    found: dict[str, RunComparison], old: dict[str, Recorded], new: dict[str, Recorded]
) -> dict[str, RunComparison]:
    """The same, where a rank that parts from the one that is most like the old run is different."""
    first = min(found, key=lambda rank: CLASSES.index(found[rank].row["class"]))
    for rank in found:
        parts = _parting(new[first], new[rank])
        if rank == first or not parts or _parting(old[first], old[rank]):
            continue
        step, name = parts
        note = f"rank {rank} parts from rank {first} at step {step}, {name}"
        row = found[rank].row
        notes = "; ".join(filter(None, [row["note"], note]))
        given: dict[str, Any] = {"note": notes, "class": DIFFERENT}
        if row["class"] != DIFFERENT:
            given |= {"kind": RANKS, "margin": np.inf}
        found[rank] = replace(found[rank], row={**row, **given})
    return found


def _parting(one: Recorded, other: Recorded) -> tuple[int, str] | None:
    """Where the parameters of two ranks are no longer the same."""
    for between in windows(one, [], {NEW: other}):
        mine = between.kind(PARAMETER) & between.own[:, None]
        differs = np.argwhere(between.differs[NEW] & mine)
        if differs.size:
            at, what = differs[0]
            return int(between.steps[at]), between.names[what]
    return None
