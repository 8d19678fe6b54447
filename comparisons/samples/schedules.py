"""Settings of each schedule, so that warm-up, restarts and boundary steps lie within STEPS."""

from __future__ import annotations

from typing import Any

STEPS = 60
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "lambda_lr": [
        {"lr_lambda": lambda t: 0.95**t},
        {"lr_lambda": lambda t: min(1.0, (t + 1) / 10)},
    ],
    "multiplicative_lr": [
        {"lr_lambda": lambda t: 0.9},
        {"lr_lambda": lambda t: 0.5 if t % 7 == 0 else 1.02},
    ],
    "step_lr": [{"step_size": 7}, {"step_size": 1, "gamma": 0.97}],
    "multi_step_lr": [
        {"milestones": [5, 20, 21]},
        {"milestones": [9, 9, 40], "gamma": 0.5},
    ],
    "constant_lr": [{}, {"factor": 0.5, "total_iters": 12}, {"total_iters": 0}],
    "linear_lr": [{}, {"start_factor": 0.01, "end_factor": 0.7, "total_iters": 25}],
    "exponential_lr": [{"gamma": 0.93}, {"gamma": 1.02}],
    "polynomial_lr": [{}, {"total_iters": 40, "power": 2.0}, {"total_iters": 33, "power": 0.5}],
    "cosine_annealing_lr": [{"T_max": 60}, {"T_max": 13, "eta_min": 0.01}],
    "cosine_annealing_warm_restarts": [
        {"T_0": 10},
        {"T_0": 5, "T_mult": 2, "eta_min": 0.001},
        {"T_0": 1, "T_mult": 3},
    ],
    "cyclic_lr": [
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 8},
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5, "mode": "triangular2"},
        {
            "base_lr": 0.01,
            "max_lr": 0.1,
            "step_size_up": 4,
            "step_size_down": 9,
            "mode": "exp_range",
            "gamma": 0.97,
            "base_momentum": 0.7,
            "max_momentum": 0.95,
        },
        {
            "base_lr": 0.02,
            "max_lr": 0.3,
            "step_size_up": 6,
            "scale_fn": lambda n: 1 / n,
            "cycle_momentum": False,
        },
    ],
    "one_cycle_lr": [
        {"max_lr": 0.3, "total_steps": 60},
        {"max_lr": 0.3, "epochs": 12, "steps_per_epoch": 5, "anneal_strategy": "linear"},
        {"max_lr": 0.2, "total_steps": 60, "three_phase": True, "pct_start": 0.25},
        {"max_lr": 0.2, "total_steps": 61, "cycle_momentum": False, "div_factor": 10.0},
    ],
    "swa_lr": [
        {"swa_lr": 0.02},
        {"swa_lr": 0.5, "anneal_epochs": 25, "anneal_strategy": "linear"},
        {"swa_lr": 0.05, "anneal_epochs": 0},
    ],
    "reduce_lr_on_plateau": [
        {"patience": 3},
        {"patience": 2, "cooldown": 4, "factor": 0.5, "min_lr": 0.004},
        {"mode": "max", "patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
        {"patience": 0, "eps": 0.02, "factor": 0.7},
    ],
    "sequential_lr": [
        {
            "schedules": [
                ("linear_lr", {"start_factor": 0.1, "total_iters": 10}),
                ("cosine_annealing_lr", {"T_max": 50}),
            ],
            "milestones": [10],
        },
        {
            "schedules": [
                ("constant_lr", {"factor": 0.1, "total_iters": 6}),
                ("exponential_lr", {"gamma": 0.9}),
                ("step_lr", {"step_size": 4, "gamma": 0.5}),
            ],
            "milestones": [8, 30],
        },
    ],
    "chained_scheduler": [
        {
            "schedules": [
                ("constant_lr", {"factor": 0.1, "total_iters": 8}),
                ("exponential_lr", {"gamma": 0.95}),
            ]
        },
        {
            "schedules": [
                ("linear_lr", {"start_factor": 0.2, "total_iters": 15}),
                ("multi_step_lr", {"milestones": [20, 45], "gamma": 0.3}),
                ("step_lr", {"step_size": 10, "gamma": 0.9}),
            ]
        },
    ],
}
