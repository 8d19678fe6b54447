"""Tasks side by side, each with a number of threads, in processes that end with this one."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits


def side_by_side(
    tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], jobs: int, threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """(index, result) of each task as it is done, an iterator being returned as a list. One task,
    or one job, stays in this process."""
    work = (
        joblib.delayed(_work)(i, function, args, threads, os.getpid())
        for i, (function, args) in enumerate(tasks)
    )
    jobs = min(jobs, max(len(tasks), 1))
    yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def _work(
    i: int, function: Callable[..., Any], args: tuple[Any, ...], threads: int, parent: int
) -> tuple[int, Any]:
    """Does one task with so many threads, so that processes do not disturb each other and results
    repeat."""
    if parent != os.getpid():
        _end_with(parent)
    with limited(threads):
        result = function(*args)
        return i, list(result) if isinstance(result, Iterator) else result


@functools.cache
def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, however that ends: a worker would otherwise work on
    when its parent is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limits torch and BLAS to so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)
