"""A table on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..verdict.classes import (
    CONVENTION,
    DIFFERENT,
    IDENTICAL,
    IMPRECISE,
    PARTED,
    REFERENCE_IMPRECISE,
    ROUNDING,
    UNDECIDED,
)
from .tables import number

STYLES = {
    IDENTICAL: "green",
    ROUNDING: "green",
    REFERENCE_IMPRECISE: "cyan",
    CONVENTION: "cyan",
    IMPRECISE: "yellow",
    PARTED: "yellow",
    UNDECIDED: "magenta",
    DIFFERENT: "bold red",
    "unsupported": "yellow",
    "n/a": "dim",
    "no rule": "dim",
    "not judgeable": "dim",
    "caught": "green",
    "quiet": "green",
    "missed": "bold red",
    "alarm": "bold red",
}
Column = tuple[str, int, Callable[[Mapping[str, Any]], Any]]


def line(columns: Sequence[Column], row: Mapping[str, Any] | None = None) -> str:
    """One line of a table on the terminal, cut to the columns' widths; the header without a row."""
    cells = []
    for title, width, value in columns:
        text = title if row is None else number(value(row))
        text = text if len(text) <= abs(width) else text[: abs(width) - 1] + "…"
        cells.append(text.ljust(width) if width > 0 else text.rjust(-width))
    return " ".join(cells)
