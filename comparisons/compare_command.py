"""`gradtwin curves --compare`: did a refactored training script stay the training it was?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer
from matplotlib.figure import Figure

from . import report, verdict
from .recording import read
from .run_comparison import RunComparison, compare
from .session import Session

COLUMNS: list[report.Column] = [
    ("run", 24, lambda r: Path(r["new"]).name),
    ("against", 24, lambda r: Path(r["old"]).name),
    ("steps", -6, lambda r: r["steps"]),
    ("dtype", 8, lambda r: r["dtype"]),
    ("end loss", -9, lambda r: r["end_new"]),
    ("leaves at", -9, lambda r: r["first_step"]),
    ("max drift", -10, lambda r: r["max_drift"]),
    ("at", -6, lambda r: r["max_drift_step"]),
    ("/floor", -8, lambda r: r["max_ratio"]),
    ("resolution", -10, lambda r: r["resolution"]),
    ("class", 20, lambda r: r["class"]),
]


def compare_command(old: Path, new: Path, out: Path, as_json: bool) -> None:
    """Holds the run in `new` against that in `old`, and exits with 0 if it is identical or
    rounding, with 1 if it has parted, and with 2 if that cannot be said."""
    try:
        found = compare(read(old), read(new))
    except (ValueError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise typer.BadParameter(text, param_hint="--compare") from None
    session = Session(out, as_json, jobs=1, strict=True)
    session.run("Recorded runs", [(lambda: found, ())], COLUMNS, lambda c: [c.row])
    session.frames["compare"] = report.table([found.row])
    session.pictures["compare"] = {"compare.png": report.png(figure(found))}
    try:
        session.finish(told(found.row))
    except typer.Exit as end:
        undecided = found.row["class"] == verdict.UNDECIDED
        raise typer.Exit(2 if undecided else end.exit_code) from None


def told(row: dict[str, Any]) -> str:
    """The outcome in words."""
    note = f" ({row['note']})" if row["note"] else ""
    if row["class"] == verdict.IDENTICAL:
        return f"identical: {row['steps']} steps, bit for bit{note}."
    digits = 17 if row["dtype"] == "float64" else 9
    where = f"[{row['first_index']}]" if row["first_index"] else ""
    first = (
        f"First difference: step {row['first_step']}, {row['first_quantity']}{where}, "
        f"{row['first_ulp']} ulp: {row['first_new']:.{digits}g} "
        f"instead of {row['first_old']:.{digits}g}."
    )
    if row["class"] == verdict.UNDECIDED:
        most = f"{row['max_drift']:.3g} at step {row['max_drift_step']}"
        return (
            f"{row['note']}, so it cannot be said whether this is rounding. "
            f"Largest drift: {most}. {first}"
        )
    most = f"at most {row['max_ratio']:.3g} floors apart, at step {row['max_ratio_step']}"
    parted = f" from step {row['outside_step']}" if row["outside_step"] else ""
    return f"{row['class']}{parted}: {most}; {verdict.LIMIT:g} are allowed. {first}{note}"


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
        allowed = verdict.LIMIT * floor
        below.fill_between(steps, allowed, color="0.85", label=f"{verdict.LIMIT:g} floors")
        below.plot(steps, floor, color="0.45", linewidth=0.8, label="floor")
    seen = np.where(drift > 0, drift, np.nan)
    below.plot(steps, seen, ".", color="tab:red", markersize=2, label="drift")
    if np.isfinite(seen).any() or np.isfinite(floor).any():
        below.set_yscale("log")
    below.set(ylabel="|Δ loss|", xlabel="step")
    for axes in (above, below):
        axes.legend(fontsize=8)
    return drawn
