"""What it costs to judge something, beside what it costs to do that by torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...manual.models.layers import parted
from ...reference.adapters import tensor, tree_map
from .. import ops
from ..check.verify import check
from ..curves.divergence import compare
from ..curves.grid import GRID
from ..ops import evaluate
from ..ops import optimizers as of_optimizers
from ..optimizers import table
from ..optimizers.runs import torch_run
from ..optimizers.streams import stream_of
from ..samples import Call, array, call, written
from ..training.cells import MODELS, Cell, start
from ..training.datasets import load
from ..training.loop import by_torch, loss_of, objective_of
from ..verdict.lockstep import JUDGED
from .costs import REPEATS, Row, cost
from .rules import by_torch as torchs_pass

CHECKED: tuple[tuple[str, Call], ...] = (
    ("softmax", call(array(3, 4), dim=-1)),
    ("gelu", call(array(64, 64))),
    ("linear", call(array(64, 64), array(64, 64), array(64))),
    ("mul", call(array(1000, 1000), array(1000, 1000))),
)
DATA = {"linear_regression": "diabetes", "logistic_regression": "breast_cancer", "mlp": "digits"}


def checks(repeats: int = REPEATS) -> list[Row]:
    """One row for each call: a whole `check` of our rule, in forward and backward passes of
    torch."""
    return [_check(op, described, repeats) for op, described in CHECKED]


def _check(op: str, described: Call, repeats: int) -> Row:
    args, kwargs = described.draw(0, np.dtype("float64"))
    rule, twin = ops.named(op).pair
    plain = torchs_pass(op, *evaluate.completed(op, args, kwargs, 0))
    dear = partial(check, rule, twin.__wrapped__, args, kwargs)
    return cost("check", f"{op}({described})", dear, plain, repeats=repeats)


def traces(
    trace: Callable[..., Any], build: Callable[..., Any], repeats: int = REPEATS
) -> list[Row]:
    """One row for each model: its trace, in plain forward and backward passes. `trace` records that
    of a module, and `build` makes the module of a model, its parameters and what it is given."""
    rows = []
    for model, data in DATA.items():
        module, parameters, x = build(model, data)
        plain = partial(_differentiated, module, list(parameters.values()), x)
        case = f"{model}, {data}"
        rows.append(cost("trace", case, partial(trace, module, x), plain, repeats=repeats))
    return rows


def _differentiated(module: Any, sources: Sequence[torch.Tensor], x: torch.Tensor) -> Any:
    return torch.autograd.grad(module(x), sources)


def cells() -> list[Cell]:
    """The first cell of each model and dtype."""
    found: dict[tuple[str, str], Cell] = {}
    for cell in GRID:
        found.setdefault((cell.model, cell.dtype), cell)
    return sorted(found.values(), key=lambda cell: list(MODELS).index(cell.model))


def curves(repeats: int = REPEATS) -> list[Row]:
    """One row for each of some cells: what judging it costs, in plain trainings by torch."""
    rows = []
    for cell in cells():
        words = (cell.model, cell.data, cell.optimizer, cell.regime, cell.dtype)
        case = f"{', '.join(words)}, {cell.steps} steps"
        rows.append(cost("curves", case, partial(compare, cell), trained(cell), repeats=repeats))
    return rows


def trained(cell: Cell) -> Callable[[], dict[str, torch.nn.Parameter]]:
    """A training as one writes it with torch, which gives the parameters at its end."""
    data = load(cell.data)
    state = parted(start(cell))
    batch = by_torch(cell, data).batch
    batches = [tree_map(tensor, batch(t)) for t in range(cell.steps)]
    objective = objective_of(cell)
    make = of_optimizers.named(cell.optimizer).mirror.__wrapped__

    def run() -> dict[str, torch.nn.Parameter]:
        drawn, buffers = map(partial(tree_map, tensor), state)
        parameters = {name: torch.nn.Parameter(t) for name, t in drawn.items()}
        optimizer = make(parameters.values(), **cell.all_settings)
        for given in batches:
            optimizer.zero_grad()
            loss_of(objective, parameters, given, buffers).backward()
            optimizer.step()
        return parameters

    return run


def trajectories(name: str, steps: int = JUDGED, repeats: int = REPEATS) -> list[Row]:
    """One row: what judging so many steps of an optimizer costs, in torch's own runs of them."""
    settings = of_optimizers.configurations(name)[0]
    judge = partial(table.compare, name, settings, "float64", steps=steps)
    run = judge()  # which knows how many steps there are, and with which settings
    twin = of_optimizers.named(name).mirror
    stream = stream_of(name, run.kind, run.dtype, run.seed, run.lockstep.steps)
    case = f"{name}({written(settings)}), {run.lockstep.steps} steps"

    def plain() -> list[Any]:
        return list(torch_run(twin, stream, run.settings))

    return [cost("trajectories", case, judge, plain, repeats=repeats)]
