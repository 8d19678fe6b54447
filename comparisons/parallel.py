"""Tasks side by side, each with a number of threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits


def side_by_side(
    tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], jobs: int, threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """(index, result) of each task as it is done; one task, or one job, stays in this process."""
    work = (
        joblib.delayed(_work)(i, function, args, threads)
        for i, (function, args) in enumerate(tasks)
    )
    jobs = min(jobs, max(len(tasks), 1))
    yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def _work(
    i: int, function: Callable[..., Any], args: tuple[Any, ...], threads: int
) -> tuple[int, Any]:
    """So many threads each: the processes do not disturb each other, and results repeat."""
    with limited(threads):
        return i, function(*args)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads, for torch and for BLAS."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
