"""Without perturbed runs: what the first step alone decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..verdict.classes import DIFFERENT, ROUNDING, UNDECIDED
from .judging import FAR, START, Judged, before_the_loss, far, first_out, floors, other_start
from .recording import BASE, LOSS, PARAMETER, STARTS, Recorded, Step
from .traces import NEW, Traces, windows


def without_floor(
    found: Traces, old: Recorded, begins: bool, low: bool, precision: Sequence[str]
) -> Judged:
    """The class of a run, held to an older one that has no perturbed runs.

    Where it has six starts, the first step is judged by their floor. Where it has none, the runs
    are different only if they start from other parameters, or if the first loss is off by more
    than FAR u |loss|, u being that of the coarsest dtype in `precision`. What follows from the
    first step is undecided.
    """
    missing = ", ".join(map(str, old.missing))
    note = f"no floor: {old.path.name} lacks runs with perturb={missing}"
    if not begins:
        return Judged(UNDECIDED, note=note)
    other, unclear = other_start(found)
    if other.any():
        return Judged(DIFFERENT, 0, int(np.argmax(other)), START, note)
    if unclear.any():
        return Judged(UNDECIDED, 0, int(np.argmax(unclear)), START, note)
    if all(str(run) in old.runs for run in STARTS):
        judged = _by_starts(found, old, low)
        if judged.kind != ROUNDING:
            return replace(judged, note=note)
        return Judged(UNDECIDED, note=f"{note}; the first step is rounding")
    loss = found.names.index(LOSS)
    apart, size = found.apart[NEW][0, loss], found.size[0, loss]
    if apart > far(precision) * size:
        meaning = before_the_loss(found, 0)
        return Judged(DIFFERENT, 0, loss, meaning, f"{note}; off by more than {FAR:,.0f} u")
    return Judged(UNDECIDED, note=note)


def _by_starts(found: Traces, old: Recorded, low: bool) -> Judged:
    """The first step, under the floor of the starts."""
    base = BASE if str(BASE) in old.runs else 0

    def walk(run: int) -> Iterator[Step]:
        return iter([next(old.walk(run or base))])

    starts = next(windows(replace(old, walk=walk), list(STARTS), {}))
    places = [starts.names.index(n) if n in starts.names else None for n in found.names]

    def row(of: np.ndarray) -> np.ndarray:
        return np.array([[np.nan if i is None else of[0, i] for i in places]])

    # A start is made from other parameters, so that theirs are no distance.
    apart = {r: np.where(found.kind(PARAMETER), 0.0, row(starts.apart[r])) for r in STARTS}
    alone = replace(
        found,
        steps=found.steps[:1],
        own=found.own[:1],
        sizes={run: found.sizes[run][:1] for run in (0, NEW)}
        | {run: row(starts.sizes[run]) for run in STARTS},
        moved={run: found.moved[run][:1] for run in (0, NEW)}
        | {run: row(starts.moved[run]) for run in STARTS},
        stepped=found.stepped[:1],
        spread=found.spread[:1],
        apart={**apart, NEW: found.apart[NEW][:1]},
        differs={run: of > 0 for run, of in apart.items()} | {NEW: found.differs[NEW][:1]},
    )
    return first_out(*floors(alone, STARTS, low), begins=True)
