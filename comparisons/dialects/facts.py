"""What is known of an optimizer when its settings are looked for: of torch's, and of others."""

from __future__ import annotations

import inspect
from typing import Any

from ...manual import dialects
from ...reference.adapters import AMOUNT, SCALE, SHARE, OptimizerFacts
from ..ops import optimizers

_MOMENTS = {"lr": SCALE, "betas": (SHARE, SHARE), "eps": SCALE, "weight_decay": AMOUNT}
_SIGNS = {"lr": SCALE, "betas": (SHARE, SHARE), "weight_decay": AMOUNT}
_DECOUPLED = {"decoupled_weight_decay": True}

# Of those that torch does not have. What a tensor of decay, and one without, has in common is
# tried from 0: a search that begins at a decay finds it in noise.
ELSEWHERE = {
    "lion": OptimizerFacts(free=_SIGNS),
    "cautious_lion": OptimizerFacts(elementwise=False, free=_SIGNS),
    "cautious_adamw": OptimizerFacts(elementwise=False, free=_MOMENTS),
    "qhm": OptimizerFacts(
        free={"lr": SCALE, "momentum": SHARE, "nu": AMOUNT, "weight_decay": AMOUNT},
        choices=(_DECOUPLED,),
    ),
    "qhadam": OptimizerFacts(free={**_MOMENTS, "nus": (AMOUNT, AMOUNT)}, choices=(_DECOUPLED,)),
    "adabelief": OptimizerFacts(free={**_MOMENTS, "eps_root": SCALE}, choices=(_DECOUPLED,)),
    "yogi": OptimizerFacts(free={**_MOMENTS, "initial_accumulator_value": AMOUNT}),
    "adabound": OptimizerFacts(
        free={**_MOMENTS, "final_lr": SCALE, "gamma": SCALE}, choices=({"amsgrad": True},)
    ),
    "lamb": OptimizerFacts(elementwise=False, free=_MOMENTS),
    "lars": OptimizerFacts(
        elementwise=False,
        free={"lr": SCALE, "momentum": SHARE, "weight_decay": AMOUNT},
        choices=({"nesterov": True},),
    ),
    "stable_adamw": OptimizerFacts(elementwise=False, free=_MOMENTS),
    "schedule_free_sgd": OptimizerFacts(
        free={"lr": SCALE, "momentum": SHARE, "weight_decay": AMOUNT}
    ),
    "schedule_free_adamw": OptimizerFacts(free=_MOMENTS),
    "ftrl": OptimizerFacts(
        free={
            "lr": SCALE,
            "initial_accumulator_value": AMOUNT,
            "l1": AMOUNT,
            "beta": AMOUNT,  # before l2: at one rate, β / lr is as 2 l2, which is written
            "l2": AMOUNT,
        }
    ),
}
OPTIMIZERS = [o.name for o in optimizers.every() if o.facts.free] + list(ELSEWHERE)


def facts(name: str) -> OptimizerFacts:
    """What is peculiar about the optimizer of this name."""
    return ELSEWHERE.get(name) or optimizers.named(name).facts


def defaults(name: str) -> dict[str, Any]:
    """Those of its settings that may be looked for, as numbers."""
    accepted = inspect.signature(dialects.rule_of(name)).parameters
    known = facts(name)
    return {n: accepted[n].default for n in known.free} | known.start
