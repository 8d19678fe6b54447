"""What is shown on a terminal: text of users as it is, and tables that fit the width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

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
from .text import line as one_line
from .text import plain

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
    "on purpose": "dim",
    "not to be seen": "dim",
    "caught": "green",
    "found": "green",
    "quiet": "green",
    "missed": "bold red",
    "alarm": "bold red",
}
WIDE = 200  # the width of a file or a pipe, which has none of its own


class Terminal(Console):
    """A console on which a text is that text: no markup, no emoji, and nothing that moves the
    cursor. A file or a pipe has WIDE lines."""

    def __init__(self, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False)
        if not self.is_terminal and "COLUMNS" not in self._environ:
            self.width = WIDE

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(plain(text), **settings)


class Column(NamedTuple):
    """A column of a table whose rows are shown as they come."""

    title: str
    width: int  # at least; a negative one is aligned to the right
    value: Callable[[Mapping[str, Any]], Any]
    rank: int = 0  # of several that do not fit, the one with the highest goes first
    grows: bool = False  # takes its share of what room is left


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Those columns that fit into so many letters, in their order and as wide as they can be."""
    kept = list(columns)

    def needed() -> int:
        return sum(abs(c.width) + 1 for c in kept) - 1

    while needed() > width and any(c.rank for c in kept):
        last = max(range(len(kept)), key=lambda i: (kept[i].rank, i))
        del kept[last]
    growing = [i for i, c in enumerate(kept) if c.grows]
    for n, i in enumerate(growing):
        room = (width - needed()) // (len(growing) - n)
        kept[i] = kept[i]._replace(width=max(8, min(kept[i].width + room, 60)))
    return kept


def line(columns: Sequence[Column], row: Mapping[str, Any] | None = None) -> str:
    """One line of a table, cut to the columns' widths; the header without a row."""
    cells = []
    for title, width, value, *_ in columns:
        cell = title if row is None else one_line(number(value(row)))
        cell = cell if len(cell) <= abs(width) else cell[: abs(width) - 1] + "…"
        cells.append(cell.ljust(width) if width > 0 else cell.rjust(-width))
    return " ".join(cells).rstrip()
