"""A module whose forward has other tensors in the place of some of its own."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .evaluation import Side

MOST = 40  # pairs of submodules, or of parameters, that are tried
Slot = tuple[torch.nn.Module, str]  # who holds a parameter, and under which name


class From(NamedTuple):
    """What a parameter is made of: one that is held elsewhere, or by itself."""

    slot: Slot
    other: Callable[[Any], Any] | None = None


def exchanged(side: Side) -> Iterator[tuple[str, Side]]:
    """Two submodules, or two parameters of one, each in the place of the other, or one in the place
    of both; a parameter transposed or left out."""
    for text, made in itertools.chain(_pairs(side.module), _single(side.module)):
        yield text, replace(side, around=functools.partial(_held, made))


@contextlib.contextmanager
def _held(made: Mapping[Slot, From]) -> Iterator[None]:
    before = {(module, name): module._parameters[name] for module, name in made}
    given = {slot: source.slot[0]._parameters[source.slot[1]] for slot, source in made.items()}
    try:
        for (module, name), source in made.items():
            t: Any = given[module, name]
            module._parameters[name] = source.other(t) if source.other else t
        yield
    finally:
        for (module, name), held in before.items():
            module._parameters[name] = held


def _pairs(whole: torch.nn.Module) -> Iterator[tuple[str, dict[Slot, From]]]:
    """Two submodules that have parameters of the same names and shapes, and two parameters of one
    shape of one module."""
    pairs = list(itertools.combinations([(n, _all(m)) for n, m in whole.named_modules() if n], 2))
    for name, module in whole.named_modules():
        own = [
            (f"{name}.{n}".lstrip("."), {p.shape: (module, n)})
            for n, p in module._parameters.items()
            if p is not None
        ]
        pairs += itertools.combinations(own, 2)
    alike = (((x, a), (y, b)) for (x, a), (y, b) in pairs if a and a.keys() == b.keys())
    for (x, a), (y, b) in itertools.islice(alike, MOST):
        there, back = ({s[key]: From(t[key]) for key in s} for s, t in ((a, b), (b, a)))
        yield f"operand: {x} and {y} exchanged", there | back
        yield f"operand: {y} in the place of {x}", there
        yield f"operand: {x} in the place of {y}", back


def _all(module: torch.nn.Module) -> dict[Any, Slot]:
    """The parameters of a module and of what is in it, by their name there and their shape."""
    return {
        (local, n, p.shape): (m, n)
        for local, m in module.named_modules()
        for n, p in m._parameters.items()
        if p is not None
    }


def _single(whole: torch.nn.Module) -> Iterator[tuple[str, dict[Slot, From]]]:
    for name, module in whole.named_modules():
        for n, p in module._parameters.items():
            if p is None or not p.is_floating_point():
                continue
            shown = f"{name}.{n}" if name else n
            slot = module, n
            if p.ndim == 1:
                yield f"missing: {shown}", {slot: From(slot, torch.zeros_like)}
                yield f"missing: {shown}", {slot: From(slot, torch.ones_like)}
            if p.ndim == 2 and p.shape[0] % p.shape[1] == 0:
                yield f"transposed: {shown}", {slot: From(slot, _turned)}


def _turned(t: torch.Tensor) -> torch.Tensor:
    """Each square of it, one below the other, transposed."""
    return t.unflatten(0, (-1, t.shape[1])).mT.flatten(0, 1)
