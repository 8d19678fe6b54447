"""Tasks side by side, each with a number of threads, in processes that end with this one, or on a
cluster."""

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

from .cluster import on

_ONE = threading.RLock()


def side_by_side(
    tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
    jobs: int,
    threads: int = 1,
    cluster: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """(index, result) of each task as it is done, an iterator being returned as a list. One task,
    or one job, stays in this process. With the address of a Dask cluster, all are done there."""
    parent = None if cluster else os.getpid()
    work = (
        joblib.delayed(_work)(i, function, args, threads, parent)
        for i, (function, args) in enumerate(tasks)
    )
    jobs = -1 if cluster else min(jobs, max(len(tasks), 1))
    with on(cluster) if cluster else contextlib.nullcontext():
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def _work(
    i: int, function: Callable[..., Any], args: tuple[Any, ...], threads: int, parent: int | None
) -> tuple[int, Any]:
    """Does one task with so many threads, so that processes do not disturb each other and results
    repeat; one at a time, for a worker of a cluster may have threads for more."""
    if parent is not None and parent != os.getpid():
        _end_with(parent)
    with _ONE, limited(threads):
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
