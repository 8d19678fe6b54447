"""A difference, judged: against a floor that is measured, never against a tolerance that was
picked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..reference.adapters import leaves, tree_map
from .noise import OneUlpNoise, cast, is_floating, moved, unit_roundoff

DTYPES = ("float64", "float32")  # that are judged

# In floors: how far a correct value, gradient, step or free run may be from the reference.
# `gradtwin calibrate` measures it on all that is here, with --kernels on each set of kernels.
LIMIT = 8.0

DRAWS = 6  # of noise
TOGETHER = 2**16  # elements that are screened at a time
HOPELESS = 1e4  # margin from which no further draw is made
SMALL, LARGE = 32, 1024 * 32  # the two sizes of a draw, in units of u
HALF = (2.0**-9, 2.0**-4)  # the same of results in 16 bits: one ulp of bfloat16, and 32
RUNS = 7  # of the reference under noise, for the floor of a free run
WINDOW = 10  # steps before and after, over which the floor of a free run takes the largest drift

IDENTICAL, ROUNDING, IMPRECISE = "identical", "rounding", "imprecise"
REFERENCE_IMPRECISE, PARTED, UNDECIDED = "reference imprecise", "parted", "undecided"
DIFFERENT = "different"
# From harmless to wrong: many comparisons together have the last class that occurs among them.
CLASSES = (IDENTICAL, ROUNDING, REFERENCE_IMPRECISE, IMPRECISE, PARTED, UNDECIDED, DIFFERENT)

Results = Mapping[str, np.ndarray]
Function = Callable[[Any], Results]  # a tree of arrays → named results
Exact = Callable[[str, tuple[int, ...]], float]  # name of a result, index → exact value


@dataclass(frozen=True)
class Verdict:
    """One result, judged. The values are those of the element with the largest margin."""

    kind: str  # one of CLASSES
    margin: float  # |difference| / (LIMIT · floor), the largest
    ulp: int  # distance in units in the last place, the largest
    index: tuple[int, ...] | None
    manual: float
    reference: float
    error: float  # ‖difference‖ / ‖reference‖
    floor: float
    level: float  # the largest floor / the largest |reference|: the floor of the tensor as a whole
    resolution: float  # the smallest relative error that would have been seen: the median
    note: str = ""


def _middle(a: np.ndarray) -> float:
    """The upper median, NaN of nothing."""
    return float(np.sort(a)[a.size // 2]) if a.size else math.nan


EMPTY = Verdict(IDENTICAL, 0.0, 0, None, math.nan, math.nan, 0.0, 0.0, 0.0, math.nan)


def worst(kinds: Iterable[str]) -> str:
    """The last of CLASSES that occurs."""
    return max(kinds, key=CLASSES.index, default=IDENTICAL)


class Floor:
    """The reference at one point, and how far rounding can move each element of its results.

    truth is the reference in float64, native the reference in the dtype of the inputs, and the
    floor of an element

        u |truth| + own + noise

    where `own` is what torch itself loses in the subject's dtype, and `noise` how far the result
    moves when all that the reference sees or computes moves by one ulp. Both are the largest seen
    so far; each draw adds to both. Where truth and native are `known`, even `own` is measured only
    when the first term does not settle it.
    """

    def __init__(
        self,
        reference: Function,
        inputs: Any,
        dtype: Any,
        known: Sequence[Results] = (),
    ) -> None:
        # What is single on purpose beside a float64 subject, like NAdam's product, remains so.
        as_given = np.dtype(dtype) == np.float64
        self.inputs = inputs if as_given else cast(inputs, np.float64)
        self.reference, self.dtype = reference, dtype
        self.draws = 0
        if known:
            self.truth, self.native = known
        else:
            self.truth = reference(self.inputs)
            self.native = self.truth if as_given else reference(inputs)
        self._rounding = {}
        for name, value in self.native.items():
            rounds = value.dtype if is_floating(value) else np.float64
            size = abs(_finite(self.truth[name])) if is_floating(value) else 0  # whole numbers fit
            self._rounding[name] = unit_roundoff(rounds) * size + float(np.finfo(rounds).tiny)
        self.noise = {name: np.zeros(value.shape) for name, value in self.truth.items()}
        self._own: Results = dict(self.noise)
        self._knows_own = False
        if not known:
            self.widen()

    def widen(self) -> bool:
        """Measures a further part of the floor; False when all of it is known."""
        if not self._knows_own:
            self._knows_own = True
            if self.dtype == np.float32:
                self._own = self._loss_of(self.native, self.truth)
            else:
                self._own = self._lost(cast(self.inputs, np.float32))
            return True
        if self.draws == DRAWS:
            return False
        self.draw()
        return True

    @property
    def values(self) -> Results:
        return {n: self._rounding[n] + self._own[n] + self.noise[n] for n in self.truth}

    def draw(self) -> None:
        """One more draw: of noise, at two sizes with the same signs, and of what torch loses,
        nearby.

        A movement that does not grow with the noise is a jump (a kink, a tie, a clip edge) and
        gives no slack.
        """
        self.draws += 1
        u = unit_roundoff(self.dtype)
        halves = self._move(SMALL * u, LARGE * u, u, SMALL)
        if halves:  # what is computed in 16 bits on the way has a far larger ulp
            self._move(*HALF, u, 1, half=True)
        lost = self._lost(nearby(self.inputs, self.draws))
        self._own = {name: np.maximum(own, lost[name]) for name, own in self._own.items()}

    def _move(self, small: float, large: float, u: float, units: float, half: bool = False) -> int:
        """Adds how far noise of the small size moves the results, divided by `units`; gives how
        many 16-bit results were seen."""
        (a, halves), (b, _) = (self._disturbed(size, half) for size in (small, large))
        for name, value in self.truth.items():
            movement = _distance(a[name], value) / units
            further = _distance(b[name], value) / units
            smooth = movement <= further / math.sqrt(large / small)
            smooth |= movement <= 4 * u * abs(_finite(value))
            self.noise[name] = np.maximum(self.noise[name], np.where(smooth, movement, 0))
        return halves

    def _disturbed(self, size: float, half: bool) -> tuple[Results, int]:
        rng = np.random.default_rng(self.draws)
        inputs = self.inputs if half else moved(self.inputs, size, rng)
        with OneUlpNoise(size, self.draws, half) as mode:
            return self.reference(inputs), mode.halves

    def _lost(self, single: Any) -> Results:
        return self._loss_of(self.reference(single), self.reference(cast(single, np.float64)))

    def _loss_of(self, low: Results, high: Results) -> Results:
        """|torch in float32 − torch in float64| on float32 inputs, for a float64 subject times
        2⁻²⁹."""
        scale = unit_roundoff(self.dtype) / unit_roundoff(np.float32)
        return {name: scale * _distance(low[name], high[name]) for name in high}

    def margin(self, name: str, ours: np.ndarray) -> np.ndarray:
        """|ours − truth| / (LIMIT · floor), element by element.

        NaN and ±∞ must stand where the reference has them, in float64 or, when only that overflows,
        in its own dtype.
        """
        truth, native = self.truth[name], self.native[name]
        with np.errstate(over="ignore"):
            margin = _distance(ours, truth) / (LIMIT * self.values[name])
        finite = np.isfinite(ours) & np.isfinite(truth)
        return np.where(
            finite, margin, np.where(_same(ours, truth) | _same(ours, native), 0, np.inf)
        )


def nearby(inputs: Any, seed: int) -> Any:
    """The inputs in float32, moved by one ulp of it."""
    rng = np.random.default_rng(seed)
    return moved(cast(inputs, np.float32), 2 * unit_roundoff(np.float32), rng)


def judge(
    subject: Function,
    reference: Function,
    inputs: Any,
    dtype: Any,
    exact: Exact | None = None,
    before: Results | None = None,
    thorough: bool = False,
) -> dict[str, Verdict]:
    """A verdict on each result of the subject, from the reference in float64 on the same inputs.

    Noise is drawn only while something is outside the floor, unless `thorough`. `exact` decides
    where the reference may be the one that is wrong. With `before`, resolutions are relative to the
    change from there: an optimizer's step is a change.
    """
    floor = Floor(reference, inputs, dtype)
    return settle(floor, subject, inputs, subject(inputs), exact, before, thorough)


def settle(
    floor: Floor,
    subject: Function,
    inputs: Any,
    results: Results,
    exact: Exact | None = None,
    before: Results | None = None,
    thorough: bool = False,
    finite: bool = False,
) -> dict[str, Verdict]:
    """As `judge`, for results that the subject has given already, against a floor that may know
    much already. With `finite`, only the elements count where the reference is finite."""
    ours = {name: np.asarray(value) for name, value in results.items()}
    if ours.keys() != floor.truth.keys():
        raise ValueError(f"results: expected {', '.join(floor.truth)}, got {', '.join(ours)}")
    notes = {name: _misfit(ours[name], native) for name, native in floor.native.items()}
    fitting = [name for name, note in notes.items() if not note]

    def measured() -> dict[str, np.ndarray]:
        margins = {name: floor.margin(name, ours[name]) for name in fitting}
        if finite:
            return {n: np.where(np.isfinite(floor.truth[n]), m, 0) for n, m in margins.items()}
        return margins

    margins = measured()
    while thorough or _open(floor, margins):
        if not floor.widen():
            break
        margins = measured()

    outside = {name: margin > 1 for name, margin in margins.items() if margin.max(initial=0) > 1}
    kinds = dict.fromkeys(outside, DIFFERENT)
    if exact:
        reference_lost = {n for n in outside if _nearer(exact, n, ours[n], outside[n], floor)}
        kinds |= dict.fromkeys(reference_lost, REFERENCE_IMPRECISE)
    undecided = {name: outside[name] for name, kind in kinds.items() if kind == DIFFERENT}
    if undecided:
        lost = _only_digits_lost(subject, floor.reference, inputs, undecided)
        kinds |= dict.fromkeys(lost, IMPRECISE)
    return {
        name: Verdict(
            DIFFERENT, math.inf, 0, None, math.nan, math.nan, math.inf, 0.0, 0.0, math.nan, note
        )
        if note
        else _described(ours[name], name, floor, margins[name], kinds.get(name), before)
        for name, note in notes.items()
    }


def _open(floor: Floor, margins: Mapping[str, np.ndarray]) -> bool:
    """Whether more noise could still bring a result inside: after two draws it will not come from
    HOPELESS times as far, unless no draw has moved that element at all."""
    return any(
        np.any((m > 1) & ((floor.draws < 2) | (m <= HOPELESS) | (floor.noise[name] == 0)))
        for name, m in margins.items()
    )


def screen(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], finite: Sequence[bool]
) -> list[Verdict | None]:
    """For each (ours, truth), shapes being equal: its verdict if u |truth|, the first term of the
    floor, settles it, else None.

    Many are looked at together, because most are small. With `finite`, only the elements count
    where the truth is finite.
    """
    verdicts: list[Verdict | None] = [None if ours.size else EMPTY for ours, _ in pairs]
    groups: dict[tuple[np.dtype, int], list[int]] = {}
    elements = 0
    for i, (ours, _) in enumerate(pairs):
        if ours.size:
            elements += ours.size
            groups.setdefault((ours.dtype, elements // TOGETHER), []).append(i)
    for chosen in groups.values():
        found = _screened([pairs[i] for i in chosen], [finite[i] for i in chosen])
        for i, verdict in zip(chosen, found, strict=True):
            verdicts[i] = verdict
    return verdicts


def _screened(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], finite: Sequence[bool]
) -> list[Verdict | None]:
    """As `screen`, for pairs of one dtype that are not empty, laid end to end."""
    shapes = [a.shape for a, _ in pairs]
    sizes = np.array([a.size for a, _ in pairs])
    ends = np.cumsum(sizes)
    starts: Any = ends - sizes
    ours = np.concatenate([a.ravel() for a, _ in pairs])
    truth = np.concatenate([t.ravel() for _, t in pairs])
    ignored = np.repeat(finite, sizes) & ~np.isfinite(truth)
    size, gap = abs(_finite(truth)), _distance(ours, truth)
    u = unit_roundoff(ours.dtype)
    floor = u * size + float(np.finfo(ours.dtype).tiny)
    both = np.isfinite(ours) & np.isfinite(truth)
    margin = np.where(both, gap / (LIMIT * floor), np.where(_same(ours, truth), 0, np.inf))
    margin[ignored] = 0
    distances = np.where(ignored, 0, ulps(ours, truth))

    def largest(values: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(values, starts)

    def norms(values: np.ndarray) -> np.ndarray:
        return np.sqrt(np.add.reduceat((values / np.repeat(scale, sizes)) ** 2, starts))

    worst, furthest, most = largest(margin), largest(distances), largest(size)
    scale = np.where(most > 0, most, 1)  # so that no square overflows
    apart, norm = norms(gap), norms(size)
    error = np.where(apart > 0, apart / norm, 0)
    # The first element of each pair that has its largest margin, or its largest distance.
    by = np.where(np.repeat(worst > 0, sizes), margin, distances)
    first = np.flatnonzero(by == np.repeat(np.where(worst > 0, worst, furthest), sizes))
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


def _described(
    ours: np.ndarray,
    name: str,
    floor: Floor,
    margin: np.ndarray,
    kind: str | None,
    before: Results | None,
) -> Verdict:
    truth, slack = floor.truth[name], floor.values[name]
    if not truth.size:
        return EMPTY
    distances = ulps(ours, truth)
    index = np.unravel_index(np.argmax(margin if margin.any() else distances), margin.shape)
    change = _distance(truth, before[name]) if before and name in before else _finite(abs(truth))
    visible = change > 0
    with np.errstate(over="ignore"):  # a change so small that it could never be seen
        blur = slack[visible] / change[visible]
    largest = float(abs(_finite(truth)).max())
    scale = largest or 1.0  # so that no square overflows
    norm = float(np.linalg.norm(_finite(truth) / scale))
    gap = float(np.linalg.norm(_distance(ours, truth) / scale))
    return Verdict(
        kind or (ROUNDING if distances.any() else IDENTICAL),
        float(margin.max()),
        int(distances.max()),
        tuple(map(int, index)),
        float(ours[index]),
        float(truth[index]),
        gap / norm if norm else (math.inf if gap else 0.0),
        float(slack[index]),
        float(slack.max()) / largest if largest else 0.0,
        LIMIT * _middle(blur),
    )


def ulps(ours: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many floating-point numbers of the dtype of `ours` lie between it and the truth, rounded
    to that dtype; between whole numbers, their difference."""
    if ours.dtype.kind != "f":
        return abs(ours.astype(np.int64) - truth.astype(np.int64))
    bits: Any = {2: np.uint16, 4: np.uint32, 8: np.uint64}[ours.dtype.itemsize]
    with np.errstate(over="ignore"):
        pair = [np.ascontiguousarray(a, ours.dtype).view(bits) for a in (ours, truth)]
    negative = bits(1 << (8 * ours.dtype.itemsize - 1))
    a, b = (np.where(p >= negative, negative - (p - negative), p + negative) for p in pair)
    distance = np.maximum(a, b) - np.minimum(a, b)
    return np.where(_same(ours, truth), bits(0), distance).reshape(ours.shape)


