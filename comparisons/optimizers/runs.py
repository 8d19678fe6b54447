"""Free runs of an optimizer, by hand, by torch and under noise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...reference.adapters import listed
from ..ops import optimizers
from ..verdict.drift import RUNS
from ..verdict.floor import HALF
from ..verdict.noise import OneUlpNoise, moved, unit_roundoff
from .streams import Stream

Optimizer = Callable[..., tuple[Any, Any]]
Results = dict[str, np.ndarray]


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
    optimizer = optimizers.named(name)
    twin = optimizer.mirror
    rng = np.random.default_rng([seed, 4])
    size = 2 * unit_roundoff(listed(stream.param)[0].dtype)

    def disturb(tree: Any) -> Any:
        return moved(tree, size, rng)

    if optimizer.facts.elementwise:
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
