"""A derivative that owes torch nothing: the slope of a fitted polynomial, with a measured error."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from .classes import LIMIT

# h → the value, and the total size of what is summed for it
Summed = Callable[[float], tuple[float, float]]

# Why a slope cannot be told.
FLAT = "the forward is flat here"
STEPS = "the forward goes in steps here"
JUMP = "the forward jumps here"
KINK = "the forward is not smooth here"
EDGE = "the forward is not finite nearby"

PAIRS, DEGREE = 6, 6  # of nodes beside 0, and of the polynomial through them
NODES = 2 * PAIRS + 1
SCALES = [2.0 ** -(2 + 4 * k) for k in range(6)]  # how far the nodes reach
WIDER = [2.0 ** (2 + 4 * k) for k in range(10)]  # … where rounding hides the slope otherwise

# In rms of what a fit leaves over: the bound on its slope. LIMIT bounds are 40 rms, and the worst
# of all single kinks puts the slope wrong by 30. The slope has 2.5 times the error of one value, so
# that of independent errors 40 rms are 16 deviations of Student's t with 6 degrees of freedom.
SPREAD = 5.0
NOISY = 2.0**10  # in roundings of the size: what a fit leaves over, and may still be rounding
SMOOTH = 1e-3  # LIMIT bounds are less than this share of what a smooth function moves
SHARP = 1e-9  # a slope known to that is known well enough
U = float(np.finfo(float).eps) / 2


@dataclass(frozen=True)
class Slope:
    """The derivative of a function at one point, as its values tell it."""

    value: float
    bound: float  # on its error; infinite where it cannot be told
    why: str = ""  # … and the reason, one of the above
    steep: float = 0.0  # how steep the function is on average where it was evaluated
    noisy: bool = False  # whether what the fit leaves over is more than rounding of the size


def derivative(function: Summed, moves: float = 0.0, thorough: bool = False) -> Slope:
    """The derivative of function(h) at h = 0, and a bound on its error.

    At a scale H the function is evaluated at 0 and at six pairs ± H t, where t are the nodes of
    Chebyshev, each made a little smaller at random. Dyadic steps would be rounded all alike: for a
    linear function with an operand 0 every difference is then the same number, and an error that
    is judged by how much they differ is 0. Through the 13 values a polynomial of degree 6 is fitted
    by least squares; its derivative at 0 is the slope, and what it leaves over, the rms of six
    degrees of freedom, sees rounding, truncation, kinks and jumps at the very steps that are used:

        bound = 5 · max(rms, u · size) / H

    with the largest size at any node, for the terms may cancel at 0, and both of this scale and of
    every smaller one, for what is noise at a small step is noise at a larger one. H is 2⁻², 2⁻⁶, …
    until the bound grows, and 2², 2⁶, … where rounding rules and the slope is not yet known to
    1e-9 of itself, or of `moves`. The smallest bound is taken. Where a finer scale has another
    slope, beyond its own LIMIT, the distance counts as error too.

    It cannot be told where the function is flat at every scale or goes in steps (values that move
    by so few quanta that most nodes have the same), where it is not finite at 0 or on one side,
    where it jumps at 0 (two more terms, sign(h) and one for h = 0, explain what is left over at the
    two finest scales), and where it is not smooth: LIMIT bounds are more than 1e-3 of what it
    moves, and no rounding.

    A staircase or an oscillation that is fine enough looks from afar like a slope with noise.
    `thorough` asks every scale, however soon one would do.
    """
    here = function(0.0)
    fits: list[_Fit] = []
    for k in range(len(SCALES)) if math.isfinite(here[0]) else ():
        if fit := _fitted(function, k, here):
            fits.append(fit)
            if not thorough and _enough(fits, moves):
                break
    if not fits:
        return Slope(math.nan, math.inf, EDGE)
    if all(fit.jumps for fit in fits[-2:]):
        return Slope(fits[-1].slope, math.inf, JUMP)
    slope = _combined(fits)
    if thorough and slope.noisy and fits[-1].few:
        return Slope(slope.value, math.inf, STEPS)
    if fits[0].scale == SCALES[0] and not any(f.noisy for f in fits):
        for k in range(len(WIDER)):
            rounding = len(fits) > 1 and fits[0].bound < fits[1].bound
            if not rounding or slope.bound <= SHARP * max(abs(slope.value), moves):
                break
            fit = _fitted(function, len(SCALES) + k, here)
            if fit is None or not (wider := _combined([fit, *fits])).bound < slope.bound:
                break
            slope, fits = wider, [fit, *fits]
    return slope


def confirmed(function: Summed, expected: float, moves: float = 0.0) -> Slope | None:
    """The slope, where one scale is enough to say that it is what was expected: the function is
    smooth there, and its slope, known to SHARP of itself or of `moves`, is within LIMIT bounds."""
    here = function(0.0)
    fit = _fitted(function, 1, here) if math.isfinite(here[0]) else None
    if fit is None or fit.few or fit.noisy:
        return None
    sharp = fit.bound <= SHARP * max(abs(fit.slope), moves)
    if not sharp or abs(fit.slope - expected) > LIMIT * fit.bound:
        return None
    return Slope(fit.slope, fit.bound, "", fit.moves / (2 * fit.scale))


@dataclass(frozen=True)
class _Fit:
    """The polynomial at one scale."""

    scale: float
    slope: float
    rms: float  # of what it leaves over
    size: float  # the largest of what is summed
    moves: float  # how far the values lie apart
    distinct: int  # how many values there are
    broken: float  # the rms that is left over when the function may jump at 0

    @property
    def noise(self) -> float:
        """The error of one value, were it the same at every node."""
        return max(self.rms, U * self.size)

    @property
    def bound(self) -> float:
        return SPREAD * self.noise / self.scale

    @property
    def few(self) -> bool:
        return self.distinct <= NODES // 2

    @property
    def noisy(self) -> bool:
        """Whether what is left over is more than rounding."""
        return self.rms > NOISY * U * self.size

    @property
    def rough(self) -> bool:
        """Whether this is no smooth function, seen from here."""
        return self.noisy and LIMIT * SPREAD * self.rms > SMOOTH * self.moves

    @property
    def jumps(self) -> bool:
        return self.noisy and self.broken < self.rms / LIMIT


def _enough(fits: Sequence[_Fit], moves: float) -> bool:
    """Whether finer scales than these would say no more: the function is smooth at one of them, and
    now the bound grows, or two scales agree to a few roundings; and no jump is suspected, of which
    noise at one scale may have the looks."""
    if len(fits) < 2:
        return False
    *others, coarser, fit = fits
    best = min([*others, coarser], key=lambda f: f.bound)
    known = LIMIT * SPREAD * U * max(abs(fit.slope), moves)
    settled = fit.bound <= known and abs(fit.slope - coarser.slope) <= LIMIT * known
    grows = fit.bound > 4 * best.bound
    return not best.rough and (grows or settled) and fit.jumps == coarser.jumps


def _combined(fits: Sequence[_Fit]) -> Slope:
    """What the fits, from the largest scale to the smallest, say together."""
    if all(fit.distinct == 1 for fit in fits):
        return Slope(0.0, math.inf, FLAT)
    telling = [fit for fit in fits if not fit.few]  # below its quantum a function does not move
    if not telling:
        return Slope(0.0, math.inf, STEPS)
    noise, bounds = 0.0, []
    for fit in reversed(telling):
        noise = max(noise, fit.noise)
        bounds.append(SPREAD * noise / fit.scale)
    bounds.reverse()
    bound, best = min(zip(bounds, telling, strict=True), key=lambda pair: pair[0])
    if best.rough:
        return Slope(best.slope, math.inf, KINK)
    for other, fit in zip(bounds, telling, strict=True):
        if fit.scale < best.scale:
            bound = max(bound, abs(fit.slope - best.slope) - LIMIT * other)
    return Slope(best.slope, bound, "", best.moves / (2 * best.scale), best.noisy)


def _fitted(function: Summed, k: int, here: tuple[float, float]) -> _Fit | None:
    """The fit at the k-th scale; None if the function is not finite at every node."""
    nodes, scale = _nodes(k), (*SCALES, *WIDER)[k]
    values, sizes = [], []
    for t in nodes.at.tolist():
        value, size = function(scale * t) if t else here
        if not math.isfinite(value):
            return None
        values.append(float(value))
        sizes.append(float(size))
    moves = max(values) - min(values)
    if not math.isfinite(moves):
        return None
    change = (np.array(values) - here[0]) / (moves or 1.0)  # so that no square overflows
    left, broken = nodes.rest @ change, nodes.broken @ change
    return _Fit(
        scale,
        float(nodes.slope @ change) * moves / scale,
        moves * math.sqrt(left @ left / (NODES - DEGREE - 1)),
        max(sizes),
        moves,
        len(set(values)),
        moves * math.sqrt(broken @ broken / (NODES - DEGREE - 3)),
    )


@dataclass(frozen=True)
class _Nodes:
    """Where a function is evaluated, and what is made of its values."""

    at: np.ndarray
    slope: np.ndarray  # values → the derivative of the polynomial at 0
    rest: np.ndarray  # values → what the polynomial leaves over
    broken: np.ndarray  # … and what one that may jump at 0 leaves over


@functools.cache
def _nodes(k: int) -> _Nodes:
    """The nodes of the k-th scale, in units of it; each scale has its own."""
    shrunk = 1 - 0.02 * np.random.default_rng([7, k]).random(PAIRS)
    ahead = np.cos((2 * np.arange(PAIRS) + 1) * np.pi / (4 * PAIRS)) * shrunk
    at = np.sort(np.concatenate([-ahead, [0.0], ahead]))
    powers = chebyshev.chebvander(at, DEGREE)
    fit = np.linalg.pinv(powers)
    slopes = chebyshev.chebval(0.0, chebyshev.chebder(np.eye(DEGREE + 1)))
    jumping = np.column_stack([powers, np.sign(at), at == 0])
    return _Nodes(
        at,
        slopes @ fit,
        np.eye(NODES) - powers @ fit,
        np.eye(NODES) - jumping @ np.linalg.pinv(jumping),
    )
