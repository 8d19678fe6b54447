"""The pictures of a grid of trainings, each with what it shows in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..report.interactive import Picture
from ..report.pages import picture
from ..verdict.classes import CLASSES, LIMIT
from .figure import curves_figure, fit_alternative, fit_figure, heat_figure
from .kept import Kept

SHOWN = 24  # curves in one picture: of more, those nearest to their limits, or beyond them


def of(found: Sequence[Kept]) -> dict[str, Picture]:
    """File name → picture: the curves of the cells, of several the heat map of their margins, and
    the textbook line, where that was fitted."""
    shown = worst(found)
    of_all = f" of {len(found)}, those nearest to their limits" if len(shown) < len(found) else ""
    classes = [f"{k.row['id']}: {k.row['class']}" for k in shown]
    alt = f"Both loss curves, their drift and its floor, of {len(shown)} trainings{of_all}. "
    pictures = {"curves.png": picture(curves_figure(shown), alt + "; ".join(classes))}
    if len(found) > 1:
        pictures["heat.png"] = picture(heat_figure([k.row for k in found]), _heat(found))
    lines = [k for k in found if k.row["model"] == "linear_regression" and k.row["data"] == "line"]
    if lines:
        fitted = lines[0].fitted
        pictures["line.png"] = picture(fit_figure(fitted), fit_alternative(fitted))
    return pictures


def worst(found: Sequence[Kept]) -> list[Kept]:
    """At most SHOWN of them, the worst by class and margin, in the order in which they came."""

    def badness(i: int) -> tuple[int, float]:
        row = found[i].row
        return CLASSES.index(row["class"]), max(row["lockstep_margin"], row["max_ratio"] / LIMIT)

    chosen = sorted(range(len(found)), key=badness, reverse=True)[:SHOWN]
    return [found[i] for i in sorted(chosen)]


def _heat(found: Sequence[Kept]) -> str:
    row = max((k.row for k in found), key=lambda row: row["lockstep_margin"])
    at = f"{row['model']}, {row['optimizer']}, {row['dtype']}"
    return (
        "The largest margin of a step in lockstep, as a share of the limit, by model, optimizer "
        f"and dtype: at most {row['lockstep_margin']:.2g}, of {at}."
    )
