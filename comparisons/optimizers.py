"""The trajectory-parity table: every optimizer and its mirror on one recorded stream of
gradients."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import manual, reference
from .curves import RUNS
from .lockstep import Lockstep, Pair
from .noise import moved, unit_roundoff
from .verdict import DIFFERENT, IMPRECISE, PARTED, Drift, free_drift, ulps, worst

STEPS = 1000
SHOWN = (1, 10, 100, 1000)

Optimizer = Callable[..., tuple[Any, Any]]
Results = dict[str, np.ndarray]


def stream(steps: int, seed: int, dtype: Any) -> np.ndarray:
    """Recorded gradients (steps, 4, 6): ordinary, tiny (1e-8) and huge (1e4) rows, and one that
    changes.

    The last row is zero most of the time, or changes its size every fifty steps, element by
    element.
    """
    rng = np.random.default_rng([seed, 3])
    scale = np.ones((steps, 4, 6))
    scale[:, 1], scale[:, 2] = 1e-8, 1e4
    scale[:, 3, :2] = rng.random((steps, 2)) < 0.1
    scale[:, 3, 2] = 0
    sizes = rng.choice([0, 1e-8, 1, 1e4], (steps // 50 + 1, 3))
    scale[:, 3, 3:] = np.repeat(sizes, 50, axis=0)[:steps]
    return (scale * rng.standard_normal(scale.shape)).astype(dtype)


def run(
    optimizer: Optimizer, param: np.ndarray, gradients: np.ndarray, settings: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Yields (param, gradient, state, new results) of every step."""
    state: dict[str, Any] = {}
    for grad in gradients:
        new, new_state = optimizer(param, grad, state, **settings)
        yield param, grad, state, _named(new, new_state)
        param, state = new, new_state


def noisy_runs(
    optimizer: Optimizer,
    param: np.ndarray,
    gradients: np.ndarray,
    settings: dict[str, Any],
    seed: int,
) -> Results:
    """RUNS runs (runs, steps, …) of the reference, parameter and gradient moved by one ulp at every
    step.

    They run side by side as one parameter, because these optimizers work element by element.
    """
    rng = np.random.default_rng([seed, 4])
    size = 2 * unit_roundoff(param.dtype)
    params = np.array([param] * RUNS)
    state: dict[str, Any] = {}
    found = []
    for grad in gradients:
        seen, pushed = moved((params, np.array([grad] * RUNS)), size, rng)
        params, state = optimizer(seen, pushed, state, **settings)
        found.append(_named(params, state))
    return {
        name: np.moveaxis(a, 1, 0) if a.ndim > 1 else np.array([a] * RUNS)
        for name, a in _stacked(found).items()
    }


def other_paths(name: str) -> list[dict[str, bool]]:
    """The settings for torch's other implementations than its loop, which is what it does on a
    CPU."""
    paths = [{"foreach": True}]
    if "fused" in inspect.signature(getattr(reference.optimizers, name)).parameters:
        paths.append({"fused": True})
    return paths


def rows(
    name: str,
    settings: dict[str, Any],
    dtype: str,
    seed: int = 0,
    steps: int = STEPS,
    thorough: bool = False,
) -> list[dict[str, Any]]:
    """The rows of one optimizer with one choice of settings."""
    ours, twin = getattr(manual.optimizers, name), getattr(reference.optimizers, name)
    gradients = stream(steps, seed, dtype)
    param = np.random.default_rng([seed, 5]).standard_normal(gradients.shape[1:]).astype(dtype)

    lockstep = Lockstep(np.dtype(dtype), steps, thorough)
    reference_run = []
    for t, (p, grad, state, results) in enumerate(run(twin, param, gradients, settings)):
        pair = Pair(
            lambda i: _named(*ours(*i[:3], **i[3])),
            lambda i: _named(*twin(*i[:3], **i[3])),
            (p, grad, state, settings),
            before={"param": p},
        )
        lockstep.look(t + 1, [pair], results)
        reference_run.append(results)
    theirs = _stacked(reference_run)
    free = _stacked(r for *_, r in run(ours, param, gradients, settings))
    noisy = noisy_runs(twin, param, gradients, settings, seed)
    paths = [theirs] + [
        _stacked(r for *_, r in run(twin, param, gradients, settings | path))
        for path in other_paths(name)
    ]
    scale = {n: _scale(a) for n, a in theirs.items()}
    drifts = {
        n: free_drift(free[n], theirs[n], noisy[n], unit_roundoff(dtype), scale[n]) for n in theirs
    }
    shown = sorted({s for s in SHOWN if s < steps} | {steps})
    return [
        _row(name, settings, dtype, seed, quantity, step, lockstep, drifts[quantity])
        | {
            "max_ulp": int(ulps(free[quantity][step - 1], theirs[quantity][step - 1]).max()),
            "torch_spread": max(
                float((abs(a[quantity] - b[quantity])[step - 1] / scale[quantity][step - 1]).max())
                for a, b in itertools.combinations(paths, 2)
            ),
        }
        for quantity in theirs
        for step in shown
    ]


def _row(
    name: str,
    settings: dict[str, Any],
    dtype: str,
    seed: int,
    quantity: str,
    step: int,
    lockstep: Lockstep,
    drift: Drift,
) -> dict[str, Any]:
    records = [r for r in lockstep.records if r.name == quantity and r.step <= step]
    largest = max(records, key=lambda r: r.verdict.margin)
    kind = worst(r.verdict.kind for r in records)
    outside = next((r.step for r in records if r.verdict.kind == DIFFERENT), None)
    if kind != DIFFERENT and drift.parted is not None and drift.parted < step:
        kind, outside = PARTED, drift.parted + 1
    text = ", ".join(f"{k}={v}" for k, v in settings.items())
    return {
        "id": f"{name}({text})/{quantity}/{step}/{dtype}/{seed}",
        "optimizer": name,
        "settings": text,
        "dtype": dtype,
        "seed": seed,
        "quantity": quantity,
        "step": step,
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
    }


def _named(param: np.ndarray, state: dict[str, Any]) -> Results:
    return {"param": param, **{name: np.asarray(value) for name, value in state.items()}}


def _stacked(results: Any) -> Results:
    """One array per quantity, steps first."""
    listed = list(results)
    return {name: np.array([r[name] for r in listed]) for name in listed[0]}


def _scale(trajectory: np.ndarray) -> np.ndarray:
    """The largest size that each element has had so far, 1 where it was always 0."""
    largest = np.maximum.accumulate(abs(trajectory.astype(float)), axis=0)
    return np.where(largest > 0, largest, 1)
