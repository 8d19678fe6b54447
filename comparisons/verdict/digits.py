"""Lost digits are told from mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...reference.adapters import leaves, tree_map
from .classes import LIMIT, Function, Results
from .emulated import emulated
from .floor import DRAWS, nearby
from .halves import SMALLEST
from .noise import cast, is_floating, moved, unit_roundoff
from .ulps import difference, finite_part, same_values

# Of what the smaller u promises, so much of it the error must shrink by; where a term drowns, so
# much; and by no more than so many times as much, from float32 to float64 and from 16 bits to
# float32. Right formulas reach 3.8 and 1.5.
SHRINKS, DROWNS = 2.0**-7, 2.0**-9
MORE, MORE_HALF = 16.0, 8.0
FEW = 2  # points after which so much less than what is needed is too little for any of the others
LITTLE = 2.0**-10
ALONE = 1 / 16  # of an error, what is less than so much of it nearby is another's
# Of inputs, where it is looked for what more bits still see.
NEARBY = (*(2.0 ** (-k / 2) for k in range(1, 17)), *(2.0 ** (4 * k) for k in range(1, 17)))
OPINIONS = 3  # runs with every step rounded, at each point


class Ways(NamedTuple):
    """A subject in a dtype, or type of 16 bits, and in one of more bits: in float32 and in float64,
    or in 16 bits and in float32. The second, of one that knows 16 bits alone, is None."""

    low: Function
    high: Function | None
    half: str = ""

    @property
    def dtype(self) -> Any:
        return self.half or np.float32

    @property
    def wide(self) -> Any:
        return np.float32 if self.half else np.float64

    @property
    def u(self) -> float:
        return unit_roundoff(self.dtype)

    @property
    def promised(self) -> float:
        """How many times smaller rounding errors are in the second."""
        return self.u / unit_roundoff(self.wide)


class Gaps(NamedTuple):
    """Of the elements outside: the error in few bits, that in more, the largest of that nearby, and
    the size of the truth; at one point, or at all of them along the first axis."""

    low: np.ndarray
    high: np.ndarray
    higher: np.ndarray
    size: np.ndarray

    def smallest(self) -> np.ndarray:
        """The smallest error in few bits at any point; where it is an error at ties alone, which
        there are none of nearby, that at the first."""
        here, nearby = self.low[0], self.low[1:].max(axis=0, initial=0)
        return np.where(nearby < ALONE * here, here, self.low.min(axis=0))


def only_digits_lost(
    ways: Ways,
    reference: Function,
    inputs: Any,
    outside: Mapping[str, np.ndarray],
    alone: bool = False,
) -> list[str]:
    """The results whose error is rounding: it shrinks with u, as that of a mistake does not; and no
    more than u does, as that of a mistake does which is made in few bits alone.

    Float64 makes errors 2²⁹ times smaller than float32. 2²² of it must be seen at the elements
    outside, between the largest errors over several inputs nearby; and at none of them more than
    MORE times 2²⁹, between the smallest error in float32 and the largest in float64. What overflows
    or underflows in float32, or decides by a digit that is lost, shrinks by more: there the formula
    is asked what it gives in float64 with each of its steps rounded to float32. In 16 bits the
    same holds, but that their range is so small that a formula has to mind it.

    With `alone`, the reference is known at the inputs and nowhere else: all is seen there.
    """
    if ways.high is None:
        return []
    first = inputs if alone else cast(inputs, ways.dtype)
    others = range(1, 1 if alone else DRAWS + 1)
    points = [first, *(nearby(inputs, k, ways.dtype) for k in others)]
    found: list[dict[str, Gaps]] = []
    for k, point in enumerate(points):
        found.append(_gaps(ways, reference, point, outside, k, alone))
        if k == FEW - 1 and not _shrinking(ways, _columns(found), LITTLE):
            break
    columns = _columns(found)
    shrinking = _shrinking(ways, columns)
    rest = {name: where for name, where in outside.items() if name not in shrinking}
    drowned = _drowned(ways, reference, inputs, rest) if rest and not alone else []
    lost = shrinking + drowned
    more = [name for name in lost if _excess(ways, columns[name]) > 1]
    if more:
        asked = {name: outside[name] for name in more}
        excused = _as_rounded(ways, reference, points, asked, columns)
        more = [name for name in more if name not in excused]
    return [name for name in lost if name not in more]


def _columns(found: Sequence[Mapping[str, Gaps]]) -> dict[str, Gaps]:
    """The gaps at all points, of each result."""
    return {
        name: Gaps(*map(np.array, zip(*(gaps[name] for gaps in found), strict=True)))
        for name in found[0]
    }


def _shrinking(ways: Ways, columns: Mapping[str, Gaps], share: float = 1.0) -> list[str]:
    """The results whose error shrinks, by this share of what is needed at least."""
    needed = share * SHRINKS * ways.promised
    return [n for n, (low, high, *_) in columns.items() if low.max() > needed * high.max()]


def _excess(ways: Ways, gaps: Gaps) -> float:
    """How many times more than it may the error shrinks, where it does most."""
    smallest = SMALLEST[ways.half] if ways.half else float(np.finfo(np.float32).smallest_subnormal)
    most = gaps.higher.max(axis=0) + unit_roundoff(ways.wide) * gaps.size.max(axis=0)
    allowed = ways.promised * most + smallest
    return _largest(gaps.smallest(), (MORE_HALF if ways.half else MORE) * allowed)


def _as_rounded(
    ways: Ways,
    reference: Function,
    points: Sequence[Any],
    outside: Mapping[str, np.ndarray],
    columns: Mapping[str, Gaps],
) -> list[str]:
    """The results that are no further off in few bits than the code for more is whose every step is
    rounded to few."""
    assert ways.high
    made = {name: np.zeros(columns[name].low.shape[1:]) for name in outside}
    for k in range(OPINIONS):
        for i, point in enumerate(points):
            truth = reference(cast(point, np.float64))
            try:
                as_if = emulated(ways.high, ways.dtype, OPINIONS * i + k)
                ours = as_if(cast(point, ways.wide))
            except Exception:  # whatever one raises that does not take such arrays
                return []
            for name, where in outside.items():
                gap = _gap(ours, truth, name, where)
                if ways.half:
                    gap[np.isinf(gap)] = 0
                made[name] = np.maximum(made[name], gap)
    return [
        name
        for name, gaps in columns.items()
        if name in outside
        and _largest(gaps.smallest(), LIMIT * (made[name] + ways.u * gaps.size.max(axis=0))) <= 1
    ]


def _largest(error: np.ndarray, allowed: np.ndarray) -> float:
    """The largest error / allowed, where not anything is."""
    measured = np.isfinite(allowed)
    return float(np.max(error[measured] / allowed[measured], initial=0.0))


def _drowned(
    ways: Ways, reference: Function, inputs: Any, outside: Mapping[str, np.ndarray]
) -> list[str]:
    """The results that lost no more than what one term loses beside a far larger one: 1 + e⁻⁴⁰ is
    1.

    There the error is all of a tiny result, in any dtype. But it is below u of the inputs; and at
    inputs scaled down, or up where they are tiny themselves, towards where more bits still see the
    term, fewer lose it: every element that is outside, at one of them. Some lose digits anywhere,
    and beside a mask of −3·10³⁸ everything is below u of the inputs.
    """
    floating = [leaf for leaf in leaves(inputs) if is_floating(leaf)]
    if not floating:
        return []
    largest = max((float(abs(finite_part(leaf)).max(initial=0)) for leaf in floating), default=0.0)
    allowed = LIMIT * unit_roundoff(ways.half or floating[0].dtype) * max(largest, 1.0)
    ours, truth = ways.low(inputs), reference(cast(inputs, np.float64))
    small = {
        name: where
        for name, where in outside.items()
        if np.isfinite(np.asarray(ours[name])[where]).all()
        and difference(np.asarray(ours[name]), truth[name])[where].max() <= allowed
    }
    lost = {name: np.zeros(np.count_nonzero(where), bool) for name, where in small.items()}
    for k, factor in enumerate(NEARBY, start=1):
        if all(each.all() for each in lost.values()):
            break
        wide = cast(inputs, np.float64)
        scaled = tree_map(
            lambda leaf, by=factor: _scaled(leaf, by) if is_floating(leaf) else leaf, wide
        )
        point = cast(scaled, ways.dtype)
        for name, (low, high, _, size) in _gaps(ways, reference, point, small, k).items():
            by_few = np.isfinite(low) & (low > DROWNS * ways.promised * high)
            lost[name] |= by_few & (low > 64 * ways.u * size)
    return [name for name, each in lost.items() if each.all()]


def _scaled(a: np.ndarray, factor: float) -> np.ndarray:
    """The array times the factor; up, only elements that are tiny, and remain below 1."""
    moved = a * factor
    return np.asarray(moved if factor < 1 else np.where(abs(moved) < 1, moved, a))


def _gaps(
    ways: Ways,
    reference: Function,
    low: Any,
    outside: Mapping[str, np.ndarray],
    seed: int,
    alone: bool = False,
) -> dict[str, Gaps]:
    """The gaps at these inputs.

    The error in more bits is the larger of two: on the same inputs, because a kink is at a single
    point; and so near to them that fewer bits could not hold the difference, because what is
    computed in few shows nothing on its own numbers. A third, anywhere up to the next number of few
    bits, tells what more bits lose where the first two are alike. With `alone`, the first is all.
    """
    assert ways.high
    wide = cast(low, ways.wide)
    rng = np.random.default_rng(seed)
    sizes = (0.0,) * 3 if alone else (0.0, ways.u / 4, ways.u * rng.uniform())
    truths, ours = [], []
    for size in sizes:
        point = moved(wide, size, rng) if size else wide
        truths.append(reference(cast(point, np.float64)))
        ours.append(ways.high(point))
    found = {}
    first = ways.low(low)
    for name, where in outside.items():
        same, near, between = (
            _gap(high, truth, name, where) for high, truth in zip(ours, truths, strict=True)
        )
        high = np.maximum(same, near)
        scale = abs(finite_part(truths[0][name][where]))
        error = _gap(first, truths[0], name, where)
        found[name] = Gaps(error, high, np.maximum(high, between), scale)
    return found


def _gap(ours: Results, truth: Results, name: str, where: np.ndarray) -> np.ndarray:
    """|ours − truth| at the elements outside, infinite where only ours is."""
    a, b = np.asarray(ours[name])[where], truth[name][where]
    apart = np.where(np.isfinite(a), difference(a, b), np.inf)
    return np.where(same_values(a, b), 0, apart)
