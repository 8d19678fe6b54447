"""A free run beside the reference's: how far noise drives that, and what else may part the two."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..training.cells import Cell
from ..training.loop import Side, Step, gradients_at, stepped, train, whole
from ..training.models import Arrays
from ..verdict.classes import LIMIT
from ..verdict.drift import RUNS, WINDOW, Drift, free_drift
from ..verdict.noise import moved, unit_roundoff

KINKS = 3  # so many are looked for


@dataclass(frozen=True)
class Point:
    """What a step begins with, counted from 0."""

    parameters: Arrays
    states: Mapping[str, Any] = field(default_factory=dict)
    t: int = 0

    @property
    def all_states(self) -> dict[str, Any]:
        return {name: self.states.get(name, {}) for name in self.parameters}


def noisy_losses(side: Side, cell: Cell, point: Point) -> np.ndarray:
    """The loss, (RUNS, steps), of runs of the reference in which what each step sees, parameters
    and batch, and the gradient that it makes move by one ulp; NaN once a run has diverged, and
    before the step that they start at. They run side by side."""
    rngs = [np.random.default_rng([cell.seed, 2, run]) for run in range(RUNS)]
    losses = np.full((RUNS, cell.steps), math.nan)
    now: dict[int, tuple[Arrays, dict[str, Any]]]
    now = dict.fromkeys(range(RUNS), (point.parameters, point.all_states))

    def disturbed(trees: Sequence[Any]) -> list[Any]:
        size = 2 * unit_roundoff(cell.dtype)
        pairs = zip(trees, now, strict=True)
        return [moved(tree, size, rngs[run], zeros=True) for tree, run in pairs]

    for t in range(point.t, cell.steps):
        batch = side.batch(t)
        seen = disturbed([(params, *batch) for params, _ in now.values()])
        with np.errstate(over="ignore", invalid="ignore"):  # a run may diverge: that is a result
            found = gradients_at(side, seen)
            losses[list(now), t] = [loss for loss, *_ in found]
            grads = disturbed([grad for _, grad, *_ in found])
            states = [state for _, state in now.values()]
            params = [point[0] for point in seen]
            new = stepped(side, list(zip(params, grads, states, strict=True)), cell.all_settings)
        after = [
            (whole(before, of_one, *moved), state)
            for before, (of_one, state), (_, _, *moved) in zip(params, new, found, strict=True)
        ]
        finite = [all(np.isfinite(p).all() for p in of_one.values()) for of_one, _ in after]
        now = {run: a for run, a, good in zip(now, after, finite, strict=True) if good}
        if not now:
            break
    return losses


def kinks(hand: Side, twin: Side, cell: Cell, start: Point, ours: np.ndarray, drift: Drift) -> str:
    """Why a free run of which every step is right, with the losses `ours`, has left its floor; ""
    if that is not known.

    At a kink, a ReLU or a maximum, two runs that are one rounding apart may go two ways, and by
    chance none of the runs under noise went ours. Then the drift leaps; and the reference, started
    where our run is at the last step before, goes our way. That is what is tried.
    """
    at, left = start, list[str]()
    while drift.parted is not None:
        if not _leaps(drift.ratio, drift.parted) or len(left) == KINKS:
            return ""
        left.append(str(at.t + drift.parted + 1))
        at = _reached(hand, cell, start, max(at.t + drift.parted - 1, 0))
        run = train(twin, at.parameters, cell.steps, cell.all_settings, at.all_states, at.t)
        again, _ = losses(run, cell.steps)
        here, u = slice(at.t, None), unit_roundoff(cell.dtype)
        drift = free_drift(ours[here], again[here], noisy_losses(twin, cell, at)[:, here], u)
    steps = " and ".join(left)
    return f"and the runs part at a kink, at step {steps}: from where ours is, torch goes our way"


def _leaps(ratio: np.ndarray, parted: int) -> bool:
    """Whether the drift has become LIMIT times as many floors in WINDOW steps as before."""
    before = ratio[max(parted - WINDOW, 0) : parted].max(initial=1)
    return bool(ratio[parted : parted + WINDOW + 1].max() > LIMIT * before)


def _reached(side: Side, cell: Cell, start: Point, t: int) -> Point:
    """What step t begins with."""
    run = train(side, start.parameters, t, cell.all_settings)
    last = collections.deque(run, maxlen=1)
    return Point(last[0].after, last[0].new_states, t) if last else start


def losses(run: Iterator[Step], steps: int) -> tuple[np.ndarray, Arrays]:
    """The loss at each step, NaN before the run and once it has diverged and ended, and the last
    parameters."""
    found = np.full(steps, math.nan)
    for step in run:
        found[step.t] = step.loss
    return found, step.after
