"""What is trained: a model, data, an optimizer, a regime."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...manual.models.layers import parted
from ...manual.names import unknown
from .. import ops
from ..ops import optimizers
from ..verdict.classes import DTYPES
from . import dense, text, vision
from .datasets import DATASETS, Data, load
from .models import Arrays, Model
from .recipes import RECIPES, begun, of_model

MODELS: dict[str, Model] = {**dense.MODELS, **text.MODELS, **vision.MODELS}

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
    "recipe": ("", *RECIPES),
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
    size: dict[str, Any] = field(default_factory=dict)  # of other models, where not their own
    recipe: str = ""  # one of RECIPES: accumulation, clipping, decay, a schedule, precision

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
        self._check_size()
        data, losses = load(self.data), MODELS[self.model].losses
        if data.task not in losses:
            raise ValueError(
                f"data: {self.model} needs {' or '.join(losses)} data, "
                f"and {self.data} is {data.task}"
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
        if self.recipe:
            self._check_recipe(accepted)
        self._check_model(data)

    def _check_size(self) -> None:
        """Raises ValueError unless the model is made of what has a size, and each is a number that
        counts something where the model's own does."""
        known = MODELS[self.model].size
        for name, value in self.size.items():
            if name not in known:
                raise ValueError(
                    f"size: {self.model} has {', '.join(known) or 'none'}, and no {name}"
                )
            counts = isinstance(known[name], int)
            if value < counts or (counts and not isinstance(value, int)):
                raise ValueError(f"{name}: expected a size of the model, got {value}")

    def _check_recipe(self, accepted: Collection[str]) -> None:
        """Raises ValueError for an optimizer that does not decay, a regime or batches without
        micro-batches, a model with buffers, and, of 16 bits, for float64 or a model that knows
        none."""
        precision, parts = RECIPES[self.recipe].precision, RECIPES[self.recipe].accumulation
        rule = inspect.signature(ops.named(self.model).rule).parameters
        reasons = {
            "an optimizer with weight_decay": "weight_decay" in accepted,
            "mini-batches": self.regime == "mini-batch",
            f"a batch_size that {parts} divides": self.batch_size % parts == 0,
            "a model without buffers": "buffers" not in rule,
            "dtype float32": not precision or self.dtype == "float32",
            "a model with 16 bits": not precision or "precision" in rule,
        }
        for expected, good in reasons.items():
            if not good:
                raise ValueError(f"recipe: {self.recipe} needs {expected}")

    def _check_model(self, data: Data) -> None:
        """Raises as the rule does, which is given what it is trained on, but two samples of it."""
        x, _ = self.seen(data)
        drawn = self.drawn(x[:2], 0)
        parameters, buffers = parted(of_model(start(self)))
        given = (buffers,) if buffers else ()
        ops.named(self.model).rule(parameters, x[:2], *given, **self.model_settings, **drawn)

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of the model, those that are not its own among them."""
        return {**MODELS[self.model].size, **self.size}

    @property
    def shape(self) -> str:
        """What the model is made of, as a text."""
        return MODELS[self.model].shape(self)

    def seen(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """x and target, sample by sample, as the model takes them, in the dtype of the cell."""
        found = MODELS[self.model].seen(data, self)
        x, target = (a.astype(self.dtype) if a.dtype.kind == "f" else a for a in found)
        return x, target

    def drawn(self, x: np.ndarray, t: int) -> dict[str, Any]:
        """What is drawn at step t for a batch, by keywords of the rule; the same on both sides."""
        return MODELS[self.model].drawn(self, x, np.random.default_rng([self.seed, 3, t]))

    def written(self, model: Callable[..., Any], parameters: Arrays) -> str:
        """What the model, its rule or its mirror, writes; "" if it is none of language, or has
        diverged."""
        finite = all(np.isfinite(a).all() for a in parameters.values())
        return MODELS[self.model].written(self, model, of_model(parameters)) if finite else ""

    @property
    def all_settings(self) -> dict[str, Any]:
        return {"lr": self.lr, **self.settings}

    @property
    def loss(self) -> str:
        return MODELS[self.model].losses[load(self.data).task]

    @property
    def model_settings(self) -> dict[str, Any]:
        half = {"precision": self.precision} if self.precision else {}
        return MODELS[self.model].settings(self) | half

    @property
    def precision(self) -> str:
        """The type of 16 bits in which some of it runs, "" for none."""
        return RECIPES[self.recipe].precision if self.recipe else ""


def start(cell: Cell) -> Arrays:
    """The parameters and buffers that a training begins with, drawn as torch draws them, and
    what its recipe remembers."""
    rng = np.random.default_rng([cell.seed, 0])
    found = MODELS[cell.model].start(rng, load(cell.data), cell)
    found |= begun(RECIPES[cell.recipe]) if cell.recipe else {}
    return {n: a.astype(cell.dtype) if a.dtype.kind == "f" else a for n, a in found.items()}
