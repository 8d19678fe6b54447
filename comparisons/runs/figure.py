"""Two recorded runs in words and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..report.text import apart
from ..verdict.classes import DIFFERENT, IDENTICAL, ROUNDING, UNDECIDED
from .comparison import RunComparison
from .drawing import drawn
from .judging import (
    BACKWARD,
    DATA,
    FORWARD,
    FORWARD_OR_DATA,
    GRADIENTS,
    MOVEMENT,
    OPTIMIZER,
    START,
    STATISTICS,
)
from .ranks import RANKS
from .recording import GRADIENT, LOSS

MEANS = {
    START: "the runs start from other parameters",
    OPTIMIZER: "gradients agreed until then, parameters do not: the optimizer, its rate or other "
    "settings, or clipping",
    DATA: "parameters agree and the model was given other inputs: the data",
    FORWARD: "parameters and the inputs of the model agree: the forward pass, or the targets",
    FORWARD_OR_DATA: "parameters agree: the forward pass, or the data",
    STATISTICS: "a buffer alone: the statistics of a layer",
    BACKWARD: "the forward pass agrees: the backward pass, {where}",
    "": "",
}

# Why what left its floor is not different for sure.
KINK = (
    "So small a jump of gradients alone may be a kink that one run came over first; a recording in "
)
KINK += "float64 decides."
FEW = "In so few elements it may be that gradients as small as their rounding went the other way."
DRAWN = (
    "Another processor may have drawn it, or made it orthogonal, to other last digits; a change of "
)
DRAWN += "all its numbers is not told from that: start both from one checkpoint."


def told(rows: Sequence[dict[str, Any]]) -> str:
    """The outcome in words; of several ranks each that differs, and which do not."""
    if len(rows) == 1:
        return _told(rows[0])
    good = [row["rank"] for row in rows if row["class"] in (IDENTICAL, ROUNDING)]
    bad = [f"rank {row['rank']}: {_told(row)}" for row in rows if row["rank"] not in good]
    fine = f"rounding or identical: rank {', '.join(good)}." if good else ""
    return " ".join(filter(None, [*bad, fine]))


def _told(row: dict[str, Any]) -> str:
    note = f" ({row['note']})" if row["note"] else ""
    if row["class"] == IDENTICAL:
        return f"identical: {row['steps']} steps, bit for bit{note}."
    first = f"First difference: {_first(row)}"
    if row["kind"] == RANKS:
        return f"different: {row['note']}."
    if row["outside_step"]:
        return f"{_leaves(row)}{first}{note}"
    if row["class"] == UNDECIDED:
        most = f"{row['max_drift']:.3g} at step {row['max_drift_step']}"
        return (
            f"{row['note']}, so it cannot be said whether this is rounding. "
            f"Largest drift of the loss: {most}. {first}"
        )
    most = f"at most {row['max_ratio']:.3g} floors apart, at step {row['max_ratio_step']}"
    seen = f"; a change of {row['resolution']:.1g} of one tensor would have been seen"
    if not np.isnan(row["resolution_of_all"]):
        seen += f", and one of {row['resolution_of_all']:.1g} of all"
    return f"{row['class']}: {most}; {row['limit']:g} are allowed{seen}. {first}{note}"


def _leaves(row: dict[str, Any]) -> str:
    """What left its floor first, and what that means."""
    one, other = apart(row["outside_old"], row["outside_new"])
    name = row["outside_tensor"]
    if name in (MOVEMENT, GRADIENTS):
        numbers = f"{other} times the old in the median"
    else:
        numbers = f"{'' if name == LOSS else 'norm '}{other} instead of {one}"
    floors = "" if np.isnan(row["max_ratio"]) else f", {row['max_ratio']:.3g} floors apart"
    far = "" if np.isnan(row["outside"]) else f", off by {row['outside']:.2g} of it"
    limit = "" if np.isnan(row["limit"]) else f"; {row['limit']:g} are allowed"
    means = MEANS[row["kind"]].format(where=_where(row))
    text = f"step {row['outside_step']}, {name}: {numbers}{floors}{limit}{far}"
    if row["class"] == DIFFERENT:
        means = f" That is {row['kind']}: {means}." if means else ""
        return f"different from {text}.{means} "
    why = {OPTIMIZER: FEW, START: DRAWN}.get(row["kind"], KINK)
    return f"{row['class']} from {text}. {why} "


def _where(row: dict[str, Any]) -> str:
    layer = row["outside_tensor"].removeprefix(GRADIENT).rpartition(".")[0]
    factor = row["factor"]
    scaled = "" if np.isnan(factor) else f"; every gradient is {factor:.4g} times the old"
    return f"of {layer or row['outside_tensor']} or just behind it{scaled}"


def _first(row: dict[str, Any]) -> str:
    """The first difference at all, however small."""
    digits = 17 if row["dtype"] == "float64" else 9
    where = f"[{row['first_index']}]" if row["first_index"] else ""
    numbers = f"{row['first_new']:.{digits}g} instead of {row['first_old']:.{digits}g}."
    how = f"{row['first_ulp']} ulp: " if row["first_ulp"] else "norm "
    return f"step {row['first_step']}, {row['first_quantity']}{where}, {how}{numbers}"


def figure(found: RunComparison) -> Figure:
    """Both loss curves, and beneath them the drift beside its floor, if there is one."""
    row, steps = found.row, found.start + np.arange(len(found.old))
    title = f"{row['dtype']} · {row['class']}"
    names, curves = (row["old"], row["new"]), (found.old, found.new)
    return drawn(title, "loss", names, steps, curves, found.drift.drift, found.drift.floor)


def alternative(found: RunComparison) -> str:
    """In words, what is to be seen on the picture."""
    row = found.row
    return (
        "The loss by step in both runs, and beneath how far they lie apart, beside its floor: at "
        f"most {row['max_drift']:.2g}, at step {row['max_drift_step']}."
    )
