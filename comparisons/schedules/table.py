"""The schedule-parity table: every closed form beside torch's, which goes from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import manual, reference
from ...reference.adapters import listed
from ..samples import written
from ..samples.schedules import SAMPLES, STEPS
from ..verdict.classes import DIFFERENT, IDENTICAL, LIMIT, REFERENCE_IMPRECISE, ROUNDING
from ..verdict.floor import DRAWS
from ..verdict.noise import unit_roundoff

LR = 0.1  # the rate that every schedule starts from
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


@dataclass(frozen=True)
class Comparison:
    """One quantity of a schedule at every step, on both sides, and its floor."""

    quantity: str
    ours: np.ndarray
    theirs: np.ndarray
    closed: np.ndarray | None  # torch's closed form
    floor: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        return abs(self.ours - self.theirs) / (LIMIT * self.floor)

    @property
    def kind(self) -> str:
        if not np.any(self.margin > 1):
            return ROUNDING if np.any(self.ours != self.theirs) else IDENTICAL
        closed = self.closed
        agrees = closed is not None and np.all(abs(self.ours - closed) <= LIMIT * self.floor)
        return REFERENCE_IMPRECISE if agrees else DIFFERENT


def compare(name: str, settings: dict[str, Any], seed: int = 0) -> list[Comparison]:
    """One schedule with one choice of settings.

    The floor of a step is u |rate| and how far torch moves when the rate that it goes on from is
    moved by one ulp at every step.
    """
    twin, at = getattr(reference.schedules, name), inputs(name, seed)
    rng = np.random.default_rng([seed, 9])

    def disturb(lr: float) -> float:
        return lr * (1 + U * rng.choice([-2.0, 2.0]))

    noisy = [listed(twin(at, lr=LR, disturb=disturb, **settings)) for _ in range(DRAWS)]
    found = []
    for i, (quantity, sides) in enumerate(curves(name, settings, seed).items()):
        ours, theirs, *closed = sides
        noise = np.max([abs(n[i] - theirs) for n in noisy], axis=0)
        floor = U * np.maximum.accumulate(abs(theirs)) + noise
        found.append(Comparison(quantity, ours, theirs, closed[0] if closed else None, floor))
    return found


def rows(name: str, settings: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """The rows of one schedule with one choice of settings, one for each quantity."""
    text, made = written(settings), []
    for found in compare(name, settings, seed):
        margin, outside = found.margin, np.flatnonzero(found.margin > 1)
        worst = int(np.argmax(margin))
        chained = "torch's closed form agrees, its chained form does not"
        made.append(
            {
                "id": f"{name}({text})/{found.quantity}/{seed}",
                "schedule": name,
                "settings": text,
                "quantity": found.quantity,
                "step": worst,
                "manual": found.ours[worst],
                "reference": found.theirs[worst],
                "floor": found.floor[worst],
                "margin": margin[worst],
                "class": found.kind,
                "outside_step": int(outside[0]) if outside.size else None,
                "note": chained if found.kind == REFERENCE_IMPRECISE else "",
            }
        )
    return made


def numbered(name: str, number: int, seed: int = 0) -> list[dict[str, Any]]:
    """The rows of one of its samples, by number, because a function among the settings cannot be
    sent to another process."""
    return rows(name, SAMPLES[name][number], seed)
