"""What is left of an operation that adds up at indices, where what comes last to each overwrites
the rest: `a[index] += b` in the place of `numpy.add.at`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..traced import operation

MOST = 512  # indices that are compared with one another

Kept = tuple[int, torch.Tensor]  # a place of an operation, a mask of what it takes there


def last_alone(node: Any, values: Mapping[str, Any]) -> Kept | None:
    """What comes last to each index; None where nothing is added up at indices, or none repeats."""
    name, args = operation(node), node.args

    def value(k: int) -> Any:
        return values[args[k].name]

    kept: Kept | None = None
    if name in ("index_put", "_unsafe_index_put") and args[3:4] == (True,):
        places = [k for k, index in enumerate(args[1]) if index is not None]
        indices = torch.broadcast_tensors(*(values[args[1][k].name] for k in places))
        behind = value(0).ndim - places[-1] - 1
        in_a_row = len(places) == places[-1] - places[0] + 1
        if in_a_row and not any(index.dtype == torch.bool for index in indices):
            mask = _last(torch.stack([index.flatten() for index in indices], 1))
            kept = 2, mask.reshape(*indices[0].shape, *[1] * behind)
    elif name == "scatter_add":
        index, axis = value(2), args[1]
        rows = index.movedim(axis, -1).reshape(-1, index.shape[axis])
        masks = torch.stack([_last(row[:, None]) for row in rows])
        shape = index.movedim(axis, -1).shape
        kept = 3, masks.reshape(shape).movedim(-1, axis)
    return kept if kept is not None and not kept[1].all() else None


def _last(indices: torch.Tensor) -> torch.Tensor:
    """1 where no later row is the same, else 0; all 1 where there are too many."""
    n = len(indices)
    if n > MOST:
        return torch.ones(n, dtype=torch.float64)
    same = (indices[:, None] == indices).all(-1)
    return (~same.triu(1).any(1)).double()
