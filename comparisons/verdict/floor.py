"""The floor of a result, which is measured: how far rounding can move each element."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import numpy as np
from ml_dtypes import finfo

from ...reference.adapters import Draws, leaves, tree_map
from .classes import LIMIT, Function, Results
from .cut import Places, cut
from .halves import SMALLEST, is_half, rounded
from .noise import OneUlpNoise, cast, is_floating, moved, moved_by, unit_roundoff
from .ulps import by_blocks, difference, finite_part, same_values

DRAWS = 6  # of noise
LOOKS = 3  # points at which what torch loses is looked for first, where noise is dear
SMALL, LARGE = 32, 1024 * 32  # the two sizes of a draw, in units of u
SIXTEEN = (1 / 32, 1)  # those of a subject in 16 bits: of 32 u, little is left of any digit
HALF = (1, 32)  # the same of results in 16 bits, in units in their last place
TOGETHER = 2**19  # elements that one evaluation of many draws may be given
MANY = 2**13  # elements of a result from which on only those are measured that need it


class Floor:
    """The reference at one point, and how far rounding can move each element of its results.

    truth is the reference in float64, native the reference in the dtype of the inputs, and the
    floor of an element

        u |truth| + own + noise

    where `own` is what torch itself loses in the subject's dtype, and `noise` how far the result
    moves when all that the reference sees or computes moves by one ulp. Both are the largest seen
    so far; each draw adds to both. Where truth and native are `known`, even `own` is measured only
    when the first term does not settle it.

    For a subject in 16 bits, where dtype is the name of one of HALF_DTYPES, inputs are arrays of
    float32 that hold its numbers, native is the truth rounded to it, `own` is left out, since what
    torch loses in float32 says little there, and noise has the size of its u. With `once`, of a
    subject that computes in float32 and rounds to 16 bits at its end, the floor is u |truth| /
    LIMIT, which is to say one rounding, and all that float32 makes.

    Noise costs ten evaluations, what torch loses at a point nearby, which is a part of each draw,
    but two: there are so many `looks` for it before any noise is drawn. `some` gives the reference
    of fewer results, by their names, at less cost.

    `together` is what the reference is made of, if that takes several draws at once, as Draws.
    Where it cannot after all, each is evaluated by itself, and it is not asked again.

    With `moves`, own and noise together, all is measured already, and `alone` is true: of the
    reference nothing is known but what it gave here.
    """

    _can: ClassVar[dict[tuple[Hashable, str], bool]] = {}  # which could, and the kind of call

    def __init__(
        self,
        reference: Function,
        inputs: Any,
        dtype: Any,
        known: Sequence[Results] = (),
        together: Hashable = None,
        once: bool = False,
        looks: int = 0,
        some: Callable[[Collection[str]], Function] | None = None,
        moves: Results | None = None,
    ) -> None:
        self.half = dtype if is_half(dtype) else ""
        self.once = once and bool(self.half)
        self._loses = self.once or not self.half  # whether what torch loses in float32 counts
        # What is single on purpose beside a float64 subject, like NAdam's product, remains so.
        as_given = not self.half and np.dtype(dtype) == np.float64
        self._given, self._wide = inputs, None if as_given else np.float64
        self.reference, self.some, self.dtype = reference, some, dtype
        self._u = unit_roundoff(np.float32 if self.once else dtype)  # the size of the noise
        self.draws = 0
        self._looks = looks if self._loses else 0
        self._looked = 0  # at so many points nearby
        self.halves = False  # whether something on the way was seen to be computed in 16 bits
        self.together = together if any(map(is_floating, leaves(inputs))) else None
        if known:
            self.truth, self.native = known
        else:
            self.truth = reference(self.inputs)
            self.native = self.truth if as_given or self.half else reference(inputs)
        if self.half:
            self.native = cast(dict(self.truth), dtype)
        self._rounding: Results = {
            name: self._first(value, abs(finite_part(self.truth[name])))
            for name, value in self.native.items()
        }
        # Zeros that take no memory, as long as nothing is known.
        self.noise = {n: np.broadcast_to(0.0, value.shape) for n, value in self.truth.items()}
        self._own: Results = dict(self.noise)
        self._knows_own = not self._loses
        self._part: Floor | None = None  # that of the elements which need more, and where they are
        self._places: Places = {}
        self.alone = moves is not None
        if moves is not None:
            self.noise, self._knows_own, self.draws = dict(moves), True, DRAWS
        if not known:
            self.widen()

    @property
    def inputs(self) -> Any:
        """In float64: made anew each time, and not kept, since they may be large."""
        return self._given if self._wide is None else cast(self._given, self._wide)

    def _first(self, value: np.ndarray, size: np.ndarray) -> np.ndarray:
        """The first term of the floor."""
        if not is_floating(value):  # whole numbers fit
            return np.full(value.shape, float(np.finfo(np.float64).tiny))
        first = np.asarray(self.u(value) * size)
        if self.half:
            first += SMALLEST[self.half] / (LIMIT if self.once else 1)
        if self._loses:
            first += float(finfo(value.dtype).tiny)
        return np.asarray(first)

    def u(self, value: np.ndarray) -> float:
        """The unit roundoff of a result. Of one that is known to be rounded to 16 bits once, LIMIT
        times that much is what one rounding makes, and what float32 makes before."""
        if not self.half:
            return unit_roundoff(value.dtype)
        u = unit_roundoff(self.half)
        return u / LIMIT + unit_roundoff(np.float32) if self.once else u

    def narrow(self, outside: Mapping[str, np.ndarray]) -> None:
        """From now on only the floor of these elements grows, if they are few, and a call cut to
        them gives them back to the bit; or that of the results that have any."""
        large = any(mask.size >= MANY for mask in outside.values())
        free = self.dtype == np.float32 and not self._knows_own  # what is widened next
        if self._part or self.draws or free or not large:
            return
        part = copy.copy(self)
        if smaller := cut(self.reference, self.inputs, self.truth, outside):
            part._given, self._places = smaller.of(self._given), smaller.places
        elif self.some and len(outside) < len(self.truth):
            part.reference, self._places = self.some(outside), dict.fromkeys(outside, ...)
        else:
            return
        part._restrict(self._places)
        self._part = part
        copies = [{n: of[n].copy() for n in self._places} for of in (self.noise, self._own)]
        self.noise, self._own = {**self.noise, **copies[0]}, {**self._own, **copies[1]}

    def _restrict(self, places: Places) -> None:
        """Keeps what is known of these elements of these results."""
        self.truth, self.native, self._rounding, self.noise, self._own = (
            {name: of[name][place].copy() for name, place in places.items()}
            for of in (self.truth, self.native, self._rounding, self.noise, self._own)
        )

    def widen(self, thorough: bool = False, most: int = DRAWS) -> bool:
        """Measures a further part of the floor, and what costs least first unless it shall be
        `thorough`; False when all of it is known, with so many draws at `most`.

        The first draw is made alone, because it settles most of what is settled by any.
        """
        if self._part:
            if not self._part.widen(thorough, most):
                return False
            for name, place in self._places.items():
                self.noise[name][place] = self._part.noise[name]
                self._own[name][place] = self._part._own[name]
            self.draws, self.halves = self._part.draws, self._part.halves
            return True
        if not self._knows_own:
            self._knows_own = True
            low, high = self.native, self.truth
            if self.dtype != np.float32:
                single = cast(self._given, np.float32)
                low, high = self.reference(single), self.reference(cast(single, np.float64))
            self._own = self._loss_of(low, high)
            return True
        if self.draws >= (DRAWS if self.alone else most):
            return False
        if self._looked < self._looks and not self.draws and not thorough:
            self._look_nearby([self._looked + 1])
            return True
        self.draw(DRAWS if self.draws or thorough else 1)
        return True

    def rows(self, chosen: Sequence[int]) -> Floor:
        """Of a floor of many inputs, whose results lie side by side along the first axis, that of
        some."""
        part = copy.copy(self)
        part._given = [self._given[i] for i in chosen]
        part._restrict(dict.fromkeys(self.truth, chosen))
        return part

    @property
    def values(self) -> Results:
        return {n: self._rounding[n] + self._own[n] + self.noise[n] for n in self.truth}

    def moves(self) -> Results:
        """What is measured, all of it: own and noise of each element."""
        while self.widen(thorough=True):
            pass
        return {n: self._own[n] + self.noise[n] for n in self.truth}

    def draw(self, at_most: int = DRAWS) -> None:
        """Further draws, as many as are evaluated together: of noise, at two sizes with the same
        signs, and of what torch loses, nearby.

        A movement that does not grow with the noise is a jump (a kink, a tie, a clip edge) and
        gives no slack.
        """
        elements = sum(a.size for a in leaves(self._given) if is_floating(a)) or 1
        fit = TOGETHER // elements if self.together else 1
        many = max(min(fit, DRAWS - self.draws, at_most), 1)
        if many > 1 and not self._draws_together(many):
            self.together, many = None, 1
        if many == 1:
            self._draw([self.draws + 1])
        self.draws += many

    def _draws_together(self, many: int) -> bool:
        """Draws so many; or none, where the reference cannot, or where one of those evaluated
        together is not within the floor of what it is alone: under vmap torch may have no rule,
        take another formula, or confuse them. To see the last, a kind of call is first evaluated
        beside a point further away."""
        of = tree_map(lambda a: (a.shape, a.dtype) if isinstance(a, np.ndarray) else a, self.inputs)
        call = self.together, repr((self.half and self._u, of))
        if not self._can.get(call, True):
            return False
        before = dict(self.noise), self._own, self._looked
        try:
            pairs = [
                (found, self.reference(points[-1]))
                for points, found in self._draw(range(self.draws + 1, self.draws + many + 1))
            ]
            if call not in self._can:
                pairs.append((self._beside_another(), self.truth))
        except Exception:  # what torch raises where it has no rule for vmap is of many kinds
            self._can[call] = False
        else:
            if all(
                np.all(self._margin(name, found[name][0], alone[name], alone[name]) <= 1)
                for found, alone in pairs
                for name in self.truth
            ):
                self._can[call] = True
                return True
        self.noise, self._own, self._looked = before
        return False

    def _beside_another(self) -> Results:
        """What the reference gives here when it is evaluated together with another point."""
        rng, size = np.random.default_rng(0), LARGE * unit_roundoff(np.float32)
        here = self.inputs
        other = tree_map(lambda a: moved(a, size, rng) if is_floating(a) else a, here)
        return self._evaluated(stacked((here, other)), True, nullcontext())

    def _draw(self, seeds: Sequence[int]) -> list[tuple[Sequence[Any], Results]]:
        """Draws, and gives what was evaluated in float64 nearby, draws first, behind the points of
        the first of those that were evaluated together."""
        small, large = (SMALL, LARGE) if self._loses else SIXTEEN
        self.halves = self._move(seeds, (small * self._u, large * self._u), small)
        if self.halves:
            self._move(seeds, HALF, 1, half=True)
        if not self._loses:
            self._move(seeds, (self._u,), 1)

        return self._look_nearby([seed for seed in seeds if seed > self._looked])

    def _look_nearby(self, seeds: Sequence[int]) -> list[tuple[Sequence[Any], Results]]:
        """Adds what torch loses at points nearby; see `_draw`."""
        doubles: list[tuple[Sequence[Any], Results]] = []
        if not seeds or (not self._loses and len(seeds) == 1):
            return doubles

        def points(seed: int) -> Iterator[Any]:
            single = nearby(self._given, seed)
            if self._loses:
                yield single
            yield cast(single, np.float64)

        around = [nullcontext()] * (2 if self._loses else 1)
        for given, found in self._results(seeds, points, lambda seed: around):
            if self._loses:
                lost = self._loss_of(found[0], found[-1])
                self._own = {n: np.maximum(a, lost[n].max(axis=0)) for n, a in self._own.items()}
            doubles.append((given, found[-1]))
        self._looked = max(self._looked, *seeds)
        return doubles

    def _move(
        self, seeds: Sequence[int], sizes: tuple[float, ...], units: float, half: bool = False
    ) -> bool:
        """Adds how far noise of the first size moves the results, divided by `units`; says whether
        anything was computed in 16 bits, which has a far larger ulp.

        With one size, the inputs stay, and jumps count: in 16 bits, what is decided by a number
        that was computed is decided the other way every so often, as in nets of ReLUs, but never
        what is decided by the inputs themselves.
        """
        modes = []

        def points(seed: int) -> Iterator[Any]:
            if half or len(sizes) == 1:
                return itertools.repeat(self.inputs, len(sizes))
            return moved_by(sizes, self._given, np.random.default_rng(seed), dtype=self._wide)

        def around(seed: int) -> list[OneUlpNoise]:
            made = [OneUlpNoise(size, seed, half) for size in sizes]
            modes.extend(made)
            return made

        wider = partial(_wider, units, sizes[-1] / sizes[0], 4 * self._u)
        for _, found in self._results(seeds, points, around):
            for name, value in self.truth.items():
                columns = [results[name] for results in found]
                if len(columns[0]) == 1:
                    lone = (column[0] for column in columns)
                    self.noise[name] = by_blocks(wider, self.noise[name], value, *lone)
                else:
                    self.noise[name] = wider(self.noise[name], value, *columns).max(axis=0)
        return any(mode.halves for mode in modes)

    def _results(
        self,
        seeds: Sequence[int],
        points: Callable[[int], Iterator[Any]],
        around: Callable[[int], Sequence[AbstractContextManager[Any]]],
    ) -> Iterator[tuple[Sequence[Any], Sequence[Results]]]:
        """What the reference gives at the points of each draw, inside of what is around them; draws
        first, behind the points of the first. Those are evaluated together that differ in their
        arrays alone, because a setting is a number. The points of a lone one are made and let go
        one by one, because such are large."""
        if len(seeds) == 1:
            lone = points(seeds[0])
            yield [], [self._evaluated(next(lone), False, inside) for inside in around(seeds[0])]
            return
        for (seed, first), *others in _by_settings([(s, list(points(s))) for s in seeds]):
            columns = zip(first, *(more for _, more in others), strict=True)
            all_given = list(map(stacked, columns)) if others else first
            yield (
                first,
                [
                    self._evaluated(inputs, bool(others), inside)
                    for inputs, inside in zip(all_given, around(seed), strict=True)
                ],
            )

    def _evaluated(
        self, inputs: Any, together: bool, inside: AbstractContextManager[Any]
    ) -> Results:
        with inside:
            results: Any = self.reference(inputs)
        found = {}
        for name, value in self.truth.items():
            found[name] = results[name].array if together else results[name][np.newaxis]
            if found[name].shape[1:] != value.shape:
                raise ValueError(f"{name}: expected {value.shape} of each draw")
        return found

    def _loss_of(self, low: Results, high: Results) -> Results:
        """|torch in float32 − torch in float64| on float32 inputs, for a float64 subject times
        2⁻²⁹."""
        scale = self._u / unit_roundoff(np.float32)
        return {name: scale * difference(low[name], high[name]) for name in self.truth}

    def margin(self, name: str, ours: np.ndarray) -> np.ndarray:
        """|ours − truth| / (LIMIT · floor), element by element.

        NaN and ±∞ must stand where the reference has them, in float64 or, when only that overflows,
        in its own dtype. What is whole, or true, has no rounding: it is equal or not.
        """
        return self._margin(name, ours, self.truth[name], self.native[name])

    def _margin(
        self, name: str, ours: np.ndarray, truth: np.ndarray, native: np.ndarray
    ) -> np.ndarray:
        if not is_floating(truth):
            return np.where(ours == truth, 0.0, np.inf)
        terms = self._rounding[name], self._own[name], self.noise[name]
        return by_blocks(partial(_in_floors, self.half), ours, truth, native, *terms)


def _in_floors(
    half: str,
    ours: np.ndarray,
    truth: np.ndarray,
    native: np.ndarray,
    rounding: np.ndarray,
    own: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """The margins, from the three terms of the floor."""
    with np.errstate(over="ignore"):
        allowed = LIMIT * (rounding + own + noise)
        margin = difference(ours, truth) / allowed
    finite = np.isfinite(ours) & np.isfinite(truth)
    if finite.all():
        return margin
    same = same_values(ours, truth) | same_values(ours, native)
    if half and np.isinf(ours).any():  # as is all that is infinite in 16 bits
        same |= ours == rounded(truth + np.copysign(allowed, ours), half)
    return np.where(finite, margin, np.where(same, 0, np.inf))


def _wider(
    units: float,
    ratio: float,
    small: float,
    noise: np.ndarray,
    truth: np.ndarray,
    near: np.ndarray,
    far: np.ndarray | None = None,
) -> np.ndarray:
    """The noise, with how far a draw has moved a result, unless it moves no further with noise that
    is larger by this ratio."""
    movement = difference(near, truth)
    movement /= units
    if far is not None:
        further = difference(far, truth)
        further /= units * math.sqrt(ratio)
        np.maximum(further, small * abs(finite_part(truth)), out=further)
        movement[movement > further] = 0
    return np.maximum(noise, movement, out=movement)


def _by_settings(
    draws: Sequence[tuple[int, Sequence[Any]]],
) -> Collection[list[tuple[int, Sequence[Any]]]]:
    """The draws whose points have the same floats beside their arrays, together."""
    groups: dict[Any, list[tuple[int, Sequence[Any]]]] = {}
    for draw in draws:
        settings = tuple(leaf for leaf in leaves(draw[1]) if isinstance(leaf, float))
        groups.setdefault(settings, []).append(draw)
    return groups.values()


def nearby(inputs: Any, seed: int, dtype: Any = np.float32) -> Any:
    """The inputs in float32, or in a type of 16 bits, moved by one ulp of it."""
    rng = np.random.default_rng(seed)
    near = next(moved_by((2 * unit_roundoff(dtype),), inputs, rng, dtype=dtype))
    return cast(near, dtype) if is_half(dtype) else near


def stacked(points: Sequence[Any]) -> Any:
    """The trees, which differ in their arrays alone, as one tree of Draws; whole numbers that are
    the same in all of them stay."""
    columns = zip(*map(leaves, points), strict=True)

    def together(leaf: Any) -> Any:
        column = next(columns)
        differ = is_floating(leaf) or any(other is not leaf for other in column)
        return Draws(np.stack(column)) if isinstance(leaf, np.ndarray) and differ else leaf

    return tree_map(together, points[0])
