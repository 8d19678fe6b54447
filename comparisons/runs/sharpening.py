"""Floors of the first difference. While two runs are the same to the bit no chaos has grown: what
differs first was made of the same numbers, and only what makes it can have rounded otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .judging import FAR, Floors, far
from .recording import BUFFER, GRADIENT, INPUT, LOSS, PARAMETER
from .traces import NEW, Traces


def sharpened(
    found: Traces, held: Floors, step: int | None, precision: Sequence[str], halves: bool
) -> Floors:
    """The floors, lowered at the first step that differs, if it is there and not the first of all.

    A parameter is rounded once, and its step is made otherwise by FAR u. In 32 bits it may be by
    what the perturbed runs show of the first step, if that is more; in 16 they show the roundings
    of the model, and nothing is lowered where the optimizer computes in `halves` too. The loss,
    where all parameters and buffers are the same: FAR u of the largest so far, u being that of the
    coarsest dtype in `precision`. What follows from something that is not recorded keeps its floor.
    """
    differs = found.differs[NEW] & ~found.kind(INPUT)
    if step not in found.steps[1:]:
        return held
    at = int(np.flatnonzero(found.steps == step)[0])
    parameters, gradients = found.kind(PARAMETER), found.kind(GRADIENT)
    below = np.full(held.floor.shape[1], np.inf)
    if not halves and not np.isnan(found.apart[NEW][at - 1, gradients]).all():
        below[parameters] = _of_a_step(found, held, at)[parameters]
    known = parameters.any() and not np.isnan(found.apart[NEW][at, parameters]).any()
    if known and not differs[at, parameters | found.kind(BUFFER)].any():
        loss = found.names.index(LOSS)
        below[loss] = far(precision) * found.peak[at] / held.limit[loss]
    lower = below < np.where(held.unseen[at], np.inf, held.floor[at])
    floor, ratio, unseen, lowered = (
        of.copy() for of in (held.floor, held.ratio, held.unseen, held.lowered)
    )
    floor[at, lower] = below[lower]
    ratio[at, lower] = found.apart[NEW][at, lower] / below[lower]
    unseen[at, lower], lowered[at, lower] = False, True
    return replace(held, floor=floor, ratio=ratio, unseen=unseen, lowered=lowered)


def _of_a_step(found: Traces, held: Floors, at: int) -> np.ndarray:
    """(quantities,) the floor of a parameter after one step from the same numbers."""
    rounded = found.roundoff * found.size[at]
    floor = rounded + FAR * found.roundoff * found.stepped[at] / held.limit
    if held.low:
        return floor
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = held.floor[1] * np.nan_to_num(
            found.stepped[at] / found.stepped[1], nan=np.inf, posinf=np.inf
        )
    return np.where(held.unseen[1], np.inf, np.fmax(floor, rounded + shown))
