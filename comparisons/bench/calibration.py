"""How far all that is correct stays below the limit of the verdict, with all the noise drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from .. import ops
from ..curves import divergence
from ..curves.grid import GRID
from ..gradients import table as gradients
from ..ops.optimizers import configurations
from ..optimizers import table as optimizers
from ..parallel import limited
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..training.cells import Cell
from ..verdict.classes import DTYPES, IDENTICAL, LIMIT, ROUNDING

Tasks = list[tuple[Callable[..., Any], tuple[Any, ...]]]


def tasks(what: str, seeds: int, threads: int = 1) -> Tasks:
    """What measures it, with so many seeds, and so many threads for each."""
    return [(_threaded, (threads, *task)) for task in CALIBRATED[what](seeds)]


def rounding(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose floors count."""
    return frame[frame["class"].isin([IDENTICAL, ROUNDING])]


def _row(what: str, where: str, floors: float, kind: str) -> dict[str, Any]:
    return {"id": where, "what": what, "floors": floors, "class": kind}


def _op(op: str, seed: int) -> list[dict[str, Any]]:
    rows = gradients.rows(op, seed, thorough=True)
    return [_row("values and gradients", r["id"], LIMIT * r["margin"], r["class"]) for r in rows]


def _optimizer(name: str, settings: dict[str, Any], dtype: str, seed: int) -> list[dict[str, Any]]:
    found = []
    for r in optimizers.rows(name, settings, dtype, seed=seed, thorough=True):
        if r["step"] == r["steps"]:
            lockstep = LIMIT * r["lockstep_margin"]
            found.append(_row("optimizers, lockstep", r["id"], lockstep, r["class"]))
            found.append(_row("optimizers, free", r["id"], r["max_ratio"], r["class"]))
    return found


def _curve(cell: Cell) -> list[dict[str, Any]]:
    r = divergence.compare(cell, thorough=True).row
    return [
        _row("curves, lockstep", r["id"], LIMIT * r["lockstep_margin"], r["class"]),
        _row("curves, free", r["id"], r["max_ratio"], r["class"]),
    ]


def _threaded(threads: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with limited(threads):
        return function(*args)


# What is calibrated → the tasks that measure it with so many seeds.
CALIBRATED: dict[str, Callable[[int], Tasks]] = {
    "curves": lambda seeds: [(_curve, (cell,)) for cell in GRID],
    "optimizers": lambda seeds: [
        (_optimizer, (name, settings, dtype, seed))
        for name in OPTIMIZERS
        for settings in configurations(name)
        for dtype in DTYPES
        for seed in range(seeds)
    ],
    "gradients": lambda seeds: [(_op, (op, seed)) for op in ops.names() for seed in range(seeds)],
}