def _misfit(ours: np.ndarray, native: np.ndarray) -> str:
    if ours.shape != native.shape:
        return f"shape {ours.shape} instead of {native.shape}"
    if ours.dtype != native.dtype:
        return f"dtype {ours.dtype} instead of {native.dtype}"
    return ""


def _nearer(exact: Exact, name: str, ours: np.ndarray, outside: np.ndarray, floor: Floor) -> bool:
    """Whether ours is within the floor of the exact value wherever it is outside that of the
    reference."""
    u = unit_roundoff(ours.dtype)
    for i in map(tuple, np.argwhere(outside)):
        value = exact(name, i)
        if not abs(float(ours[i]) - value) <= LIMIT * (floor.values[name][i] + u * abs(value)):
            return False
    return True


def _only_digits_lost(
    subject: Function, reference: Function, inputs: Any, outside: Mapping[str, np.ndarray]
) -> list[str]:
    """The results whose error is rounding: it shrinks with u, as that of a mistake does not.

    Float64 makes errors 2²⁹ times smaller than float32; 2²² of it must be seen at the elements
    outside, between the largest errors over several inputs nearby.
    """
    low, high = dict.fromkeys(outside, 0.0), dict.fromkeys(outside, 0.0)
    for seed in range(DRAWS):
        single = nearby(inputs, seed) if seed else cast(inputs, np.float32)
        for name, (gap, finer, _) in _gaps(subject, reference, single, outside).items():
            low[name] = max(low[name], float(gap.max()))
            high[name] = max(high[name], float(finer.max()))
    shrinking = [name for name in outside if low[name] > 2.0**22 * high[name]]
    rest = {name: where for name, where in outside.items() if name not in shrinking}
    return shrinking + (_drowned(subject, reference, inputs, rest) if rest else [])


