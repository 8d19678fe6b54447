"""What is left if the pieces of dy overwrite one another's contributions, and are not added up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from .case import Candidate, Case, Wrong
from .likely import pulled_of
from .slabs import slices, together, viewed

MOST = 128  # contributions that are looked at one by one
EVALUATIONS = 64  # and of all ways to divide dy, but for its elements


def of_one_slice(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The first or the last slice of dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    cause = "broadcast" if wrong.repeated else "overwritten"
    for axis in range(dy.ndim):
        for index, which in ((0, "first"), (dy.shape[axis] - 1, "last")):
            found = case.pulled(wrong, _alone(dy, axis, index))
            text = f"that of the {which} slice of dy along axis {axis} alone"
            yield Candidate(cause, text, found)


def of_some_slices(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The first or the last slices of dy alone, of axes that may be taken together."""
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    for text, found in pulled_of(case, wrong, _some(dy)):
        yield Candidate("overwritten", f"that of {text} alone", found)


def _some(dy: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for first, last in together(dy.ndim):
        view = viewed(dy, first, last)
        n = view.shape[1]
        for count in range(1, n // 2 + 1):
            for which, kept in (("last", slice(n - count, n)), ("first", slice(count))):
                only = np.zeros_like(view)
                only[:, kept] = view[:, kept]
                yield slices(which, count, first, last), only.reshape(dy.shape)


def not_added_up(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The last or the first contribution to each element. And what is left with, or without, the
    share of each element's own dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy) or not case.done.reference:
        return
    left = EVALUATIONS
    for first, last in together(dy.ndim):
        view = viewed(dy, first, last)
        count = view.shape[1]
        own = view.size == count  # each element by itself
        if not 1 < count <= MOST or (left < count and not own):
            continue
        left -= count
        parts = []
        for k in range(count):
            only = np.zeros_like(view)
            only[:, k] = view[:, k]
            parts.append(case.pulled(wrong, only.reshape(dy.shape)))
        yield from _not_added(np.array(parts))
        if own and dy.shape == wrong.x.shape:
            share = np.array([part.flat[k] for k, part in enumerate(parts)]).reshape(dy.shape)
            yield Candidate("missing term", "the share of each element's own dy alone", share)
            rest = case.pulled(wrong, dy) - share
            yield Candidate("missing term", "without the share of each element's own dy", rest)


def _not_added(parts: np.ndarray) -> Iterator[Candidate]:
    """What may have been made of the contributions of the slices of dy, one by one or by blocks."""
    for block in range(1, len(parts) // 2 + 2):
        starts = range(0, len(parts), block)
        blocks = np.add.reduceat(parts, starts) if block > 1 else parts
        of = "contributions" if block == 1 else f"contributions of {block} slices of dy each"
        for which, order in (("last", blocks), ("first", blocks[::-1])):
            kept = np.zeros_like(parts[0])
            for part in order:
                kept = np.where(part != 0, part, kept)
            yield Candidate(
                "overwritten", f"the {which} of the {of}, which were not added up", kept
            )
    times = np.maximum(np.sum(parts != 0, 0), 1)
    mean = parts.sum(0) / times
    yield Candidate("overwritten", "the mean of the contributions, not their sum", mean)


def _alone(dy: np.ndarray, axis: int, index: int) -> np.ndarray:
    """dy with zeros but in one slice."""
    only = np.zeros_like(dy)
    at = (slice(None),) * axis + (index,)
    only[at] = dy[at]
    return only
