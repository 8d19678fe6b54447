"""An optimizer's step by hand beside torch's, and beside the memory."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...reference.adapters import leaves
from ..ops import optimizers
from ..parallel import limited
from ..samples import written
from .costs import REPEATS
from .timing import medians

SIDE = 1000  # the parameter is square: a million elements
PATHS = ("loop", "foreach", "fused")
OTHERS = (*PATHS, "memory")
FILLED = 4  # steps that are not timed, after which the state is full


def rows(name: str, repeats: int = REPEATS, side: int = SIDE) -> list[dict[str, Any]]:
    """One row for each choice of settings: medians of interleaved steps, in seconds.

    `memory` is how long it takes to copy as many bytes as a step has to read and to write.
    """
    with limited(1):
        return [_row(name, s, repeats, side) for s in optimizers.named(name).facts.timed]


def _row(name: str, settings: dict[str, Any], repeats: int, side: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    param, grad = rng.standard_normal((2, side, side)).astype(np.float32)
    by_hand, held = _by_hand(name, param, grad, settings)
    tasks = {"manual": by_hand}
    optimizer = optimizers.named(name)
    accepted = inspect.signature(optimizer.mirror).parameters
    loop = {"foreach": False} if "foreach" in accepted else {}
    tasks["loop"] = _by_torch(name, param, grad, settings | loop)
    for choice in optimizer.paths:
        (path,) = choice
        tasks[path] = _by_torch(name, param, grad, settings | choice)
    source = np.zeros(held // 2, np.uint8)
    target = np.zeros_like(source)
    tasks["memory"] = lambda: np.copyto(target, source)
    seconds = medians(tasks, repeats)
    text = written(settings)
    return {
        "id": f"{name}({text})/{param.size}/float32",
        "optimizer": name,
        "settings": text,
        "manual": seconds["manual"],
        **{other: seconds.get(other) for other in OTHERS},
        **{f"to_{other}": seconds["manual"] / seconds.get(other, math.nan) for other in OTHERS},
    }


def _some_rows(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sparse gradient: a tenth of the rows."""
    return np.arange(0, len(grad), 10), grad[::10]


def _by_hand(
    name: str, param: np.ndarray, grad: np.ndarray, settings: dict[str, Any]
) -> tuple[Callable[[], Any], int]:
    """One step from a state that is filled, and how many bytes it reads and writes."""
    step, takes = optimizers.named(name).rule, optimizers.named(name).facts.takes
    given: Any = _some_rows(grad) if takes == "rows" else grad
    if takes == "closure":
        weights = _weights(param)

        def given(params: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
            gradient = weights * params[0]
            return float(np.vdot(gradient, params[0])) / 2, [gradient]

    new: Any = [param] if takes == "closure" else param
    state: dict[str, Any] = {}
    for _ in range(FILLED):
        new, state = step(new, given, state, **settings)
    kept = sum(a.nbytes for a in leaves((new, state)) if isinstance(a, np.ndarray))
    return lambda: step(new, given, state, **settings), 2 * kept + grad.nbytes


def _weights(param: np.ndarray) -> np.ndarray:
    """The weights of a quadratic loss Σ w x² / 2, so unequal that no few steps find its minimum."""
    return np.geomspace(1, 1e6, param.size, dtype=param.dtype).reshape(param.shape)


def _by_torch(
    name: str, param: np.ndarray, grad: np.ndarray, settings: dict[str, Any]
) -> Callable[[], Any]:
    parameter = torch.nn.Parameter(torch.from_numpy(param.copy()))
    optimizer = optimizers.named(name)
    made, takes = optimizer.mirror.__wrapped__([parameter], **settings), optimizer.facts.takes
    if takes == "closure":
        weights = torch.from_numpy(_weights(param))

        def closure() -> torch.Tensor:
            x = parameter.detach()
            parameter.grad = weights * x
            return (parameter.grad * x).sum() / 2

        task = functools.partial(made.step, closure)
    else:
        task = made.step
    if takes == "rows":
        indices, values = _some_rows(grad)
        parameter.grad = torch.sparse_coo_tensor(
            torch.from_numpy(indices)[None],
            torch.from_numpy(values.copy()),
            param.shape,
            check_invariants=True,
        )
    elif takes != "closure":
        parameter.grad = torch.from_numpy(grad.copy())
    for _ in range(FILLED):
        task()
    return task
