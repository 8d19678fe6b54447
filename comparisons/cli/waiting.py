"""A bar for who waits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER = 2.0  # seconds without one: most are done by then


@contextmanager
def bar(title: str, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be called with the steps done and those known of; None where no terminal is, or
    nothing shall be shown.

    It is drawn at each step, on standard error, and by no thread: the process forks.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..report.console import Terminal

    console = Terminal(stderr=True, quiet=quiet)
    if quiet or not console.is_terminal:
        yield None
        return
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
    )
    task = progress.add_task(title, total=None)
    begun = time.monotonic()

    def told(done: int, known: int) -> None:
        progress.update(task, completed=done, total=known)
        if time.monotonic() - begun >= AFTER:
            progress.start()
            progress.refresh()

    try:
        yield told
    finally:
        if progress.live.is_started:
            progress.stop()
