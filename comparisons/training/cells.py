"""What is trained: a model, data, an optimizer, a regime."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...manual.names import unknown
from .. import ops
from ..ops import optimizers
from ..verdict.classes import DTYPES
from .datasets import DATASETS, load

Arrays = dict[str, np.ndarray]

# model → task of the data → loss
MODELS = {
    "linear_regression": {"regression": "mse_loss"},
    "logistic_regression": {"binary": "binary_cross_entropy"},
    "mlp": {
        "regression": "mse_loss",
        "binary": "binary_cross_entropy_with_logits",
        "multiclass": "cross_entropy",
    },
}

# Those that step any parameter from its gradient alone.
OPTIMIZERS = [
    optimizer.name
    for optimizer in optimizers.every()
    if optimizer.mirror is not None and optimizer.facts.takes == "gradient"
]
REGIMES = ("batch", "stochastic", "mini-batch")  # all samples, one at random, a few at random
CHOICES: dict[str, Collection[str]] = {
    "model": MODELS,
    "data": DATASETS,
    "optimizer": OPTIMIZERS,
    "regime": REGIMES,
    "dtype": DTYPES,
}


@dataclass(frozen=True)
class Cell:
    """One training run: what is trained, on what, how, and from which seed.

    Raises ValueError for a choice that does not exist or a setting that the optimizer refuses.
    """

    model: str
    data: str
    optimizer: str
    lr: float
    settings: dict[str, Any] = field(default_factory=dict)  # of the optimizer, beside lr
    regime: str = "batch"
    batch_size: int = 32  # of mini-batches
    steps: int = 400
    dtype: str = "float64"
    seed: int = 0
    hidden: tuple[int, ...] = (32,)  # widths of an mlp's hidden layers
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(unknown(name, getattr(self, name), allowed))
        if not math.isfinite(self.lr):
            raise ValueError(f"lr: expected a finite number, got {self.lr}")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        if not all(width > 0 for width in self.hidden):
            raise ValueError(f"hidden: expected widths of at least 1, got {self.hidden}")
        task = load(self.data).task
        if task not in MODELS[self.model]:
            raise ValueError(
                f"data: {self.model} needs {' or '.join(MODELS[self.model])} data, "
                f"and {self.data} is {task}"
            )
        accepted = inspect.signature(optimizers.named(self.optimizer).rule).parameters
        for name in self.settings:
            if name not in list(accepted)[3:]:
                raise ValueError(
                    f"{name}: no setting of {self.optimizer}; its settings are "
                    f"{', '.join(list(accepted)[3:])}"
                )
        nothing = np.zeros(1)
        optimizers.named(self.optimizer).rule(nothing, nothing, {}, **self.all_settings)
        one = np.zeros((1, 1), self.dtype)
        ops.named(self.model).rule(start(self, 1, 1), one, **self.model_settings)

    @property
    def all_settings(self) -> dict[str, Any]:
        return {"lr": self.lr, **self.settings}

    @property
    def loss(self) -> str:
        return MODELS[self.model][load(self.data).task]

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"activation": self.activation} if self.model == "mlp" else {}


def start(cell: Cell, features: int, outputs: int) -> Arrays:
    """Parameters between ±1/√fan-in, as torch.nn.Linear draws them (LeCun et al., 1998)."""
    rng = np.random.default_rng([cell.seed, 0])
    deep = cell.model == "mlp"
    widths = (features, *cell.hidden, outputs) if deep else (features, outputs)
    parameters = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        prefix = f"{2 * i}." if deep else ""
        for name, shape in (("weight", (n_out, n_in)), ("bias", (n_out,))):
            drawn = rng.uniform(-1, 1, shape) / math.sqrt(n_in)
            parameters[f"{prefix}{name}"] = drawn.astype(cell.dtype)
    return parameters
