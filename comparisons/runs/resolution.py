"""What could have been seen: the smallest relative change that a recorded run shows."""

from __future__ import annotations

import numpy as np

from .judging import KINK, Floors
from .recording import INPUT, PARAMETER
from .traces import Traces

COARSE = KINK  # a run in which no smaller change is seen shows nothing


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
    seen[np.isnan(seen)] = np.inf
    least = seen.min(axis=0)
    scales = np.isin(found.names, list(found.scales))
    tensors = ~scales & ~found.kind(INPUT) & ~np.isnan(held.floor).all(axis=0)
    of_all = float(least[scales].min()) if scales.any() else np.nan
    return float(np.median(least[tensors])) if tensors.any() else np.nan, of_all


def finest(found: Traces, held: Floors) -> float:
    """The better of both."""
    return float(np.fmin(*resolution(found, held)))
