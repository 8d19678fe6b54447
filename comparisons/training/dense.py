"""Models of linear layers, as they are trained."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from .datasets import Data
from .models import Arrays, Model

if TYPE_CHECKING:
    from .cells import Cell


def linear(rng: np.random.Generator, prefix: str, n_in: int, n_out: int) -> Arrays:
    """Weight and bias between ±1/√n_in, as torch.nn.Linear draws them (LeCun et al., 1998)."""
    shapes = {"weight": (n_out, n_in), "bias": (n_out,)}
    return {f"{prefix}{n}": rng.uniform(-1, 1, s) / math.sqrt(n_in) for n, s in shapes.items()}


def _one_layer(rng: np.random.Generator, data: Data, cell: Cell) -> Arrays:
    return linear(rng, "", data.x.shape[1], data.outputs)


def _layers(rng: np.random.Generator, data: Data, cell: Cell) -> Arrays:
    widths = itertools.pairwise((data.x.shape[1], *cell.hidden, data.outputs))
    found: Arrays = {}
    for i, (n_in, n_out) in enumerate(widths):
        found |= linear(rng, f"{2 * i}.", n_in, n_out)
    return found


MODELS = {
    "linear_regression": Model({"regression": "mse_loss"}, "line", _one_layer),
    "logistic_regression": Model({"binary": "binary_cross_entropy"}, "breast_cancer", _one_layer),
    "mlp": Model(
        {
            "regression": "mse_loss",
            "binary": "binary_cross_entropy_with_logits",
            "multiclass": "cross_entropy",
        },
        "digits",
        _layers,
        settings=lambda cell: {"activation": cell.activation},
        shape=lambda cell: f"{'-'.join(map(str, cell.hidden))} {cell.activation}",
    ),
}
