"""Parts of a tensor, and tensors that become parts of one: in another order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from ..calls import Change, Trace
from .make import argument

Changes = Iterator[tuple[str, Change]]
MOST = 4  # parts of which all orders are tried; of more, two are exchanged


def exchanged(trace: Trace, k: int) -> Changes:
    """Two parts are two operands, each of which has the other's place; more are in an order."""
    call = trace.seen[k]
    if call.name in ("chunk", "split", "unbind", "split_with_sizes"):
        parts = list(call.y)
        for order in _orders(len(parts)):
            if all(parts[i].shape == parts[j].shape for i, j in enumerate(order)):
                what = "operand" if len(parts) == 2 else "order"
                text = f"{what}: of the parts of {call.name}, {_said(order)}"
                yield text, _result_in(order)
        if call.name != "unbind" and len({p.shape for p in parts}) == 1:
            yield "order: every n-th element a part", _interleaved
    elif call.name in ("cat", "concat", "concatenate", "stack"):
        parts = list(argument(call.args, call.kwargs, 0, "tensors"))
        if len(parts) > 1 and all(p is parts[0] for p in parts):
            yield "repeat: each by itself, not as a whole", _each_by_itself
            return
        for order in _orders(len(parts)):
            yield f"order: of what {call.name} joins, {_said(order)}", _operands_in(order)
        if call.name != "stack" and len({p.shape for p in parts}) == 1:
            yield "order: joined in turn, not one after the other", _in_turn


def _orders(n: int) -> Iterator[tuple[int, ...]]:
    own = tuple(range(n))
    if n <= MOST:
        yield from (order for order in itertools.permutations(own) if order != own)
        return
    yield own[::-1]
    for i, j in itertools.combinations(own, 2):
        yield tuple({i: j, j: i}.get(m, m) for m in own)


def _said(order: tuple[int, ...]) -> str:
    return "number " + ", ".join(str(i + 1) for i in order)


def _result_in(order: tuple[int, ...]) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        parts = function(*args, **kwargs)
        return tuple(parts[i] for i in order)

    return change


def _operands_in(order: tuple[int, ...]) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        parts = argument(args, kwargs, 0, "tensors")
        rest = {name: value for name, value in kwargs.items() if name != "tensors"}
        return function([parts[i] for i in order], *args[1:], **rest)

    return change


def _axis(function: Any, args: Any, kwargs: Any, default: int) -> int:
    where = 1 if function.__name__ in ("cat", "concat", "concatenate") else 2
    axis: int = argument(args, kwargs, where, "dim", default)
    return axis


def _interleaved(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    parts = function(*args, **kwargs)
    x, axis = args[0], _axis(function, args, kwargs, 0) % args[0].ndim
    return x.unflatten(axis, (-1, len(parts))).unbind(axis + 1)


def _in_turn(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    parts = argument(args, kwargs, 0, "tensors")
    axis = _axis(function, args, kwargs, 0) % parts[0].ndim
    return torch.stack(tuple(parts), axis + 1).flatten(axis, axis + 1)


def _each_by_itself(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    parts = argument(args, kwargs, 0, "tensors")
    if function.__name__ == "stack":
        raise LookupError
    axis = _axis(function, args, kwargs, 0)
    return parts[0].repeat_interleave(len(parts), axis)
