"""Two recorded runs in words and as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..verdict.classes import IDENTICAL, LIMIT, UNDECIDED
from .comparison import RunComparison


def told(row: dict[str, Any]) -> str:
    """The outcome in words."""
    note = f" ({row['note']})" if row["note"] else ""
    if row["class"] == IDENTICAL:
        return f"identical: {row['steps']} steps, bit for bit{note}."
    digits = 17 if row["dtype"] == "float64" else 9
    where = f"[{row['first_index']}]" if row["first_index"] else ""
    first = (
        f"First difference: step {row['first_step']}, {row['first_quantity']}{where}, "
        f"{row['first_ulp']} ulp: {row['first_new']:.{digits}g} "
        f"instead of {row['first_old']:.{digits}g}."
    )
    if row["class"] == UNDECIDED:
        most = f"{row['max_drift']:.3g} at step {row['max_drift_step']}"
        return (
            f"{row['note']}, so it cannot be said whether this is rounding. "
            f"Largest drift: {most}. {first}"
        )
    most = f"at most {row['max_ratio']:.3g} floors apart, at step {row['max_ratio_step']}"
    parted = f" from step {row['outside_step']}" if row["outside_step"] else ""
    return f"{row['class']}{parted}: {most}; {LIMIT:g} are allowed. {first}{note}"


def figure(found: RunComparison) -> Figure:
    """Both loss curves, and beneath them the drift beside its floor, if there is one."""
    drawn = Figure(figsize=(7, 6), layout="constrained")
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    row, steps = found.row, np.arange(1, len(found.old) + 1)
    above.plot(steps, found.old, color="tab:orange", linewidth=2.5, alpha=0.6, label=row["old"])
    above.plot(steps, found.new, color="tab:blue", linewidth=0.8, label=row["new"])
    above.set(ylabel="loss", title=f"{row['dtype']} · {row['class']}")
    finite = found.old[np.isfinite(found.old)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        above.set_yscale("log")
    floor, drift = found.drift.floor, found.drift.drift
    if not np.isnan(floor).all():
        allowed = LIMIT * floor
        below.fill_between(steps, allowed, color="0.85", label=f"{LIMIT:g} floors")
        below.plot(steps, floor, color="0.45", linewidth=0.8, label="floor")
    seen = np.where(drift > 0, drift, np.nan)
    below.plot(steps, seen, ".", color="tab:red", markersize=2, label="drift")
    if np.isfinite(seen).any() or np.isfinite(floor).any():
        below.set_yscale("log")
    below.set(ylabel="|Δ loss|", xlabel="step")
    for axes in (above, below):
        axes.legend(fontsize=8)
    return drawn
