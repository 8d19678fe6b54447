"""What people nest arrays in: lists, tuples, named ones, dicts, dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

LEAVES = (np.ndarray, torch.Tensor, np.generic, int, float, str, type(None))


def branches(tree: Any) -> Iterator[tuple[str, Any]] | None:
    """What lies in a container, each with its key as a text; None where it is none."""
    if isinstance(tree, LEAVES):  # the others take long to ask about
        return None
    if isinstance(tree, (list, tuple)):
        return ((str(i), branch) for i, branch in enumerate(tree))
    if isinstance(tree, (dict, Mapping)):
        return ((str(key), branch) for key, branch in tree.items())
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return ((f.name, getattr(tree, f.name, None)) for f in dataclasses.fields(tree))
    return None


def items(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves in order, each with the keys that lead to it: "layers.0.w"."""
    inside = branches(tree)
    if inside is None:
        yield path, tree
        return
    for key, branch in inside:
        yield from items(branch, f"{path}.{key}" if path else key)


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """A copy of all containers, with the function applied to every leaf in order."""
    inside = branches(tree)
    if inside is None:
        return function(tree)
    return rebuilt(tree, [mapped(function, branch) for _, branch in inside])


def rebuilt(tree: Any, made: Sequence[Any]) -> Any:
    """A container of the same kind, with these things in it in order."""
    if isinstance(tree, Mapping):
        new = dict(zip(tree, made, strict=True))
        if type(tree) is dict or not isinstance(tree, dict):
            return new
        same: Any = copy.copy(tree)  # a subclass keeps what else it has
        held = getattr(same, "__dict__", {})
        for key, branch in new.items():
            same[key] = branch
            if held.get(key) is tree[key]:  # it has its keys as attributes as well
                held[key] = branch
        return same
    if isinstance(tree, (list, tuple)):
        if hasattr(tree, "_make"):  # a named tuple
            return tree._make(made)
        kind = type(tree)
        try:
            return kind(made)
        except (TypeError, ValueError):  # torch.Size, or what takes something else
            return list(made) if isinstance(tree, list) else tuple(made)
    same = copy.copy(tree)
    for f, branch in zip(dataclasses.fields(tree), made, strict=True):
        object.__setattr__(same, f.name, branch)
    return same
