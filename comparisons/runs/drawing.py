"""The picture of two curves."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..verdict.classes import LIMIT


def drawn(
    title: str,
    quantity: str,
    names: tuple[str, str],
    steps: np.ndarray,
    curves: tuple[np.ndarray, np.ndarray],
    drift: np.ndarray,
    floor: np.ndarray | None = None,
) -> Figure:
    """Both curves of a quantity, the old one first, and beneath them the drift beside its floor, if
    there is one; all by step."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    old, new = curves
    above.plot(steps, old, color="tab:orange", linewidth=2.5, alpha=0.6, label=names[0])
    above.plot(steps, new, color="tab:blue", linewidth=0.8, label=names[1])
    above.set(ylabel=quantity, title=title)
    finite = old[np.isfinite(old)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        above.set_yscale("log")
    if floor is not None and not np.isnan(floor).all():
        below.fill_between(steps, LIMIT * floor, color="0.85", label=f"{LIMIT:g} floors")
        below.plot(steps, floor, color="0.45", linewidth=0.8, label="floor")
    else:
        floor = np.full(len(steps), np.nan)
    seen = np.where((drift > 0) & np.isfinite(drift), drift, np.nan)
    below.plot(steps, seen, ".", color="tab:red", markersize=2, label="drift")
    if np.isfinite(seen).any() or np.isfinite(floor).any():
        below.set_yscale("log")
    below.set(ylabel=f"|Δ {quantity}|", xlabel="step")
    for axes in (above, below):
        axes.legend(fontsize=8)
    return figure
