"""What is seen of an axis: padded, convolved and sliced otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..calls import Change, Trace
from ..recording import is_asked
from .make import argument, with_argument

Changes = Iterator[tuple[str, Change]]


def exchanged(trace: Trace, k: int) -> Changes:
    name = trace.seen[k].name
    if name == "pad":
        yield from _padded(trace, k)
    elif name in ("conv1d", "conv2d"):
        yield from _convolved(trace, k)
    elif name == "getitem":
        yield from _sliced(trace, k)


def _padded(trace: Trace, k: int) -> Changes:
    """By as much in other places, and with other values."""
    call = trace.seen[k]
    amounts = tuple(argument(call.args, call.kwargs, 1, "pad"))
    pairs = [tuple(amounts[i : i + 2]) for i in range(0, len(amounts), 2)]
    ways: list[tuple[str, Callable[[int, int], tuple[int, int]]]] = [
        ("padding: on the other side", lambda a, b: (b, a)),
        ("padding: on both sides", lambda a, b: ((a + b) // 2, a + b - (a + b) // 2)),
        ("padding: on both sides", lambda a, b: (a + b - (a + b) // 2, (a + b) // 2)),
        ("padding: all in front", lambda a, b: (a + b, 0)),
        ("padding: all behind", lambda a, b: (0, a + b)),
        ("mask: padded so that it sees one step more", lambda a, b: (a - 1, b + 1)),
        ("mask: padded so that it sees one step less", lambda a, b: (a + 1, b - 1)),
    ]
    for text, way in ways:
        other = tuple(itertools.chain.from_iterable(way(*pair) for pair in pairs))
        if other != amounts and min(other) >= 0:
            yield f"{text}, {other} instead of {amounts}", with_argument(1, "pad", other)
    for mode in ("constant", "replicate", "reflect", "circular"):
        if mode != argument(call.args, call.kwargs, 2, "mode", "constant"):
            yield f"padding: {mode}", _pad_mode(mode)


def _pad_mode(mode: str) -> Change:
    return lambda function, args, kwargs, seen: function(
        args[0], argument(args, kwargs, 1, "pad"), mode=mode
    )


def _convolved(trace: Trace, k: int) -> Changes:
    """With another padding or step than its own."""
    call = trace.seen[k]
    x, weight = call.args[0], call.args[1]
    padding = argument(call.args, call.kwargs, 4, "padding", 0)
    amounts = [padding] if isinstance(padding, int) else list(padding)
    amounts = amounts * (x.ndim - 2) if len(amounts) == 1 else amounts
    if any(amounts) and not isinstance(padding, str) and weight.ndim == x.ndim:
        pads = [n for amount in reversed(amounts) for n in (amount, amount)]
        for mode in ("replicate", "reflect", "circular"):
            yield f"padding: {mode}", _padded_before(pads, mode)
        for name, side in (("all in front", 0), ("all behind", 1)):
            one = [2 * n if i % 2 == side else 0 for i, n in enumerate(pads)]
            yield f"padding: {name}", _padded_before(one, "constant")


def _padded_before(pads: list[int], mode: str) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        x = torch.nn.functional.pad(args[0], pads, mode=mode)
        return with_argument(4, "padding", 0)(function, (x, *args[1:]), kwargs, seen)

    return change


# Sliced ---------------------------------------------------------------------------------------


def _sliced(trace: Trace, k: int) -> Changes:
    """From one further on, or from the start; of what is summed, it is the count."""
    call = trace.seen[k]
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    summed = {c.name for c in trace.taken_by(k)} & {"mean", "sum"}
    what = "count" if summed else "initial"
    for i, part in enumerate(index):
        if isinstance(part, slice) and part.step is None and (part.start or part.stop):
            if part.start is None and part.stop < 0:
                other = (*index[:i], slice(-part.stop, None), *index[i + 1 :])
                yield "operand: not shifted, from the other end", with_argument(1, "", other)
            for start, stop in _bounds(part):
                if (start, stop) != (part.start, part.stop):
                    other = (*index[:i], slice(start, stop), *index[i + 1 :])
                    shown = f"{'' if start is None else start}:{'' if stop is None else stop}"
                    yield f"{what}: from {shown} of axis {i}", with_argument(1, "", other)
        elif isinstance(part, int) and is_asked(call.y):
            for new in {0, -1, part + 1, part - 1} - {part}:
                other = (*index[:i], new, *index[i + 1 :])
                text = f"{'padding' if new == -1 else 'operand'}: at {new} instead of {part}"
                yield text, with_argument(1, "", other)


def _bounds(part: slice) -> Iterator[tuple[int | None, int | None]]:
    start, stop = part.start, part.stop
    yield None, stop
    yield start, None
    yield None, None
    for by in (-1, 1):
        if start is not None:
            yield start + by, stop
        if stop is not None:
            yield start, stop + by
