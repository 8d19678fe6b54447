"""Loss curves, the heat map of their margins and the textbook line, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ..training import datasets
from ..verdict.classes import CLASSES, DIFFERENT, LIMIT, worst
from .kept import Kept

EXPLAINED = CLASSES[:4]  # what needs no mark in the heat map
LETTERS = 52  # of a line of a title


def curves_figure(found: Sequence[Kept]) -> Figure:
    """Both loss curves of every cell, and beneath each the drift between them and its floor."""
    columns = min(len(found), 4)
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(max(4.2 * columns, 6.5), 4.1 * lines + 0.4), layout="constrained")
    all_axes = np.array(
        figure.subplots(
            2 * lines,
            columns,
            squeeze=False,
            height_ratios=[3, 2] * lines,
        )
    )
    for axes in all_axes.ravel():
        axes.set_visible(False)
    for i, kept in enumerate(found):
        above, below = all_axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        _curves(above, kept)
        _drift(below, kept)
        below.sharex(above)
        above.tick_params(labelbottom=False)
        above.set_title(title(kept.row), fontsize=8)
        if i % columns == 0:
            above.set_ylabel("loss")
            below.set_ylabel("|Δ loss|")
    first = all_axes[:2, 0]
    handles = [h for axes in first for h in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncol=len(handles), fontsize=9)
    return figure


def title(row: Mapping[str, Any]) -> str:
    """What was trained, how, and what was found."""
    what = [row["model"], row["shape"], row["data"]]
    how = [f"{row['optimizer']} lr={row['lr']:g}", row["settings"], row["regime"]]
    run = [row["dtype"], f"seed {row['seed']}", row["class"]]
    lines = [" · ".join(w for w in words if w) for words in (what, how, run)]
    if row["class"] == DIFFERENT:
        lines.append(f"from step {row['outside_step']} on: {row['first_tensor']}")
    elif row["chaos"]:  # why curves that lie far apart may be the same but for rounding
        lines.append(f"chaos: rounding grows by {row['chaos']:.2f} e-folds per step")
    return "\n".join(textwrap.fill(line, LETTERS) for line in lines)


def _curves(axes: Any, kept: Kept) -> None:
    axes.set_visible(True)
    theirs = {"color": "tab:orange", "linewidth": 2.5, "alpha": 0.6, "label": "torch"}
    axes.plot(kept.steps, kept.reference, **theirs)
    axes.plot(kept.steps, kept.manual, color="tab:blue", linewidth=0.8, label="manual")
    finite = kept.reference[np.isfinite(kept.reference)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")


def _drift(axes: Any, kept: Kept) -> None:
    axes.set_visible(True)
    label = f"{LIMIT:g} floors"
    axes.fill_between(kept.steps, LIMIT * kept.floor, color="0.85", label=label)
    axes.plot(kept.steps, kept.floor, color="0.45", linewidth=0.8, label="floor")
    seen = np.where(kept.drift > 0, kept.drift, np.nan)
    axes.plot(kept.steps, seen, ".", color="tab:red", markersize=2, label="drift")
    axes.set_yscale("log")
    top = axes.get_ylim()[1]  # two decades at least, so that whole powers of ten name them
    axes.set_ylim(bottom=min(axes.get_ylim()[0], top / 100))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step")


def heat_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The largest lockstep margin by model and optimizer, a panel for each dtype. What is not
    explained has its class written beneath."""
    models, optimizers, dtypes = (
        list(dict.fromkeys(row[name] for row in rows)) for name in ("model", "optimizer", "dtype")
    )
    width = 2.2 + len(dtypes) * (0.6 + 0.85 * len(optimizers))
    figure = Figure(figsize=(width, 2 + 0.5 * len(models)), layout="constrained")
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    norm = LogNorm(1e-2, 1)
    colors = colormaps["cividis"].with_extremes(over="tab:red", bad="0.92")
    for panel, dtype in zip(panels, dtypes, strict=True):
        margins = np.full((len(models), len(optimizers)), np.nan)
        for i, model in enumerate(models):
            for j, optimizer in enumerate(optimizers):
                here = (model, optimizer, dtype)
                group = [r for r in rows if (r["model"], r["optimizer"], r["dtype"]) == here]
                if group:
                    margins[i, j] = max(r["lockstep_margin"] for r in group)
                    _write(panel, i, j, margins[i, j], worst(r["class"] for r in group))
        image = panel.imshow(np.maximum(margins, 1e-2), norm=norm, cmap=colors, aspect="auto")
        panel.set_xticks(range(len(optimizers)), optimizers, rotation=45, ha="right", fontsize=8)
        panel.set_yticks(range(len(models)), models, fontsize=8)
        panel.set_title(dtype, fontsize=9)
    label = "margin (1: the limit)"
    figure.colorbar(image, ax=list(panels), label=label, extend="max")
    return figure


def _write(panel: Any, i: int, j: int, margin: float, kind: str) -> None:
    """The margin, in a colour that is seen on its own."""
    marked = "" if kind in EXPLAINED else f"\n{kind}"
    color = "black" if 0.2 < margin <= 1 else "white"
    text = f"{margin:.2g}{marked}"
    panel.text(j, i, text, ha="center", va="center", fontsize=7, color=color)


def fit_figure(fitted: Mapping[str, Sequence[float]]) -> Figure:
    """The textbook line: the points, the truth, and the line that each side fitted, (slope,
    offset); beneath, how far the two lie apart, which no eye sees above."""
    data = datasets.load("line")
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = np.linspace(0.0, 2.0, 201)
    above.plot(data.x[:, 0], data.target[:, 0], ".", color="0.6", label="2x + 1 + 0.3·noise")
    above.plot(x, 2 * x + 1, ":", color="k", label="y = 2x + 1")
    for side, color, width in (("torch", "tab:orange", 4.0), ("manual", "tab:blue", 1.2)):
        slope, offset = fitted[side]
        label = f"{side}: {slope:.6f} x + {offset:.6f}"
        above.plot(x, slope * x + offset, color=color, linewidth=width, alpha=0.7, label=label)
    below.axhline(0, color="tab:orange", linewidth=4, alpha=0.7, label="torch")
    below.plot(x, _apart(fitted, x), color="tab:blue", linewidth=1.2, label="manual")
    above.set(ylabel="y", title="The line that each side has fitted")
    below.set(xlabel="x", ylabel="y manual − y torch")
    for axes in (above, below):
        axes.legend(fontsize=8)
    return figure


def fit_alternative(fitted: Mapping[str, Sequence[float]]) -> str:
    """In words, what is to be seen on the picture of the line."""
    largest = abs(_apart(fitted, np.array([0.0, 2.0]))).max()
    return (
        "Points about y = 2x + 1, and the lines that both sides have fitted; beneath, how far the "
        f"two lie apart: at most {largest:.2g}."
    )


def _apart(fitted: Mapping[str, Sequence[float]], x: np.ndarray) -> np.ndarray:
    """How far the line by hand lies above torch's."""
    slope, offset = (a - b for a, b in zip(fitted["manual"], fitted["torch"], strict=True))
    return np.asarray(slope * x + offset)
