"""The trace of one of our models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...reference.adapters import tensor
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
    module, _, x = built(model, data, loss, seed, activation)
    return trace(module, x)


def built(
    model: str, data: str, loss: str = "", seed: int = 0, activation: str = "tanh"
) -> tuple[Callable[[torch.Tensor], Any], dict[str, torch.Tensor], torch.Tensor]:
    """What is traced: a module, its parameters, and what it is given. Raises as `traced` does."""
    cell = Cell(model, data, "sgd", 0.1, seed=seed, hidden=(8,), activation=activation)
    parameters = {name: tensor(a).requires_grad_() for name, a in start(cell).items()}
    objective = objective_of(cell, loss)
    x, target = (tensor(a[:ROWS]) for a in cell.seen(load(data)))

    def module(x: torch.Tensor) -> Any:
        return objective(parameters, x, target)

    return module, parameters, x
