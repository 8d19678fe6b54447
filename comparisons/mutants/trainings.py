"""Changes of trainings that were written blind: what is faulty is to be found, what is harmless is
to be rounding."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..runs.comparison import compare
from ..runs.record_run import record_run
from ..runs.recording import AGAIN, Recorded, read
from ..verdict.classes import DIFFERENT, PARTED, UNDECIDED
from . import written
from .changes.kinds import Change, apply

# What was found when all was tried for the first time, by the code of the commit that added it.
FIRST_SIGHT: dict[str, dict[str, int]] = {
    "changes": {
        "faulty": 131,
        "found": 117,
        "undecided": 2,
        "kind right": 100,
        "harmless": 90,
        "alarms": 0,
        "undecided harmless": 2,
    },
    # Of those that are missed 13 are one training in bfloat16, in which routers flip and of which
    # no change below 2.2 is seen. Both alarms are one simulation that is stepped otherwise: what is
    # computed outside of the module is not perturbed.
    "changes_second": {
        "faulty": 193,
        "found": 174,
        "undecided": 3,
        "kind right": 144,
        "harmless": 104,
        "alarms": 2,
        "undecided harmless": 0,
    },
}
# Kinds that say the same.
SAME = {"data": {"forward or data"}, "forward": {"forward or data", "start"}}


def trainings(of: str = "") -> list[str]:
    """The names of those of a set, or of all."""
    if not of:
        return [name for each in FIRST_SIGHT for name in trainings(each)]
    return written.names(of)


def made(training: str, change: Change | None = None) -> ModuleType:
    """The module of a training, changed. Raises ValueError for a change that does not fit."""
    sets = [each for each in FIRST_SIGHT if training in trainings(each)]
    if not sets:
        raise ValueError(f"training: expected one of {', '.join(trainings())}")
    return written.made(sets[0], training, lambda text: apply(text, change) if change else text)


def changes(training: str) -> list[Change]:
    """Those of a training: the harmless ones first, which have no kind."""
    module = made(training)
    return [*module.HARMLESS, *module.FAULTY]


def rows(training: str) -> list[dict[str, Any]]:
    """A row for each change of a training: what the recorded run is, beside that without it."""
    with tempfile.TemporaryDirectory(prefix="gradtwin-") as folder:
        path = Path(folder) / "old.parquet"
        for run in range(AGAIN + 1):
            made(training).train(functools.partial(record_run, path, perturb=run))
        old = read(path)
        return [
            _row(training, change, old, Path(folder) / "new.parquet")
            for change in changes(training)
        ]


def _row(training: str, change: Change, old: Recorded, path: Path) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    start = time.process_time()
    made(training, change).train(functools.partial(record_run, path))
    try:
        found = compare(old, read(path)).row
    except ValueError as error:  # what cannot be compared is no finding
        found = {"class": "refused", "note": str(error)}
    kind = found["class"]
    out = kind in (DIFFERENT, PARTED)
    if change.kind:
        told = "found" if out else UNDECIDED if kind in (UNDECIDED, "refused") else "missed"
    else:
        told = "alarm" if out else UNDECIDED if kind in (UNDECIDED, "refused") else "quiet"
    meaning = found.get("kind", "")
    return {
        "id": f"{training}/{change.name}",
        "kind": "faulty" if change.kind else "harmless",
        "training": training,
        "class": told,
        "planted": change.kind,
        "named": meaning if out or kind == UNDECIDED else "",
        "rightly": bool(change.kind)
        and (meaning == change.kind or meaning in SAME.get(change.kind, ())),
        "step": found.get("outside_step"),
        "tensor": found.get("outside_tensor", ""),
        "run": kind,
        "margin": found.get("margin"),
        "resolution": found.get("resolution"),
        "says": found.get("note", ""),
        "seconds": time.process_time() - start,
    }


def counted(table: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What the table says in a line."""
    table = list(table)
    faulty = [r for r in table if r["kind"] == "faulty"]
    harmless = [r for r in table if r["kind"] == "harmless"]
    return {
        "faulty": len(faulty),
        "found": sum(r["class"] == "found" for r in faulty),
        "undecided": sum(r["class"] == UNDECIDED for r in faulty),
        "kind right": sum(r["class"] == "found" and bool(r["rightly"]) for r in faulty),
        "harmless": len(harmless),
        "alarms": sum(r["class"] == "alarm" for r in harmless),
        "undecided harmless": sum(r["class"] == UNDECIDED for r in harmless),
    }
