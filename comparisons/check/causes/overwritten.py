"""What is left if the pieces of dy overwrite one another's contributions, and are not added up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from .case import Candidate, Case, Wrong
from .closeness import alike
from .likely import pulled_of
from .slabs import slices, together, viewed

MOST = 128  # elements of dy that are looked at one by one
EVALUATIONS = 64  # the most slices of a larger dy, along all axes together


def of_one_slice(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The first or the last slice of dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    for axis in range(dy.ndim):
        for index, which in ((0, "first"), (dy.shape[axis] - 1, "last")):
            found = case.pulled(wrong, alone(dy, axis, index))
            cause = "overwritten"
            if wrong.repeated and dy.shape[axis] > 1 and wrong.is_made(found):
                # All slices contribute alike, or they are several results: one is forgotten.
                other = case.pulled(wrong, np.roll(alone(dy, axis, index), 1, axis))
                cause = "broadcast" if alike(other, found) else "missing term"
            text = f"that of the {which} slice of dy along axis {axis} alone"
            yield Candidate(cause, text, found)


def of_some_slices(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The first or the last slices of dy alone, of axes that may be taken together."""
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    # Where y is several arrays in a row, an argument's own part of dy is no block of a loop.
    own = wrong.x.size if dy.ndim == 1 else 0
    for text, found in pulled_of(case, wrong, _some(dy, own)):
        yield Candidate("overwritten", f"that of {text} alone", found)


def _some(dy: np.ndarray, own: int) -> Iterator[tuple[str, np.ndarray]]:
    for first, last in together(dy.ndim):
        view = viewed(dy, first, last)
        n = view.shape[1]
        for count in range(1, n // 2 + 1):
            for which, kept in (("last", slice(n - count, n)), ("first", slice(count))):
                only = np.zeros_like(view)
                only[:, kept] = view[:, kept]
                if count != own:
                    yield slices(which, count, first, last), only.reshape(dy.shape)


def not_added_up(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The last or the first contribution to each element. And what is left with, or without, the
    share of each element's own dy alone."""
    dy = wrong.inputs[2]
    if not is_floating(dy) or not case.done.reference:
        return
    each = _pulled_slices(case, wrong, dy.reshape(1, -1, 1)) if 1 < dy.size <= MOST else None
    left = EVALUATIONS
    for first, last in together(dy.ndim):
        view = viewed(dy, first, last)
        count = view.shape[1]
        if count < 2:
            continue
        if each is not None:  # what slices contribute is the sum of what their elements do
            parts = each.reshape(*view.shape, *wrong.truth.shape).sum((0, 2))
        elif count <= left:
            parts = _pulled_slices(case, wrong, view)
            left -= count
        else:
            continue
        along = first if first == last and _runs_along(dy, wrong.truth, first) else None
        yield from _not_added(parts, along)
    if each is not None and dy.shape == wrong.x.shape:
        flat = each.reshape(dy.size, dy.size)
        for block in range(1, dy.size // 2 + 1):
            made = _own(flat, 0, block).reshape(dy.shape)
            of = "element" if block == 1 else f"block of {block} elements"
            yield Candidate("missing term", f"the share of each {of}'s own dy alone", made)
        own = _own(flat, 0, 1).reshape(dy.shape)
        rest = case.pulled(wrong, dy) - own
        yield Candidate("misplaced", "without the share of each element's own dy", rest)


def _pulled_slices(case: Case, wrong: Wrong, view: np.ndarray) -> np.ndarray:
    """What each slice of dy along the middle axis contributes."""
    found = []
    for k in range(view.shape[1]):
        only = np.zeros_like(view)
        only[:, k] = view[:, k]
        found.append(case.pulled(wrong, only.reshape(wrong.inputs[2].shape)))
    return np.array(found)


def _runs_along(dy: np.ndarray, truth: np.ndarray, axis: int) -> bool:
    """Whether an axis of dy may be one of the argument, as time is."""
    return axis < truth.ndim and dy.shape[axis] == truth.shape[axis]


def _own(parts: np.ndarray, axis: int, block: int, far: int = 0) -> np.ndarray:
    """What is left of the contributions where each slice, or block, has those of its own alone, or
    of so many neighbours as well."""
    n = len(parts)
    of = np.arange(n) // block
    own = (abs(of[:, None] - of) <= far).reshape(
        [n if k in (0, axis + 1) else 1 for k in range(parts.ndim)]
    )
    return np.asarray((parts * own).sum(0))


def _not_added(parts: np.ndarray, axis: int | None) -> Iterator[Candidate]:
    """What may have been made of the contributions of the slices of dy, one by one or by blocks;
    `axis` is that of the argument along which the slices may be its own as well: what is left of
    those alone is without a term, from one slice to the next, and nothing was overwritten."""
    for block in range(1, len(parts) // 2 + 2):
        starts = range(0, len(parts), block)
        blocks = np.add.reduceat(parts, starts) if block > 1 else parts
        of = "contributions" if block == 1 else f"contributions of {block} slices of dy each"
        if axis is not None:
            of = "slice" if block == 1 else f"block of {block} slices"
            text = f"the share of each {of}'s own dy along axis {axis} alone"
            yield Candidate("missing term", text, _own(parts, axis, block))
            text = f"without the share of each {of}'s own dy along axis {axis}"
            yield Candidate("missing term", text, parts.sum(0) - _own(parts, axis, block))
            text = f"the share of each {of} and of its neighbours along axis {axis} alone, which"
            text += " overwrites that of all further ones"
            yield Candidate("overwritten", text, _own(parts, axis, block, 1))
        for which, order in (("last", blocks), ("first", blocks[::-1])):
            kept = np.zeros_like(parts[0])
            for part in order:
                kept = np.where(part != 0, part, kept)
            if not any(np.array_equal(kept, part) for part in blocks):  # else it is a slice's alone
                text = f"the {which} of the {of}, which were not added up"
                yield Candidate("overwritten", text, kept)
    times = np.maximum(np.sum(parts != 0, 0), 1)
    mean = parts.sum(0) / times
    yield Candidate("overwritten", "the mean of the contributions, not their sum", mean)


def alone(dy: np.ndarray, axis: int, index: int) -> np.ndarray:
    """dy with zeros but in one slice."""
    only = np.zeros_like(dy)
    at = (slice(None),) * axis + (index,)
    only[at] = dy[at]
    return only
