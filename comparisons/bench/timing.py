"""Medians of interleaved runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

PATIENCE = 10.0  # seconds


def medians(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median seconds of each task."""
    return {what: float(np.median(times)) for what, times in interleaved(tasks, repeats).items()}


def interleaved(
    tasks: dict[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of each task, timed in turn, so that what disturbs one disturbs all. Each is
    timed at least three times, and not again once PATIENCE is over. A first run, which fills the
    caches, does not count."""
    taken: dict[str, list[float]] = {what: [] for what in tasks}
    start = time.perf_counter()
    for i in range(repeats + 1):
        for what, task in tasks.items():
            begin = clock()
            task()
            taken[what].append(clock() - begin)
        if i >= 3 and time.perf_counter() - start > PATIENCE:
            break
    return {what: times[1:] for what, times in taken.items()}
