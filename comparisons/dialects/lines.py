"""A dialect on the terminal: the lines that differ."""

from __future__ import annotations

from rich.console import Console

from ...manual.dialects import Dialect


def print_lines(console: Console, dialect: Dialect) -> None:
    """The lines that differ, and what stands there instead."""
    for line, instead in dialect.lines.items():
        console.print(f"  - {line}", style="red")
        console.print(f"  + {instead}", style="green")
