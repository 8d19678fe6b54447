"""The trajectory-parity table: every optimizer and its mirror on recorded streams of gradients."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import manual, reference
from ..reference.adapters import listed
from .datasets import load
from .lockstep import Lockstep, Pair
from .noise import OneUlpNoise, moved, unit_roundoff
from .samples import written
from .training import Cell, Side, by_hand, by_torch, start, train
from .verdict import DIFFERENT, HALF, IMPRECISE, PARTED, RUNS, Drift, free_drift, ulps, worst

STEPS = 1000
SHOWN = (1, 10, 100, 1000)
SHAPE = (4, 6)
ITERATIONS = 30  # of L-BFGS, each of which evaluates the loss many times over
ONE_ITERATION = {"max_iter": 1, "max_eval": 26}  # of L-BFGS, so that each is judged by itself
WHOLE = ("adafactor", "muon", "sparse_adam", "lbfgs")  # that treat not every element alike

Optimizer = Callable[..., tuple[Any, Any]]
Results = dict[str, np.ndarray]


@dataclass(frozen=True)
class Stream:
    """What an optimizer starts from and what it is given at every step, a gradient.

    To an optimizer that evaluates the loss itself that is a batch, and the functions make of it
    what it takes: by hand, and with torch.
    """

    param: Any  # an array, or a list of them
    given: Iterable[Any]
    by_hand: Callable[[Any], Any] = lambda grad: grad
    by_torch: Callable[[Any], Any] = lambda grad: grad


def mixed(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6): ordinary, tiny (1e-8) and huge (1e4) rows, and one that changes.

    The last row is zero most of the time, or changes its size every fifty steps, element by
    element.
    """
    rng = np.random.default_rng([seed, 3])
    scale = np.ones((steps, *SHAPE))
    scale[:, 1], scale[:, 2] = 1e-8, 1e4
    scale[:, 3, :2] = rng.random((steps, 2)) < 0.1
    scale[:, 3, 2] = 0
    sizes = rng.choice([0, 1e-8, 1, 1e4], (steps // 50 + 1, 3))
    scale[:, 3, 3:] = np.repeat(sizes, 50, axis=0)[:steps]
    return scale * rng.standard_normal(scale.shape)


@functools.lru_cache(maxsize=4)
def trained(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6) from a training: of some weights of a network on the digits."""
    cell = Cell("mlp", "digits", "sgd", 0.1, regime="mini-batch", steps=steps, seed=seed)
    data = load(cell.data)
    side = by_torch(cell, data)
    run = train(side, start(cell, data.x.shape[1], data.outputs), steps, cell.all_settings)
    found = [step.gradients["0.weight"][: SHAPE[0], 10 : 10 + SHAPE[1]] for step in run]
    return np.array(found)


def fading(steps: int, seed: int) -> np.ndarray:
    """Gradients (steps, 4, 6) that turn less and less, and fall from 1 to 1e-6: a convergence."""
    rng = np.random.default_rng([seed, 6])
    t = np.arange(steps)[:, None, None]
    waves = np.cos(t / (5 + t / 10) * rng.uniform(0.5, 2, SHAPE) + rng.uniform(0, 6, SHAPE))
    return 10 ** (-6 * t / max(steps, 1)) * (waves + 0.1 * rng.standard_normal((steps, *SHAPE)))


STREAMS: dict[str, Callable[[int, int], np.ndarray]] = {
    "mixed": mixed,
    "trained": trained,
    "fading": fading,
}
# What an optimizer that evaluates the loss itself is tried on, in place of each stream.
OBJECTIVES = {
    "mixed": ("mlp", "diabetes"),
    "trained": ("mlp", "digits"),
    "fading": ("linear_regression", "diabetes"),
}


def stream_of(name: str, kind: str, dtype: str, seed: int = 0, steps: int = STEPS) -> Stream:
    """The stream of this kind, as the optimizer of this name takes it."""
    if name == "lbfgs":
        return _objective(kind, dtype, seed, steps)
    gradients = STREAMS[kind](steps, seed).astype(dtype)
    param = np.random.default_rng([seed, 5]).standard_normal(SHAPE).astype(dtype)
    if name == "sparse_adam":
        rng = np.random.default_rng([seed, 7])
        rows = rng.integers(SHAPE[0], size=(steps, 3))  # of which some occur twice
        return Stream(param, [(i, g[i]) for i, g in zip(rows, gradients, strict=True)])
    return Stream(param, list(gradients))


def _objective(kind: str, dtype: str, seed: int, steps: int) -> Stream:
    model, data = OBJECTIVES[kind]
    cell = Cell(model, data, "sgd", 0.1, dtype=dtype, seed=seed, hidden=(8,))
    known = load(data)
    parameters = start(cell, known.x.shape[1], known.outputs)

    def closure_of(side: Side) -> Callable[[Any], Any]:
        def of_batch(batch: Any) -> Callable[[Sequence[np.ndarray]], Any]:
            def closure(params: Sequence[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
                given = dict(zip(parameters, params, strict=True))
                loss, gradients = side.gradient(given, *batch)
                return loss, [gradients[name] for name in parameters]

            return closure

        return of_batch

    ours, theirs = by_hand(cell, known), by_torch(cell, known)
    batches = [ours.batch(t) for t in range(steps)]
    return Stream(list(parameters.values()), batches, closure_of(ours), closure_of(theirs))


def free_run(
    optimizer: Optimizer, stream: Stream, settings: dict[str, Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields parameter and state of the hand-written side after every step."""
    param = stream.param
    state: dict[str, Any] = {}
    for given in stream.given:
        param, state = optimizer(param, stream.by_hand(given), state, **settings)
        yield param, state


def torch_run(
    twin: Any, stream: Stream, settings: dict[str, Any], disturb: Any = lambda tree: tree
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields parameter and state of torch's own run after every step."""
    if not isinstance(stream.param, list):
        gradients = ([g] for g in stream.given)
        for (param,), (state,) in twin.run([stream.param], gradients, settings, disturb):
            yield param, state
        return
    params, state = stream.param, {}
    for given in stream.given:
        params, given = disturb((params, given))
        closure = stream.by_torch(given)
        params, state = twin(params, lambda p, c=closure: disturb(c(p)), state, **settings)
        yield params, state


def noisy_runs(name: str, stream: Stream, settings: dict[str, Any], seed: int) -> list[Results]:
    """RUNS runs of the reference, parameter and gradient moved by one ulp at every step, and all
    that it computes in 16 bits by one ulp of that.

    Where every element is treated alike they run side by side, as one parameter.
    """
    twin = getattr(reference.optimizers, name)
    rng = np.random.default_rng([seed, 4])
    size = 2 * unit_roundoff(listed(stream.param)[0].dtype)

    def disturb(tree: Any) -> Any:
        return moved(tree, size, rng)

    if name not in WHOLE:
        many = Stream(np.array([stream.param] * RUNS), (np.array([g] * RUNS) for g in stream.given))
        together = stacked(torch_run(twin, many, settings, disturb))
        return [{n: a[:, i] if a.ndim > 1 else a for n, a in together.items()} for i in range(RUNS)]
    with OneUlpNoise(0, 0) as watch:
        next(torch_run(twin, stream, settings))
    found = []
    for i in range(RUNS):
        with _inside(stream, watch, size, i):
            found.append(stacked(torch_run(twin, stream, settings, disturb)))
    return found


def _inside(stream: Stream, watch: OneUlpNoise, size: float, seed: int) -> Any:
    """The noise inside a step: of what it computes in 16 bits, if it does, and of a loss that it
    evaluates, whose gradients are sums with more error than one rounding."""
    if watch.halves:
        return OneUlpNoise(HALF[0], seed, half=True)
    if isinstance(stream.param, list):
        return OneUlpNoise(size, seed)
    return contextlib.nullcontext()


def other_paths(name: str) -> list[dict[str, bool]]:
    """The settings for torch's other implementations than its loop, which is what it does on a
    CPU."""
    accepted = inspect.signature(getattr(reference.optimizers, name)).parameters
    return [{path: True} for path in ("foreach", "fused") if path in accepted]


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
    ours, twin = getattr(manual.optimizers, name), getattr(reference.optimizers, name)
    if name == "lbfgs":
        settings, steps = settings | ONE_ITERATION, min(steps, ITERATIONS)
    stream = stream_of(name, kind, dtype, seed, steps)
    stream = replace(stream, param=disturb(stream.param), given=disturb(stream.given))

    def side(step: Optimizer, made: Callable[[Any], Any]) -> Callable[[Any], Results]:
        def results(inputs: Any) -> Results:
            param, given, state, chosen = inputs
            return named(*step(param, made(given), state, **chosen))

        return results

    lockstep = Lockstep(np.dtype(dtype), steps, thorough)
    recorded = []
    param = stream.param
    state: dict[str, Any] = {}
    pairs = zip(stream.given, torch_run(twin, stream, settings), strict=True)
    for t, (given, (new, new_state)) in enumerate(pairs):
        pair = Pair(
            side(ours, stream.by_hand),
            side(twin, stream.by_torch),
            (param, given, state, settings),
            before=named(param, {}),
        )
        recorded.append((new, new_state))
        lockstep.look(t + 1, [pair], named(new, new_state))
        param, state = new, new_state
    theirs = stacked(recorded)
    free = stacked(free_run(ours, stream, settings))
    noisy = noisy_runs(name, stream, settings, seed)
    paths = [theirs] + [
        stacked(torch_run(twin, stream, settings | path)) for path in other_paths(name)
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
    records = [r for r in lockstep.records if r.name == quantity and r.step <= step]
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


def named(param: Any, state: dict[str, Any]) -> Results:
    """The parameter and the state by name, whole numbers as floats.

    A list of parameters is laid end to end. Of a history, the last entry counts, 0 if there is
    none, and its length.
    """
    if not isinstance(param, list):
        arrays = {name: np.asarray(value) for name, value in state.items()}
        return {
            "param": param,
            **{n: a if a.dtype.kind == "f" else a.astype(float) for n, a in arrays.items()},
        }
    found = {"param": np.concatenate([p.ravel() for p in param])}
    for name, value in state.items():
        if isinstance(value, list):
            if name == "al":  # scratch
                continue
            found["history"] = np.asarray(len(value))
            value = value[-1] if value else np.zeros_like(state["d"] if name != "ro" else 0)
        if value is not None:
            found[name] = np.asarray(value)
    return {name: a.astype(param[0].dtype) for name, a in found.items()}


def stacked(steps: Iterable[tuple[Any, dict[str, Any]]]) -> Results:
    """One array per quantity, steps first; without what changes its shape on the way."""
    results = [named(*step) for step in steps]
    return {
        name: np.array([r[name] for r in results])
        for name, first in results[0].items()
        if all(name in r and r[name].shape == first.shape for r in results)
    }


def trajectory_scale(trajectory: np.ndarray) -> np.ndarray:
    """The largest size that each element has had so far, 1 where it was always 0."""
    largest = np.maximum.accumulate(abs(trajectory.astype(float)), axis=0)
    return np.where(largest > 0, largest, 1)
