"""Settings of each optimizer that differ in kind; {} are the defaults.

SAMPLES are what torch's own tests leave out, `configurations` those and torch's together.
"""

from __future__ import annotations

from typing import Any

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.01, "nesterov": True, "maximize": True},
    ],
    "adagrad": [
        {"initial_accumulator_value": 0.1},
        {"weight_decay": 0.1, "eps": 1e-6},
        {"lr": 0.1, "lr_decay": 0.001, "weight_decay": 0.01, "maximize": True},
    ],
    "rmsprop": [
        {"alpha": 0.9, "eps": 1e-6},
        {"centered": True},
        {"momentum": 0.5, "centered": True, "weight_decay": 0.1},
    ],
    "adadelta": [{"rho": 0.5, "eps": 1e-3}],
    "adam": [
        {"betas": (0.5, 0.9), "eps": 1e-4},
        {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01, "maximize": True},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "adamw": [{"amsgrad": True}, {"betas": (0.8, 0.99), "eps": 1e-6, "maximize": True}],
    "adamax": [{"betas": (0.5, 0.9), "eps": 1e-3}],
    "nadam": [{"betas": (0.5, 0.9), "eps": 1e-4}],
    "radam": [{"betas": (0.5, 0.9)}, {"betas": (0.5, 0.7)}],
    "rprop": [{"etas": (0.3, 1.1), "step_sizes": (1e-3, 0.1)}],
    "asgd": [{"lr": 0.05, "lambd": 0.01, "alpha": 0.5, "t0": 20}],
    "adafactor": [{"eps": (1e-6, 0.1), "d": 2.0}, {"lr": 0.5}],
    "sparse_adam": [{"betas": (0.5, 0.9), "eps": 1e-4}],
    "muon": [{"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw", "eps": 1e-3}],
    "lbfgs": [{"history_size": 3, "max_iter": 7, "line_search_fn": "strong_wolfe"}],
}
