"""The cells that `gradtwin` runs."""

from __future__ import annotations

from ..training.cells import Cell

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
