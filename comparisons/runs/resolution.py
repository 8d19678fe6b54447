"""What could have been seen: the smallest relative change that a recorded run shows."""

from __future__ import annotations

import numpy as np

from .judging import Floors
from .recording import INPUT, PARAMETER
from .traces import Traces

# A run in which no smaller change is seen at any step shows too little; in 16 bits the other.
COARSE, COARSE_HALVES = 1e-3, 0.1


def resolution(found: Traces, held: Floors) -> tuple[float, float]:
    """The limit over the size, at the step where it is least: of tensors, of which half show less,
    and of the sizes of all of them together, be it their movement or that of gradients.

    The size of a parameter is how far it has come since the first step, since it is its movement
    that an optimizer makes. NaN where nothing is judged so.
    """
    parameters = found.kind(PARAMETER)
    size = np.where(parameters, found.moved[0], found.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = np.where(held.unseen, np.inf, held.limit * held.floor / size)
    seen[np.isnan(seen) | held.lowered] = np.inf
    least = seen.min(axis=0)
    scales = np.isin(found.names, list(found.scales))
    tensors = ~scales & ~found.kind(INPUT) & ~np.isnan(held.floor).all(axis=0)
    of_all = float(least[scales].min()) if scales.any() else np.nan
    return float(np.median(least[tensors])) if tensors.any() else np.nan, of_all


def too_coarse(found: Traces, held: Floors, halves: bool) -> str:
    """Why a run that leaves no floor shows too little, in words; nothing where it shows enough.
    `halves` where anything of it is computed in 16 bits."""
    finest = float(np.fmin(*resolution(found, held)))
    if finest <= (COARSE_HALVES if halves else COARSE):
        return ""
    return f"too little is seen: no change of less than {finest:.2g} of what is recorded shows"
