"""A gradient along one direction: as the subject has it, as torch has it, and by differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...reference.adapters import leaves, listed, tree_map
from ..verdict.classes import DIFFERENT, IDENTICAL, LIMIT, ROUNDING, Results, Verdict
from ..verdict.differences import derivative
from ..verdict.noise import is_floating, unit_roundoff
from .adapt import Subject, values

GROUPS = 8  # groups of elements, each differentiated along one direction
HALVINGS = 24  # the most halvings that are made to find a single wrong element
BLUNT = 1e-3  # a derivative with a larger relative error abstains


@dataclass(frozen=True)
class Vote:
    """One directional derivative as three oracles see it."""

    name: str
    subject: float
    reference: float
    derivative: float
    error: float  # of the derivative
    alone: str  # "subject", "reference" or "derivative"; "each" if no two agree; "" if all do


class Direction:
    """A random direction of one floating array of a call, in which every element moves by up to its
    own size, so that signs stay; and the slope of Σ dy · y along it."""

    def __init__(self, subject: Subject, inputs: Any, position: int, seed: int) -> None:
        self.subject, self.inputs, self.position = subject, inputs, position
        x = [a for a in leaves(inputs[:2]) if is_floating(a)][position]
        rng = np.random.default_rng([seed, 4])
        size = np.where(x == 0, np.mean(abs(x)) if x.any() else 1.0, abs(x))
        self.along = np.asarray(rng.choice([-1, 1], x.shape) * rng.uniform(0.5, 1, x.shape) * size)

    def slope(self, only: np.ndarray | None = None) -> tuple[float, float]:
        """By differences of the subject's own forward, with its error; `only` are the elements that
        move."""
        args, kwargs, dy = self.inputs
        step = self.along if only is None else np.where(only, self.along, 0)

        def terms(h: float) -> list[np.ndarray]:
            count = itertools.count()

            def moved(leaf: Any) -> Any:
                if not is_floating(leaf):
                    return leaf
                return leaf + h * step if next(count) == self.position else leaf.copy()

            moved_args, moved_kwargs = tree_map(moved, (args, kwargs))
            y, _ = self.subject.run(moved_args, moved_kwargs)
            parts = zip(listed(y), listed(dy), strict=True)
            return [np.asarray(part) * d for part, d in parts if d is not None]

        def total(h: float) -> float:
            try:
                return float(sum(np.sum(t) for t in terms(h)))
            except Exception:  # beyond the domain
                return math.nan

        return derivative(total, float(sum(np.sum(abs(t)) for t in terms(0.0))))

    def vote(
        self, name: str, ours: np.ndarray, theirs: np.ndarray, only: np.ndarray | None = None
    ) -> Vote | None:
        """Who of the three stands alone; None where the direction leads nowhere."""
        along = self.along if only is None else np.where(only, self.along, 0)
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all() and along.any()):
            return None
        slope, error = self.slope(only)
        a, b = float(np.sum(ours * along)), float(np.sum(theirs * along))
        size = float(np.sum(abs(theirs * along)))
        allowed = LIMIT * (error + unit_roundoff(np.float64) * size)
        if not allowed < BLUNT * size:  # a kink, or the edge of the domain
            return Vote(name, a, b, slope, error, "")
        agree = (abs(a - b) <= allowed, abs(a - slope) <= allowed, abs(b - slope) <= allowed)
        alone = {
            (False, False, True): "subject",
            (False, True, False): "reference",
            (True, False, False): "derivative",
            (False, False, False): "each",
        }
        return Vote(name, a, b, slope, error, alone.get(agree, ""))

    def verdict(self, gradient: np.ndarray) -> tuple[Verdict, np.ndarray] | None:
        """The gradient against differences, and the elements that this is about; None where
        differences cannot tell.

        The elements fall into GROUPS, each with a direction of its own; the worst group is halved
        until a single element is left.
        """
        rng = np.random.default_rng(5)
        group = rng.permutation(np.arange(gradient.size) % GROUPS).reshape(gradient.shape)
        looks = [self._look(gradient, group == g) for g in range(min(GROUPS, gradient.size))]
        looks = [look for look in looks if look.sharp]
        if not looks:
            return None
        worst = max(looks, key=lambda look: look.margin)
        for _ in range(HALVINGS):
            where = np.flatnonzero(worst.only)
            if worst.margin <= 1 or len(where) == 1:
                break
            halves = [
                self._look(gradient, np.isin(np.arange(gradient.size), part).reshape(group.shape))
                for part in np.array_split(where, 2)
            ]
            half = max(halves, key=lambda look: look.margin if look.sharp else -1)
            if half.margin <= 1 or not half.sharp:
                break
            worst = half
        return worst.verdict(self.along), worst.only

    def _look(self, gradient: np.ndarray, only: np.ndarray) -> _Look:
        along = np.where(only, self.along, 0)
        slope, error = self.slope(only)
        ours = float(np.sum(gradient * along))
        size = max(float(np.sum(abs(gradient * along))), abs(slope))
        return _Look(only, ours, slope, LIMIT * (error + unit_roundoff(np.float64) * size), size)


@dataclass(frozen=True)
class _Look:
    """A gradient and a derivative along one direction of some elements."""

    only: np.ndarray
    ours: float
    slope: float
    allowed: float
    size: float

    @property
    def sharp(self) -> bool:
        return math.isfinite(self.ours) and self.allowed <= BLUNT * self.size

    @property
    def margin(self) -> float:
        gap = abs(self.ours - self.slope)
        return gap / self.allowed if self.allowed else (math.inf if gap else 0.0)

    def verdict(self, along: np.ndarray) -> Verdict:
        where = np.argwhere(self.only)
        index = tuple(map(int, where[0])) if len(where) == 1 else None
        step = float(along[index]) if index is not None else 1.0
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


def numeric(subject: Subject, inputs: Any, order: Sequence[str], most: int) -> Results:
    """The subject's value, and each element of the gradients of arrays of at most `most` elements,
    by differences."""
    args, kwargs, _ = inputs
    y, _ = subject.run(args, kwargs)
    found = values(y)
    for position, name in enumerate(order):
        direction = Direction(subject, inputs, position, 0)
        x = direction.along
        if name in subject.constant or x.size > most:
            continue
        slopes = []
        for k in range(x.size):
            only = np.zeros(x.size, bool)
            only[k] = True
            slopes.append(direction.slope(only.reshape(x.shape))[0] / x.flat[k])
        found[name] = np.reshape(slopes, x.shape)
    return found
