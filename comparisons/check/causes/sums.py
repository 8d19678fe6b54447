"""What is left of a sum that is taken block by block, if blocks overwrite one another, or are
forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ..traced import operation
from .accumulated import last_alone

LONGEST = 64  # the longest axis that is summed over of which parts are looked for


class Left(NamedTuple):
    """A part of what an operation sums: its input at a place, times a mask."""

    cause: str
    text: str
    place: int
    mask: torch.Tensor


def parts_left(node: Any, values: dict[str, Any]) -> Iterator[Left]:
    """The first or the last so many along the axis that is summed over; of a product of matrices
    also, in each row, those of the row's own block; of what is added up at indices that repeat,
    the last."""
    if (kept := last_alone(node, values)) is not None:
        text = f"that of the last alone that comes to each index in {operation(node)}"
        yield Left("overwritten", text, *kept)
    if operation(node) in ("mm", "bmm"):
        rows, n = values[node.args[0].name].shape[-2:]
        yield from _ends_of_rows(values[node.args[0].name], -1, operation(node))
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
            yield from _ends_of_rows(values[node.args[0].name], axis, "sum")
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


def _ends_of_rows(summed: torch.Tensor, axis: int, name: str) -> Iterator[Left]:
    """The last or the first block of each row that is not zero, where rows have zeros: as where
    what belongs to a group, an expert or a segment is written for it alone."""
    n, rows = summed.shape[axis], summed.movedim(axis, -1)
    if not 1 < n <= LONGEST or bool((rows != 0).all()):
        return
    for block in (b for b in range(1, n // 2 + 1) if n % b == 0):
        shown = (rows != 0).unflatten(-1, (n // block, block)).any(-1)
        place = torch.arange(1, n // block + 1)
        for which, order in (("last", place), ("first", place.flip(0))):
            rank = shown * order
            kept = (rank == rank.amax(-1, keepdim=True)) & shown
            if not torch.equal(kept, shown):
                mask = kept.repeat_interleave(block, -1).movedim(-1, axis)
                text = f"that of the {which} {block} alone that are not zero, of those in {name}"
                yield Left("overwritten", text, 0, mask.double())


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
