"""Recipes: what people train by beside a model and an optimizer, on both sides.

A step of a recipe goes through several micro-batches, whose gradients it adds, and then through the
optimizer: the gradients are divided by what the loss was multiplied by, clipped by their norm, and
the step is left out if one is not finite; matrices decay, biases and norms do not; the rate rises
from almost 0 and falls along a cosine. What it has to remember are whole numbers, which stand
beside the parameters, as buffers do: `recipe.step`, and of a scaler `recipe.exponent`, of the power
of 2 that the loss is multiplied by, and `recipe.good`, the steps since it last changed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ... import manual, reference
from ...reference.adapters import array, tensor, tree_map
from ..ops import optimizers
from .models import Arrays

if TYPE_CHECKING:
    from .cells import Cell

PREFIX = "recipe."
NO_STEP = r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"


@dataclass(frozen=True)
class Recipe:
    """How a cell is trained.

    accumulation  micro-batches of a step
    clip          the largest norm of all gradients together
    decay         of matrices and tables, where the optimizer's settings name none
    warmup        steps in which the rate rises; then it falls to `least` of what it was
    precision     the type of 16 bits that torch's autocast would choose, "" for none
    growth        the steps after which a scaler multiplies the loss by twice as much, 0 for no
                  scaler; at a gradient that is not finite it multiplies it by half as much
    exponent      where the scaler begins
    """

    accumulation: int = 2
    clip: float = 1.0
    decay: float = 0.1
    warmup: int = 10
    least: float = 0.1
    precision: str = ""
    growth: int = 0
    exponent: int = 0

    def schedule(self, steps: int, lr: float = 1.0) -> dict[str, Any]:
        """The settings of sequential_lr, which follow from the rate that it begins with."""
        rising = ("linear_lr", {"start_factor": 1 / self.warmup, "total_iters": self.warmup})
        left = max(steps - self.warmup, 1)
        falling = ("cosine_annealing_lr", {"T_max": left, "eta_min": self.least * lr})
        return {"schedules": [rising, falling], "milestones": [self.warmup]}

    def rates(self, schedules: Any, steps: int) -> np.ndarray:
        """The share of the rate at each step, by the schedules of either side."""
        found: np.ndarray = schedules.sequential_lr(
            np.arange(steps), lr=1.0, **self.schedule(steps)
        )
        return found


_GPT = Recipe()
RECIPES: dict[str, Recipe] = {
    "gpt": _GPT,
    "gpt-bfloat16": replace(_GPT, precision="bfloat16"),
    "gpt-float16": replace(_GPT, precision="float16", growth=20, exponent=16),
}


def begun(recipe: Recipe) -> Arrays:
    """What a recipe remembers, before its first step."""
    kept = {"step": 0, "exponent": recipe.exponent, "good": 0}
    return {f"{PREFIX}{name}": np.array(value) for name, value in kept.items()}


def of_model(state: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters and buffers without what a recipe remembers."""
    return {name: a for name, a in state.items() if not name.startswith(PREFIX)}


def micro_batches(recipe: Recipe, batch: Sequence[Any]) -> Iterator[list[Any]]:
    """The batch in so many parts as are accumulated, what is drawn for it too."""
    rows = len(batch[0]) // recipe.accumulation
    for k in range(recipe.accumulation):
        part = slice(k * rows, (k + 1) * rows)
        yield [tree_map(lambda a, part=part: a[part], leaf) for leaf in batch]


