"""Two baselines, compared: what moved between then and now, on which side, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .. import environment, ops
from ..report import tables
from ..training.cells import MODELS
from ..verdict.classes import DIFFERENT, IDENTICAL, IMPRECISE, ROUNDING, UNDECIDED
from ..verdict.ulps import ulps
from .classes import BETTER, CLASSES, NEAR, NEW, REMOVED, WORSE
from .file import Baseline, NotComparable
from .measure import Quantity

JUDGED = (IDENTICAL, ROUNDING, IMPRECISE)  # verdicts whose margin is ours, not torch's

# What the numbers of each side depend on, beside what belongs to neither.
SIDES = {
    "manual": ("source manual", "numpy", "scipy", "numpy kernels", "blas", "threads openblas"),
    "reference": ("source reference", "torch", "torch kernels", "torch build", "threads torch"),
}
OWN = ("source manual", "source reference", "source comparisons", "revision")


@dataclass(frozen=True)
class Diff:
    """One row for each quantity, the worst first within its group, and what changed around it."""

    table: pd.DataFrame
    environment: dict[str, tuple[str, str]]
    reasons: list[str]  # of the updates between the two

    @property
    def counts(self) -> dict[str, int]:
        return {kind: int((self.table["class"] == kind).sum()) for kind in CLASSES}

    @property
    def moved(self) -> pd.DataFrame:
        """The rows that are not identical."""
        return self.table[self.table["class"] != IDENTICAL]


def compare(old: Baseline, new: Baseline) -> Diff:
    """Holds the new baseline against the old one. NotComparable where nothing is in both."""
    changed = environment.changes(old.environment, new.environment)
    ids = dict.fromkeys([*old.quantities, *new.quantities])
    pairs = [(old.quantities.get(i), new.quantities.get(i)) for i in ids]
    if not any(a and b for a, b in pairs):
        raise NotComparable("no quantity is in both baselines: they are of other names or seeds")
    of_text = [i for i, (a, b) in zip(ids, pairs, strict=True) if a and b and _reads(a)]
    if of_text and "text" in changed:
        then, now = changed["text"]
        raise NotComparable(
            f"{of_text[0]} is trained on other text: Python's pydoc_data.topics, the first 100,000 "
            f"characters, had the digest {then} and has {now}"
        )
    spreads = _spreads(old.quantities.values())
    frame = tables.table(_row(a, b, spreads, changed) for a, b in pairs)
    order = frame["class"].map(CLASSES.index)
    frame = frame.assign(order=-order).sort_values(
        ["order", "size"], ascending=[True, False], kind="stable"
    )
    before = len(old.about.get("history", ()))
    reasons = [entry["reason"] for entry in new.about.get("history", ())[before:]]
    return Diff(frame.drop(columns="order").reset_index(drop=True), changed, reasons)


def _reads(q: Quantity) -> bool:
    """Whether it is a training on the text that ships with Python."""
    return q.table == "curves" and q.name in MODELS and MODELS[q.name].data == "text"


def _spreads(quantities: Iterable[Quantity]) -> dict[str, float]:
    """How far apart, at most, the margins of one row lay when it was measured repeatedly, by name
    of the op. A margin is the largest of few rounding errors, and two or three of its values do not
    show how far it goes; those of all rows of an op do."""
    spreads: dict[str, float] = {}
    for q in quantities:
        if q.kind in JUDGED and max(q.margins) <= 1:
            spreads[q.name] = max(float(np.ptp(q.margins)), spreads.get(q.name, 0))
    return spreads


@dataclass(frozen=True)
class Move:
    """How far a side has moved, at its furthest element."""

    size: float = 0.0  # in units of what is allowed
    ulp: int = 0
    index: str = ""
    before: float = math.nan
    now: float = math.nan


def _row(
    old: Quantity | None,
    new: Quantity | None,
    spreads: Mapping[str, float],
    changed: Mapping[str, tuple[str, str]],
) -> dict[str, Any]:
    q = new or old
    assert q is not None
    side, explained, furthest = "", "", Move()
    if old is None:  # wrong from the start, or raised in place of what was there
        kind = DIFFERENT if q.kind in (DIFFERENT, UNDECIDED) else NEW
    elif new is None:
        kind = REMOVED
    else:
        moves = {side: _move(getattr(old, side), getattr(new, side), old, new) for side in SIDES}
        moved = [side for side, move in moves.items() if move.ulp]
        furthest = max(moves.values(), key=lambda move: (move.size, move.ulp))
        kind = _class(old, new, furthest, spreads.get(q.name, 0))
        side = _side(new, moved)
        explained = _explained(moved, changed)
    return {
        "id": q.id,
        "group": _group(q),
        "name": q.name,
        "class": kind,
        "side": side,
        **vars(furthest),
        "margin_old": math.nan if old is None else old.margin,
        "margin_new": math.nan if new is None else new.margin,
        "explained": explained,
    }


def _group(q: Quantity) -> str:
    """The family of an op that is still there; else the table."""
    if q.table == "gradients" and q.name in ops.names():
        return ops.named(q.name).family
    return q.table


def _move(a: np.ndarray, b: np.ndarray, old: Quantity, new: Quantity) -> Move:
    """From a to b. Another shape or dtype, or a number in place of NaN or ∞, is infinitely far; the
    sign of a zero is one ULP."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return Move(math.inf, 1, f"{a.dtype}{[*a.shape]} → {b.dtype}{[*b.shape]}")
    if a.tobytes() == b.tobytes():
        return Move()
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    both = np.isfinite(x) & np.isfinite(y)
    gap = abs(np.where(both, x, 0) - np.where(both, y, 0))
    allowed = np.maximum(old.allowed, new.allowed)
    within = np.divide(gap, allowed, out=np.full(gap.shape, math.inf), where=allowed > 0)
    size = np.where(same, 0, np.where(both, within, math.inf))
    distance = ulps(b, a) if a.dtype.kind == "f" else ~same
    index = np.unravel_index(int(np.argmax(size if size.any() else distance)), size.shape)
    where = str([int(i) for i in index])
    return Move(
        float(size[index]), max(int(distance.max()), 1), where, float(x[index]), float(y[index])
    )


