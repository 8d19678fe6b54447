"""Two logs of a training: where they leave each other, and how far. Without perturbed runs there is
no floor, and only what rounding cannot be is said to be different."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..report.text import apart
from ..verdict.classes import DIFFERENT, IDENTICAL, UNDECIDED
from ..verdict.noise import unit_roundoff
from ..verdict.ulps import difference, finite_part, same_values
from .drawing import drawn
from .judging import far
from .logs import Log


@dataclass(frozen=True)
class LogComparison:
    """Two logs, compared: the row of the table, and the curves behind it."""

    row: dict[str, Any]
    steps: np.ndarray  # that both have
    old: np.ndarray
    new: np.ndarray
    drift: np.ndarray  # infinite where only one is finite


def compare(old: Log, new: Log) -> LogComparison:
    """Holds a log against an older one, at the steps that both have.

    Identical is what agrees in every digit that both have printed. Different is a first value,
    before any update, that is further away than FAR u (`judging`) and than what is printed can say.
    All else is undecided. ValueError where they have no step in common.
    """
    steps, here, there = np.intersect1d(old.steps, new.steps, return_indices=True)
    if not steps.size:
        got = f"{new.steps[0]} to {new.steps[-1]}"
        raise ValueError(
            f"steps: expected some of the {old.steps[0]} to {old.steps[-1]} of {old.path}, got "
            f"{got} in {new.path}"
        )
    a, b = old.values[here], new.values[there]
    finite = np.isfinite(a) & np.isfinite(b)
    drift = np.where(same_values(a, b), 0, np.where(finite, difference(a, b), np.inf))
    printed = (old.slack[here] + new.slack[there]) * (1 + 1e-9)  # sums of decimals are rounded
    if old.dtype != new.dtype:  # one may be the other, rounded once
        printed += unit_roundoff(np.dtype(np.float32)) * abs(finite_part(a))
    differing = np.flatnonzero(drift > printed)
    dtype = "float64" if old.dtype == new.dtype == "float64" else "float32"
    kind, note = _classify(old, new, drift, printed, differing, far([dtype]))
    at = int(np.argmax(drift))
    first = int(differing[0]) if differing.size else None
    sizes = np.where(finite & (a != 0), abs(a), np.nan)
    seen = printed[np.isfinite(sizes)] / sizes[np.isfinite(sizes)]
    row = {
        "id": f"log({old.path}/{new.path})/{old.scalar}",
        "old": str(old.path),
        "new": str(new.path),
        "scalar": new.scalar,
        "dtype": dtype,
        "steps": len(steps),
        "steps_old": len(old.steps),
        "steps_new": len(new.steps),
        "start_old": float(a[0]),
        "start_new": float(b[0]),
        "end_old": float(a[-1]),
        "end_new": float(b[-1]),
        "first_step": None if first is None else int(steps[first]),
        "first_old": math.nan if first is None else float(a[first]),
        "first_new": math.nan if first is None else float(b[first]),
        "max_drift": float(drift[at]),
        "max_drift_step": int(steps[at]),
        "max_ratio": math.nan,
        "floor": math.nan,
        "resolution": float(np.median(seen)) if seen.size else math.nan,
        "margin": 0.0 if kind == IDENTICAL else math.inf,
        "outside_step": int(steps[0]) if kind == DIFFERENT else None,
        "outside_tensor": new.scalar if kind == DIFFERENT else "",
        "class": kind,
        "note": note,
    }
    return LogComparison(row, steps, a, b, drift)


def _classify(
    old: Log, new: Log, drift: np.ndarray, printed: np.ndarray, differing: np.ndarray, far: float
) -> tuple[str, str]:
    """The class, and what there is to say beside it."""
    alone = [set(each.steps) - set(other.steps) for each, other in ((old, new), (new, old))]
    notes = [
        f"{len(steps)} of its steps are in {each.path.name} alone, as {min(steps)}"
        for each, steps in zip((old, new), alone, strict=True)
        if steps
    ]
    notes += [f"{each.path.name}: {each.note}" for each in (old, new) if each.note]
    if not differing.size:
        return IDENTICAL, "; ".join(notes)
    first = old.early and new.early and old.steps[0] == new.steps[0]
    size = max(abs(old.values[0]), abs(new.values[0]))
    if first and drift[0] > printed[0] + (far * size if math.isfinite(size) else 0):
        return DIFFERENT, "; ".join(notes)
    if not first:
        notes.insert(0, "the first values do not stand before all updates in both")
    return UNDECIDED, "; ".join(notes)


def told(row: dict[str, Any]) -> str:
    """The outcome in words."""
    note = f" ({row['note']})" if row["note"] else ""
    if row["class"] == IDENTICAL:
        return f"identical: {row['steps']} steps in every printed digit{note}."
    was, got = apart(row["first_old"], row["first_new"], least=4)
    difference = f"step {row['first_step']}, {row['scalar']} {got} instead of {was}"
    most = f"Largest drift: {row['max_drift']:.3g} at step {row['max_drift_step']}."
    if row["class"] == DIFFERENT:
        return (
            f"different: {difference}, before any update, which is no rounding unless in 16 bits"
            f"{note}. {most}"
        )
    return (
        "A log has no floor (gradtwin.record_run has one), so it cannot be said whether this is "
        f"rounding{note}. {most} First difference: {difference}."
    )


def figure(found: LogComparison) -> Figure:
    """Both curves, and beneath them the drift."""
    row, curves = found.row, (found.old, found.new)
    title, names = f"{row['scalar']} · {row['class']}", (row["old"], row["new"])
    return drawn(title, row["scalar"], names, found.steps, curves, found.drift)


def alternative(found: LogComparison) -> str:
    """In words, what is to be seen on the picture."""
    row = found.row
    return (
        f"{row['scalar']} by step in both logs, and beneath how far they lie apart: at most "
        f"{row['max_drift']:.2g}, at step {row['max_drift_step']}."
    )
