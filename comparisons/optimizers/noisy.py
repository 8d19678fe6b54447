"""Free runs of the reference under noise: how far rounding can drive a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...reference.adapters import leaves, listed, tree_map
from ..ops import optimizers
from ..verdict.drift import RUNS
from ..verdict.floor import HALF
from ..verdict.noise import OneUlpNoise, moved, unit_roundoff
from .runs import After, Results, Step, stacked, torch_run
from .streams import Stream

MEASURED = 100  # steps of a run, at most, whose noise in 16 bits is measured


def noisy_runs(
    name: str, stream: Stream, settings: dict[str, Any], seed: int, steps: Sequence[Step]
) -> list[Results]:
    """RUNS runs of the reference, parameter and gradient moved by one ulp at every step.

    They run side by side: as one parameter where every row is treated alike. What rounds more
    than that inside of a step, a loss that is evaluated or 16 bits, is measured once for each step
    of the reference's own run, and moves each of the noisy runs as far, to either side.
    """
    optimizer = optimizers.named(name)
    twin = optimizer.mirror
    rng = np.random.default_rng([seed, 4])
    size = 2 * unit_roundoff(listed(stream.param)[0].dtype)

    def disturb(tree: Any) -> Any:
        return moved(tree, size, rng)

    rows = optimizer.facts.takes == "rows"
    if optimizer.facts.elementwise or rows:
        return _as_one(twin, stream, settings, disturb, rows)
    if stream.evaluates:
        noise = iter([noise_of_loss(stream, step, size, t) for t, step in enumerate(steps)] * RUNS)

        def by_torch(batch: Any) -> Any:
            closure, movement = stream.by_torch(batch), next(noise)
            return lambda params: _shaken(disturb(closure(params)), movement, rng)

        shaken = replace(stream, by_torch=by_torch)
        return [stacked(torch_run(twin, shaken, settings, disturb)) for _ in range(RUNS)]
    noise_inside = noise_in_16_bits(twin, steps, settings)
    return _side_by_side(twin, stream, settings, disturb, noise_inside, rng)


def _as_one(
    twin: Any, stream: Stream, settings: dict[str, Any], disturb: Callable[[Any], Any], rows: bool
) -> list[Results]:
    """RUNS runs, one above the other in one parameter."""
    height = len(stream.param)

    def above(given: Any) -> Any:
        if not rows:
            return np.concatenate([given] * RUNS)
        indices, values = given
        moved_down = [indices + i * height for i in range(RUNS)]
        return np.concatenate(moved_down), np.concatenate([values] * RUNS)

    many = Stream(np.concatenate([stream.param] * RUNS), map(above, stream.given))
    together = stacked(torch_run(twin, many, settings, disturb))
    return [
        {
            name: a[:, i * height : (i + 1) * height] if a.ndim > 1 else a
            for name, a in together.items()
        }
        for i in range(RUNS)
    ]


def _side_by_side(
    twin: Any,
    stream: Stream,
    settings: dict[str, Any],
    disturb: Callable[[Any], Any],
    noise: Sequence[Sequence[np.ndarray]],
    rng: np.random.Generator,
) -> list[Results]:
    """RUNS runs, each of which is a parameter of its own, `noise` being that of each step."""
    now: list[After] = [(stream.param, {})] * RUNS
    steps = []
    for given, movement in zip(stream.given, noise, strict=True):
        seen = np.array([param for param, _ in now]), np.array([given] * RUNS)
        params, grads = map(list, disturb(seen))
        after = twin(params, grads, [state for _, state in now], **settings)
        now = [_shaken(one, movement, rng) for one in zip(*after, strict=True)]
        steps.append(now)
    return list(map(stacked, zip(*steps, strict=True)))


def noise_of_loss(stream: Stream, step: Step, size: float, seed: int) -> list[np.ndarray]:
    """How far noise in the loss moves what it gives, where it is first asked: gradients are sums,
    with more error than one rounding."""
    batch, ((params, loss, gradients), *_) = step.given
    with OneUlpNoise(size, seed):
        noisy = stream.by_torch(batch)(params)
    return _apart(noisy, (loss, gradients))


def noise_in_16_bits(
    twin: Any, steps: Sequence[Step], settings: dict[str, Any]
) -> list[list[np.ndarray]]:
    """How far noise in what each step computes in 16 bits moves its results; nothing where it
    computes nothing in them. Of a long run every so many steps are measured, each for those that
    follow it."""
    every = math.ceil(len(steps) / MEASURED)
    params, given, states, after = map(list, zip(*steps[::every], strict=True))
    with OneUlpNoise(HALF[0], 0, half=True) as noise:
        twin(params[0], given[0], states[0], **settings)
        if not noise.halves:
            return [[] for _ in steps]
        noisy = zip(*twin(params, given, states, **settings), strict=True)
    found = [_apart(*pair) for pair in zip(noisy, after, strict=True)]
    return [found[t // every] for t in range(len(steps))]


def _apart(noisy: Any, plain: Any) -> list[np.ndarray]:
    """How far each leaf has moved."""
    return [np.subtract(a, b) for a, b in zip(leaves(noisy), leaves(plain), strict=True)]


def _shaken(tree: Any, movement: Sequence[np.ndarray], rng: np.random.Generator) -> Any:
    """The tree with the elements of each leaf moved that far, to either side."""
    if not movement:
        return tree
    moves = iter(movement)

    def shake(leaf: Any) -> Any:
        by = next(moves)
        if not np.any(by):
            return leaf
        signs = 2 * rng.integers(2, size=by.shape) - 1
        return np.asarray(leaf + signs * by, np.asarray(leaf).dtype)

    return tree_map(shake, tree)
