"""One training loop, for either side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ...reference.adapters import leaves, ones_like, rule
from .. import ops
from ..ops import optimizers
from ..verdict.floor import TOGETHER, stacked
from .cells import Arrays, Cell
from .datasets import Data


@dataclass(frozen=True)
class Side:
    """What the loop calls: by hand or by torch."""

    batch: Callable[[int], tuple[np.ndarray, np.ndarray]]  # step → x, target
    gradient: Callable[
        [Arrays, np.ndarray, np.ndarray], tuple[np.ndarray, Arrays]
    ]  # → loss, gradients
    step: Callable[
        ..., tuple[Arrays, dict[str, Any]]
    ]  # parameters, gradients, states, settings → the first and third anew
    together: bool = False  # whether gradient takes Draws


@dataclass(frozen=True)
class Step:
    """One step of a run: what went in, and what came out."""

    t: int
    parameters: Arrays
    states: dict[str, Any]
    batch: tuple[np.ndarray, np.ndarray]
    loss: np.ndarray
    gradients: Arrays
    new_parameters: Arrays
    new_states: dict[str, Any]


def train(
    side: Side,
    parameters: Arrays,
    steps: int,
    settings: dict[str, Any],
) -> Iterator[Step]:
    """Runs the loop and yields every step; it ends early once a parameter is no longer finite."""
    states: dict[str, Any] = {name: {} for name in parameters}
    for t in range(steps):
        batch = side.batch(t)
        with np.errstate(over="ignore", invalid="ignore"):  # a run may diverge: that is a result
            loss, gradients = side.gradient(parameters, *batch)
            new_parameters, new_states = side.step(parameters, gradients, states, settings)
        yield Step(t, parameters, states, batch, loss, gradients, new_parameters, new_states)
        parameters, states = new_parameters, new_states
        if not all(np.all(np.isfinite(p)) for p in parameters.values()):
            return


Point = tuple[Arrays, np.ndarray, np.ndarray]  # parameters, x, target


def gradients_at(side: Side, points: Sequence[Point]) -> list[tuple[np.ndarray, Arrays]]:
    """The loss and the gradients at many points. Those of one shape are evaluated together, if the
    side can."""
    if not side.together:
        return [side.gradient(*point) for point in points]
    found: dict[int, tuple[np.ndarray, Arrays]] = {}
    alike: dict[Any, list[int]] = {}
    for i, (_, x, target) in enumerate(points):
        alike.setdefault((x.shape, target.shape), []).append(i)
    for indices in alike.values():
        elements = sum(a.size for a in leaves(points[indices[0]]))
        at_once = max(TOGETHER // elements, 1)
        for start in range(0, len(indices), at_once):
            some = indices[start : start + at_once]
            loss, of_all = cast(Any, side.gradient(*stacked([points[i] for i in some])))
            for k, i in enumerate(some):
                found[i] = loss.array[k], {name: g.array[k] for name, g in of_all.items()}
    return [found[i] for i in range(len(points))]


def stepped(
    side: Side,
    many: Sequence[tuple[Arrays, Arrays, dict[str, Any]]],
    settings: dict[str, Any],
) -> list[tuple[Arrays, dict[str, Any]]]:
    """The step from each of many parameters, gradients and states: all are stepped as one group."""
    of_all = [
        {(i, name): leaf for i, trees in enumerate(many) for name, leaf in trees[k].items()}
        for k in range(3)
    ]
    params, states = side.step(*of_all, settings)

    def part(i: int, tree: Any) -> Any:
        return {name: leaf for (at, name), leaf in tree.items() if at == i}

    return [(part(i, params), part(i, states)) for i in range(len(many))]


def by_hand(cell: Cell, data: Data) -> Side:
    """The hand-written side: rules composed by hand, one optimizer step per parameter."""
    model, loss = ops.named(cell.model).rule, ops.named(cell.loss).rule
    optimizer = optimizers.named(cell.optimizer).rule

    def gradient(
        parameters: Arrays, x: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, Arrays]:
        output, pull_model = model(parameters, x, **cell.model_settings)
        value, pull_loss = loss(output, target)
        doutput = pull_loss(np.ones_like(value))
        dparameters, _ = pull_model(doutput[0] if isinstance(doutput, tuple) else doutput)
        return value, dparameters

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        stepped = {
            name: optimizer(parameters[name], gradients[name], states[name], **settings)
            for name in parameters
        }
        return {n: p for n, (p, _) in stepped.items()}, {n: s for n, (_, s) in stepped.items()}

    return Side(_batches(cell, data), gradient, step)


def by_torch(cell: Cell, data: Data) -> Side:
    """Torch's side: the loss of the model differentiated as one, all parameters stepped as one
    group."""
    mirrors = [ops.named(name).mirror for name in (cell.model, cell.loss)]
    model, loss = (mirror.__wrapped__ for mirror in mirrors)

    @rule
    def objective(parameters: Any, x: Any, target: Any) -> Any:
        return loss(model(parameters, x, **cell.model_settings), target)

    def gradient(
        parameters: Arrays, x: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, Arrays]:
        value, pullback = objective(parameters, x, target)
        return value, pullback(ones_like(value))[0]

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        names = list(parameters)
        lists = ([tree[name] for name in names] for tree in (parameters, gradients, states))
        new, new_states = optimizers.named(cell.optimizer).mirror(*lists, **settings)
        return dict(zip(names, new, strict=True)), dict(zip(names, new_states, strict=True))

    together = all(mirror.facts.batched for mirror in mirrors)
    return Side(_batches(cell, data), gradient, step, together)


def _batches(cell: Cell, data: Data) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step → (x, target): all samples, or an epoch's random order cut into batches."""
    x = data.x.astype(cell.dtype)
    target = data.target.astype(cell.dtype) if data.target.dtype.kind == "f" else data.target
    if cell.regime == "batch":
        return lambda t: (x, target)
    size = 1 if cell.regime == "stochastic" else cell.batch_size

    def orders() -> Iterator[np.ndarray]:
        rng = np.random.default_rng([cell.seed, 1])
        while True:
            order = rng.permutation(len(x))
            yield from (order[i : i + size] for i in range(0, len(x), size))

    picks = list(itertools.islice(orders(), cell.steps))
    return lambda t: (x[picks[t]], target[picks[t]])
