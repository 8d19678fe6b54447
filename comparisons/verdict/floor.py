"""The floor of a result, which is measured: how far rounding can move each element."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ...reference.adapters import Draws, leaves, tree_map
from .classes import LIMIT, Function, Results
from .noise import OneUlpNoise, cast, is_floating, moved, unit_roundoff
from .ulps import difference, finite_part, same_values

DRAWS = 6  # of noise
SMALL, LARGE = 32, 1024 * 32  # the two sizes of a draw, in units of u
HALF = (1, 32)  # the same of results in 16 bits, in units in their last place
TOGETHER = 2**18  # elements that one evaluation of many draws may be given


class Floor:
    """The reference at one point, and how far rounding can move each element of its results.

    truth is the reference in float64, native the reference in the dtype of the inputs, and the
    floor of an element

        u |truth| + own + noise

    where `own` is what torch itself loses in the subject's dtype, and `noise` how far the result
    moves when all that the reference sees or computes moves by one ulp. Both are the largest seen
    so far; each draw adds to both. Where truth and native are `known`, even `own` is measured only
    when the first term does not settle it.

    `together` is what the reference is made of, if that takes several draws at once, as Draws.
    Where it cannot after all, each is evaluated by itself, and it is not asked again.
    """

    _apart: ClassVar[set[tuple[Hashable, str]]] = set()  # which could not, and the kind of call

    def __init__(
        self,
        reference: Function,
        inputs: Any,
        dtype: Any,
        known: Sequence[Results] = (),
        together: Hashable = None,
    ) -> None:
        # What is single on purpose beside a float64 subject, like NAdam's product, remains so.
        as_given = np.dtype(dtype) == np.float64
        self.inputs = inputs if as_given else cast(inputs, np.float64)
        self.reference, self.dtype, self.together = reference, dtype, together
        self.draws = 0
        if known:
            self.truth, self.native = known
        else:
            self.truth = reference(self.inputs)
            self.native = self.truth if as_given else reference(inputs)
        self._rounding = {}
        for name, value in self.native.items():
            rounds = value.dtype if is_floating(value) else np.float64
            size = (
                abs(finite_part(self.truth[name])) if is_floating(value) else 0
            )  # whole numbers fit
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
        """Further draws, as many as are evaluated together: of noise, at two sizes with the same
        signs, and of what torch loses, nearby.

        A movement that does not grow with the noise is a jump (a kink, a tie, a clip edge) and
        gives no slack.
        """
        seeds = range(self.draws + 1, min(self.draws + self._at_once(), DRAWS) + 1)
        self.draws += len(seeds)
        u = unit_roundoff(self.dtype)
        halves = self._move(seeds, (SMALL * u, LARGE * u), u, SMALL)
        if halves:  # what is computed in 16 bits on the way has a far larger ulp
            self._move(seeds, HALF, u, 1, half=True)
        for seed in seeds:
            lost = self._lost(nearby(self.inputs, seed))
            self._own = {name: np.maximum(own, lost[name]) for name, own in self._own.items()}

    def _at_once(self) -> int:
        elements = sum(a.size for a in leaves(self.inputs) if is_floating(a))
        return max(TOGETHER // max(elements, 1), 1) if self.together else 1

    def _move(
        self,
        seeds: Sequence[int],
        sizes: tuple[float, float],
        u: float,
        units: float,
        half: bool = False,
    ) -> int:
        """Adds how far noise of the small size moves the results, divided by `units`; gives how
        many 16-bit results were seen."""
        halves = 0
        for small, large, seen in self._disturbed(seeds, sizes, half):
            halves += seen
            for name, value in self.truth.items():
                movement = difference(small[name], value) / units
                further = difference(large[name], value) / units
                smooth = movement <= further / math.sqrt(sizes[1] / sizes[0])
                smooth |= movement <= 4 * u * abs(finite_part(value))
                largest = np.where(smooth, movement, 0).max(axis=0, initial=0)
                self.noise[name] = np.maximum(self.noise[name], largest)
        return halves

    def _disturbed(
        self, seeds: Sequence[int], sizes: tuple[float, float], half: bool
    ) -> Iterator[tuple[Results, Results, int]]:
        """The results under noise of both sizes, draws first, and how many of 16 bits were seen.

        Draws are evaluated together that differ in their arrays alone: a setting is a number.
        """

        def point(size: float, seed: int) -> Any:
            return self.inputs if half else moved(self.inputs, size, np.random.default_rng(seed))

        groups: dict[Any, list[tuple[int, Any]]] = {}
        for seed in seeds:
            both = [point(size, seed) for size in sizes]
            settings = tuple(leaf for leaf in leaves(both) if isinstance(leaf, float))
            groups.setdefault(settings, []).append((seed, both))
        for group in groups.values():
            call = self.together, _kind_of(self.inputs)
            if len(group) > 1 and call not in self._apart:
                try:
                    found = self._both(group, sizes, half)
                except (
                    Exception
                ):  # torch has many reasons, and where it is the call, it raises again
                    self._apart.add(call)
                else:
                    yield found
                    continue
            for draw in group:
                yield self._both([draw], sizes, half)

    def _both(
        self, group: Sequence[tuple[int, Any]], sizes: tuple[float, float], half: bool
    ) -> tuple[Results, Results, int]:
        """The reference under noise of both sizes, draws first: one, or all that differ in their
        arrays alone."""
        (seed, _), *others = group
        found, halves = [], 0
        for size, points in zip(sizes, zip(*(both for _, both in group), strict=True), strict=True):
            with OneUlpNoise(size, seed, half) as mode:
                results = self.reference(_stacked(points) if others else points[0])
            halves += mode.halves
            found.append({n: a.array if others else a[np.newaxis] for n, a in results.items()})
            shapes = {name: a.shape[1:] for name, a in found[-1].items()}
            if others and shapes != {name: a.shape for name, a in self.truth.items()}:
                raise ValueError(f"draws: expected {len(group)} of each result")
        return found[0], found[1], halves

    def _lost(self, single: Any) -> Results:
        return self._loss_of(self.reference(single), self.reference(cast(single, np.float64)))

    def _loss_of(self, low: Results, high: Results) -> Results:
        """|torch in float32 − torch in float64| on float32 inputs, for a float64 subject times
        2⁻²⁹."""
        scale = unit_roundoff(self.dtype) / unit_roundoff(np.float32)
        return {name: scale * difference(low[name], high[name]) for name in high}

    def margin(self, name: str, ours: np.ndarray) -> np.ndarray:
        """|ours − truth| / (LIMIT · floor), element by element.

        NaN and ±∞ must stand where the reference has them, in float64 or, when only that overflows,
        in its own dtype.
        """
        truth, native = self.truth[name], self.native[name]
        with np.errstate(over="ignore"):
            margin = difference(ours, truth) / (LIMIT * self.values[name])
        finite = np.isfinite(ours) & np.isfinite(truth)
        return np.where(
            finite,
            margin,
            np.where(same_values(ours, truth) | same_values(ours, native), 0, np.inf),
        )


def nearby(inputs: Any, seed: int) -> Any:
    """The inputs in float32, moved by one ulp of it."""
    rng = np.random.default_rng(seed)
    return moved(cast(inputs, np.float32), 2 * unit_roundoff(np.float32), rng)


def _stacked(points: Sequence[Any]) -> Any:
    """The trees, which differ in their floating arrays alone, as one tree of Draws."""
    columns = zip(*map(leaves, points), strict=True)

    def together(leaf: Any) -> Any:
        column = next(columns)
        return Draws(np.stack(column)) if is_floating(leaf) else leaf

    return tree_map(together, points[0])


def _kind_of(inputs: Any) -> str:
    """The inputs without the values of their arrays."""
    return repr(tree_map(lambda a: (a.shape, a.dtype) if isinstance(a, np.ndarray) else a, inputs))
