"""Masks: what is hidden, moved, turned, left out, or filled with something else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .....reference.adapters import is_differentiable
from ..calls import Called, Change, Trace, is_number, operands
from ..recording import is_asked
from .make import of_result, with_argument, with_operand

Changes = Iterator[tuple[str, Change]]
COMPARED = ("lt", "le", "gt", "ge")
TRIANGLES = ("tril", "triu")
FILLED = ("masked_fill", "where", "setitem")
BOOLEAN = (*COMPARED, *TRIANGLES, "eq", "ne", "bitwise_not", "logical_not")


def exchanged(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if call.name in TRIANGLES:
        for diagonal in (-2, -1, 0, 1, 2):
            text = f"mask: {call.name} from diagonal {diagonal} on"
            yield text, with_argument(1, "diagonal", diagonal)
        other = torch.triu if call.name == "tril" else torch.tril
        yield f"mask: {other.__name__} instead of {call.name}", _called(other)
    if call.name in COMPARED:
        for name in COMPARED:
            if name != call.name:
                text = f"mask: {name} instead of {call.name}"
                yield text, _called(getattr(torch, name))
    if call.name in ("bitwise_and", "bitwise_or", "logical_and", "logical_or"):
        for i in (0, 1):
            yield "mask: one of two alone", _alone(i)
    if call.name in FILLED:
        yield from _filled(call)
    if _is_mask(call.y) and call.name in BOOLEAN:
        for text, way in MOVED.items():
            yield text, of_result(way)
    if call.name == "softmax" and is_asked(call.args[0]) and (hidden := _hidden(call)) is not None:
        yield from _scores(hidden)
    if call.module is not None or call.name == "where":
        for path, operand in operands(call):
            if _is_mask(operand):
                for text, way in MOVED.items():
                    yield text, with_operand(path, way)


def _filled(call: Called) -> Changes:
    for i, value in enumerate(call.args):
        for other in (-math.inf, -1e9, 0.0) if is_number(value) else ():
            if other != value:
                text = f"mask: filled with {other:g} instead of {value:g}"
                yield text, with_argument(i, "value", other)


def _is_mask(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool and leaf.ndim > 0


def _called(other: Callable[..., Any]) -> Change:
    return lambda function, args, kwargs, seen: other(*args, **kwargs)


def _alone(i: int) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        return args[i].expand(function(*args, **kwargs).shape)

    return change


# A mask of booleans ------------------------------------------------------------------------------


def _further(mask: torch.Tensor) -> torch.Tensor:
    """Each row as the next one is, the last as it was."""
    return torch.cat([mask[..., 1:, :], mask[..., -1:, :]], -2)


def _behind(mask: torch.Tensor) -> torch.Tensor:
    """Each row as the one before, the first as it was."""
    return torch.cat([mask[..., :1, :], mask[..., :-1, :]], -2)


def _behind_open(mask: torch.Tensor) -> torch.Tensor:
    """The same, the first row without any."""
    return torch.cat([torch.zeros_like(mask[..., :1, :]), mask[..., :-1, :]], -2)


def _behind_full(mask: torch.Tensor) -> torch.Tensor:
    return ~_behind_open(~mask)


def _shifted(mask: torch.Tensor, by: int) -> torch.Tensor:
    """A mask along one axis, moved."""
    rolled = mask.roll(by, -1)
    edge = 0 if by > 0 else -1
    rolled[..., edge] = mask[..., edge]
    return rolled


def _square(mask: torch.Tensor) -> torch.Tensor:
    if mask.ndim < 2 or mask.shape[-1] != mask.shape[-2]:
        raise LookupError
    return mask.mT


MOVED: dict[str, Callable[[Any], Any]] = {
    "mask: everything, or nothing, is hidden": torch.ones_like,
    "mask: nothing, or everything, is hidden": torch.zeros_like,
    "mask: the other side": torch.logical_not,
    "mask: the other way round": _square,
    "mask: off by +1": _further,
    "mask: off by −1, the first row as it was": _behind,
    "mask: off by −1, in the first row none": _behind_open,
    "mask: off by −1, in the first row all": _behind_full,
    "mask: moved by +1": lambda mask: _shifted(mask, 1),
    "mask: moved by −1": lambda mask: _shifted(mask, -1),
}


# Before a softmax --------------------------------------------------------------------------------


def _hidden(call: Called) -> torch.Tensor | None:
    """Where the scores are so small that nothing is seen; None if that is nowhere."""
    hidden = call.args[0].detach() < -1e3
    return hidden if hidden.any() else None


def _scores(hidden: torch.Tensor) -> Changes:
    """Of the scores as they were before a mask was put on them, with another one."""
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "mask: none before the softmax": torch.zeros_like,
        "mask: the other way round": _square,
        "mask: off by +1": _further,
        "mask: off by −1, the first row as it was": _behind,
        "mask: off by −1, all seen in the first row": _behind_open,
    }
    for text, way in ways.items():
        yield text, _masked(way, -math.inf)
    for value in (-1.0, -10.0, -100.0, -1e9, 0.0):
        yield f"mask: filled with {value:g}", _masked(lambda mask: mask, value)
    yield "mask: after the softmax", _afterwards


def _unmasked(x: torch.Tensor, seen: Any) -> torch.Tensor:
    for call in reversed(seen):
        if call.y is x and call.name in ("masked_fill", "where", "add", "radd"):
            scores: list[torch.Tensor] = [
                t for t in call.args if is_differentiable(t) and t.requires_grad
            ]
            return scores[0]
    raise LookupError


def _masked(way: Callable[[torch.Tensor], torch.Tensor], value: float) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        mask = way(args[0].detach() < -1e3)
        scores = _unmasked(args[0], seen).masked_fill(mask, value)
        return function(scores, *args[1:], **kwargs)

    return change


def _afterwards(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    weights = function(_unmasked(args[0], seen), *args[1:], **kwargs)
    return weights.masked_fill(args[0].detach() < -1e3, 0.0)