def _drowned(
    subject: Function, reference: Function, inputs: Any, outside: Mapping[str, np.ndarray]
) -> list[str]:
    """The results that lost no more than what one term loses beside a far larger one: 1 + e⁻⁴⁰ is
    1.

    There the error is all of a tiny result, in any dtype. But it is below u of the inputs; and at
    inputs scaled down, towards where float64 still sees the term, float32 loses it.
    """
    floating = [leaf for leaf in leaves(inputs) if is_floating(leaf)]
    if not floating:
        return []
    largest = max((float(abs(_finite(leaf)).max(initial=0)) for leaf in floating), default=0.0)
    allowed = LIMIT * unit_roundoff(floating[0].dtype) * max(largest, 1.0)
    ours, truth = subject(inputs), reference(cast(inputs, np.float64))
    small = {
        name: where
        for name, where in outside.items()
        if np.isfinite(np.asarray(ours[name])[where]).all()
        and _distance(np.asarray(ours[name]), truth[name])[where].max() <= allowed
    }
    found = set()
    for k in range(1, 17 if small else 0):
        scaled = tree_map(
            lambda leaf, k=k: np.asarray(leaf * 2.0 ** (-k / 2)) if is_floating(leaf) else leaf,
            cast(inputs, np.float64),
        )
        single = cast(scaled, np.float32)
        for name, (gap, finer, size) in _gaps(subject, reference, single, small).items():
            lost = gap > 64 * unit_roundoff(np.float32) * size
            if np.any(lost & np.isfinite(gap) & (gap > 2.0**20 * finer)):
                found.add(name)
    return [name for name in small if name in found]


