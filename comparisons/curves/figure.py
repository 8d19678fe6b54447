"""The pictures of loss curves and of the textbook line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..training import datasets
from ..verdict.classes import LIMIT
from .divergence import Comparison


def curves_figure(comparisons: Sequence[Comparison]) -> Figure:
    """Both loss curves of every cell, and beneath each the drift between them and its floor."""
    columns = min(len(comparisons), 4)
    lines = -(-len(comparisons) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.4 * lines), layout="constrained")
    cells = np.atleast_1d(figure.subfigures(lines, columns, squeeze=False)).ravel()
    for part, c in zip(cells, comparisons, strict=False):
        above, below = part.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        steps = np.arange(1, len(c.reference) + 1)
        above.plot(steps, c.reference, color="tab:orange", linewidth=2.5, alpha=0.6, label="torch")
        above.plot(steps, c.manual, color="tab:blue", linewidth=0.8, label="by hand")
        title = [
            c.row["model"],
            c.row["data"],
            f"{c.row['optimizer']} lr={c.row['lr']:g}",
            c.row["settings"],
        ]
        above.set_title(
            "\n".join(
                [
                    " · ".join(w for w in title if w),
                    f"{c.row['regime']} · {c.row['dtype']} · {c.row['class']}{_why(c.row)}",
                ]
            ),
            fontsize=9,
        )
        above.set_ylabel("loss")
        finite = c.reference[np.isfinite(c.reference)]
        if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
            above.set_yscale("log")
        above.legend(fontsize=8)
        allowed, label = LIMIT * c.drift.floor, f"{LIMIT:g} floors"
        below.fill_between(steps, allowed, color="0.85", label=label)
        below.plot(steps, c.drift.floor, color="0.45", linewidth=0.8, label="floor")
        below.plot(
            steps,
            np.where(c.drift.drift > 0, c.drift.drift, np.nan),
            ".",
            color="tab:red",
            markersize=2,
            label="drift",
        )
        below.set_yscale("log")
        below.set_ylabel("|Δ loss|")
        below.set_xlabel("step")
        below.legend(fontsize=8, loc="lower right")
    return figure


def _why(row: Mapping[str, Any]) -> str:
    """Why two curves that lie far apart may be the same but for rounding."""
    rate = row["chaos"]
    return f"\nchaos: rounding grows by {rate:.2f} e-folds per step" if rate else ""


def fit_figure(manual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> Figure:
    """The textbook line: the points, the truth, and the line that each side fitted; beneath, how
    far the two lie apart, which no eye sees above."""
    data = datasets.load("line")
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = np.linspace(0.0, 2.0, 201)
    above.plot(data.x[:, 0], data.target[:, 0], ".", color="0.6", label="2x + 1 + 0.3·noise")
    above.plot(x, 2 * x + 1, ":", color="k", label="y = 2x + 1")
    for name, p, colour, width in (
        ("torch", reference, "tab:orange", 4.0),
        ("by hand", manual, "tab:blue", 1.2),
    ):
        slope, offset = p["weight"].item(), p["bias"].item()
        label = f"{name}: {slope:.6f} x + {offset:.6f}"
        above.plot(x, slope * x + offset, color=colour, linewidth=width, alpha=0.7, label=label)
    below.axhline(0, color="tab:orange", linewidth=4, alpha=0.7, label="torch")
    below.plot(x, _apart(manual, reference, x), color="tab:blue", linewidth=1.2, label="by hand")
    above.set(ylabel="y", title="The line that each side has fitted")
    below.set(xlabel="x", ylabel="y by hand − y by torch")
    for axes in (above, below):
        axes.legend(fontsize=8)
    return figure


def curves_alternative(comparisons: Sequence[Comparison]) -> str:
    """In words, what is to be seen on the picture of loss curves."""
    farthest = max(comparisons, key=lambda c: c.row["max_ratio"])
    what = " ".join(str(farthest.row[name]) for name in ("model", "data", "optimizer", "dtype"))
    return (
        f"The loss of {len(comparisons)} trainings by step, by hand upon torch's; beneath each the "
        f"drift between the two, its floor and {LIMIT:g} floors. The largest drift is "
        f"{farthest.row['max_ratio']:.2g} floors, of {what}."
    )


def fit_alternative(manual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> str:
    """The same of the textbook line."""
    largest = abs(_apart(manual, reference, np.array([0.0, 2.0]))).max()
    return (
        "Points about y = 2x + 1, and the lines that both sides have fitted; beneath, how far the "
        f"two lie apart: at most {largest:.2g}."
    )


def _apart(
    manual: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    """How far the line by hand lies above torch's."""
    slope, offset = (manual[n].item() - reference[n].item() for n in ("weight", "bias"))
    return np.asarray(slope * x + offset)
