"""What the columns of tables mean, and how they are shown to people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .tables import PAIRS

# The first of these that a table has says what a row is about, and stands beside its class.
SUBJECTS = (
    *("test", "op", "model", "optimizer", "schedule", "place", "group", "function", "new"),
    *("name", "probe", "argument"),
)
# What stands next, in this order; the others follow in that of the table.
NEXT = (
    *("margin", "lockstep_margin", "size", "margin_old", "margin_new", "max_ratio"),
    *("data", "regime", "argument", "result", "quantity", "side", "probe", "dtype"),
    *("index", *(ours for ours, _ in PAIRS), *(theirs for _, theirs in PAIRS), "exact"),
    *("max_ulp", "ulp", "error"),
)
# By what rows are chosen, if a column has some words that repeat.
CHOSEN_BY = (*SUBJECTS, "dtype", "argument", "result", "quantity", "side", "data", "regime")
HIDDEN = ("schema", "id")

LABELS = {"error": "error (norm)", "max_ulp": "ULPs", "ulp": "ULPs", "reference": "torch"}
MEANINGS = {
    "class": "What the verdict is.",
    "margin": "|difference| / (8 · floor), the largest of all elements: up to 1 it is rounding.",
    "lockstep_margin": "The largest margin of a step from the same inputs: up to 1 it is rounding.",
    "margin_old": "The margin before.",
    "margin_new": "The margin now.",
    "floor": "How far rounding alone moves this element, measured: the reference computed again "
    "while everything that it sees moves by one unit in the last place.",
    "error": "‖difference‖ / ‖reference‖, of the whole array: the error of its norm, not of the "
    "element whose values stand here.",
    "max_ulp": "How many floating-point numbers lie between the two, the largest of all elements.",
    "ulp": "How many floating-point numbers lie between the two.",
    "resolution": "The smallest relative error that would have been seen: 8 · floor / |reference|, "
    "the median of the elements.",
    "index": "The element with the largest margin; the values beside are its.",
    "exact": "The exact value, computed in many digits, where it is known.",
    "max_ratio": "The largest drift in floors.",
    "size": "How far it moved, as a share of what rounding may do.",
}


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """The class first, then what a row is about, then what is looked at most."""
    shown = [c for c in frame if c not in HIDDEN]
    first = ["class", subject(frame), *NEXT]
    return frame[[*dict.fromkeys([c for c in first if c in shown] + shown)]]


def subject(frame: pd.DataFrame) -> str:
    """The column that says what a row is about."""
    others = (str(c) for c in frame if c not in (*HIDDEN, "class"))
    return next((c for c in SUBJECTS if c in frame), next(others, "class"))


def label(column: str, frame: pd.DataFrame) -> str:
    """The head of a column."""
    if column == "reference" and "manual" not in frame:
        return "reference"
    return LABELS.get(column, column.replace("_", " "))


def partner(column: str, frame: pd.DataFrame) -> str:
    """The column that is shown with as many digits as tell the two apart; "" if there is none."""
    for pair in PAIRS:
        if column in pair and all(c in frame and frame[c].dtype.kind == "f" for c in pair):
            return pair[1 - pair.index(column)]
    return ""


def values(column: str, frame: pd.DataFrame) -> list[Any]:
    """The cells of a column as JSON holds them: None is missing, "NaN" and "Infinity" are
    numbers. What is no value to be compared has six digits."""
    found = frame[column]
    if found.dtype.kind == "f" or (found.dtype.kind in "iu"):
        digits = 17 if partner(column, frame) or column == "exact" else 6
        there = measured(column, frame) | found.notna().to_numpy()
        return [
            _number(x, digits) if known else None
            for x, known in zip(found.tolist(), there.tolist(), strict=True)
        ]
    return [_cell(value) for value in found.tolist()]


def measured(column: str, frame: pd.DataFrame) -> np.ndarray:
    """Of each row, whether a NaN of this column is one that was computed; else nothing was."""
    values = {name for pair in PAIRS for name in pair} | {"exact", "error"}
    if column not in values or ("index" not in frame and not column.startswith("end_")):
        return np.zeros(len(frame), bool)
    where = frame["index"].ne("").to_numpy() if "index" in frame else np.ones(len(frame), bool)
    if column == "exact":
        return np.asarray(where & frame["kind"].eq("corner").to_numpy())
    return np.asarray(where)


def _number(x: float, digits: int) -> float | str:
    if x != x:
        return "NaN"
    if abs(x) == np.inf:
        return "Infinity" if x > 0 else "-Infinity"
    return x if isinstance(x, int) or digits >= 17 else float(f"{x:.{digits}g}")


def _cell(value: Any) -> Any:
    """Any other cell: a truth value is a word, a number stays one."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else ""
    if isinstance(value, float):
        return None if value != value else _number(value, 6)
    return value if isinstance(value, int) else str(value)
