"""A module whose forward has other tensors in the place of some of its own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from .evaluation import Side

MOST = 40  # pairs of submodules, or of parameters, that are tried
Slot = tuple[torch.nn.Module, str]  # who holds a parameter, and under which name
Made = Callable[[Mapping[Slot, torch.Tensor]], torch.Tensor]


def exchanged(side: Side) -> Iterator[tuple[str, Side]]:
    """Two submodules, or two parameters of one, each in the place of the other, or one in the place
    of both; a parameter transposed or left out."""
    for text, made in itertools.chain(_pairs(side.module), _single(side.module)):
        yield text, replace(side, around=lambda made=made: _held(made))


@contextlib.contextmanager
def _held(made: Mapping[Slot, Made]) -> Iterator[None]:
    before = {slot: slot[0]._parameters[slot[1]] for slot in _all(made)}
    new = {slot: make(before) for slot, make in made.items()}
    try:
        for (module, name), t in new.items():
            module._parameters[name] = t  # type: ignore[assignment]
        yield
    finally:
        for module, name in new:
            module._parameters[name] = before[module, name]


def _all(made: Mapping[Slot, Made]) -> set[Slot]:
    """The parameters of all the modules that have one of these, or that these are made of."""
    modules = {module for module, _ in made} | {m for make in made.values() for m in make.of}  # type: ignore[attr-defined]
    return {(m, n) for m in modules for n, p in m._parameters.items() if p is not None}


def _pairs(whole: torch.nn.Module) -> Iterator[tuple[str, dict[Slot, Made]]]:
    named = [(n, m, _slots(m)) for n, m in whole.named_modules() if n]
    alike = [
        (a, b)
        for a, b in itertools.combinations(named, 2)
        if a[2] and [shape for _, _, shape in a[2]] == [shape for _, _, shape in b[2]]
    ]
    found = [
        (x, y, [(m, n) for m, n, _ in s], [(m, n) for m, n, _ in t])
        for (x, _, s), (y, _, t) in alike
    ]
    for name, module in whole.named_modules():
        own = [(n, p) for n, p in module._parameters.items() if p is not None]
        for (n, p), (m, q) in itertools.combinations(own, 2):
            if p.shape == q.shape:
                where = f"{name}." if name else ""
                found.append((f"{where}{n}", f"{where}{m}", [(module, n)], [(module, m)]))
    for x, y, first, second in found[:MOST]:
        both = dict(zip(first, second, strict=True)), dict(zip(second, first, strict=True))
        ways = {
            f"operand: {x} and {y} exchanged": both[0] | both[1],
            f"operand: {y} in the place of {x}": both[0],
            f"operand: {x} in the place of {y}": both[1],
        }
        for text, sources in ways.items():
            yield text, {slot: _From(source) for slot, source in sources.items()}


def _slots(module: torch.nn.Module) -> list[tuple[torch.nn.Module, str, Any]]:
    return [
        (m, n, (local, n, p.shape))
        for local, m in module.named_modules()
        for n, p in m._parameters.items()
        if p is not None
    ]


def _single(whole: torch.nn.Module) -> Iterator[tuple[str, dict[Slot, Made]]]:
    for name, module in whole.named_modules():
        for n, p in module._parameters.items():
            if p is None or not p.is_floating_point():
                continue
            shown = f"{name}.{n}" if name else n
            slot = module, n
            if p.ndim == 1:
                yield f"missing: {shown}", {slot: _From(slot, torch.zeros_like)}
                yield f"missing: {shown}", {slot: _From(slot, torch.ones_like)}
            if p.ndim == 2 and p.shape[0] % p.shape[1] == 0:
                yield f"transposed: {shown}", {slot: _From(slot, _turned)}


def _turned(t: torch.Tensor) -> torch.Tensor:
    """Each square of it, one below the other, transposed."""
    return t.unflatten(0, (-1, t.shape[1])).mT.flatten(0, 1)


class _From:
    """Makes a parameter of what is held elsewhere, or of itself."""

    def __init__(self, slot: Slot, other: Callable[[Any], Any] | None = None) -> None:
        self.slot, self.other = slot, other
        self.of = (slot[0],)

    def __call__(self, held: Mapping[Slot, torch.Tensor]) -> torch.Tensor:
        t = held[self.slot]
        return self.other(t) if self.other else t
