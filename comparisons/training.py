"""One training loop, for either side, and the cell that says what is trained."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import manual, reference
from ..reference.adapters import rule
from .datasets import DATASETS, Data, load
from .samples.optimizers import SAMPLES
from .verdict import DTYPES

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
OPTIMIZERS = [name for name in SAMPLES if name not in ("sparse_adam", "muon", "lbfgs")]
REGIMES = ("batch", "stochastic", "mini-batch")  # all samples, one at random, a few at random


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
        choices: dict[str, Collection[str]] = {
            "model": MODELS,
            "data": DATASETS,
            "optimizer": OPTIMIZERS,
            "regime": REGIMES,
            "dtype": DTYPES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
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
        accepted = inspect.signature(getattr(manual.optimizers, self.optimizer)).parameters
        for name in self.settings:
            if name not in list(accepted)[3:]:
                raise ValueError(
                    f"{name}: no setting of {self.optimizer}; its settings are "
                    f"{', '.join(list(accepted)[3:])}"
                )
        nothing = np.zeros(1)
        getattr(manual.optimizers, self.optimizer)(nothing, nothing, {}, **self.all_settings)
        one = np.zeros((1, 1), self.dtype)
        getattr(manual.models, self.model)(start(self, 1, 1), one, **self.model_settings)

    @property
    def all_settings(self) -> dict[str, Any]:
        return {"lr": self.lr, **self.settings}

    @property
    def loss(self) -> str:
        return MODELS[self.model][load(self.data).task]

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"activation": self.activation} if self.model == "mlp" else {}


@dataclass(frozen=True)
class Side:
    """What the loop calls: by hand or by torch."""

    batch: Callable[[int], tuple[np.ndarray, np.ndarray]]  # step → x, target
    gradient: Callable[
        [Arrays, np.ndarray, np.ndarray], tuple[np.ndarray, Arrays]
    ]  # → loss, gradients
    step: Callable[
        ..., tuple[Arrays, dict[str, Any]]
    ]  # parameters, gradients, states, settings → the first and third anew


@dataclass(frozen=True)
class Step:
    """One step of a run: what went in, and what came out."""

    t: int
    parameters: Arrays
    states: dict[str, Any]
    batch: tuple[np.ndarray, np.ndarray]
    loss: np.ndarray
    gradients: Arrays
    new_parameters: Arrays
    new_states: dict[str, Any]


def train(
    side: Side,
    parameters: Arrays,
    steps: int,
    settings: dict[str, Any],
    disturb: Callable[[Any], Any] = lambda tree: tree,
) -> Iterator[Step]:
    """Runs the loop and yields every step; it ends early once a parameter is no longer finite.

    `disturb` is applied to what each step sees, parameters and batch, and to the gradient that it
    makes.
    """
    states: dict[str, Any] = {name: {} for name in parameters}
    for t in range(steps):
        parameters, batch = disturb((parameters, side.batch(t)))
        with np.errstate(over="ignore", invalid="ignore"):  # a run may diverge: that is a result
            loss, gradients = side.gradient(parameters, *batch)
            gradients = disturb(gradients)
            new_parameters, new_states = side.step(parameters, gradients, states, settings)
        yield Step(t, parameters, states, batch, loss, gradients, new_parameters, new_states)
        parameters, states = new_parameters, new_states
        if not all(np.all(np.isfinite(p)) for p in parameters.values()):
            return


def by_hand(cell: Cell, data: Data) -> Side:
    """The hand-written side: rules composed by hand, one optimizer step per parameter."""
    model, loss = getattr(manual.models, cell.model), getattr(manual.losses, cell.loss)
    optimizer = getattr(manual.optimizers, cell.optimizer)

    def gradient(
        parameters: Arrays, x: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, Arrays]:
        output, pull_model = model(parameters, x, **cell.model_settings)
        value, pull_loss = loss(output, target)
        doutput = pull_loss(np.ones_like(value))
        dparameters, _ = pull_model(doutput[0] if isinstance(doutput, tuple) else doutput)
        return value, dparameters

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        stepped = {
            name: optimizer(parameters[name], gradients[name], states[name], **settings)
            for name in parameters
        }
        return {n: p for n, (p, _) in stepped.items()}, {n: s for n, (_, s) in stepped.items()}

    return Side(_batches(cell, data), gradient, step)


def by_torch(cell: Cell, data: Data) -> Side:
    """Torch's side: the loss of the model differentiated as one, all parameters stepped as one
    group."""
    model = getattr(reference.models, cell.model).__wrapped__
    loss = getattr(reference.losses, cell.loss).__wrapped__

    @rule
    def objective(parameters, x, target):  # type: ignore[no-untyped-def]
        return loss(model(parameters, x, **cell.model_settings), target)

    def gradient(
        parameters: Arrays, x: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, Arrays]:
        value, pullback = objective(parameters, x, target)
        return value, pullback(np.ones_like(value))[0]

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        names = list(parameters)
        lists = ([tree[name] for name in names] for tree in (parameters, gradients, states))
        new, new_states = getattr(reference.optimizers, cell.optimizer)(*lists, **settings)
        return dict(zip(names, new, strict=True)), dict(zip(names, new_states, strict=True))

    return Side(_batches(cell, data), gradient, step)


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


def _batches(cell: Cell, data: Data) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step → (x, target): all samples, or an epoch's random order cut into batches."""
    x = data.x.astype(cell.dtype)
    target = data.target.astype(cell.dtype) if data.target.dtype.kind == "f" else data.target
    if cell.regime == "batch":
        return lambda t: (x, target)
    size = 1 if cell.regime == "stochastic" else cell.batch_size

    def orders() -> Iterator[np.ndarray]:
        rng = np.random.default_rng([cell.seed, 1])
        while True:
            order = rng.permutation(len(x))
            yield from (order[i : i + size] for i in range(0, len(x), size))

    picks = list(itertools.islice(orders(), cell.steps))
    return lambda t: (x[picks[t]], target[picks[t]])
