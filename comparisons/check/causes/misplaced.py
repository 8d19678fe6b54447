"""The right numbers in the wrong place, and places that are left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import exchanged, floating
from ..findings import Finding
from ..probes import ORDINARY, SPARSE
from .case import CASES, Candidate, Case, Cause, Wrong, at
from .closeness import alike
from .forgotten import without_a_path
from .likely import pulled_of
from .orders import Named, in_blocks, in_parts, indexed, reordered, shifted
from .slabs import slices, spread_sums, together, viewed

ORDERS = 2000  # the most orders of the elements that are tried
ARGUMENTS = 32  # the most evaluations at another order of an argument


# In another order -------------------------------------------------------------------------------


def rearranged(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The elements in another order than any exchange of the axes, or turning, gives."""
    for text, made in itertools.islice(reordered(wrong.truth), ORDERS):
        yield Candidate("misplaced", f"that {text}", made)
    for text, made in in_blocks(wrong.truth):
        yield Candidate("transpose", f"that {text}", made)
    for text, made in itertools.islice(indexed(wrong.truth), ORDERS):
        yield Candidate("misplaced", f"that {text}", made)
    yield from _with_an_edge(wrong)
    for text, made in spread_sums(wrong.truth):
        yield Candidate("broadcast", f"that {text}", made)


