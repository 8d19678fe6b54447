"""The dialects of an optimizer side by side: the step at which any two of them part."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...manual import dialects
from ...manual.dialects import Dialect
from ..dialects.candidates import Candidate, run
from ..dialects.facts import defaults, facts
from ..dialects.judged import judged
from ..dialects.trajectory import Trajectory
from ..optimizers.streams import SHAPE, STREAMS

STEPS = 20
# So that what is usually 0, or too small to have an effect, is heard.
TELLING = {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9, "dampening": 0.1}


def parted(optimizer: str) -> tuple[list[str], list[list[int | None]]]:
    """(names, steps): the rule as it stands and each of its dialects; and for every two of them the
    first step, from 1, at which one leaves what the other does by more than rounding, or None. The
    stream is that of mixed sizes in float32, with a rate that falls by 3 % at each step.
    """
    several: list[Dialect | None] = [None, *dialects.of(optimizer)]
    names = ["the rule", *(f"{d.about}: {d.name}" for d in several if d)]
    rng = np.random.default_rng(5)
    param = rng.standard_normal(SHAPE).astype(np.float32)
    grads = STREAMS["mixed"](STEPS, 0).astype(np.float32)
    steps: list[list[int | None]] = [[None] * len(several) for _ in several]
    for i, one in enumerate(several):
        for j, other in enumerate(several[:i]):
            settings = _telling(optimizer, one) | _telling(optimizer, other)
            lr = settings["lr"] * 0.97 ** np.arange(STEPS)
            still = Trajectory(((np.tile(param, (STEPS + 1, 1, 1)), grads),), lr)
            made = run(_candidate(optimizer, one, settings), still).reshape(STEPS, *SHAPE)
            record = Trajectory(((np.concatenate([param[None], made]), grads),), lr)
            leaves = judged(_candidate(optimizer, other, settings), record).leaves
            steps[i][j] = steps[j][i] = leaves
    return names, steps


def _telling(optimizer: str, dialect: Dialect | None) -> dict[str, Any]:
    """Settings under which the dialect has an effect."""
    settings = defaults(optimizer)
    settings |= {
        n: v for n, v in TELLING.items() if n in settings and isinstance(settings[n], float)
    }
    choices = {n for choice in facts(optimizer).choices for n in choice}
    if dialect and dialect.about == "decay" and "decoupled_weight_decay" in choices:
        settings["decoupled_weight_decay"] = True
    if dialect and dialect.about == "maximum":
        settings["amsgrad"] = True
    return settings


def _candidate(optimizer: str, dialect: Dialect | None, settings: dict[str, Any]) -> Candidate:
    return Candidate(optimizer, (dialect,) if dialect else (), settings, ())
