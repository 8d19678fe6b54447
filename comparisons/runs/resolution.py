"""What could have been seen: the smallest relative change that a recorded run shows."""

from __future__ import annotations

import numpy as np

from .judging import Floors
from .recording import INPUT, PARAMETER
from .traces import Traces

# A run in which no smaller change is seen at any step shows too little; in 16 bits the other.
COARSE, COARSE_HALVES = 1e-3, 0.1


class Resolution:
    """The limit over the size, at the step where it is least, gathered window by window.

    The size of a parameter is how far it has come since the first step, since it is its movement
    that an optimizer makes.
    """

    def __init__(self) -> None:
        self.least = np.array(np.inf)  # (quantities,)
        self.judged = np.array(False)  # (quantities,) whether it has a floor at any step
        self.scales = np.array(False)  # (quantities,) whether it is a size of all tensors together

    def add(self, found: Traces, held: Floors) -> None:
        """One window more."""
        size = np.where(found.kind(PARAMETER), found.moved[0], found.size)
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = np.where(held.unseen, np.inf, held.limit * held.floor / size)
        seen[np.isnan(seen) | held.lowered] = np.inf
        self.least = np.minimum(self.least, seen[found.own].min(axis=0))
        floored = ~np.isnan(held.floor[found.own]).all(axis=0)
        self.judged = self.judged | (floored & ~found.kind(INPUT))
        self.scales = np.isin(found.names, list(found.scales))

    @property
    def of_one(self) -> float:
        """That of tensors, of which half show less; NaN where none is judged."""
        tensors = self.judged & ~self.scales
        return float(np.median(self.least[tensors])) if tensors.any() else np.nan

    @property
    def of_all(self) -> float:
        """That of the sizes of all of them together, of their movement and of gradients, whichever
        shows less: the one says nothing of the other. NaN where neither is judged."""
        scales = self.judged & self.scales
        return float(self.least[scales].max()) if scales.any() else np.nan

    def too_coarse(self, halves: bool) -> str:
        """Why a run that leaves no floor shows too little, in words; nothing where it shows enough.
        `halves` where anything of it is computed in 16 bits."""
        finest = float(np.fmin(self.of_one, self.of_all))
        if finest <= (COARSE_HALVES if halves else COARSE):
            return ""
        return f"too little is seen: no change of less than {finest:.2g} of what is recorded shows"
