"""The arrays of a call, copied and cast."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from ..verdict.noise import cast, is_floating


def argument(order: Sequence[str], inputs: Any, name: str) -> np.ndarray | None:
    """The floating array of this name among the inputs."""
    if inputs is None or name not in order:
        return None
    return floating(inputs)[list(order).index(name)]


def floating(inputs: Any) -> list[np.ndarray]:
    """The floating arrays among the arguments, in order; inputs are (args, kwargs, dy)."""
    return [a for a in leaves(inputs[:2]) if is_floating(a)]


def exchanged(inputs: Any, position: int, array: np.ndarray) -> Any:
    """The inputs with another array in the place of one of the floating ones."""
    args, kwargs, dy = inputs
    count = itertools.count()

    def at(leaf: Any) -> Any:
        return array if is_floating(leaf) and next(count) == position else leaf

    return (*tree_map(at, (args, kwargs)), dy)


def arrays(tree: Any) -> list[np.ndarray]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, np.ndarray)]


def times(factor: float, dy: Any) -> Any:
    return tree_map(lambda d: np.asarray(d * factor) if is_floating(d) else d, dy)


def double(tree: Any, dtype: str = "") -> Any:
    """The tree in float64, which it may be already."""
    return tree if dtype == "float64" else converted(tree, "float64")


def converted(tree: Any, dtype: str) -> Any:
    """Copies, the floating ones in this dtype, those of 16 bits carried by float32; what is
    broadcast stays broadcast, and one array passed twice stays one."""

    def copied(leaf: np.ndarray) -> np.ndarray:
        if 0 in leaf.strides and leaf.size:
            once = leaf[tuple(slice(None, None if stride else 1) for stride in leaf.strides)]
            return np.broadcast_to(cast(once, dtype), leaf.shape)
        return np.asarray(cast(leaf, dtype)) if is_floating(leaf) else leaf.copy()

    return once_each(copied, tree)


def native(tree: Any, dtype: str) -> Any:
    """What float32 carries as arrays of the type of 16 bits itself."""
    return once_each(lambda a: a.astype(np.dtype(dtype)) if is_floating(a) else a, tree)


def private(tree: Any) -> Any:
    """Copies, so that a subject which writes into them harms nobody."""
    return once_each(
        lambda leaf: leaf if 0 in leaf.strides and leaf.size else leaf.copy(order="K"), tree
    )


def once_each(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with the function applied to every array, once to one that occurs twice."""
    made: dict[int, Any] = {}

    def at(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray):
            return leaf
        if id(leaf) not in made:
            made[id(leaf)] = function(leaf)
        return made[id(leaf)]

    return tree_map(at, tree)
