"""Two recorded runs: where they leave each other, how far beside what rounding can do, and what it
means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..verdict.classes import IDENTICAL, ROUNDING, UNDECIDED
from ..verdict.drift import Drift
from .course import Course, Spot, spot
from .judging import Judged
from .leaving import Leaving, distances, leaving
from .recording import AGAIN, DTYPES, PERTURBED, Recorded
from .rows import row
from .traces import NEW, windows
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
    low = floor_of is not None and _low(floor_of)
    halves = low and floor_of is not None and _halves(floor_of, True)
    begins = old.start == new.start
    course = Course(base.path.name, noisy, low, _precision(old, new), halves, begins)
    for found in windows(base, [*noisy, *again], {NEW: other}):
        course.add(found)
    if not course.windows:
        raise ValueError(f"steps: expected some of those of {old.path}, got none in {new.path}")
    first = leaving(course.differs, old, new)
    _same_steps(old, new, first)
    judged, out = _judged(course, floor_of, old, new)
    losses = course.losses(0), course.losses(NEW)
    if base is new:
        losses = losses[::-1]
    line = row(course, judged, out, old, new, first, losses)
    return RunComparison(line, *losses, course.drift(), int(course.first.steps[0]))


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
    course: Course, floor_of: Recorded | None, old: Recorded, new: Recorded
) -> tuple[Judged, Spot | None]:
    """The class of the run, where there is something to say with a note, and what left first."""
    if course.differs is None:
        return Judged(IDENTICAL), None
    if floor_of is None:
        pair = (" and ".join(run.precision) for run in (old, new))
        one, other = pair
        note = f"not comparable: {old.path.name} computes in {one}, {new.path.name} in {other}"
        return Judged(UNDECIDED, note=f"{note}, and has no floor of its own"), None
    if course.unrepeated:
        return Judged(UNDECIDED, note=course.unrepeated), None
    if not course.noisy:
        found = course.first
        judged = without_floor(found, old, course.begins, _low(old), _precision(old, new))
        if judged.at is None or judged.what is None:
            return judged, None
        return judged, spot(found, None, judged.at, judged.what)
    if course.losses_alone:
        course.by_losses()
        return course.judged, course.out
    note = "" if str(AGAIN) in floor_of.runs else "not shown to repeat itself: it lacks perturb=7"
    if course.judged.kind == ROUNDING:
        coarse = course.resolution.too_coarse(course.low or _halves(floor_of, False))
        if coarse:
            return Judged(UNDECIDED, note="; ".join(filter(None, [coarse, note]))), None
    return replace(course.judged, note=note), course.out


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
