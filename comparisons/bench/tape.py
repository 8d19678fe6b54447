"""A node of the tape beside one of torch's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...manual.tape import Tensor
from ..parallel import limited
from .timing import medians

NODES = (1_000, 10_000, 100_000)


def rows(nodes: Sequence[int] = NODES, repeats: int = 5) -> list[dict[str, Any]]:
    """One row for each length of a chain: seconds for each of its nodes, forward and backward, by
    hand and by torch, medians of interleaved runs."""
    with limited(1):
        return [_row(n, repeats) for n in nodes]


def _row(nodes: int, repeats: int) -> dict[str, Any]:
    def chained(x: Any) -> None:
        y = x
        for _ in range(nodes):
            y = y * 1.0001
        y.sum().backward()

    start = np.ones(3)
    seconds = medians(
        {
            "manual": lambda: chained(Tensor(start, requires_grad=True)),
            "torch": lambda: chained(torch.ones(3, dtype=torch.float64, requires_grad=True)),
        },
        repeats,
    )
    each = {side: taken / nodes for side, taken in seconds.items()}
    return {"id": f"tape/{nodes}", "nodes": nodes, **each}
