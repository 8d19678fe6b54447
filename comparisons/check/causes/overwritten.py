"""What is left if the pieces of dy overwrite one another's contributions, and are not added up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from .case import Candidate, Case, Wrong

MOST = 128  # contributions that are looked at one by one


def of_one_slice(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The first or the last slice of dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    cause = "broadcast" if wrong.repeated else "overwritten"
    for axis in range(dy.ndim):
        for index, which in ((0, "first"), (dy.shape[axis] - 1, "last")):
            found = case.pulled(wrong, alone(dy, axis, index))
            text = f"that of the {which} slice of dy along axis {axis} alone"
            yield Candidate(cause, text, found)


def not_added_up(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The last or the first contribution to each element. And what is left with, or without, the
    share of each element's own dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy) or not case.done.reference:
        return
    for axis in [None, *range(dy.ndim)]:
        count = dy.size if axis is None else dy.shape[axis]
        if not 1 < count <= MOST:
            continue
        parts = [case.pulled(wrong, alone(dy, axis, k)) for k in range(count)]
        for which, order in (("last", parts), ("first", parts[::-1])):
            left = np.zeros_like(parts[0])
            for part in order:
                left = np.where(part != 0, part, left)
            text = f"the {which} of the contributions, which were not added up"
            yield Candidate("overwritten", text, left)
        if axis is None and dy.shape == wrong.x.shape:
            own = np.array([part.flat[k] for k, part in enumerate(parts)]).reshape(dy.shape)
            yield Candidate("missing term", "the share of each element's own dy alone", own)
            rest = case.pulled(wrong, dy) - own
            yield Candidate("missing term", "without the share of each element's own dy", rest)


def alone(dy: np.ndarray, axis: int | None, index: int) -> np.ndarray:
    """dy with zeros but in one slice; of all elements in a row without an axis."""
    only = np.zeros_like(dy)
    if axis is None:
        only.flat[index] = dy.flat[index]
    else:
        at = (slice(None),) * axis + (index,)
        only[at] = dy[at]
    return only
