"""Two recorded runs: where they leave each other, how far beside what rounding can do, and what it
means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..verdict.classes import DIFFERENT, IDENTICAL, ROUNDING, UNDECIDED
from ..verdict.drift import Drift, free_drift
from .judging import START, Floors, Judged, before_the_loss, first_out, floors, other_start
from .leaving import Leaving, distances, leaving
from .recording import AGAIN, DTYPES, LOSS, PERTURBED, Recorded
from .repeating import unrepeated
from .resolution import too_coarse
from .rows import row
from .sharpening import sharpened
from .traces import NEW, Traces, traces
from .without_floor import without_floor

__all__ = ["RunComparison", "compare", "distances"]


@dataclass(frozen=True)
class RunComparison:
    """Two runs, compared: the row of the table, and the curves behind it."""

    row: dict[str, Any]
    old: np.ndarray  # loss at each step
    new: np.ndarray
    drift: Drift  # of the loss; its floor is NaN where none was recorded
    start: int = 1  # the number of the first step


def compare(old: Recorded, new: Recorded) -> RunComparison:
    """Holds a run against an older one, everything that both have recorded, each under its floor.

    Identical is what both have recorded, where −0 is 0 and NaN is NaN. A run that does not repeat
    itself shows nothing. Without six perturbed runs of the older one the first step alone is
    judged. A run that starts later is held to its part. Raises ValueError where there is nothing to
    compare.
    """
    old.complete()
    new.complete()
    floor_of = _coarser(old, new)
    noisy = [] if floor_of is None or floor_of.missing else list(range(1, PERTURBED + 1))
    again = [AGAIN] if floor_of is not None and str(AGAIN) in floor_of.runs else []
    _same_dtype(old, new)
    base, other = (old, new) if floor_of is not new else (new, old)
    found = traces(base, [*noisy, *again], {NEW: other})
    first = leaving(found, old, new)
    _same_steps(old, new, first)
    low = floor_of is not None and _low(floor_of)
    held = None
    if noisy and floor_of is not None:
        found, held = floors(found, noisy, low)
        held = sharpened(found, held, _precision(old, new), low and _halves(floor_of, True))
    judged = _judged(found, held, floor_of, old, new, first)
    drift = _drift(found, held, noisy)
    losses = found.losses[0], found.losses[NEW]
    if base is new:
        losses = losses[::-1]
    line = row(found, held, judged, old, new, first, drift, losses)
    return RunComparison(line, *losses, drift, int(found.steps[0]))


def _same_dtype(old: Recorded, new: Recorded) -> None:
    dtype, got = (run.runs["0"]["dtype"] for run in (old, new))
    if dtype != got:
        raise ValueError(
            f"dtype of loss: expected {dtype} as in {old.path}, got {got}: runs of another "
            "precision are not comparable"
        )


def _same_steps(old: Recorded, new: Recorded, first: Leaving) -> None:
    """ValueError unless both have the same steps, or one starts later and has the rest."""
    if old.start == new.start and old.steps != new.steps:
        where = f"differ from step {first.step} on" if first.step else "are identical"
        raise ValueError(
            f"steps: expected the {old.steps} of {old.path}, got {new.steps} in {new.path} "
            f"(those that both have {where})"
        )


def _coarser(old: Recorded, new: Recorded) -> Recorded | None:
    """The recording that has the floor: the old one, or, where the new one computes in fewer bits,
    that; none where the old one has fewer bits, or nothing was measured in those of the new."""
    theirs, ours = (_bits(run) for run in (old, new))
    if not theirs or not ours or theirs == ours:
        return old
    coarser = old if theirs < ours else new
    return None if coarser.missing else coarser


def _bits(run: Recorded) -> int:
    """The bits of the significand of the coarsest dtype that a run computes in, 0 if unknown."""
    return min((round(-math.log2(torch.finfo(DTYPES[d]).eps)) for d in run.precision), default=0)


def _judged(
    found: Traces,
    held: Floors | None,
    floor_of: Recorded | None,
    old: Recorded,
    new: Recorded,
    first: Leaving,
) -> Judged:
    """The class of the run, and where there is something to say a note."""
    if first.step is None:
        return Judged(IDENTICAL)
    if floor_of is None:
        pair = (" and ".join(run.precision) for run in (old, new))
        one, other = pair
        note = f"not comparable: {old.path.name} computes in {one}, {new.path.name} in {other}"
        return Judged(UNDECIDED, note=f"{note}, and has no floor of its own")
    again = unrepeated(found, floor_of.path.name)
    if again:
        return Judged(UNDECIDED, note=again)
    begins = old.start == new.start
    if held is None:
        return without_floor(found, old, begins, _low(old), _precision(old, new))
    if _losses_alone(found, held):
        return _by_losses(found, held)
    judged = first_out(found, held, begins)
    note = "" if AGAIN in found.differs else "not shown to repeat itself: it lacks perturb=7"
    if judged.kind != ROUNDING:
        return replace(judged, note=note)
    coarse = too_coarse(found, held, held.low or _halves(floor_of, False))
    if coarse:
        return Judged(UNDECIDED, note="; ".join(filter(None, [coarse, note])))
    return replace(judged, note=note)


def _precision(old: Recorded, new: Recorded) -> list[str]:
    """The dtypes that any of both computes in, none where one does not say."""
    both = old.precision and new.precision
    return [*old.precision, *new.precision] if both else []


def _halves(run: Recorded, unknown: bool) -> bool:
    """Whether anything outside of the model computes in 16 bits, as an optimizer may."""
    return any(run.runs[str(k)].get("halves", unknown) for k in run.perturbed)


def _low(run: Recorded) -> bool:
    """Whether it computes in 16 bits."""
    return bool(run.precision) and _bits(run) < 16


def _losses_alone(found: Traces, held: Floors) -> bool:
    """Whether the loss is all that has a floor."""
    others = np.array([name != LOSS for name in found.names])
    return bool(np.isnan(held.ratio[:, others]).all())


def _by_losses(found: Traces, held: Floors) -> Judged:
    """Of losses alone, whose runs may come over kinks unseen, the floor is that of ten steps before
    and after; at the first step that of the step itself."""
    loss = found.names.index(LOSS)
    for kind, those in zip((DIFFERENT, UNDECIDED), other_start(found), strict=True):
        if those.any():
            return Judged(kind, 0, int(np.argmax(those)), START)
    if held.out[0, loss]:
        return Judged(DIFFERENT, 0, loss, before_the_loss(found, 0))
    drift = _drift(found, held, [run for run in found.apart if 0 < run <= PERTURBED])
    if drift.parted is None:
        return Judged(ROUNDING)
    return Judged(DIFFERENT, drift.parted, loss, "")


def _drift(found: Traces, held: Floors | None, noisy: Sequence[int]) -> Drift:
    """The drift of the loss beside its floor, for the picture."""
    loss = found.names.index(LOSS)
    drift = found.apart[NEW][:, loss]
    if held is None:
        unknown = np.full(len(drift), math.nan)
        return Drift(drift, unknown, unknown, math.nan)
    if _losses_alone(found, held):
        runs = np.array([found.losses[run] for run in noisy])
        return free_drift(found.losses[NEW], found.losses[0], runs, found.roundoff[loss])
    floor = held.floor[:, loss]
    ratio = np.where(held.unseen[:, loss], 0, np.nan_to_num(held.ratio[:, loss]))
    return Drift(drift, floor, ratio, math.nan)