def _class(old: Quantity, new: Quantity, furthest: Move, spread: float) -> str:
    if not furthest.ulp:  # whatever its margin: the floor of a call is measured for all of it
        return IDENTICAL
    if furthest.size > 1:
        return DIFFERENT
    if old.kind in JUDGED and new.kind in JUDGED:
        if new.margin > max(max(old.margins) + spread, NEAR):
            return WORSE
        if old.margin > NEAR and new.margin < min(old.margins) - spread:
            return BETTER
    elif new.kind != old.kind:
        return BETTER if new.kind in JUDGED else WORSE
    return ROUNDING


def _side(new: Quantity, moved: Sequence[str]) -> str:
    """The odd one out of three: what was stored, what is by hand now, and what is torch's."""
    if len(moved) < 2:
        return "".join(moved).replace("reference", "torch")
    if new.manual.shape != new.reference.shape:
        return "manual and torch"
    apart = abs(new.manual.astype(float) - new.reference.astype(float))
    return "manual and torch" if np.any(apart > new.allowed) else "stored"


def _explained(moved: Sequence[str], changed: Mapping[str, tuple[str, str]]) -> str:
    """What changed in the environment, where nothing else can have moved these numbers."""
    if not moved or "source comparisons" in changed:
        return ""
    if any(f"source {side}" in changed for side in moved):
        return ""
    causes = [name for side in moved for name in SIDES[side] if name in changed]
    causes = causes or [name for name in changed if name not in OWN]
    return ", ".join(f"{name} {changed[name][0]} → {changed[name][1]}" for name in causes)
