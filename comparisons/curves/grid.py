"""The cells that `gradtwin` runs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...manual.names import unknown
from ..ops.optimizers import named
from ..training.cells import CHOICES, MODELS, OPTIMIZERS, Cell
from .divergence import described

# Where nothing is said: an optimizer's rate, if that is not torch's default.
LR = {"sgd": 0.1, "adagrad": 0.05, "adam": 0.01, "adamw": 0.01}

# What `gradtwin` runs: every model, data set, optimizer, regime and dtype, the longest first.
GRID = (
    # of text and of images, made small
    Cell("gpt", "text", "adamw", 0.01, regime="mini-batch", batch_size=4, steps=40, dtype="float32",
         size={"width": 16}),
    Cell("llama", "text", "sgd", 0.1, regime="mini-batch", batch_size=4, steps=40, dtype="float32",
         size={"width": 16, "feed_forward": 40}),
    Cell("char_lstm", "text", "adamw", 0.01, regime="mini-batch", batch_size=4, steps=40,
         dtype="float32", size={"width": 16, "embedding": 8}),
    Cell("char_gru", "text", "sgd", 0.1, regime="mini-batch", batch_size=4, steps=40,
         size={"width": 16, "embedding": 8}),
    Cell("char_rnn", "text", "sgd", 0.1, regime="mini-batch", batch_size=4, steps=40,
         dtype="float32", size={"width": 16, "embedding": 8}),
    Cell("vit", "digits", "adamw", 0.01, regime="mini-batch", batch_size=8, steps=40,
         dtype="float32", size={"width": 8}),
    Cell("resnet", "digits", "sgd", 0.1, {"momentum": 0.9}, regime="mini-batch", batch_size=8,
         steps=40),
    Cell("convnet", "digits", "adamw", 0.01, regime="mini-batch", batch_size=8, steps=40,
         dtype="float32", size={"width": 4}),
    Cell("autoencoder", "digits", "sgd", 0.1, regime="mini-batch", batch_size=8, steps=40,
         dtype="float32", size={"width": 4}),
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


ALL = "all"  # as a value: each that there is


@dataclass(frozen=True)
class Grid:
    """Cells, and why combinations are no cells: a reason for each that was left out."""

    cells: list[Cell]
    left_out: list[str]

    @property
    def told(self) -> str:
        """How many combinations were left out, and why."""
        if not self.left_out:
            return ""
        count = f"{len(self.left_out)} of {len(self.cells) + len(self.left_out)} combinations"
        reasons = list(dict.fromkeys(self.left_out))
        more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        return f"{count} do not exist: {'; '.join(reasons[:3])}{more}"


def from_words(given: Mapping[str, Sequence[Any]], settings: dict[str, Any]) -> Grid:
    """The cells of all combinations of what is given for each field of a Cell, where `all` stands
    for each choice that there is; all have the settings of the optimizer.

    Combinations that cannot be are left out. ValueError or TypeError for a choice that does not
    exist, and for a value in no cell at all, unless `all` stands for it.
    """
    wanted: dict[str, list[Any]] = {}
    for name, values in given.items():
        allowed = CHOICES.get(name, ())
        for value in values:
            if allowed and value not in (ALL, *allowed):
                raise ValueError(unknown(name, value, allowed))
        every = [v for value in values for v in (allowed if allowed and value == ALL else [value])]
        wanted[name] = list({str(value): value for value in every}.values())
    cells: dict[str, Cell] = {}  # by id: some models do not have what is varied in others
    left_out: list[tuple[dict[str, Any], Exception]] = []
    unused = {name: {str(v) for v in values if v != ALL} for name, values in given.items()}
    for values in itertools.product(*wanted.values()):
        combination = dict(zip(wanted, values, strict=True))
        try:
            cell = _cell(combination, settings)
        except (ValueError, TypeError) as error:
            left_out.append((combination, error))
        else:
            cells.setdefault(described(cell)["id"], cell)
            for name, value in combination.items():
                unused[name].discard(str(value))
    for combination, why in left_out:
        if not cells or any(str(combination[name]) in unused[name] for name in combination):
            raise why
    return Grid([*cells.values()], [str(why) for _, why in left_out])


def _cell(given: dict[str, Any], settings: dict[str, Any]) -> Cell:
    given = {"model": "mlp", "optimizer": "sgd", **given}
    for name in ("data", "regime", "batch_size"):
        given.setdefault(name, getattr(MODELS[given["model"]], name))
    if given["optimizer"] in OPTIMIZERS:
        accepted = inspect.signature(named(given["optimizer"]).rule).parameters
        given.setdefault("lr", LR.get(given["optimizer"], accepted["lr"].default))
    return Cell(settings=settings, **given)
