"""One training loop, for either side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ...manual.models.layers import parted
from ...reference.adapters import leaves, ones_like, rule, written_out
from .. import ops
from ..ops import optimizers
from ..verdict.floor import TOGETHER, stacked
from . import recipes
from .cells import Cell
from .datasets import Data
from .models import Arrays
from .recipes import RECIPES

NOTHING: Mapping[str, Any] = {}
Batch = tuple[Any, ...]  # x, target, and what is drawn at random, by keyword, if something is
Slopes = tuple[Any, ...]  # loss, gradients, and buffers as they have moved, of a model with such


@dataclass(frozen=True)
class Side:
    """What the loop calls: by hand or by torch."""

    batch: Callable[[int], Batch]
    gradient: Callable[..., Slopes]  # parameters, *batch → loss, gradients …
    step: Callable[
        ..., tuple[Arrays, dict[str, Any]]
    ]  # parameters, gradients, states, settings → the first and third anew
    together: bool = False  # whether gradient takes Draws
    group: bool = True  # whether step takes the parameters of many runs as one group


@dataclass(frozen=True)
class Step:
    """One step of a run: what went in, and what came out."""

    t: int
    parameters: Arrays  # buffers among them
    states: dict[str, Any]
    batch: Batch
    loss: np.ndarray
    gradients: Arrays
    new_parameters: Arrays
    new_states: dict[str, Any]
    moved: Sequence[Arrays] = ()  # the buffers, of a model that has such

    @property
    def after(self) -> Arrays:
        """What the next step begins with."""
        return whole(self.parameters, self.new_parameters, *self.moved)


def whole(before: Arrays, stepped: Arrays, buffers: Mapping[str, np.ndarray] = NOTHING) -> Arrays:
    """All parameters and buffers after a step, in the order in which they were before."""
    return {**before, **stepped, **buffers}


def train(
    side: Side,
    parameters: Arrays,
    steps: int,
    settings: dict[str, Any],
    states: dict[str, Any] | None = None,
    first: int = 0,
) -> Iterator[Step]:
    """Runs the loop and yields every step; it ends early once a parameter is no longer finite. With
    `states`, those before the step `first`, it goes on from there."""
    states = states or {name: {} for name in parameters}
    for t in range(first, steps):
        batch = side.batch(t)
        with np.errstate(over="ignore", invalid="ignore"):  # a run may diverge: that is a result
            loss, gradients, *moved = side.gradient(parameters, *batch)
            new = side.step(parameters, gradients, states, settings)
        step = Step(t, parameters, states, batch, loss, gradients, *new, moved)
        yield step
        parameters, states = step.after, step.new_states
        if not all(np.all(np.isfinite(p)) for p in parameters.values()):
            return


Point = tuple[Any, ...]  # parameters, *batch


def gradients_at(side: Side, points: Sequence[Point]) -> list[Slopes]:
    """The loss and the gradients, and buffers, at many points. Those of one shape are evaluated
    together, if the side can."""
    if not side.together:
        return [side.gradient(*point) for point in points]
    found: dict[int, Slopes] = {}
    alike: dict[Any, list[int]] = {}
    for i, (_, x, target, *_) in enumerate(points):
        alike.setdefault((x.shape, target.shape), []).append(i)
    for indices in alike.values():
        elements = sum(a.size for a in leaves(points[indices[0]]))
        at_once = max(TOGETHER // elements, 1)
        for start in range(0, len(indices), at_once):
            some = indices[start : start + at_once]
            loss, *trees = cast(Any, side.gradient(*stacked([points[i] for i in some])))
            for k, i in enumerate(some):
                of_one = (
                    {name: np.asarray(a.array[k]) for name, a in tree.items()} for tree in trees
                )
                found[i] = loss.array[k], *of_one
    return [found[i] for i in range(len(points))]


def stepped(
    side: Side,
    many: Sequence[tuple[Arrays, Arrays, dict[str, Any]]],
    settings: dict[str, Any],
) -> list[tuple[Arrays, dict[str, Any]]]:
    """The step from each of many parameters, gradients and states: all are stepped as one group, if
    the side can."""
    if not side.group:
        return [side.step(*one, settings) for one in many]
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
        state: Arrays,
        x: np.ndarray,
        target: np.ndarray,
        drawn: Mapping[str, Any] = NOTHING,
        times: float = 1.0,
    ) -> Slopes:
        parameters, buffers = parted(state)
        given = (buffers,) if buffers else ()
        y, pull_model = model(parameters, x, *given, **cell.model_settings, **drawn)
        output, *moved = y if buffers else (y,)
        rows, classes = output, target
        if target.dtype.kind == "i":  # one row of logits for each of them
            rows, classes = output.reshape(-1, output.shape[-1]), target.reshape(-1)
        value, pull_loss = loss(rows, classes)
        doutput = _first(pull_loss(np.full_like(value, times))).reshape(output.shape)
        dy = (doutput, *(None for _ in moved)) if buffers else doutput
        slopes = value, _first(pull_model(dy))
        return (*slopes, dict(zip(buffers, moved, strict=True))) if buffers else slopes

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        stepped = {
            name: optimizer(parameters[name], gradients[name], states[name], **settings)
            for name in gradients
        }
        return {n: p for n, (p, _) in stepped.items()}, {n: s for n, (_, s) in stepped.items()}

    if cell.recipe:
        return Side(_batches(cell, data), *recipes.by_hand(cell, gradient), group=False)
    return Side(_batches(cell, data), gradient, step)


def by_torch(cell: Cell, data: Data) -> Side:
    """Torch's side: the loss of the model differentiated as one, all parameters stepped as one
    group."""
    if cell.recipe:
        made = recipes.by_torch(cell, objective_of(cell))
        return Side(_batches(cell, data), *made, group=False)
    objective = rule(objective_of(cell), constant="drawn buffers")

    def gradient(
        state: Arrays, x: np.ndarray, target: np.ndarray, drawn: Mapping[str, Any] = NOTHING
    ) -> Slopes:
        parameters, buffers = parted(state)
        y, pullback = objective(parameters, x, target, drawn, buffers)
        if not buffers:
            return y, _first(pullback(ones_like(y)))
        value, *moved = y
        gradients = _first(pullback((ones_like(value), *(None for _ in moved))))
        return value, gradients, dict(zip(buffers, moved, strict=True))

    def step(
        parameters: Arrays, gradients: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        names = list(gradients)
        lists = ([tree[name] for name in names] for tree in (parameters, gradients, states))
        new, new_states = optimizers.named(cell.optimizer).mirror(*lists, **settings)
        return dict(zip(names, new, strict=True)), dict(zip(names, new_states, strict=True))

    together = all(ops.named(name).facts.batched for name in (cell.model, cell.loss))
    return Side(_batches(cell, data), gradient, step, together)


def objective_of(cell: Cell, loss: str = "") -> Callable[..., Any]:
    """What a cell minimizes, or another loss of its model, as a function of torch; in front of the
    buffers, which it moves."""
    model, measure = (ops.named(n).mirror.__wrapped__ for n in (cell.model, loss or cell.loss))

    @written_out("objective")
    def objective(
        parameters: Any,
        x: Any,
        target: Any,
        drawn: Mapping[str, Any] = NOTHING,
        buffers: Mapping[str, Any] = NOTHING,
    ) -> Any:
        given = (buffers,) if buffers else ()
        y = model(parameters, x, *given, **cell.model_settings, **drawn)
        output, *moved = y if buffers else (y,)
        if not target.is_floating_point():
            output, target = output.flatten(0, -2), target.flatten()
        value = measure(output, target)
        return (value, *moved) if buffers else value

    return objective


def loss_of(
    objective: Callable[..., Any], parameters: Any, batch: Sequence[Any], buffers: dict[str, Any]
) -> Any:
    """What an objective is for a batch of tensors; the buffers are replaced as it moves them."""
    y = objective(parameters, *batch, buffers=buffers)
    value, *moved = y if buffers else (y,)
    buffers.update(zip(buffers, moved, strict=True))
    return value


def _first(slopes: Any) -> Any:
    """Of what a pullback returns, the slope of the first argument."""
    return slopes[0] if isinstance(slopes, tuple) else slopes


def _batches(cell: Cell, data: Data) -> Callable[[int], Batch]:
    """step → x, target and, of a model that draws, what is drawn: all samples, or an epoch's random
    order cut into batches."""
    x, target = cell.seen(data)

    def of(t: int, *batch: np.ndarray) -> Batch:
        drawn = cell.drawn(batch[0], t)
        return (*batch, drawn) if drawn else batch

    if cell.regime == "batch":
        return lambda t: of(t, x, target)
    size = 1 if cell.regime == "stochastic" else cell.batch_size
    size *= RECIPES[cell.recipe].accumulation if cell.recipe else 1

    def orders() -> Iterator[np.ndarray]:
        rng = np.random.default_rng([cell.seed, 1])
        while True:
            order = rng.permutation(len(x))
            yield from (order[i : i + size] for i in range(0, len(x), size))

    picks = list(itertools.islice(orders(), cell.steps))
    return lambda t: of(t, x[picks[t]], target[picks[t]])
