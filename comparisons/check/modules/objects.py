"""Objects that a call is given and that are no containers: a cache, a state, a batch.

A call is given a copy of one that holds tensors or that it changes, as it was before: else it would
meet what it has left there itself.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from typing import Any

import torch

from ..trees import branches, items, rebuilt

# What has attributes, and is looked at by its name alone.
WHOLE = (
    *(type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType),
    *(enum.Enum, torch.nn.Module),
)
SIMPLE = (bool, int, float, str)


class Ref:
    """Which object it is: that which is met first stands there with all that it holds, a Box, and
    wherever else it is, this alone."""

    def __init__(self, thing: Any) -> None:
        self.kind, self.thing = type(thing), thing


class Box(dict[str, Any]):
    """The attributes of an object, by their names."""

    def __init__(self, ref: Ref) -> None:
        super().__init__()
        self.ref = ref


def boxed(tree: Any, inside: Callable[[torch.Tensor], torch.Tensor], within: bool = False) -> Any:
    """A tree with a Box in the place of each object; the function is applied to its tensors, and to
    those outside as well if they belong to one."""
    return _boxed(tree, inside, {}, within)


def _boxed(tree: Any, inside: Callable[[Any], Any], known: dict[int, Ref], within: bool) -> Any:
    below = branches(tree)
    if below is not None:
        return rebuilt(tree, [_boxed(branch, inside, known, within) for _, branch in below])
    if isinstance(tree, torch.Tensor):
        return inside(tree) if within else tree
    if not hasattr(tree, "__dict__") or isinstance(tree, (Ref, *WHOLE)):
        return tree
    if id(tree) in known:
        return known[id(tree)]
    try:
        object.__new__(type(tree))
    except TypeError:  # which is made in its own way
        return tree
    box = Box(known.setdefault(id(tree), Ref(tree)))
    for name, branch in vars(tree).items():
        box[name] = _boxed(branch, inside, known, True)
    return box


def opened(tree: Any, same: bool = False) -> Any:
    """The tree again, with new objects, or the same ones as they were."""
    return _opened(tree, same, {})


def _opened(tree: Any, same: bool, known: dict[Ref, Any]) -> Any:
    if isinstance(tree, Ref):
        return known.get(tree, tree.thing)
    if isinstance(tree, Box):
        ref = tree.ref
        made = known[ref] = ref.thing if same else object.__new__(ref.kind)
        held = {name: _opened(branch, same, known) for name, branch in tree.items()}
        vars(made).clear()
        vars(made).update(held)
        return made
    below = branches(tree)
    return tree if below is None else rebuilt(tree, [_opened(b, same, known) for _, b in below])


def settled(tree: Any) -> Any:
    """What was boxed before a call, after it. An object that neither holds a tensor nor was changed
    stands there as itself, for it may be known by that."""
    below = branches(tree)
    if below is None:
        return tree
    if isinstance(tree, Box):
        if not _holds(tree) and is_same(tree, boxed(tree.ref.thing, lambda t: t)):
            return tree.ref.thing
        tree.ref.thing = None
    return rebuilt(tree, [settled(branch) for _, branch in below])


def _holds(tree: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for _, leaf in items(tree))


def is_same(before: Any, after: Any) -> bool:
    """Whether two boxed trees hold the same."""
    one, other = list(items(before)), list(items(after))
    return [path for path, _ in one] == [path for path, _ in other] and all(
        _alike(a, b) for (_, a), (_, b) in zip(one, other, strict=True)
    )


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Ref) and isinstance(b, Ref):
        return a.thing is b.thing
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.layout == b.layout and torch.equal(a, b)
    return a is b or (type(a) is type(b) and type(a) in SIMPLE and a == b)
