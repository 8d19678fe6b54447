"""What a step of a training costs by hand, and in a plain loop of torch's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from ...manual.models.layers import parted
from ...reference.adapters import tensor, tree_map
from ..ops import optimizers
from .cells import Cell
from .loop import Batch, Side, loss_of, objective_of, whole
from .models import Arrays
from .recipes import in_one_loop

STEPS = 15  # that are timed, behind those that warm up
WARM = 3


def seconds(cell: Cell, hand: Side, parameters: Arrays) -> tuple[float, float]:
    """The CPU seconds of a step by hand and by torch: forward, backward and optimizer, medians of
    steps that take turns, so that what disturbs one side disturbs the other. Batches are there
    before the time is taken, for torch as tensors."""
    batches = [hand.batch(t) for t in range(min(WARM + STEPS, cell.steps))]
    sides = (_by_hand(cell, hand, parameters, batches), _eager(cell, parameters, batches))
    taken = np.array([[_taken(side) for side in sides] for _ in batches])
    ours, theirs = np.median(taken[min(WARM, len(batches) - 1) :], axis=0)
    return float(ours), float(theirs)


def _by_hand(
    cell: Cell, hand: Side, parameters: Arrays, batches: list[Batch]
) -> Iterator[Callable[[], Any]]:
    now: list[Any] = [parameters, {name: {} for name in parameters}]

    def step(batch: Batch) -> None:
        _, gradients, *moved = hand.gradient(now[0], *batch)
        new, states = hand.step(now[0], gradients, now[1], cell.all_settings)
        now[:] = whole(now[0], new, *moved), states

    for batch in batches:
        yield partial(step, batch)


def _eager(cell: Cell, parameters: Arrays, batches: list[Batch]) -> Iterator[Callable[[], Any]]:
    """As a user of torch trains: parameters and an optimizer that stay."""
    objective = objective_of(cell)
    if cell.recipe:
        _, step_of = in_one_loop(cell, objective, parameters)
        for batch in batches:
            yield partial(step_of, tree_map(tensor, batch))
        return
    drawn, buffers = map(partial(tree_map, tensor), parted(parameters))
    own = {name: torch.nn.Parameter(t) for name, t in drawn.items()}
    kind = optimizers.named(cell.optimizer).mirror.__wrapped__
    machine = kind(list(own.values()), **cell.all_settings)

    def step(batch: Any) -> None:
        machine.zero_grad()
        loss_of(objective, own, batch, buffers).backward()
        machine.step()

    for batch in batches:
        yield partial(step, tree_map(tensor, batch))


def _taken(steps: Iterator[Callable[[], Any]]) -> float:
    step = next(steps)
    with np.errstate(over="ignore", invalid="ignore"):  # a training may diverge
        start = time.process_time()
        step()
        return time.process_time() - start
