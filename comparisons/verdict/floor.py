"""The floor of a result, which is measured: how far rounding can move each element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .classes import LIMIT, Function, Results
from .noise import OneUlpNoise, cast, is_floating, moved, unit_roundoff
from .ulps import difference, finite_part, same_values

DRAWS = 6  # of noise
SMALL, LARGE = 32, 1024 * 32  # the two sizes of a draw, in units of u
HALF = (2.0**-9, 2.0**-4)  # the same of results in 16 bits: one ulp of bfloat16, and 32


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
            movement = difference(a[name], value) / units
            further = difference(b[name], value) / units
            smooth = movement <= further / math.sqrt(large / small)
            smooth |= movement <= 4 * u * abs(finite_part(value))
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
