"""What is left of a sum that is taken block by block, if blocks overwrite one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ..traced import operation

LONGEST = 64  # the longest axis that is summed over of which parts are looked for


class Left(NamedTuple):
    """A part of what an operation sums: its input at a place, times a mask."""

    cause: str
    text: str
    place: int
    mask: torch.Tensor


def parts_left(node: Any, values: dict[str, Any]) -> Iterator[Left]:
    """The first or the last so many along the axis that is summed over; of a product of matrices
    also, in each row, those of the row's own block."""
    if operation(node) in ("mm", "bmm"):
        rows, n = values[node.args[0].name].shape[-2:]
        if 1 < n <= LONGEST:
            yield from _ends(n, 1, operation(node))
            for block in range(2, n // 2 + 1) if n > 3 else ():
                of_row, of_term = torch.arange(rows) // block, torch.arange(n) // block
                own = (of_row[:, None] == of_term).double()
                text = f"that of each row's own block of {block} alone, of {n} that are summed"
                yield Left("overwritten", f"{text} in {operation(node)}", 0, own)
    elif operation(node) == "sum" and len(node.args) > 1:
        shape = values[node.args[0].name].shape
        for axis in node.args[1] or range(len(shape)):
            n = shape[axis]
            yield from _counted(values[node.args[0].name], axis)
            if 1 < n <= LONGEST:
                behind = len(shape) - 1 - axis % len(shape)
                yield from _ends(n, behind + 1, "sum")


def _counted(summed: torch.Tensor, axis: int) -> Iterator[Left]:
    """One of several that are all the same, or zero: the sum does but count them."""
    times = (summed != 0).sum(axis, keepdim=True)
    mean = summed.sum(axis, keepdim=True) / times.clamp(min=1)
    if bool((times > 1).any()) and torch.allclose(summed, mean * (summed != 0), 1e-9, 0):
        text = "that of one alone of those that are counted in sum"
        yield Left("counts", text, 0, 1 / times.clamp(min=1).double())


def _ends(n: int, ndim: int, name: str) -> Iterator[Left]:
    """What blocks that overwrite one another leave; more than half are left where a block is
    forgotten."""
    for count in range(1, n):
        cause = "overwritten" if 2 * count <= n else "misplaced"
        for which, kept in (("last", slice(n - count, n)), ("first", slice(count))):
            mask = torch.zeros(n, dtype=torch.float64)
            mask[kept] = 1
            text = f"that of the {which} {count} alone of {n} that are summed in {name}"
            yield Left(cause, text, 0, mask.reshape(n, *[1] * (ndim - 1)))
