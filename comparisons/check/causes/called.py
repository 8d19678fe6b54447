"""Another variant of a function that the reference calls: one of its settings of another value, or
another function of its kind."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ...ops.arguments import signature_of
from .case import Candidate, Case, Wrong
from .graphs import Gradients, candidates
from .variant import AXES, Found, is_setting, named_arguments, other_values, told_apart, written

CALLS = 60  # the most calls of the reference in which something is exchanged
TRIED = 60  # and the most that is exchanged in all of them

# What computes nothing, as also whatever is done in place, and the operators, whose numbers are
# constants.
OTHERWISE = {"add", "sub", "rsub", "mul", "div", "true_divide", "pow", "to", "numpy", "clone"}

Called = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Calls(TorchFunctionMode):
    """Every call of a function of torch, and what one of them is exchanged for."""

    def __init__(self, at: int = -1, other: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.seen: list[Called] = []
        self.at, self.other = at, other

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((func, args, kwargs or {}))
        if self.other is not None and len(self.seen) == self.at + 1:
            return self.other(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _of_one(other: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda x, *_, **__: other(x)


# What is taken for a function of one tensor, by the names of both.
ALIKE: dict[str, list[tuple[str, Callable[..., Any]]]] = {
    "relu": [("x", _of_one(torch.Tensor.clone))],
    "clamp": [("x", _of_one(torch.Tensor.clone))],
    "clip": [("x", _of_one(torch.Tensor.clone))],
    "clamp_min": [("x", _of_one(torch.Tensor.clone))],
    "abs": [("x", _of_one(torch.Tensor.clone)), ("x²", _of_one(torch.square))],
    "square": [("abs", _of_one(torch.abs))],
    "tanh": [("sigmoid", _of_one(torch.sigmoid))],
    "sigmoid": [("tanh", _of_one(torch.tanh)), ("hardsigmoid", _of_one(F.hardsigmoid))],
    "silu": [("gelu", _of_one(F.gelu))],
    "gelu": [("silu", _of_one(F.silu))],
    "exp": [("exp2", _of_one(torch.exp2)), ("expm1", _of_one(torch.expm1))],
    "exp2": [("exp", _of_one(torch.exp))],
    "log": [("log2", _of_one(torch.log2)), ("log1p", _of_one(torch.log1p))],
    "log2": [("log", _of_one(torch.log))],
    "log1p": [("log", _of_one(torch.log))],
}


def of_another_function(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from candidates(case, wrong, "variant", _exchanged)


def _exchanged(case: Case, wrong: Wrong) -> Iterator[tuple[str, Gradients]]:
    if case.done.reference is None:
        return
    with Calls() as calls:
        case.truth(wrong.inputs)
    turns = [iter(_ways(call, k)) for k, call in enumerate(calls.seen[:CALLS])]
    found = []
    for k, where, value, text, other in itertools.islice(_in_turn(turns), TRIED):
        with contextlib.suppress(Exception), Calls(k, other):  # a value that it does not take
            results = case.truth(wrong.inputs)
            made = [results.get(n) for n in case.done.order]
            gradients = [np.empty(0) if a is None else a for a in made]
            found.append(Found(where, value, text, gradients))
    yield from told_apart(found)


Way = tuple[int, Any, Any, str, Callable[..., Any]]


def _ways(call: Called, k: int) -> Iterator[Way]:
    """What may stand in the place of a call: it with other settings, and other functions."""
    func, args, kwargs = call
    name = getattr(func, "__name__", "")
    if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
        return
    if name.endswith("_") or name in OTHERWISE:
        return
    for text, other in ALIKE.get(name, ()):
        yield k, (k, text), None, f"that with {text} in the place of {name}", other
    names, defaults = _declared(func, args)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    settings = {n: v for n, v in {**defaults, **given}.items() if is_setting(v)}
    numbers = [v for v in settings.values() if isinstance(v, float)]
    for setting, old in settings.items():
        place = names.index(setting) if setting in names[: len(args)] else None
        for new in other_values(setting, old, defaults.get(setting), numbers):
            text = f"that with {setting} = {written(new)} in the place of {written(old)} in {name}"
            where = (k, setting, new) if setting in AXES else (k, setting)
            yield k, where, new, text, _resetting(func, place, setting, new)


def _declared(func: Any, args: Any) -> tuple[list[str], dict[str, Any]]:
    """The names of the arguments that it is called with, and the defaults of the others; of those
    that Python sees no signature of, by the first overload that takes such arguments."""
    if signature_of(func) is not None:
        return named_arguments(func)
    packet = getattr(torch.ops.aten, getattr(func, "__name__", ""), None)
    for overload in packet.overloads() if packet else ():
        declared = getattr(packet, overload)._schema.arguments
        places = [a for a in declared if not a.kwarg_only]
        if len(args) <= len(places) and all(map(_takes, places, args)):
            known = {a.name: a.default_value for a in declared if a.has_default_value()}
            return [a.name for a in places], known
    return [], {}


def _takes(place: Any, value: Any) -> bool:
    kind = str(place.type)
    if isinstance(value, bool):
        return "bool" in kind
    if isinstance(value, int):
        return "int" in kind or "number" in kind or "float" in kind
    if isinstance(value, float):
        return "float" in kind or "number" in kind
    return isinstance(value, torch.Tensor) == ("Tensor" in kind)


def _resetting(func: Any, place: int | None, name: str, new: Any) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if place is None:
            return func(*args, **{**kwargs, name: new})
        return func(*args[:place], new, *args[place + 1 :], **kwargs)

    return called


def _in_turn(turns: list[Iterator[Way]]) -> Iterator[Way]:
    """The likeliest of each first."""
    while turns:
        for turn in list(turns):
            if (way := next(turn, None)) is None:
                turns.remove(turn)
            else:
                yield way
