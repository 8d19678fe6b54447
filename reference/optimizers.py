"""Optimizers."""

import torch

from .adapters import AMOUNT, SCALE, SHARE, search, sparse, step

_MOMENTS = {"lr": SCALE, "betas": (SHARE, SHARE), "eps": SCALE, "weight_decay": AMOUNT}
_DECOUPLED = {"decoupled_weight_decay": True}

sgd = step(
    torch.optim.SGD,
    free={"lr": SCALE, "momentum": SHARE, "dampening": SHARE, "weight_decay": AMOUNT},
    choices=({"nesterov": True, "dampening": 0.0},),
    timed=({}, {"momentum": 0.9}),
)
adagrad = step(
    torch.optim.Adagrad,
    free={
        "lr": SCALE,
        "eps": SCALE,
        "initial_accumulator_value": AMOUNT,
        "lr_decay": AMOUNT,
        "weight_decay": AMOUNT,
    },
)
rmsprop = step(
    torch.optim.RMSprop,
    free={
        "lr": SCALE,
        "alpha": SHARE,
        "eps": SCALE,
        "momentum": SHARE,
        "weight_decay": AMOUNT,
    },
    choices=({"centered": True},),
)
adadelta = step(
    torch.optim.Adadelta, free={"lr": SCALE, "rho": SHARE, "eps": SCALE, "weight_decay": AMOUNT}
)
adam = step(
    torch.optim.Adam,
    free=_MOMENTS,
    choices=({"amsgrad": True}, _DECOUPLED, {"amsgrad": True, **_DECOUPLED}),
)
adamw = step(torch.optim.AdamW, alias=("adam", _DECOUPLED))
adamax = step(torch.optim.Adamax, free=_MOMENTS)
nadam = step(torch.optim.NAdam, free={**_MOMENTS, "momentum_decay": AMOUNT}, choices=(_DECOUPLED,))
radam = step(torch.optim.RAdam, free=_MOMENTS, choices=(_DECOUPLED,))
rprop = step(
    torch.optim.Rprop, free={"lr": SCALE, "etas": (SHARE, SCALE), "step_sizes": (SCALE, SCALE)}
)
asgd = step(
    torch.optim.ASGD,
    free={"lr": SCALE, "lambd": AMOUNT, "alpha": AMOUNT, "weight_decay": AMOUNT},
)
adafactor = step(
    torch.optim.Adafactor,
    elementwise=False,
    free={"lr": SCALE, "eps": (SCALE, SCALE), "weight_decay": AMOUNT},
    start={"eps": (1e-30, 1e-3)},
)
sparse_adam = step(torch.optim.SparseAdam, sparse, takes="rows", elementwise=False)
muon = step(getattr(torch.optim, "Muon", None), takes="matrix", elementwise=False)
lbfgs = search(
    torch.optim.LBFGS,
    single={"max_iter": 1, "max_eval": 26},
    timed=({"max_iter": 1, "history_size": 2, "tolerance_grad": 0, "tolerance_change": 0},),
)
