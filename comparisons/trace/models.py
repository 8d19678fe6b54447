"""The trace of one of our models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ...reference.adapters import tensor
from .. import ops
from ..training.cells import Cell, start
from ..training.datasets import load
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
    table = load(data)
    drawn = start(cell, table.x.shape[1], table.outputs)
    parameters = {name: tensor(a).requires_grad_() for name, a in drawn.items()}
    forward = ops.named(model).mirror.__wrapped__
    measure = ops.named(loss or cell.loss).mirror.__wrapped__
    target = tensor(table.target[:ROWS])

    def module(x: torch.Tensor) -> Any:
        return measure(forward(parameters, x, **cell.model_settings), target)

    return module, parameters, tensor(table.x[:ROWS])
