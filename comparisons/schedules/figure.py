"""The picture of the schedules."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def schedules_figure(drawn: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Every schedule by hand, by torch step by step, and in torch's closed form; above, where it
    moves, the momentum."""
    columns = min(len(drawn), 5)
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in cells[len(drawn) :]:
        axes.axis("off")
    for axes, (title, quantities) in zip(cells, drawn, strict=False):
        for quantity, (ours, theirs, *closed) in quantities.items():
            if quantity == "momentum":
                axes = axes.twinx()
                axes.tick_params(labelsize=6, colors="0.5")
            shade = 1.0 if quantity == "lr" else 0.4
            axes.plot(theirs, color="tab:orange", linewidth=3, alpha=0.6 * shade, label="torch")
            for curve in closed:
                axes.plot(curve, ":", color="tab:green", linewidth=2, label="torch, closed form")
            axes.plot(ours, color="tab:blue", linewidth=0.9, alpha=shade, label="manual")
            if quantity == "lr":
                axes.set_title(textwrap.fill(title, 44), fontsize=6)
                axes.tick_params(labelsize=6)
    cells[0].legend(fontsize=6)
    return figure
