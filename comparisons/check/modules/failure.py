"""A call at which a port and its original part, and whether some results are those of either."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...verdict.classes import LIMIT, Results
from .evaluation import Inputs, Side


@dataclass(frozen=True)
class Failure:
    """A call at which the two part: both sides, what the port gave, the truth, and the floors; the
    names of what is wrong."""

    subject: Side
    reference: Side
    inputs: Inputs
    ours: Results
    truth: Results
    floors: Results
    wrong: tuple[str, ...]
    right: tuple[torch.nn.Module, ...]  # the submodules inside that are right, of the original
    right_here: tuple[torch.nn.Module, ...]  # and of the port

    @property
    def backward_alone(self) -> bool:
        """Whether what it gives is right, and a gradient is not."""
        return all(n.startswith("gradient") for n in self.wrong)

    def gives(self, found: Results, wanted: Results) -> bool:
        """Whether some of these results are what is wanted, within the floors; and where the two
        sides differ, nearer to what is wanted than to the other."""
        other = self.truth if wanted is self.ours else self.ours
        return all(
            self._is(n, a.astype(float), wanted[n], other[n])
            for n, a in found.items()
            if n in wanted
        )

    def _is(self, name: str, a: np.ndarray, wanted: np.ndarray, other: np.ndarray) -> bool:
        if a.shape != wanted.shape:
            return False
        same = (a == wanted) | (np.isnan(a) & np.isnan(wanted))
        near = abs(a - wanted) <= LIMIT * self._floor(name)
        parted = abs(wanted - other) > LIMIT * self.floors[name]
        nearer = ~parted | (abs(a - wanted) < abs(a - other))
        return bool(np.all(same | (near & nearer)))

    def _floor(self, name: str) -> float:
        """Of a tensor as a whole: the largest of its elements, and as much more as it is larger
        than the truth."""
        size, ours = (
            float(np.max(abs(np.nan_to_num(of[name].astype(float))), initial=0))
            for of in (self.truth, self.ours)
        )
        largest = float(np.max(self.floors[name], initial=0))
        return largest * max(ours / size, 1.0) if size else largest