def of_a_rearranged_dy(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    orders = itertools.islice(reordered(wrong.inputs[2]), ORDERS)
    for text, found in pulled_of(case, wrong, orders):
        yield Candidate("misplaced", f"that of dy {text}", found)
    for text, found in pulled_of(case, wrong, spread_sums(wrong.inputs[2])):
        yield Candidate("broadcast", f"that of dy {text}", found)


def of_a_part_of_dy(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Without some slices of dy, at its end or at its beginning."""
    for text, found in pulled_of(case, wrong, _without_some(wrong.inputs[2])):
        yield Candidate("misplaced", f"that {text}", found)


def at_a_rearranged_argument(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The right pullback at an argument that is shifted by one, or has its halves exchanged."""
    if not case.done.reference:
        return
    changed = (
        (position, name, text, made)
        for position, (name, a) in enumerate(
            zip(case.done.order, floating(wrong.inputs), strict=True)
        )
        for axis in range(a.ndim)
        for text, made in itertools.chain(shifted(a, axis, range(1, 2)), in_parts(a, axis, (2,)))
    )
    for position, name, text, made in itertools.islice(changed, ARGUMENTS):
        found = at(case.truth, exchanged(wrong.inputs, position, made), wrong.name)
        if found is not None:
            yield Candidate("misplaced", f"that at {name} {text}", found)


def in_another_order(case: Case) -> Iterator[Cause]:
    """Each of the right numbers elsewhere, the same way at all findings."""
    for first, *others in case.wrong:
        order = _order(first)
        if order is None or any(w.truth.shape != first.truth.shape for w in others):
            continue
        if all(w.is_made(w.truth.flat[order].reshape(w.truth.shape)) for w in (first, *others)):
            flat = int(np.argmax(order != np.arange(order.size)))
            here, there = (
                tuple(map(int, np.unravel_index(k, first.truth.shape))) for k in (flat, order[flat])
            )
            text = f"the right one in another order: at {here} stands what belongs at {there}"
            yield Cause("misplaced", f"the gradient of {first.name} is {text}")


def _order(wrong: Wrong) -> np.ndarray | None:
    """Where each element of the wrong gradient stands in the right one, if all are there and no
    two alike."""
    ours, truth = wrong.ours.ravel(), wrong.truth.ravel()
    if not (np.isfinite(ours).all() and np.isfinite(truth).all()) or truth.size < 3:
        return None
    here, there = np.argsort(ours), np.argsort(truth)
    within = (1e-4 if wrong.single else 1e-7) * float(np.max(abs(truth)))
    if np.min(np.diff(truth[there])) <= 2 * within or not alike(ours[here], truth[there], 1e-5):
        return None
    order = np.empty_like(here)
    order[here] = there
    return order


def _without_some(dy: np.ndarray) -> Iterator[Named]:
    """Without the last or the first slices of dy, less than half of them."""
    for first, last in together(dy.ndim):
        view = viewed(dy, first, last)
        n = view.shape[1]
        for count in range(1, (n + 1) // 2):
            for which, lost in (("last", slice(n - count, n)), ("first", slice(count))):
                rest = view.copy()
                rest[:, lost] = 0
                yield f"without {slices(which, count, first, last)}", rest.reshape(dy.shape)


def _with_an_edge(wrong: Wrong) -> Iterator[Candidate]:
    """Shifted along an axis, or along the last two, whatever stands at the edge."""
    t = wrong.truth
    both = [(t.ndim - 2, t.ndim - 1)] if t.ndim > 2 else []
    for axes in [*((axis,) for axis in range(t.ndim)), *both]:
        for step in (1, -1, 2, -2, 3, -3):
            if any(t.shape[axis] < 2 * abs(step) + 2 for axis in axes):
                continue
            inner = [slice(None)] * t.ndim
            for axis in axes:
                inner[axis] = slice(step, None) if step > 0 else slice(step)
            at_ = tuple(inner)
            made = wrong.ours.copy()
            made[at_] = np.roll(t, (step,) * len(axes), axes)[at_]
            if alike(made[at_], t[at_], 1e-2):
                continue
            where = " and ".join(f"axis {axis}" for axis in axes)
            yield Candidate("misplaced", f"that shifted by {step} along {where}", made)


# Places -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Slices along an axis, or along axes taken together: from one on, up to one, or every s-th.

    begin, end  counted from the start, or from the end if negative; None at either end
    """

    first: int  # axis
    last: int
    begin: int | None
    end: int | None
    step: int = 1

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Which elements of an array of this shape are there."""
        found = np.zeros(shape, bool)
        viewed(found, self.first, self.last)[:, self.begin : self.end : self.step] = True
        return found

    def text(self, shape: tuple[int, ...]) -> str:
        n = math.prod(shape[self.first : self.last + 1])
        begin, end, _ = slice(self.begin, self.end).indices(n)
        axes = f"axis {self.first}"
        if self.last > self.first:
            axes = f"axes {self.first} to {self.last} taken together"
        if self.step > 1:
            return f"at every index {begin} + {self.step}·i along {axes}"
        if end - begin == 1:
            return f"at index {begin} of {n} along {axes}"
        if end == n:
            return f"from index {begin} of {n} on along {axes}"
        if begin == 0:
            return f"up to index {end - 1} of {n} along {axes}"
        return f"from index {begin} to {end - 1} of {n} along {axes}"


class Seen(NamedTuple):
    """One wrong gradient, the right one, and which elements are wrong."""

    finding: Finding | None
    ours: np.ndarray
    truth: np.ndarray
    outside: np.ndarray


def left_out(case: Case) -> Iterator[Cause]:
    """Zero in one place, and right elsewhere."""
    for first, *_ in case.wrong:
        seen = _seen(case, first.name, sparse=True)
        if not seen or any(s.ours[s.outside].any() for s in seen):
            continue
        if len(seen) < 2 and seen[0].outside.sum() < 2:
            continue
        if any(first.is_made(c.values) for c in without_a_path(case, first)):
            continue
        for places in _places(seen):
            made = zip(seen, places, strict=True)
            if all(not s.ours[place.mask(s.ours.shape)].any() for s, place in made):
                where = places[0].text(seen[0].ours.shape)
                yield Cause("misplaced", f"the gradient of {first.name} is left out {where}")


def _seen(case: Case, name: str, sparse: bool) -> list[Seen]:
    """The wrong gradients of an argument at ordinary points, or at all if it is right there."""
    mine = [f for f in case.gradients if f.name == name and f.ours is not None]
    usual = [f for f in mine if ORDINARY in f.probe.traits]
    usual = [f for f in usual if sparse or SPARSE not in f.probe.traits]
    mine = [f for f in usual or mine if f.dtype == "float64"] or usual or mine
    if all(f.truth is not None for f in mine):
        return [
            Seen(f, f.ours, f.truth, f.outside)
            for f in mine
            if f.ours is not None and f.truth is not None and f.outside is not None
        ]
    found = [sides for f in mine[:CASES] if (sides := case.sides(f))]
    return [
        Seen(s.finding, s.ours, s.truth, abs(s.ours - s.truth) > 1e-6 * np.max(abs(s.truth)))
        for s in found
    ]


def _places(seen: Sequence[Seen]) -> Iterator[list[Place]]:
    """For each way to see the axes, where it is wrong at each finding, the same place at all:
    counted from the start, from the end, or as the last block, which may be shorter."""
    ndim = seen[0].ours.ndim
    if any(s.ours.ndim != ndim for s in seen):
        return
    axes = [(axis, axis) for axis in range(ndim)]
    for first, last in axes + [(0, last) for last in range(1, ndim)]:
        whole = Place(first, last, None, None)
        rows = [_rows(s.outside, whole) for s in seen]
        enough = [_rows(abs(s.truth) > 1e-9 * np.max(abs(s.truth)), whole) for s in seen]
        if any(r.all() or not r.any() for r in rows):
            continue
        # Where the right gradient is 0 as well nothing can be wrong, nor tell anything.
        if any(np.sum(e & ~r) < 2 for r, e in zip(rows, enough, strict=True)):
            continue
        begins = [int(np.argmax(r)) for r in rows]
        ends = [int(r.size - np.argmax(r[::-1])) for r in rows]
        sizes = [r.size for r in rows]
        begin, end = min(begins), max(ends)
        inner = math.prod(seen[0].ours.shape[first + 1 : last + 1])
        if last > first and begin % inner == end % inner == 0:
            continue  # the first of these axes alone tells it
        if len(set(sizes)) == 1:
            n = sizes[0]
            place = Place(first, last, begin or None, end if end < n else None)
            wrong = np.flatnonzero(np.any(rows, 0))
            step = int(np.gcd.reduce(np.diff(wrong))) if len(wrong) > 2 else 1
            if step > 1:
                if wrong[0] < step and wrong[-1] + step >= n:
                    yield [place._replace(begin=int(wrong[0]), end=None, step=step)] * len(seen)
                continue
            yield [place] * len(seen)
        elif all(e == n for e, n in zip(ends, sizes, strict=True)):
            if len({n - b for b, n in zip(begins, sizes, strict=True)}) == 1:
                yield [Place(first, last, begins[0] - sizes[0], None)] * len(seen)
            elif len(set(begins)) == 1 or _of_blocks(begins, sizes):
                yield [Place(first, last, b, None) for b in begins]
        elif all(b == begin for b in begins) and all(e == end for e in ends):
            yield [Place(first, last, begin or None, end)] * len(seen)


def _of_blocks(begins: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether each is where the last of blocks of one size begins."""
    return any(
        all(b == (n - 1) // block * block for b, n in zip(begins, sizes, strict=True))
        for block in range(2, min(begins) + 1)
    )


def _is_wrong_at(seen: Seen, place: Place) -> bool:
    """Whether all is wrong there, where the right gradient is not 0, and nothing else is."""
    mask = place.mask(seen.ours.shape)
    told = abs(seen.truth) > 1e-9 * np.max(abs(seen.truth))
    return not np.any(seen.outside & ~mask) and not np.any(mask & told & ~seen.outside)


def _rows(of: np.ndarray, place: Place) -> np.ndarray:
    """Which slices along the axes of the place have any."""
    return np.asarray(viewed(of, place.first, place.last).any((0, 2)))
