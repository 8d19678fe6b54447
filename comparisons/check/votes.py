"""A gradient along one direction: as the subject has it, as torch has it, and by differences."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...reference.adapters import leaves, listed, tree_map
from ..ops.arguments import array_names
from ..verdict.classes import DIFFERENT, IDENTICAL, LIMIT, ROUNDING, Results, Verdict
from ..verdict.differences import FLAT, Summed, confirmed, derivative
from ..verdict.noise import is_floating, unit_roundoff
from .adapt import Subject, values

GROUPS = 8  # groups of elements, each differentiated along one direction
HALVINGS = 24  # the most halvings that are made to find a single wrong element
BLUNT = 1e-3  # a derivative with a larger relative error abstains
HIDDEN = "rounding hides the slope here"  # … and says so
DRAWS = 6  # of the noise of a pullback
AGAIN = 2  # further directions, with another dy each, in which an alarm must be seen
U = unit_roundoff(np.float64)


@dataclass(frozen=True)
class Vote:
    """One directional derivative as three oracles see it."""

    name: str
    subject: float
    reference: float
    derivative: float
    error: float  # of the derivative
    alone: str  # "subject", "reference" or "derivative"; "each" if no two agree; "" if all do
    why: str = ""  # why the derivative cannot be told


class Direction:
    """A random direction of one floating array of a call, in which every element moves by up to its
    own size, so that signs stay; and the slope of Σ dy · y along it.

    An element that is 0 moves by up to the size of the others, but by 1 at most: beside large
    numbers a 0 is often a place where functions bend. One that is not finite cannot move.
    """

    def __init__(self, subject: Subject, inputs: Any, position: int, seed: int) -> None:
        self.subject, self.inputs, self.position, self.seed = subject, inputs, position, seed
        x = [a for a in leaves(inputs[:2]) if is_floating(a)][position]
        rng = np.random.default_rng([seed, 4])
        others = abs(x[(x != 0) & np.isfinite(x)])
        size = np.where(x == 0, min(np.median(others), 1.0) if others.size else 1.0, abs(x))
        size[~np.isfinite(x)] = 0
        self.along = np.asarray(rng.choice([-1, 1], x.shape) * rng.uniform(0.5, 1, x.shape) * size)

    def _step(self, only: np.ndarray | None) -> np.ndarray:
        return self.along if only is None else np.where(only, self.along, 0)

    def _forward(self, step: np.ndarray, dy: Any) -> Summed:
        """Σ dy · y, and Σ |dy · y|, where the array has moved h steps."""
        return partial(_summed, partial(self.outputs, step), dy)

    def outputs(self, step: np.ndarray, h: float) -> list[np.ndarray] | None:
        """What the subject gives where the array has moved h steps; None beyond its domain."""
        count = itertools.count()

        def moved(leaf: Any) -> Any:
            if not is_floating(leaf):
                return leaf
            here = next(count) == self.position
            return np.asarray(leaf + h * step) if here else leaf.copy()

        try:
            y, _ = self.subject.run(*tree_map(moved, self.inputs[:2]))
        except Exception:
            return None
        return [np.asarray(part) for part in listed(y)]

    @functools.cached_property
    def _moved(self) -> list[np.ndarray]:
        """The subject's gradients where everything it sees has moved by two roundings."""
        rng = np.random.default_rng(8)

        def moved(leaf: Any) -> Any:
            if not is_floating(leaf):
                return leaf
            return np.asarray(leaf * rng.choice([1 - 2 * U, 1 + 2 * U], leaf.shape))

        draws = (self._gradient(tree_map(moved, self.inputs)) for _ in range(DRAWS))
        return [gradient for gradient in draws if gradient is not None]

    def _gradient(self, inputs: Any) -> np.ndarray | None:
        """What the subject's pullback gives for this array; None if nothing that can be used."""
        copies = tree_map(lambda a: a.copy() if isinstance(a, np.ndarray) else a, inputs)
        name = array_names(copies[0], copies[1], self.subject.signature)[self.position]
        try:
            found = self.subject(copies).get(name)
        except Exception:
            return None
        return found if found is not None and found.shape == self.along.shape else None

    def _noise(self, gradient: np.ndarray, step: np.ndarray) -> float:
        """How far rounding moves the gradient along a step: the pullback has errors of its own,
        which no difference of the forward shows."""
        moves = (_terms(moved, step) - _terms(gradient, step) for moved in self._moved)
        return max((abs(float(np.sum(move))) for move in moves), default=0.0)

    def _left(self, gradient: np.ndarray, step: np.ndarray) -> float:
        """How far a gradient is rounded along a step if its elements are what larger ones leave of
        each other: nothing that moves shows that where they cancel whole, and how large they are
        its largest element says."""
        largest = np.max(abs(gradient), initial=0, where=np.isfinite(gradient))
        return float(U * largest * np.sum(abs(step)))

    def vote(
        self, name: str, ours: np.ndarray, theirs: np.ndarray, only: np.ndarray | None = None
    ) -> Vote | None:
        """Who of the three stands alone; None where the direction leads nowhere. A forward that is
        flat has the slope 0, as where a straight-through estimator rounds."""
        step = self._step(only)
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all() and step.any()):
            return None
        a, b = (float(np.sum(_terms(g, step))) for g in (ours, theirs))
        size = float(np.sum(abs(_terms(theirs, step))))
        forward = self._forward(step, self.inputs[2])
        slope = confirmed(forward, b, size) or derivative(forward, size)
        error = 0.0 if slope.why == FLAT else slope.bound
        allowed = LIMIT * (error + U * size)
        if max(abs(a - slope.value), abs(b - slope.value)) > allowed:
            allowed += LIMIT * self._noise(ours, step)
        if not allowed < BLUNT * size:
            return Vote(name, a, b, slope.value, error, "", slope.why or HIDDEN)
        agree = (
            abs(a - b) <= allowed,
            abs(a - slope.value) <= allowed,
            abs(b - slope.value) <= allowed,
        )
        alone = {
            (False, False, True): "subject",
            (False, True, False): "reference",
            (True, False, False): "derivative",
            (False, False, False): "each",
        }
        return Vote(name, a, b, slope.value, error, alone.get(agree, ""), slope.why)

    def verdict(
        self, gradient: np.ndarray, together: bool = False
    ) -> tuple[Verdict, np.ndarray] | str:
        """The gradient against differences, and the elements that this is about; or the reason why
        differences cannot tell.

        The elements fall into GROUPS, each with a direction of its own. A group with an alarm is
        halved until a single element is left, and must cause it for another dy too. `together`
        spares the groups where all elements along one direction are quiet, and what is allowed for
        all is little for each group.
        """
        rng = np.random.default_rng(5)
        group = rng.permutation(np.arange(gradient.size) % GROUPS).reshape(gradient.shape)
        moves = self.along != 0
        groups = ((group == g) & moves for g in range(GROUPS))
        parts = [part for part in groups if part.any()]
        if together and len(parts) > 1:
            look = self._look(gradient, moves)
            if look.margin <= 1 and all(look.tells(gradient, part) for part in parts):
                return look.verdict(), look.only
        looks = [self._look(gradient, part) for part in parts]
        reasons = [look.why for look in looks if look.why]
        looks = sorted((k for k in looks if not k.why), key=lambda k: k.margin, reverse=True)
        quiet = next((look for look in looks if look.margin <= 1), None)
        for look in looks:
            if look.margin <= 1:
                break
            found = self._confirmed(gradient, self._located(gradient, look))
            if not found.why and found.margin > 1:
                return found.verdict(), found.only
            if found.why:
                reasons.append(found.why)
            else:
                quiet = quiet or found
        if quiet:
            return quiet.verdict(), quiet.only
        return max(reasons, key=reasons.count, default=FLAT)

    def _located(self, gradient: np.ndarray, alarm: _Look) -> _Look:
        """The alarm with as few elements as still cause it; or those of its elements of which it
        cannot be told, where the others are quiet: beside a slope the steps of another are no
        noise."""
        for _ in range(HALVINGS):
            where = np.flatnonzero(alarm.only)
            if len(where) == 1:
                break
            numbers = np.arange(gradient.size).reshape(gradient.shape)
            halves = [
                self._look(gradient, np.isin(numbers, part)) for part in np.array_split(where, 2)
            ]
            half = max(halves, key=lambda look: -1.0 if look.why else look.margin)
            if half.why or half.margin <= 1:
                return next((look for look in halves if look.why), alarm)
            alarm = half
        return alarm

    def _confirmed(self, gradient: np.ndarray, alarm: _Look) -> _Look:
        """The alarm, or what is seen instead of it at every scale, or along another direction with
        another dy.

        A staircase looks from afar like a slope with noise. Kinks of several elements, or of one in
        several outputs, may cancel once, while the slopes to their two sides do not: relu(x) −
        relu(−x) is x.
        """
        look = self._look(gradient, alarm.only, thorough=True) if alarm.noisy else alarm
        if look.why or look.margin <= 1:
            return look
        rng = np.random.default_rng([self.seed, 9])

        def another(d: Any) -> Any:
            return np.asarray(d * rng.standard_normal(d.shape)) if is_floating(d) else d

        for k in range(AGAIN):
            inputs = (*self.inputs[:2], tree_map(another, self.inputs[2]))
            other = Direction(self.subject, inputs, self.position, self.seed + 1 + k)
            theirs = other._gradient(inputs)
            look = alarm if theirs is None else other._look(theirs, alarm.only)
            if look.why or look.margin <= 1:
                return look
        return alarm

    def _look(self, gradient: np.ndarray, only: np.ndarray, thorough: bool = False) -> _Look:
        step = self._step(only)
        terms = _terms(gradient, step)
        ours = float(np.sum(terms))
        size = float(np.sum(abs(terms))) if math.isfinite(ours) else 0.0
        slope = derivative(self._forward(step, self.inputs[2]), size, thorough)
        size = max(size, abs(slope.value))
        allowed = LIMIT * (slope.bound + U * size)
        gap = abs(ours - slope.value)
        if math.isfinite(ours) and gap > allowed:
            allowed += LIMIT * self._noise(gradient, step)
        if allowed < gap <= (left := LIMIT * self._left(gradient, step)):
            allowed = left
        size = max(size, slope.steep)
        why = slope.why or ("" if allowed <= BLUNT * size else HIDDEN)
        asked = any(np.any(d) for d in leaves(self.inputs[2]))
        if why == FLAT and not (asked and math.isfinite(ours) and np.any(terms)):
            allowed, why = 0.0, ""  # zeros are right; NaN, or anything for a dy of zeros, is not
        return _Look(only, step, ours, slope.value, allowed, size, why, slope.noisy)


