"""What an optimizer is given at every step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ops.optimizers import named
from ..training.cells import Cell, start
from ..training.datasets import load
from ..training.loop import Side, by_hand, by_torch, train

STEPS = 1000
SHAPE = (4, 6)


@dataclass(frozen=True)
class Stream:
    """What an optimizer starts from and what it is given at every step, a gradient.

    To an optimizer that evaluates the loss itself that is a batch, and the functions make of it
    what it takes: by hand, and with torch.
    """

    param: Any  # an array, or a list of them
    given: Iterable[Any]
    by_hand: Callable[[Any], Any] = lambda grad: grad
    by_torch: Callable[[Any], Any] = lambda grad: grad

    @property
    def evaluates(self) -> bool:
        """Whether an optimizer evaluates a loss on it, over all parameters."""
        return isinstance(self.param, list)


def mixed(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6): ordinary, tiny (1e-8) and huge (1e4) rows, and one that changes.

    The last row is zero most of the time, or changes its size every fifty steps, element by
    element.
    """
    rng = np.random.default_rng([seed, 3])
    scale = np.ones((steps, *SHAPE))
    scale[:, 1], scale[:, 2] = 1e-8, 1e4
    scale[:, 3, :2] = rng.random((steps, 2)) < 0.1
    scale[:, 3, 2] = 0
    sizes = rng.choice([0, 1e-8, 1, 1e4], (steps // 50 + 1, 3))
    scale[:, 3, 3:] = np.repeat(sizes, 50, axis=0)[:steps]
    return scale * rng.standard_normal(scale.shape)


@functools.lru_cache(maxsize=4)
def trained(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6) from a training: of some weights of a network on the digits."""
    cell = Cell("mlp", "digits", "sgd", 0.1, regime="mini-batch", steps=steps, seed=seed)
    data = load(cell.data)
    side = by_torch(cell, data)
    run = train(side, start(cell), steps, cell.all_settings)
    found = [step.gradients["0.weight"][: SHAPE[0], 10 : 10 + SHAPE[1]] for step in run]
    return np.array(found)


def fading(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6) that turn less and less, and fall from 1 to 1e-6: a convergence."""
    rng = np.random.default_rng([seed, 6])
    t = np.arange(steps)[:, None, None]
    waves = np.cos(t / (5 + t / 10) * rng.uniform(0.5, 2, SHAPE) + rng.uniform(0, 6, SHAPE))
    return 10 ** (-6 * t / max(steps, 1)) * (waves + 0.1 * rng.standard_normal((steps, *SHAPE)))


STREAMS: dict[str, Callable[[int, int], np.ndarray]] = {
    "mixed": mixed,
    "trained": trained,
    "fading": fading,
}

# What an optimizer that evaluates the loss itself is tried on, in place of each stream.
OBJECTIVES = {
    "mixed": ("mlp", "diabetes"),
    "trained": ("mlp", "digits"),
    "fading": ("linear_regression", "diabetes"),
}


def stream_of(
    name: str, kind: str, dtype: str, seed: int = 0, steps: int = STEPS, maximize: bool = False
) -> Stream:
    """The stream of this kind, as the optimizer of this name takes it. A loss that is evaluated has
    its sign turned for one that maximizes."""
    takes = named(name).facts.takes
    if takes == "closure":
        return _objective(kind, dtype, seed, steps, -1 if maximize else 1)
    gradients = STREAMS[kind](steps, seed).astype(dtype)
    param = np.random.default_rng([seed, 5]).standard_normal(SHAPE).astype(dtype)
    if takes == "rows":
        rng = np.random.default_rng([seed, 7])
        rows = rng.integers(SHAPE[0], size=(steps, 3))  # of which some occur twice
        return Stream(param, [(i, g[i]) for i, g in zip(rows, gradients, strict=True)])
    return Stream(param, list(gradients))


def _objective(kind: str, dtype: str, seed: int, steps: int, sign: int) -> Stream:
    model, data = OBJECTIVES[kind]
    cell = Cell(model, data, "sgd", 0.1, dtype=dtype, seed=seed, hidden=(8,))
    known = load(data)
    parameters = start(cell)

    def closure_of(side: Side) -> Callable[[Any], Any]:
        def of_batch(batch: Any) -> Callable[[Sequence[np.ndarray]], Any]:
            def closure(params: Sequence[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
                given = dict(zip(parameters, params, strict=True))
                loss, gradients = side.gradient(given, *batch)
                return sign * loss, [sign * gradients[name] for name in parameters]

            return closure

        return of_batch

    ours, theirs = by_hand(cell, known), by_torch(cell, known)
    batches = [ours.batch(t) for t in range(steps)]
    return Stream(list(parameters.values()), batches, closure_of(ours), closure_of(theirs))
