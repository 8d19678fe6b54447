"""The schedule-parity table: every closed form beside torch's, which goes from step to step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import manual, reference
from ..reference.adapters import listed
from .noise import unit_roundoff
from .samples import written
from .samples.schedules import STEPS
from .verdict import DIFFERENT, DRAWS, IDENTICAL, LIMIT, REFERENCE_IMPRECISE, ROUNDING

LR = 0.1  # that every schedule starts from
U = unit_roundoff(float)


def inputs(name: str, seed: int = 0) -> np.ndarray:
    """All steps from 0; for the one schedule that takes metrics, a loss that falls and levels
    off."""
    if name != "reduce_lr_on_plateau":
        return np.arange(STEPS)
    rng = np.random.default_rng([seed, 8])
    return np.exp(-np.arange(STEPS) / 15) + 0.05 * rng.standard_normal(STEPS)


def curves(name: str, settings: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Each quantity by hand and by torch: (2 or 3, STEPS); the third is torch's closed form, where
    it has one."""
    at = inputs(name, seed)
    ours = listed(getattr(manual.schedules, name)(at, lr=LR, **settings))
    twin = getattr(reference.schedules, name)
    theirs = listed(twin(at, lr=LR, **settings))
    closed = twin(at, lr=LR, closed=True, **settings)
    if len(ours) != len(theirs):
        raise ValueError(f"{name}: expected {len(theirs)} quantities, got {len(ours)}")
    found = dict(
        zip(("lr", "momentum"), map(np.array, zip(ours, theirs, strict=True)), strict=False)
    )
    if closed is not None:
        found["lr"] = np.array([*found["lr"], closed])
    return found


def rows(name: str, settings: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """The rows of one schedule with one choice of settings, one for each quantity.

    The floor of a step is u |rate| and how far torch moves when the rate that it goes on from is
    moved by one ulp at every step.
    """
    twin, at = getattr(reference.schedules, name), inputs(name, seed)
    found = curves(name, settings, seed)
    rng = np.random.default_rng([seed, 9])

    def disturb(lr: float) -> float:
        return lr * (1 + U * rng.choice([-2.0, 2.0]))

    noisy = [listed(twin(at, lr=LR, disturb=disturb, **settings)) for _ in range(DRAWS)]
    text = written(settings)
    made = []
    for i, (quantity, (ours, theirs, *closed)) in enumerate(found.items()):
        gap = abs(ours - theirs)
        noise = np.max([abs(n[i] - theirs) for n in noisy], axis=0)
        floor = U * np.maximum.accumulate(abs(theirs)) + noise
        margin = gap / (LIMIT * floor)
        outside = np.flatnonzero(margin > 1)
        kind = DIFFERENT if outside.size else ROUNDING if gap.any() else IDENTICAL
        note = ""
        if outside.size and closed and np.all(abs(ours - closed[0]) <= LIMIT * floor):
            kind, note = (
                REFERENCE_IMPRECISE,
                "torch's closed form agrees, its chained form does not",
            )
        worst = int(np.argmax(margin))
        made.append(
            {
                "id": f"{name}({text})/{quantity}/{seed}",
                "schedule": name,
                "settings": text,
                "quantity": quantity,
                "step": worst,
                "manual": ours[worst],
                "reference": theirs[worst],
                "floor": floor[worst],
                "margin": margin[worst],
                "class": kind,
                "outside_step": int(outside[0]) if outside.size else None,
                "note": note,
            }
        )
    return made