@dataclass(frozen=True)
class _Look:
    """A gradient and a derivative along one direction of some elements."""

    only: np.ndarray
    step: np.ndarray
    ours: float
    slope: float
    allowed: float
    size: float
    why: str  # why it cannot be told
    noisy: bool  # whether the forward has more noise than its size explains

    @property
    def margin(self) -> float:
        gap = abs(self.ours - self.slope)
        if not math.isfinite(gap):
            return math.inf
        return gap / self.allowed if self.allowed else (math.inf if gap else 0.0)

    def tells(self, gradient: np.ndarray, part: np.ndarray) -> bool:
        """Whether what is allowed is little even for this part of the elements."""
        size = float(np.sum(abs(_terms(gradient, np.where(part, self.step, 0)))))
        return not self.why and self.allowed <= BLUNT * size

    def verdict(self) -> Verdict:
        where = np.argwhere(self.only)
        index = tuple(map(int, where[0])) if len(where) == 1 else None
        step = float(self.step[index]) if index is not None else 1.0
        gap = abs(self.ours - self.slope)
        kind = DIFFERENT if self.margin > 1 else ROUNDING if gap else IDENTICAL
        return Verdict(
            kind,
            self.margin,
            0,
            index,
            self.ours / step,
            self.slope / step,
            gap / abs(self.slope) if self.slope else (math.inf if gap else 0.0),
            self.allowed / LIMIT / abs(step),
            math.nan,
            self.allowed / self.size if self.size else math.nan,
            "" if index is not None else f"along a direction of {len(where)} elements",
        )


