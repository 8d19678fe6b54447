"""Calls inside of torch.vmap: of many arrays, which lie along an axis that the function does not
see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...reference.adapters import leaves, tree_map
from ..verdict.classes import Results

_functorch: Any = torch._C._functorch


def is_wrapped(t: torch.Tensor) -> bool:
    """Whether it is a tensor of torch.func: one that stands for many, or of another level."""
    return bool(_functorch.is_functorch_wrapped_tensor(t))


def unwrapped(t: torch.Tensor) -> torch.Tensor:
    """The tensor that autograd sees, beneath all levels."""
    while is_wrapped(t):
        t = _functorch.get_unwrapped(t)
    return t


def axis_of(t: torch.Tensor) -> int | None:
    """Where the many lie, in the tensor beneath; None where it is not just that one of a single
    vmap."""
    if not _functorch.is_batchedtensor(t) or is_wrapped(_functorch.get_unwrapped(t)):
        return None
    return int(_functorch.maybe_get_bdim(t))


def rows_of(tree: Any, batched: Sequence[bool]) -> Iterator[Any]:
    """The tree of each of the many: those of its leaves that are batched have them along their
    first axis, and the others are the same for all."""
    (count,) = {len(a) for a, many in zip(leaves(tree), batched, strict=True) if many}
    for i in range(count):
        flags = iter(batched)
        yield tree_map(partial(_row, i, flags), tree)


def _row(i: int, flags: Iterator[bool], leaf: Any) -> Any:
    return np.asarray(leaf[i]) if next(flags) else leaf


def of_each(
    evaluated: Callable[[Any], Results],
    inputs: Any,
    batched: Sequence[bool],
    alone: Collection[str],
) -> Results:
    """The results of all rows: side by side, but of what is the same for all, `alone`, the sum."""
    found = [evaluated(row) for row in rows_of(inputs, batched)]
    columns = {name: np.stack([row[name] for row in found]) for name in found[0]}
    return {n: a.sum(axis=0, dtype=a.dtype) if n in alone else a for n, a in columns.items()}
