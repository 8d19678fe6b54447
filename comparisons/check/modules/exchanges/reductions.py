"""Sums, means and norms: over other axes, or of another count."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch

from ..calls import Change, Trace
from .make import argument, of_result, with_argument, with_settings

Changes = Iterator[tuple[str, Change]]
REDUCED = ("sum", "mean", "amax", "amin", "norm", "vector_norm", "logsumexp", "cumsum")


def exchanged(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if call.name not in REDUCED or not isinstance(call.args[0], torch.Tensor):
        return
    place = 2 if call.name in ("norm", "vector_norm") else 1
    own = argument(call.args, call.kwargs, place, "dim", call.kwargs.get("axis"))
    n = call.args[0].ndim
    axes = [own] if isinstance(own, int) else own if isinstance(own, (list, tuple)) else range(n)
    axes = sorted(axis % max(n, 1) for axis in axes)
    if own is None:
        for axis in range(n):
            rest = [other for other in range(n) if other != axis]
            text = f"order: {call.name} for each of axis {axis}"
            yield text, with_settings(dim=rest, keepdim=True)
    else:
        for size in sorted({1, len(axes)}):
            for other in itertools.combinations(range(n), size):
                if list(other) != axes:
                    text = f"order: {call.name} over axis {', '.join(map(str, other))}"
                    taken = other[0] if isinstance(own, int) else other
                    yield text, with_argument(place, "dim", taken)
        if argument(call.args, call.kwargs, place + 1, "keepdim"):
            text = f"order: {call.name} over all axes"
            yield text, with_argument(place, "dim", tuple(range(n)))
    for other in ("amax", "mean", "sum"):
        if call.name in ("amax", "mean", "sum") and other != call.name and own is not None:
            what = "operand" if "amax" in (other, call.name) else "count"
            yield f"{what}: {other} instead of {call.name}", _called(getattr(torch, other))
    yield from _counted(call.name, call.args[0].shape, axes)


def _called(other: Any) -> Change:
    return lambda function, args, kwargs, seen: other(*args, **kwargs)


def _counted(name: str, shape: torch.Size, axes: list[int]) -> Changes:
    """A sum in the place of a mean, over some of the axes or all, and the other way round."""
    if name != "mean":
        return
    for size in range(1, len(axes)):
        for part in itertools.combinations(axes, size):
            text = f"count: a mean over axis {', '.join(map(str, part))} of a sum over the rest"
            yield text, _summed(axes, part)
    count = math.prod(shape[axis] for axis in axes)
    for other in (count - 1, count + 1):
        if other > 0:
            text = f"count: over {other} instead of {count}"
            yield text, of_result(functools.partial(torch.mul, other=count / other))


def _summed(axes: list[int], over: tuple[int, ...]) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        n = math.prod(args[0].shape[axis] for axis in set(axes) - set(over))
        return function(*args, **kwargs) * n

    return change