def _terms(gradient: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What the elements that move contribute to a slope."""
    moving = step != 0
    return np.asarray(gradient[moving] * step[moving])


def _summed(
    outputs: Callable[[float], Sequence[np.ndarray] | None], dy: Any, h: float
) -> tuple[float, float]:
    """Σ dy · y and Σ |dy · y| over all outputs; NaN where there are none, or others."""
    ys, dys = outputs(h), listed(dy)
    if ys is None or len(ys) != len(dys):
        return math.nan, math.nan
    try:
        terms = [y * d for y, d in zip(ys, dys, strict=True) if d is not None]
    except ValueError:  # of another shape
        return math.nan, math.nan
    return float(sum(map(np.sum, terms))), float(sum(np.sum(abs(t)) for t in terms))


def numeric(
    subject: Subject, inputs: Any, order: Sequence[str], most: int, known: dict[Any, Any]
) -> Results:
    """The subject's value, and each element of the gradients of arrays of at most `most` elements,
    by differences. `known` keeps what was evaluated, for another dy."""
    args, kwargs, dy = inputs
    y, _ = subject.run(args, kwargs)
    found = values(y)
    call = tuple(
        (a.shape, a.tobytes()) if isinstance(a, np.ndarray) else repr(a)
        for a in leaves((args, kwargs))
    )
    for position, name in enumerate(order):
        direction = Direction(subject, inputs, position, 0)
        x = direction.along
        if name in subject.constant or x.size > most:
            continue

        def outputs(k: int, h: float, direction: Direction = direction) -> Any:
            key = call, direction.position, k, h
            if key not in known:
                step = np.zeros_like(direction.along)
                step.flat[k] = direction.along.flat[k]
                ys = direction.outputs(step, h)
                known[key] = ys and [y.copy() for y in ys]
            return known[key]

        slopes = np.zeros(x.shape)
        for k, step in enumerate(x.flat):
            slope = derivative(partial(_summed, partial(outputs, k), dy)).value
            slopes.flat[k] = slope / step if step else math.nan
        found[name] = slopes
    return found
