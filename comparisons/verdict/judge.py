"""A difference, judged: against a floor that is measured, never against a tolerance that was
picked."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ml_dtypes import finfo

from .classes import (
    CONVENTION,
    DIFFERENT,
    EMPTY,
    IDENTICAL,
    IMPRECISE,
    LIMIT,
    REFERENCE_IMPRECISE,
    ROUNDING,
    Exact,
    Exactly,
    Function,
    Results,
    Sides,
    Verdict,
)
from .cut import cut
from .digits import Ways, only_digits_lost
from .floor import DRAWS, Floor
from .halves import SMALLEST, rounded
from .noise import is_floating, moved, unit_roundoff
from .ulps import by_blocks, difference, finite_part, same_values, ulps

TOGETHER = 2**16  # elements screened at a time
# Up to this margin twice as many draws are made: of the millions of elements that a network has
# some are hardly moved by any of the first.
CLOSE = 2.0
HOPELESS = 1e4  # above this margin, no further noise is drawn


def judge(
    subject: Function,
    reference: Function,
    inputs: Any,
    dtype: Any,
    exact: Exactly | None = None,
    before: Results | None = None,
    thorough: bool = False,
    finer: Function | None = None,
) -> dict[str, Verdict]:
    """A verdict on each result of the subject, from the reference in float64 on the same inputs.

    Noise is drawn only while something is outside the floor, unless `thorough`. `exact` decides
    where the reference may be the one that is wrong. With `before`, resolutions are relative to the
    change from there: an optimizer's step is a change.

    A subject in 16 bits, where `dtype` is one of HALF_DTYPES, takes and gives arrays of float32
    that hold its numbers; `finer` is the same in float32, if there is that.
    """
    floor = Floor(reference, inputs, dtype)
    results = subject(inputs)
    return settle(floor, subject, inputs, results, exact, before, thorough, finer=finer)


def settle(
    floor: Floor,
    subject: Function,
    inputs: Any,
    results: Results,
    exact: Exactly | None = None,
    before: Results | None = None,
    thorough: bool = False,
    finite: bool = False,
    sides: Sides | None = None,
    finer: Function | None = None,
    hopeless: Collection[str] = (),
) -> dict[str, Verdict]:
    """As `judge`, for results that the subject has given already, against a floor that may know
    much already. With `finite`, only the elements count where the reference is finite. With
    `sides`, any slope between that to the left and that to the right of a kink is a convention.
    Of `hopeless` results what is outside the floor is different, nothing else is asked, and no
    noise is drawn for what is far outside."""
    ours = {name: np.asarray(value) for name, value in results.items()}
    if ours.keys() != floor.truth.keys():
        raise ValueError(f"results: expected {', '.join(floor.truth)}, got {', '.join(ours)}")
    notes = {name: _misfit(ours[name], native, floor.half) for name, native in floor.native.items()}
    fitting = [name for name, note in notes.items() if not note]

    def measured(names: Sequence[str]) -> dict[str, np.ndarray]:
        margins = {name: floor.margin(name, ours[name]) for name in names}
        if finite:
            return {n: np.where(np.isfinite(floor.truth[n]), m, 0) for n, m in margins.items()}
        return margins

    margins, widened = measured(fitting), False

    def open_() -> bool:
        near = {
            name: margin
            for name, margin in margins.items()
            if name not in hopeless or margin.max(initial=0) <= HOPELESS
        }
        return _open(floor, near)

    while thorough or open_():
        outside = {n: m > 1 for n, m in margins.items() if m.max(initial=0) > 1}
        if not thorough:
            floor.narrow(outside)
        furthest = max((margins[n].max() for n in outside), default=0.0)
        if not floor.widen(thorough, 2 * DRAWS if 1 < furthest <= CLOSE else DRAWS):
            break
        widened = True
        margins |= measured(list(outside))
    if widened:  # what is within remains so, but its margin is less
        margins = measured(fitting)

    outside = {name: margin > 1 for name, margin in margins.items() if margin.max(initial=0) > 1}
    kinds = dict.fromkeys(outside, DIFFERENT)
    asked = {n: m for n, m in outside.items() if is_floating(ours[n]) and n not in hopeless}
    if asked:
        kinds |= _kinds(floor, subject, inputs, ours, asked, exact, sides, finer)
    slack = floor.values

    def described(name: str) -> Verdict:
        then = before[name][None] if before and name in before else None
        known = (floor.truth[name], slack[name], margins[name])
        truth, width, margin = (a[None] for a in known)
        kind = kinds.get(name)
        return _described(ours[name][None], truth, width, margin, then, kind, floor.half)[0]

    return {
        name: Verdict(
            DIFFERENT, math.inf, 0, None, math.nan, math.nan, math.inf, 0.0, 0.0, math.nan, note
        )
        if note
        else described(name)
        for name, note in notes.items()
    }


def _kinds(
    floor: Floor,
    subject: Function,
    inputs: Any,
    ours: Results,
    outside: Mapping[str, np.ndarray],
    exact: Exactly | None,
    sides: Sides | None,
    finer: Function | None,
) -> dict[str, str]:
    """The class of each result that has elements outside the floor."""
    kinds = dict.fromkeys(outside, DIFFERENT)
    slack = floor.values
    smaller = cut(floor.reference, floor.inputs, floor.truth, outside)
    if exact and (oracle := exact(smaller.of(inputs) if smaller else inputs)):
        oracle = functools.cache(oracle)
        moves: Results | None = None
        for name in outside:
            place = smaller.places[name] if smaller else ...
            u = floor.u(ours[name])
            result, mask, width = (a[name][place] for a in (ours, outside, slack))
            near = _nearer(oracle, name, result, mask, width, u)
            if not (near or floor.once):
                moves = moves or _moves(subject, inputs, ours, floor.dtype)
                near = _nearer(oracle, name, result, mask, width + moves[name][place], u)
            if near:
                kinds[name] = REFERENCE_IMPRECISE
    if sides:
        left = [n for n in outside if kinds[n] == DIFFERENT and not n.startswith("value")]
        chosen = {
            n for n in left if _between(sides, n, ours[n], outside[n], slack[n], floor.u(ours[n]))
        }
        kinds |= dict.fromkeys(chosen, CONVENTION)
    if undecided := {name: outside[name] for name, kind in kinds.items() if kind == DIFFERENT}:
        if smaller and smaller.gives(subject, inputs, ours):
            inputs = smaller.of(inputs)
            undecided = {name: mask[smaller.places[name]] for name, mask in undecided.items()}
        ways = Ways(subject, finer, floor.half) if floor.half else Ways(subject, subject)
        lost = only_digits_lost(ways, floor.reference, inputs, undecided, floor.alone)
        kinds |= dict.fromkeys(lost, IMPRECISE)
    return kinds


def _moves(subject: Function, inputs: Any, ours: Results, dtype: Any) -> Results:
    """How far the results move where every input moves by one rounding: as far as any formula may
    be off the exact value, also where the reference is wrong as a whole and has no noise."""
    rng = np.random.default_rng(12)
    moves = {name: np.zeros(value.shape) for name, value in ours.items()}
    for _ in range(DRAWS):
        found = subject(moved(inputs, 2 * unit_roundoff(dtype), rng))
        for name, value in ours.items():
            moves[name] = np.maximum(moves[name], difference(found[name], value))
    return moves


def settle_rows(floor: Floor, results: Results, before: Results) -> list[dict[str, Verdict] | None]:
    """As `settle`, for many comparisons that lie side by side along the first axis of everything:
    the verdicts of each, None where the floor as it is known does not settle all of them."""
    slack = floor.values
    columns = [
        _described(ours, floor.truth[n], slack[n], floor.margin(n, ours), before.get(n))
        for n, ours in results.items()
    ]
    return [
        dict(zip(results, verdicts, strict=True)) if all(v.margin <= 1 for v in verdicts) else None
        for verdicts in zip(*columns, strict=True)
    ]


def _open(floor: Floor, margins: Mapping[str, np.ndarray]) -> bool:
    """Whether more noise could still bring a result inside: after two draws it will not come from
    HOPELESS times as far, nor after one from its square, unless no draw has moved that element at
    all, or it comes from 16 bits, of which one that flips or does not makes all the difference."""
    early = floor.draws < 1 or floor.halves
    hopeless = HOPELESS ** (2 if floor.draws < 2 else 1)
    for name, margin in margins.items():
        if not is_floating(floor.truth[name]) or not (outside := margin > 1).any():
            continue
        if early or np.any((margin[outside] <= hopeless) | (floor.noise[name][outside] == 0)):
            return True
    return False


def screen(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], finite: Sequence[bool], half: str = ""
) -> list[Verdict | None]:
    """For each (ours, truth), shapes being equal: its verdict if u |truth|, the first term of the
    floor, settles it, else None. All of them are of the same type of 16 bits, where one is given.

    Many are looked at together, because most are small. With `finite`, only the elements count
    where the truth is finite.
    """
    first: dict[tuple[int, int, bool], int] = {}  # the same arrays are looked at once
    same = [
        first.setdefault((id(ours), id(truth), only), i)
        for i, ((ours, truth), only) in enumerate(zip(pairs, finite, strict=True))
    ]
    verdicts: dict[int, Verdict | None] = {}
    groups: dict[tuple[np.dtype, int], list[int]] = {}
    elements = 0
    for i in first.values():
        ours, truth = pairs[i]
        if not is_floating(ours):  # whole numbers are equal, or no floor settles it
            verdicts[i] = EMPTY if np.array_equal(ours, truth) else None
        elif ours.size:
            elements += ours.size
            groups.setdefault((ours.dtype, elements // TOGETHER), []).append(i)
        else:
            verdicts[i] = EMPTY
    for chosen in groups.values():
        found = _screened([pairs[i] for i in chosen], [finite[i] for i in chosen], half)
        verdicts |= zip(chosen, found, strict=True)
    return [verdicts[i] for i in same]


def _screened(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], finite: Sequence[bool], half: str
) -> list[Verdict | None]:
    """As `screen`, for pairs of one dtype that are not empty, laid end to end."""
    shapes = [a.shape for a, _ in pairs]
    sizes = np.array([a.size for a, _ in pairs])
    ends = np.cumsum(sizes)
    starts: Any = ends - sizes
    ours, truth = (_end_to_end(column) for column in zip(*pairs, strict=True))
    size, gap = abs(finite_part(truth)), difference(ours, truth)
    u = unit_roundoff(half or ours.dtype)
    floor = u * size
    floor += SMALLEST[half] if half else float(finfo(ours.dtype).tiny)
    margin = LIMIT * floor
    np.divide(gap, margin, out=margin)
    both = np.isfinite(ours) & np.isfinite(truth)
    ignored = np.zeros(0, int)
    if not both.all():
        ignored = np.flatnonzero(np.repeat(finite, sizes) & ~np.isfinite(truth))
        margin[~both] = np.where(same_values(ours, truth), 0, np.inf)[~both]
        margin[ignored] = 0

    def largest(values: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(values, starts)

    def each(of_pairs: np.ndarray) -> np.ndarray:
        """What is known of each pair, for each of its elements."""
        return of_pairs if len(pairs) == 1 else np.repeat(of_pairs, sizes)

    def norms(values: np.ndarray) -> np.ndarray:
        scaled = values / each(scale)
        scaled *= scaled
        return np.sqrt(np.add.reduceat(scaled, starts))

    worst = largest(margin)
    if (worst > 1).all():  # as where there is but one that is large
        return [None] * len(pairs)
    distances = _distances(ours, truth, half)
    distances[ignored] = 0
    furthest, most = largest(distances), largest(size)
    scale = np.where(most > 0, most, 1)  # so that no square overflows
    apart, norm = norms(gap), norms(size)
    error = np.where(apart > 0, apart / norm, 0)
    # The first element of each pair that has its largest margin, or its largest distance.
    by = np.where(each(worst > 0), margin, distances)
    first = np.flatnonzero(by == each(np.where(worst > 0, worst, furthest)))
    at = first[np.searchsorted(first, starts)]
    level = np.where(most > 0, u, 0)
    resolution = np.where(most > 0, LIMIT * u, math.nan)
    columns = (
        worst,
        furthest,
        at - starts,
        ours[at],
        truth[at],
        error,
        floor[at],
        level,
        resolution,
    )
    return [
        Verdict(
            ROUNDING if far else IDENTICAL,
            margin_,
            far,
            tuple(map(int, np.unravel_index(place, shape))),
            *rest,
        )
        if margin_ <= 1
        else None
        for shape, margin_, far, place, *rest in zip(
            shapes, *(c.tolist() for c in columns), strict=True
        )
    ]


def _end_to_end(arrays: Sequence[np.ndarray]) -> np.ndarray:
    flat = [a.ravel() for a in arrays]
    return np.concatenate(flat) if len(flat) > 1 else flat[0]


def _described(
    ours: np.ndarray,
    truth: np.ndarray,
    slack: np.ndarray,
    margin: np.ndarray,
    before: np.ndarray | None = None,
    kind: str | None = None,
    half: str = "",
) -> list[Verdict]:
    """What is said of each of many results, which lie side by side along the first axis."""
    shape = truth.shape[1:]
    if not truth.size:
        return [EMPTY] * len(truth)
    sizes = abs(finite_part(truth))
    change = sizes if before is None else difference(truth, before)
    ours, truth, slack, margin, sizes, change = (
        a.reshape(len(a), -1) for a in (ours, truth, slack, margin, sizes, change)
    )
    rows = np.arange(len(truth))
    distances = _distances(ours, truth, half)
    worst, furthest = margin.max(axis=1), distances.max(axis=1)
    at = np.where(worst > 0, margin.argmax(axis=1), distances.argmax(axis=1))
    largest = sizes.max(axis=1)
    scale = np.where(largest > 0, largest, 1)[:, None]  # so that no square overflows

    def norm(values: np.ndarray) -> np.ndarray:
        scaled = values / scale
        return np.sqrt(np.vecdot(scaled, scaled))

    size, gap = norm(sizes), norm(difference(ours, truth))
    error = np.divide(gap, size, out=np.where(gap > 0, math.inf, 0.0), where=size > 0)
    level = np.where(largest > 0, slack.max(axis=1) / scale[:, 0], 0)
    columns = (
        *(worst, furthest, at, ours[rows, at], truth[rows, at], error, slack[rows, at], level),
        LIMIT * _blur(slack, change),
    )
    return [
        Verdict(
            kind or (ROUNDING if far else IDENTICAL),
            margin_,
            far,
            tuple(map(int, np.unravel_index(place, shape))),
            float(ours_),
            float(truth_),
            *rest,
        )
        for margin_, far, place, ours_, truth_, *rest in zip(
            *(c.tolist() for c in columns), strict=True
        )
    ]


def _distances(ours: np.ndarray, truth: np.ndarray, half: str = "") -> np.ndarray:
    """The distances in units in the last place, which are counted only where bits differ."""
    half = half if is_floating(ours) else ""
    return by_blocks(functools.partial(_distances_of_some, half), ours, truth)


def _distances_of_some(half: str, ours: np.ndarray, truth: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        theirs = rounded(truth, half) if half else truth.astype(ours.dtype, copy=False)
    if np.array_equal(ours, theirs):
        return np.zeros(ours.shape, np.uint64)
    return ulps(ours, truth, half).astype(np.uint64)


def _blur(slack: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The upper median of slack / change over the elements of each row that change, NaN where none
    does."""
    visible = change > 0
    with np.errstate(over="ignore"):  # a change so small that it could never be seen
        blur = np.divide(slack, change, out=np.full(slack.shape, np.inf), where=visible)
    seen = visible.sum(axis=1)
    blur.partition(np.unique(seen // 2), axis=1)
    return np.where(seen, blur[np.arange(len(blur)), seen // 2], math.nan)


def _misfit(ours: np.ndarray, native: np.ndarray, half: str = "") -> str:
    if ours.shape != native.shape:
        return f"shape {ours.shape} instead of {native.shape}"
    carried = half and is_floating(ours) and is_floating(native)  # in whatever arrays
    if ours.dtype != native.dtype and not carried:
        return f"dtype {ours.dtype} instead of {native.dtype}"
    return ""


def _nearer(
    exact: Exact, name: str, ours: np.ndarray, outside: np.ndarray, slack: np.ndarray, u: float
) -> bool:
    """Whether ours is within the floor of the exact value wherever it is outside that of the
    reference."""
    for i in map(tuple, np.argwhere(outside)):
        value = exact(name, i)
        if not abs(float(ours[i]) - value) <= LIMIT * (slack[i] + u * abs(value)):
            return False
    return True


def _between(
    sides: Sides, name: str, ours: np.ndarray, outside: np.ndarray, slack: np.ndarray, u: float
) -> bool:
    """Whether ours lies between the slopes of both sides wherever it is outside the floor of the
    reference."""
    for i in map(tuple, np.argwhere(outside)):
        low, high = sorted(sides(name, i))
        allowed = LIMIT * (slack[i] + u * max(abs(low), abs(high)))
        if not low - allowed <= float(ours[i]) <= high + allowed:
            return False
    return True
