"""The trace of one of our models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ...manual.models.layers import parted
from ...reference.adapters import tensor, tree_map
from ..training.cells import Cell, start
from ..training.datasets import load
from ..training.loop import objective_of
from .recorder import trace
from .steps import Trace

ROWS = 16  # the size of the batch, the first rows of the data


def traced(model: str, data: str, loss: str = "", seed: int = 0, activation: str = "tanh") -> Trace:
    """The trace of a model and its loss, on the first rows of the data.

    Raises ValueError for a combination that does not exist.
    """
    module, parameters, x = built(model, data, loss, seed, activation)
    found = trace(module, x)
    names = {id(p): name for name, p in parameters.items()}
    named = {n: leaf._replace(name=names[id(n.variable)]) for n, leaf in found.leaves.items()}
    return replace(found, leaves=named)


def built(
    model: str, data: str, loss: str = "", seed: int = 0, activation: str = "tanh"
) -> tuple[Callable[[torch.Tensor], Any], dict[str, torch.Tensor], torch.Tensor]:
    """What is traced: a module, its parameters, and what it is given. Raises as `traced` does."""
    cell = Cell(model, data, "sgd", 0.1, seed=seed, hidden=(8,), activation=activation)
    drawn, buffers = parted(start(cell))
    parameters = {name: tensor(a).requires_grad_() for name, a in drawn.items()}
    objective = objective_of(cell, loss)
    x, target = (a[:ROWS] for a in cell.seen(load(data)))
    others = tree_map(tensor, (target, cell.drawn(x, 0), buffers))

    def module(x: torch.Tensor) -> Any:
        y = objective(parameters, x, *others)
        return y[0] if buffers else y

    return module, parameters, tensor(x)
