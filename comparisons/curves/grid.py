"""The cells that `gradtwin` runs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ...manual.names import unknown
from ..ops.optimizers import named
from ..training.cells import CHOICES, MODELS, OPTIMIZERS, Cell

# Where nothing is said: an optimizer's rate, if that is not torch's default.
LR = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01, "adamw": 0.01}

# What `gradtwin` runs: every model, data set, optimizer, regime and dtype, the longest first.
GRID = (
    # chaos: the drift grows to the size of the loss
    Cell("mlp", "digits", "sgd", 2.0, regime="mini-batch", batch_size=64, steps=120),
    Cell("mlp", "digits", "adam", 0.01, regime="mini-batch", steps=120, dtype="float32"),
    Cell("mlp", "breast_cancer", "sgd", 0.1, {"momentum": 0.9, "nesterov": True}, steps=110,
         dtype="float32", hidden=(16, 8), activation="relu"),
    Cell("mlp", "diabetes", "adagrad", 0.05, steps=110, hidden=(16,), activation="sigmoid"),
    Cell("mlp", "breast_cancer", "rmsprop", 0.01, {"centered": True}, regime="mini-batch",
         steps=110, hidden=(16,)),
    Cell("mlp", "digits", "adamw", 0.01, regime="stochastic", steps=120, activation="relu"),
    Cell("logistic_regression", "breast_cancer", "sgd", 0.1, {"momentum": 0.9}, steps=120),
    Cell("logistic_regression", "breast_cancer", "adam", 0.01, regime="mini-batch", steps=120,
         dtype="float32"),
    Cell("linear_regression", "diabetes", "sgd", 0.1, steps=200),
    Cell("linear_regression", "diabetes", "adam", 0.01, regime="stochastic", steps=120,
         dtype="float32"),
    Cell("linear_regression", "line", "sgd", 0.1, steps=200),
    Cell("linear_regression", "line", "sgd", 0.1, steps=200, dtype="float32"),
    Cell("linear_regression", "line", "rmsprop", 0.01, regime="stochastic", steps=120),
)  # fmt: skip


def from_words(given: Mapping[str, Sequence[Any]], settings: dict[str, Any]) -> list[Cell]:
    """The cells of all combinations of what is given for each field of a Cell; all have the
    settings of the optimizer. ValueError or TypeError for one that cannot be."""
    for name, allowed in CHOICES.items():
        for value in given.get(name, ()):
            if value not in allowed:
                raise ValueError(unknown(name, value, allowed))
    combinations = itertools.product(*given.values())
    return [_cell(dict(zip(given, values, strict=True)), settings) for values in combinations]


def _cell(given: dict[str, Any], settings: dict[str, Any]) -> Cell:
    given = {"model": "mlp", "optimizer": "sgd", **given}
    for name in ("data", "regime", "batch_size"):
        given.setdefault(name, getattr(MODELS[given["model"]], name))
    if given["optimizer"] in OPTIMIZERS:
        accepted = inspect.signature(named(given["optimizer"]).rule).parameters
        given.setdefault("lr", LR.get(given["optimizer"], accepted["lr"].default))
    return Cell(settings=settings, **given)
