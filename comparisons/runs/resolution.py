"""What could have been seen: the smallest relative change that a recorded run shows."""

from __future__ import annotations

import numpy as np

from .judging import Floors
from .recording import INPUT, PARAMETER
from .traces import Traces

COARSE = {False: 1.0, True: 1.0}


def resolution(found: Traces, held: Floors) -> float:
    """The limit over the size, at the step where it is least: half of the quantities show less.

    The size of a parameter is how far it has come since the first step, since it is its movement
    that an optimizer makes.
    """
    parameters = found.kind(PARAMETER)
    size = np.where(parameters, found.moved, found.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = np.where(held.unseen, np.inf, held.limit * held.floor / size)
    judged = ~found.kind(INPUT) & ~np.isnan(held.floor).all(axis=0)
    seen[np.isnan(seen)] = np.inf
    return float(np.median(seen[:, judged].min(axis=0)))