def by_hand(cell: Cell, plain: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Gradient and step of a recipe, by hand; `plain` gives the loss and the gradients of one
    micro-batch, these times a number."""
    recipe, optimizer = RECIPES[cell.recipe], optimizers.named(cell.optimizer).rule
    rates = recipe.rates(manual.schedules, cell.steps)

    def gradient(state: Arrays, *batch: Any) -> tuple[np.ndarray, Arrays]:
        total: Any = 0
        gradients: dict[str, Any] = {}
        times = 2.0 ** int(state[f"{PREFIX}exponent"]) / recipe.accumulation
        for part in micro_batches(recipe, batch):
            value, slopes = plain(of_model(state), *part, times=times)
            total = total + value / recipe.accumulation
            gradients = {name: gradients.get(name, 0) + slope for name, slope in slopes.items()}
        return np.asarray(total), gradients

    def step(
        state: Arrays, scaled: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        t, exponent, good = (int(state[f"{PREFIX}{n}"]) for n in ("step", "exponent", "good"))
        unscaled = [g * g.dtype.type(2.0**-exponent) for g in scaled.values()]
        _, clipped = manual.clipping.clip_grad_norm_(unscaled, recipe.clip)
        new = {name: state[name] for name in scaled}
        new_states = {name: states[name] for name in scaled}
        finite = all(np.isfinite(g).all() for g in unscaled)
        if finite or not recipe.growth:
            for name, g in zip(scaled, clipped, strict=True):
                own = grouped(recipe, state[name].ndim, settings, rates[t])
                new[name], new_states[name] = optimizer(state[name], g, states[name], **own)
        if recipe.growth:
            good = good + 1 if finite else 0
            exponent += (good == recipe.growth) - (not finite)
            good %= recipe.growth
        kept = {"step": t + 1, "exponent": exponent, "good": good}
        return new | {f"{PREFIX}{n}": np.array(value) for n, value in kept.items()}, new_states

    return gradient, step


def grouped(recipe: Recipe, axes: int, settings: dict[str, Any], rate: float) -> dict[str, Any]:
    """The settings of the group that a parameter with so many axes belongs to."""
    decay = settings.get("weight_decay", recipe.decay) if axes > 1 else 0.0
    return settings | {"lr": settings["lr"] * rate, "weight_decay": decay}


def in_one_loop(
    cell: Cell, objective: Callable[..., Any], state: Arrays
) -> tuple[dict[str, torch.nn.Parameter], Callable[[Sequence[Any]], Any]]:
    """The parameters of a training as people write it, and what takes a batch of tensors and makes
    one step of it: autocast, GradScaler, clip_grad_norm_, two groups and a scheduler."""
    recipe, kind = RECIPES[cell.recipe], optimizers.named(cell.optimizer).mirror.__wrapped__
    own = {n: torch.nn.Parameter(tensor(a)) for n, a in of_model(state).items()}
    machine = kind(_groups(recipe, own.values(), cell.all_settings), **cell.all_settings)
    scheduler = reference.schedules.sequential_lr.__wrapped__(
        machine, **recipe.schedule(cell.steps, cell.lr)
    )
    scaler = _scaler(recipe, state)

    def step(batch: Sequence[Any]) -> Any:
        machine.zero_grad()
        loss = _backward(recipe, objective, own, scaler, batch)
        scaler.unscale_(machine)
        torch.nn.utils.clip_grad_norm_(own.values(), recipe.clip)
        scaler.step(machine)
        scaler.update()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=NO_STEP)  # which the scaler may have left out
            scheduler.step()
        return loss

    return own, step


def by_torch(
    cell: Cell, objective: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same by torch: what `in_one_loop` keeps, every step builds around its numbers."""
    recipe, kind = RECIPES[cell.recipe], optimizers.named(cell.optimizer).mirror.__wrapped__
    rates = recipe.rates(reference.schedules, cell.steps)

    def gradient(state: Arrays, *batch: Any) -> tuple[np.ndarray, Arrays]:
        own = {n: torch.nn.Parameter(tensor(a)) for n, a in of_model(state).items()}
        loss = _backward(recipe, objective, own, _scaler(recipe, state), tree_map(tensor, batch))
        return array(loss), {name: array(p.grad) for name, p in own.items()}

    def step(
        state: Arrays, scaled: Arrays, states: dict[str, Any], settings: dict[str, Any]
    ) -> tuple[Arrays, dict[str, Any]]:
        t = int(state[f"{PREFIX}step"])
        own = {name: torch.nn.Parameter(tensor(state[name])) for name in scaled}
        now = settings | {"lr": settings["lr"] * rates[t]}
        machine = kind(_groups(recipe, own.values(), settings), **now)
        for name, p in own.items():
            p.grad = tensor(scaled[name])
            if states[name]:
                machine.state[p] = tree_map(tensor, dict(states[name]))
        scaler = _scaler(recipe, state)
        scaler.unscale_(machine)
        torch.nn.utils.clip_grad_norm_(own.values(), recipe.clip)
        scaler.step(machine)
        scaler.update()
        kept = {"step": t + 1, "exponent": recipe.exponent, "good": 0}
        if recipe.growth:
            exponent = round(math.log2(scaler.get_scale()))
            kept |= {"exponent": exponent, "good": scaler._get_growth_tracker()}
        new = {name: array(p) for name, p in own.items()}
        new_states = {n: tree_map(array, dict(machine.state[p])) for n, p in own.items()}
        return new | {f"{PREFIX}{n}": np.array(value) for n, value in kept.items()}, new_states

    return gradient, step


def _backward(
    recipe: Recipe,
    objective: Callable[..., Any],
    own: dict[str, torch.nn.Parameter],
    scaler: torch.amp.GradScaler,
    batch: Sequence[Any],
) -> Any:
    """The loss of a batch of tensors; the gradients of all micro-batches are left in the
    parameters, as the scaler makes them."""
    total, half = 0, getattr(torch, recipe.precision or "bfloat16")
    for part in micro_batches(recipe, batch):
        with torch.autocast("cpu", half, enabled=bool(recipe.precision)):
            loss = objective(own, *part) / recipe.accumulation
        scaler.scale(loss).backward()
        total = total + loss.detach()
    return total


def _groups(
    recipe: Recipe, parameters: Iterable[torch.Tensor], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Matrices and tables, which decay, and the rest, which does not."""
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for p in parameters:
        parts[p.ndim > 1].append(p)
    decays = (0.0, settings.get("weight_decay", recipe.decay))
    return [
        {"params": part, "weight_decay": decay}
        for part, decay in zip(parts, decays, strict=True)
        if part
    ]


def _scaler(recipe: Recipe, state: Mapping[str, Any]) -> torch.amp.GradScaler:
    """A scaler that goes on from what is kept, or does nothing in a recipe without one."""
    scaler = torch.amp.GradScaler(
        "cpu",
        init_scale=2.0 ** int(state[f"{PREFIX}exponent"]),
        growth_interval=recipe.growth or 1,
        enabled=recipe.growth > 0,
    )
    scaler._init_growth_tracker = int(state[f"{PREFIX}good"])
    scaler.scale(torch.zeros(()))  # where it makes its tensors
    return scaler
