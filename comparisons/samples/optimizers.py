"""Settings of each optimizer that differ in kind; {} are the defaults."""

from typing import Any

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {"lr": 0.01},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.5},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 0.01, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.01, "nesterov": True, "maximize": True},
    ],
    "rmsprop": [
        {},
        {"alpha": 0.9, "eps": 1e-6},
        {"centered": True},
        {"momentum": 0.5, "centered": True, "weight_decay": 0.1},
        {"lr": 0.001, "maximize": True},
    ],
    "adagrad": [
        {},
        {"lr": 0.1, "lr_decay": 0.01},
        {"initial_accumulator_value": 0.1},
        {"weight_decay": 0.1, "eps": 1e-6},
        {"lr": 0.1, "lr_decay": 0.001, "weight_decay": 0.01, "maximize": True},
    ],
    "adam": [
        {},
        {"betas": (0.5, 0.9), "eps": 1e-4},
        {"amsgrad": True},
        {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01, "maximize": True},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "adamw": [
        {},
        {"lr": 0.01, "weight_decay": 0.1},
        {"weight_decay": 0.0},
        {"amsgrad": True},
        {"betas": (0.8, 0.99), "eps": 1e-6, "maximize": True},
    ],
}
