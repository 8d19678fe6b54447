"""The trajectory-parity table: every optimizer and its mirror on recorded streams of gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ops import optimizers
from ..samples import written
from ..verdict.classes import DIFFERENT, IMPRECISE, PARTED, worst
from ..verdict.drift import Drift, free_drift, trajectory_scale
from ..verdict.lockstep import Lockstep, Pair
from ..verdict.noise import unit_roundoff
from ..verdict.ulps import ulps
from .memory import replayed
from .noisy import noisy_runs
from .runs import Optimizer, Results, free_run, named, recorded, stacked, torch_run
from .streams import STEPS, stream_of

SHOWN = (1, 10, 100, 1000)
ITERATIONS = 30  # of an optimizer with a closure, each of which evaluates the loss many times over


@dataclass(frozen=True)
class Comparison:
    """One optimizer with one choice of settings on one stream, compared: the verdicts, and both
    free runs, quantity by quantity, steps first."""

    name: str
    settings: dict[str, Any]
    dtype: str
    kind: str
    seed: int
    lockstep: Lockstep
    ours: Results
    theirs: Results
    paths: list[Results]  # torch's own implementations
    scale: Results
    drifts: dict[str, Drift]

    @property
    def shown(self) -> list[int]:
        """The steps that have a row, from 1."""
        return sorted({s for s in SHOWN if s < self.lockstep.steps} | {self.lockstep.steps})

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [_row(self, quantity, step) for quantity in self.drifts for step in self.shown]


def rows(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """The rows of one comparison."""
    return compare(*args, **kwargs).rows


def compare(
    name: str,
    settings: dict[str, Any],
    dtype: str,
    kind: str = "mixed",
    seed: int = 0,
    steps: int = STEPS,
    thorough: bool = False,
    disturb: Callable[[Any], Any] = lambda tree: tree,
) -> Comparison:
    """Compares one optimizer with one choice of settings on one stream, which `disturb` may
    move."""
    optimizer = optimizers.named(name)
    ours, twin, single = optimizer.rule, optimizer.mirror, optimizer.facts.single
    if single:  # so that each iteration is judged by itself
        settings, steps = settings | single, min(steps, ITERATIONS)
    stream = stream_of(name, kind, dtype, seed, steps, settings.get("maximize", False))
    stream = replace(stream, param=disturb(stream.param), given=disturb(stream.given))

    def side(step: Optimizer, made: Callable[[Any], Any]) -> Callable[[Any], Results]:
        def results(inputs: Any) -> Results:
            param, given, state, chosen = inputs
            seen = replayed(made(given[0]), given[1]) if stream.evaluates else made(given)
            return named(*step(param, seen, state, **chosen))

        return results

    def at_once(many: Sequence[Any]) -> Sequence[Results]:
        params, given, states, chosen = map(list, zip(*many, strict=True))
        return list(map(named, *twin(params, given, states, **chosen[0])))

    lockstep = Lockstep(np.dtype(dtype), steps, thorough)
    record = recorded(twin, stream, settings)
    for t, (param, given, state, after) in enumerate(record):
        pair = Pair(
            side(ours, stream.by_hand),
            side(twin, stream.by_torch),
            (param, given, state, settings),
            named(*after),
            before=named(param, {}),
            many=None if stream.evaluates else at_once,
        )
        lockstep.look(t + 1, [pair])
    theirs = stacked(step.after for step in record)
    free = stacked(free_run(ours, stream, settings))
    noisy = noisy_runs(name, stream, settings, seed, record)
    paths = [theirs] + [
        stacked(torch_run(twin, stream, settings | path)) for path in optimizer.paths
    ]
    kept = [n for n in theirs if all(n in r for r in (free, *noisy))]
    scale = {n: trajectory_scale(theirs[n]) for n in kept}
    drifts = {
        n: free_drift(
            free[n], theirs[n], np.array([r[n] for r in noisy]), unit_roundoff(dtype), scale[n]
        )
        for n in kept
    }
    return Comparison(
        name, settings, dtype, kind, seed, lockstep, free, theirs, paths, scale, drifts
    )


def _row(run: Comparison, quantity: str, step: int) -> dict[str, Any]:
    name, settings, dtype, stream, seed = run.name, run.settings, run.dtype, run.kind, run.seed
    lockstep, drift = run.lockstep, run.drifts[quantity]
    records = [r for r in lockstep.verdicts if r.name == quantity and r.step <= step]
    largest = max(records, key=lambda r: r.verdict.margin)
    kind = worst(r.verdict.kind for r in records)
    outside = next((r.step for r in records if r.verdict.kind == DIFFERENT), None)
    if kind != DIFFERENT and drift.parted is not None and drift.parted < step:
        kind, outside = PARTED, drift.parted + 1
    at, scale = step - 1, run.scale[quantity]
    spreads = (
        float((abs(a[quantity] - b[quantity])[at] / scale[at]).max())
        for a, b in itertools.combinations(run.paths, 2)
    )
    text = written(settings)
    return {
        "id": f"{name}({text})/{stream}/{quantity}/{step}/{dtype}/{seed}",
        "optimizer": name,
        "settings": text,
        "stream": stream,
        "dtype": dtype,
        "seed": seed,
        "quantity": quantity,
        "step": step,
        "steps": lockstep.steps,
        "lockstep_margin": largest.verdict.margin,
        "lockstep_step": largest.step,
        "manual": largest.verdict.manual,
        "reference": largest.verdict.reference,
        "judged_steps": len(records),
        "imprecise_steps": sum(r.verdict.kind == IMPRECISE for r in records),
        "resolution": lockstep.resolution({quantity: None}),
        "drift": drift.drift[step - 1],
        "floor": drift.floor[step - 1],
        "max_ratio": drift.ratio[:step].max(),
        "class": kind,
        "outside_step": outside,
        "note": largest.verdict.note,
        "max_ulp": int(ulps(run.ours[quantity][at], run.theirs[quantity][at]).max()),
        "torch_spread": max(spreads, default=math.nan),
    }


def summed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One line for all rows of a comparison."""
    largest = ("lockstep_margin", "drift", "max_ratio", "torch_spread")
    return {
        **rows[0],
        **{name: max(r[name] for r in rows) for name in largest},
        "class": worst(r["class"] for r in rows),
    }
