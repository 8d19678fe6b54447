"""A run judged in lockstep: at every step the manual side works from the reference's own inputs.

Chaos cannot build up that way, and the first step and tensor that leave the floor are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .classes import DIFFERENT, IMPRECISE, LIMIT, Function, Results, Verdict
from .judge import judge

JUDGED = 100  # steps from the first on that are all judged; later ones are log-spaced
PER_DECADE = 20


class Pair(NamedTuple):
    """One thing that a step does, on both sides, from the same inputs."""

    subject: Function
    reference: Function
    inputs: Any
    before: Results | None = None  # what the results were before, if the step updates them


class StepVerdict(NamedTuple):
    step: int  # from 1
    name: str
    verdict: Verdict


@dataclass
class Lockstep:
    """Collects a verdict on every result of every judged step, until one is different.

    Steps between the judged ones are screened: where a result is further from the reference than
    the largest floor seen so far, relative to the size of its tensor, would allow, that step is
    judged as well.
    """

    dtype: Any
    steps: int
    thorough: bool = False  # draw all the noise, even where less would settle it
    verdicts: list[StepVerdict] = field(default_factory=list)
    _levels: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        decades = max(math.log10(self.steps / JUDGED), 0)
        last = max(self.steps, JUDGED)
        spaced = np.geomspace(JUDGED, last, 1 + math.ceil(PER_DECADE * decades))
        self._due = {*range(1, JUDGED + 1), *map(int, np.round(spaced))}

    def look(self, step: int, pairs: Sequence[Pair], recorded: Results) -> None:
        """Judges the step, counted from 1, if it is due or does not pass the screen.

        `recorded` are the results that the reference's own run had at this step.
        """
        if self.outside or not all(np.all(np.isfinite(a)) for a in recorded.values()):
            return
        if step not in self._due and self._passes(pairs, recorded):
            return
        for subject, reference, inputs, before in pairs:
            verdicts = judge(
                subject, reference, inputs, self.dtype, before=before, thorough=self.thorough
            )
            for name, verdict in verdicts.items():
                self.verdicts.append(StepVerdict(step, name, verdict))
                self._levels[name] = max(verdict.level, self._levels.get(name, 0.0))

    def _passes(self, pairs: Sequence[Pair], recorded: Results) -> bool:
        for pair in pairs:
            for name, ours in pair.subject(pair.inputs).items():
                theirs = recorded[name]
                if np.shape(ours) != theirs.shape:
                    return False
                allowed = LIMIT * self._levels[name] * np.max(abs(theirs), initial=0)
                if not np.max(abs(np.subtract(ours, theirs, dtype=float)), initial=0) <= allowed:
                    return False
        return True

    @property
    def outside(self) -> tuple[int, str, str] | None:
        """The first step that is different, its tensors with the worst first, and a note."""
        wrong = [r for r in self.verdicts if r.verdict.kind == DIFFERENT]
        wrong.sort(key=lambda r: -r.verdict.margin)
        if not wrong:
            return None
        return wrong[0].step, ", ".join(r.name for r in wrong), wrong[0].verdict.note

    @property
    def worst(self) -> StepVerdict:
        """The one with the largest margin."""
        return max(self.verdicts, key=lambda r: r.verdict.margin)

    @property
    def judged(self) -> int:
        """How many steps were judged."""
        return len({r.step for r in self.verdicts})

    @property
    def imprecise(self) -> int:
        """How many steps had a result that is right but for its digits."""
        return len({r.step for r in self.verdicts if r.verdict.kind == IMPRECISE})

    def resolution(self, names: Mapping[str, Any]) -> float:
        """The smallest relative error that would have been seen in whichever of these results.

        Each result counts with its sharpest step, and the least sharp of them is what is returned.
        """
        sharpest: dict[str, float] = {}
        for r in self.verdicts:
            if r.name in names and not math.isnan(r.verdict.resolution):
                sharpest[r.name] = min(r.verdict.resolution, sharpest.get(r.name, math.inf))
        return max(sharpest.values(), default=math.nan)