def _gaps(
    subject: Function, reference: Function, single: Any, outside: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For the elements outside: the error in float32 on these inputs, that in float64, and the size
    of the truth.

    That in float64 is the larger of two: on the same inputs, because a kink is at a single point;
    and so near to them that float32 could not hold the difference, because what is computed in
    float32 shows nothing on its own numbers.
    """
    double = cast(single, np.float64)
    between = moved(double, unit_roundoff(np.float32) / 4, np.random.default_rng(0))
    truth, truth_between = reference(double), reference(between)
    low, high, high_between = subject(single), subject(double), subject(between)

    def gap(ours: Results, truth: Results, name: str) -> np.ndarray:
        a, b = np.asarray(ours[name])[outside[name]], truth[name][outside[name]]
        apart = np.where(np.isfinite(a), _distance(a, b), np.inf)
        return np.where(_same(a, b), 0, apart)

    return {
        name: (
            gap(low, truth, name),
            np.maximum(gap(high, truth, name), gap(high_between, truth_between, name)),
            abs(_finite(truth[name][where])),
        )
        for name, where in outside.items()
    }


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _finite(a: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(a), a, 0).astype(np.float64)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| in float64 where both are finite, 0 elsewhere."""
    both = np.isfinite(a) & np.isfinite(b)
    return abs(np.where(both, a, 0).astype(np.float64) - np.where(both, b, 0).astype(np.float64))


@dataclass(frozen=True)
class Drift:
    """How far a free run is from the reference's, step by step, beside how far noise drives it."""

    drift: np.ndarray
    floor: np.ndarray
    ratio: np.ndarray  # drift / floor
    sharpness: float  # the largest ratio of a noisy run to the floor of the others

    @property
    def parted(self) -> int | None:
        """The first step of the ratio beyond LIMIT, from 0, or None."""
        beyond = np.flatnonzero(self.ratio > LIMIT)
        return int(beyond[0]) if beyond.size else None


def free_drift(
    ours: np.ndarray, twin: np.ndarray, noisy: np.ndarray, u: float, scale: np.ndarray | None = None
) -> Drift:
    """The drift of a free run, and its floor: u |scale| + the largest drift of a noisy run within
    WINDOW steps.

    ours and twin are (steps, …) and noisy (runs, steps, …), recorded at every step. What lies
    behind the steps counts as one: its largest element, each relative to `scale`. Without a scale,
    for a loss, differences are absolute.
    """
    relative = np.ones_like(twin) if scale is None else scale
    size = abs(_finite(twin)) if scale is None else np.ones(len(twin))

    def distance(run: np.ndarray) -> np.ndarray:
        apart = np.where(
            _same(run, twin),
            0,
            np.where(np.isfinite(run) & np.isfinite(twin), _distance(run, twin), np.inf),
        )
        return np.divide(apart, relative).reshape(len(twin), -1).max(axis=1)

    drifts = np.array([distance(run) for run in noisy])
    drift = distance(ours)

    def floor(of: np.ndarray) -> np.ndarray:
        padded = np.pad(of.max(axis=0), WINDOW)
        return u * size + np.lib.stride_tricks.sliding_window_view(padded, 2 * WINDOW + 1).max(
            axis=1
        )

    def ratio(of: np.ndarray, to: np.ndarray) -> np.ndarray:
        comparable = np.isfinite(to) & (of > 0)
        return np.where(comparable, of / np.where(comparable & (to > 0), to, 1), 0)

    rest = [ratio(d, floor(np.delete(drifts, k, axis=0))).max() for k, d in enumerate(drifts)]
    return Drift(drift, floor(drifts), ratio(drift, floor(drifts)), float(max(rest)))
