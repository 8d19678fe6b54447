"""The picture of the schedules."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

LINES: tuple[
    tuple[str, dict[str, Any]], ...
] = (  # how each is drawn: torch's lies wide beneath, the one by hand thin upon it
    ("torch, step by step", {"color": "tab:orange", "linewidth": 3, "alpha": 0.6}),
    ("torch, closed form", {"color": "tab:green", "linewidth": 2, "linestyle": ":"}),
    ("by hand", {"color": "tab:blue", "linewidth": 0.9}),
)
MOMENTUM = "0.5"  # its axis is grey, at the right, and its lines are dashed


def schedules_figure(drawn: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Every schedule by hand, by torch step by step, and in torch's closed form; with an axis of
    its own, where it moves, the momentum."""
    columns = min(len(drawn), 5)
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(max(3.4 * columns, 7), 2.7 * lines + 0.5), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in cells[len(drawn) :]:
        axes.axis("off")
    titles = told_apart([title for title, _ in drawn])
    for axes, title, (_, quantities) in zip(cells, titles, drawn, strict=False):
        axes.set_title(textwrap.fill(title, 44), fontsize=7)
        for quantity, (ours, theirs, *closed) in quantities.items():
            one = axes if quantity == "lr" else axes.twinx()
            dashes = {} if quantity == "lr" else {"linestyle": "--"}
            colour = "k" if quantity == "lr" else MOMENTUM
            curves = (theirs, closed[0] if closed else None, ours)
            for (_, style), curve in zip(LINES, curves, strict=True):
                if curve is not None:
                    one.plot(curve, **{**style, **dashes})
            one.set_ylabel(quantity, fontsize=7, color=colour)
            one.tick_params(labelsize=6, colors=colour)
        axes.set_xlabel("step", fontsize=7)
    handles = [Line2D([], [], label=label, **style) for label, style in LINES]
    if any("momentum" in quantities for _, quantities in drawn):
        handles.append(Line2D([], [], color=MOMENTUM, linestyle="--", label="momentum, at right"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8)
    return figure


def alternative(drawn: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> str:
    """In words, what is to be seen."""
    largest = max(
        (float(abs(ours - theirs).max()), title)
        for title, quantities in drawn
        for ours, theirs, *_ in quantities.values()
    )
    return (
        f"{len(drawn)} schedules, the rate by step: by hand upon torch's step by step and torch's "
        f"closed form. The largest distance is {largest[0]:.2g}, of {largest[1]}."
    )


def told_apart(titles: Sequence[str]) -> list[str]:
    """The titles, those that occur several times with a number."""
    counts, seen = Counter(titles), Counter[str]()
    found = []
    for title in titles:
        seen[title] += 1
        found.append(f"{title}, no. {seen[title]}" if counts[title] > 1 else title)
    return found
