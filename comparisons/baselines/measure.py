"""All that is measured, quantity by quantity: what both sides gave, to the bit, and how far a
harmless change may move it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...reference.adapters import leaves
from .. import ops, samples
from ..curves import divergence
from ..curves.grid import GRID
from ..ops import evaluate
from ..ops.optimizers import configurations, named
from ..optimizers import table as optimizers
from ..samples import Call
from ..samples.optimizers import SAMPLES as OPTIMIZERS
from ..samples.schedules import SAMPLES as SCHEDULES
from ..schedules import table as schedules
from ..verdict.classes import DTYPES, LIMIT, UNDECIDED, worst
from ..verdict.lockstep import JUDGED
from ..verdict.noise import is_floating, moved, unit_roundoff
from .classes import NEAR

TABLES = ("gradients", "optimizers", "schedules", "curves")
ARRAYS = ("manual", "reference", "allowed")
Disturb = Callable[[Any], Any]


@dataclass(frozen=True)
class Quantity:
    """One result of both sides, and how far a harmless change may move each of its elements."""

    id: str
    table: str  # one of TABLES
    name: str  # of the op, optimizer, schedule or model
    manual: np.ndarray
    reference: np.ndarray
    allowed: np.ndarray  # LIMIT floors
    margin: float  # of its verdict
    kind: str  # the class of its verdict
    margins: tuple[float, ...] = ()  # of repeated measurements, each one ulp away


@dataclass(frozen=True)
class Task:
    """What is measured in one go, by name and number, so that another process can do it."""

    table: str
    name: str
    number: int
    seed: int

    def measure(self, repeats: int = 0) -> list[Quantity]:
        """The quantities, and their margins on inputs that are moved by one ulp, that often.

        That shows how far a margin goes by itself, which counts only where it comes near to what
        `diff` looks at.
        """
        found: list[Quantity] = []
        for what, measured in self._pieces():
            here = self._once(what, measured, lambda tree: tree)
            again: dict[str, list[float]] = {q.id: [q.margin] for q in here}
            near = any(q.margin > NEAR / 2 for q in here)
            for repeat in range(repeats if near else 0):
                rng = np.random.default_rng([self.seed, 10, repeat])
                for q in self._once(what, measured, partial(_nearby, rng=rng)):
                    again.setdefault(q.id, []).append(q.margin)
            found += [replace(q, margins=tuple(again[q.id])) for q in here]
        return found

    def _once(
        self, what: str, measured: Callable[..., Iterator[Quantity]], disturb: Disturb
    ) -> list[Quantity]:
        try:
            return list(measured(self, disturb))
        except Exception as error:  # of a rule, or of a torch that lacks a setting: a row
            return [self._raised(what, error)]

    def _pieces(self) -> list[tuple[str, Callable[..., Iterator[Quantity]]]]:
        """What can fail by itself, and how it is measured."""
        if self.table == "gradients":
            return [
                (f"{self.name}({row})/{dtype}", partial(_gradients, row=row, dtype=dtype))
                for _, row in ops.named(self.name).rows()
                for dtype in DTYPES
            ]
        return [(f"{self.name}[{self.number}]", globals()[f"_{self.table}"])]

    def _raised(self, what: str, error: Exception) -> Quantity:
        """The quantity that stands for what could not be measured."""
        nothing = np.zeros(0)
        label = f"{what}/raises {type(error).__name__}/{self.seed}"
        return Quantity(
            label, self.table, self.name, nothing, nothing, nothing, math.nan, UNDECIDED
        )


def tasks(names: Sequence[str] = (), seed: int = 0) -> list[Task]:
    """Those of the named tables, ops, optimizers, schedules or models; all without a name. What
    this torch lacks is left out."""
    every = {
        "gradients": [(op, 0) for op in ops.names() if ops.named(op).mirror is not None],
        "optimizers": [
            (name, i)
            for name in OPTIMIZERS
            if named(name).mirror is not None
            for i in range(len(configurations(name)) * len(DTYPES))
        ],
        "schedules": [(name, i) for name in SCHEDULES for i in range(len(SCHEDULES[name]))],
        "curves": [(cell.model, i) for i, cell in enumerate(GRID)],
    }
    return [
        Task(table, name, number, seed)
        for table, pairs in every.items()
        for name, number in pairs
        if not names or table in names or name in names
    ]


def choices() -> list[str]:
    """The names that `tasks` knows, those of which this torch has nothing among them."""
    models = [cell.model for cell in GRID]
    return [*dict.fromkeys([*TABLES, *ops.names(), *OPTIMIZERS, *SCHEDULES, *models])]


def _nearby(tree: Any, rng: np.random.Generator) -> Any:
    """Every floating array one ulp away."""
    floats = [leaf.dtype for leaf in leaves(tree) if is_floating(leaf)]
    return moved(tree, 2 * unit_roundoff(floats[0]), rng) if floats else tree


def _gradients(task: Task, disturb: Disturb, row: Call, dtype: str) -> Iterator[Quantity]:
    inputs = disturb(evaluate.drawn(task.name, row, dtype, task.seed))
    floor, ours, verdicts = evaluate.settled(task.name, inputs, dtype)
    for argument, verdict in verdicts.items():
        yield Quantity(
            f"{task.name}({row})/{argument}/{dtype}/{task.seed}",
            task.table,
            task.name,
            ours[argument],
            floor.native[argument],
            LIMIT * floor.values[argument],
            verdict.margin,
            verdict.kind,
        )


def _optimizers(task: Task, disturb: Disturb) -> Iterator[Quantity]:
    settings, dtype = [
        (settings, dtype) for settings in configurations(task.name) for dtype in DTYPES
    ][task.number]
    run = optimizers.compare(
        task.name, settings, dtype, "mixed", task.seed, steps=JUDGED, disturb=disturb
    )
    at = [step - 1 for step in run.shown]
    rows = run.rows
    for quantity, drift in run.drifts.items():
        of_quantity = [row for row in rows if row["quantity"] == quantity]
        scale = run.scale[quantity][at]
        floor = drift.floor[at].reshape(-1, *[1] * (scale.ndim - 1))
        yield Quantity(
            of_quantity[-1]["id"],
            task.table,
            task.name,
            run.ours[quantity][at],
            run.theirs[quantity][at],
            LIMIT * floor * scale,
            max(row["lockstep_margin"] for row in of_quantity),
            worst(row["class"] for row in of_quantity),
        )


def _schedules(task: Task, disturb: Disturb) -> Iterator[Quantity]:
    settings = SCHEDULES[task.name][task.number]
    text = samples.written(settings)
    for found in schedules.compare(task.name, settings, task.seed):
        yield Quantity(
            f"{task.name}({text})/{found.quantity}/{task.seed}",
            task.table,
            task.name,
            found.ours,
            found.theirs,
            LIMIT * found.floor,
            float(found.margin.max()),
            found.kind,
        )


def _curves(task: Task, disturb: Disturb) -> Iterator[Quantity]:
    cell = replace(GRID[task.number], seed=task.seed)
    run = divergence.compare(cell, disturb=disturb)
    yield Quantity(
        run.row["id"],
        task.table,
        task.name,
        run.manual.astype(cell.dtype),
        run.reference.astype(cell.dtype),
        LIMIT * run.drift.floor,
        run.row["lockstep_margin"],
        run.row["class"],
    )
