"""What modules keep from one call to the next in attributes that are no parameters or buffers: a
hidden state, a table that is made once, a count of calls.

A call finds it as it was before, and what it leaves there is taken back: else the next evaluation
would go on from it, and no two would be alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from ..trees import items, mapped
from .objects import Box, Ref, boxed, is_same, opened
from .state import modules_of

Memory = Mapping[str, Any]  # by "place.attribute", boxed
OTHER = frozenset(
    ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
)
HOOKS = frozenset(vars(torch.nn.Module())) - OTHER  # some install them in their first call
GONE = object()  # in the place of an attribute that is not there


def memory_of(module: torch.nn.Module, keys: Collection[str] | None = None) -> dict[str, Any]:
    """Copies of all such attributes of a module and of what is in it, or of some."""
    found = _references(module)
    if keys is not None:
        found = {key: found.get(key, GONE) for key in keys}
    made: dict[str, Any] = boxed(found, _copied, within=True)
    return made


def _copies(memory: Memory) -> dict[str, Any]:
    made: dict[str, Any] = opened(mapped(_copied, dict(memory)))
    return made


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def memory_now(module: torch.nn.Module, first: Memory) -> dict[str, Any]:
    """Copies of what was there at first, as it is now; but for hooks, of which some may be those
    that look at the module."""
    hooks = {key: kept for key, kept in first.items() if key.rpartition(".")[2] in HOOKS}
    return hooks | memory_of(module, [key for key in first if key not in hooks])


@contextlib.contextmanager
def remembered(module: torch.nn.Module, memory: Memory) -> Iterator[None]:
    """With copies of these in their places, and at the end with what was there before."""
    inside = modules_of(module) if memory else {}
    before = []
    for key, value in _copies(memory).items():
        place, _, name = key.rpartition(".")
        held = vars(inside[place])
        before.append((held, name, held.get(name, GONE)))
        _put(held, name, value)
    try:
        yield
    finally:
        for held, name, value in before:
            _put(held, name, value)


class Moment:
    """A module's memory at one moment, and what is done to it from then on."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.own = module, _references(module)
        self.before = memory_of(module)

    def changed(self) -> dict[str, Any]:
        """What is no longer as it was, as it was, and what goes by an object that is not; it is put
        back."""
        before, after = self.before, memory_of(self.module)
        keys = {k for k in before.keys() | after.keys() if not _is_as_before(k, before, after)}
        moved = {id(box.ref.thing) for key in keys for box in _boxes(before.get(key))}
        for key, kept in before.items():
            if any(isinstance(leaf, Ref) and id(leaf.thing) in moved for _, leaf in items(kept)):
                keys.add(key)
        memory = {key: kept for key, kept in before.items() if key in keys}  # in order, for Refs
        memory |= dict.fromkeys(keys - memory.keys(), GONE)
        inside = modules_of(self.module) if keys else {}
        for key, value in opened(mapped(_copied, memory), same=True).items():
            place, _, name = key.rpartition(".")
            _put(vars(inside[place]), name, _as_it_was(self.own.get(key, GONE), value))
        return memory


def _as_it_was(own: Any, value: Any) -> Any:
    """The same thing with what was in it, if it can be the same."""
    if isinstance(own, list) and isinstance(value, list):
        own[:] = value
    elif isinstance(own, dict) and isinstance(value, dict):
        own.clear()
        own.update(value)
    elif not isinstance(own, torch.Tensor):
        return value
    elif not torch.equal(own, value):
        with torch.no_grad():
            own.copy_(value)
    return own


def below(memory: Memory, place: str) -> dict[str, Any]:
    """What belongs to a submodule, by its keys there."""
    found = {}
    for key, value in memory.items():
        inner, _, name = key.rpartition(".")
        if inner == place or inner.startswith(f"{place}." if place else ""):
            found[f"{inner.removeprefix(place).removeprefix('.')}.{name}"] = value
    return found


def _put(held: dict[str, Any], name: str, value: Any) -> None:
    if value is GONE:
        held.pop(name, None)
    else:
        held[name] = value


def _references(module: torch.nn.Module) -> dict[str, Any]:
    found, seen = {}, set()
    for place, inner in modules_of(module).items():
        if id(inner) not in seen:
            seen.add(id(inner))
            own = {f"{place}.{n}": a for n, a in vars(inner).items() if n not in OTHER}
            found.update(own)
    return found


def _is_as_before(key: str, before: Memory, after: Memory) -> bool:
    return key in before and key in after and is_same(before[key], after[key])


def _boxes(tree: Any) -> Iterator[Box]:
    if isinstance(tree, Box):
        yield tree
    if isinstance(tree, (dict, list, tuple)):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _boxes(branch)
