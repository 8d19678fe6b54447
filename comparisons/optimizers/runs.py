"""Runs of an optimizer, by hand and by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .memory import Evaluation, remembering
from .streams import Stream

Optimizer = Callable[..., tuple[Any, Any]]
Results = dict[str, np.ndarray]
After = tuple[Any, dict[str, Any]]  # parameter and state after a step


class Step(NamedTuple):
    """One step of the reference's own run. Of a loss that it evaluates, `given` is the batch and
    what was evaluated on it."""

    param: Any
    given: Any
    state: dict[str, Any]
    after: After


def free_run(optimizer: Optimizer, stream: Stream, settings: dict[str, Any]) -> Iterator[After]:
    """Yields parameter and state of the hand-written side after every step."""
    param = stream.param
    state: dict[str, Any] = {}
    for given in stream.given:
        param, state = optimizer(param, stream.by_hand(given), state, **settings)
        yield param, state


def torch_run(
    twin: Any, stream: Stream, settings: dict[str, Any], disturb: Any = lambda tree: tree
) -> Iterator[After]:
    """Yields parameter and state of torch's own run after every step."""
    if not stream.evaluates:
        gradients = ([g] for g in stream.given)
        for (param,), (state,) in twin.run([stream.param], gradients, settings, disturb):
            yield param, state
        return
    params, state = stream.param, {}
    for given in stream.given:
        params, given = disturb((params, given))
        params, state = twin(params, stream.by_torch(given), state, **settings)
        yield params, state


def recorded(twin: Any, stream: Stream, settings: dict[str, Any]) -> list[Step]:
    """Torch's own run, with all that each step was given."""
    seen: list[list[Evaluation]] = []

    def watched(batch: Any) -> Any:
        seen.append([])
        return remembering(stream.by_torch(batch), seen[-1])

    if not stream.evaluates:
        after, given = list(torch_run(twin, stream, settings)), stream.given
    else:
        after = list(torch_run(twin, replace(stream, by_torch=watched), settings))
        given = list(zip(stream.given, seen, strict=True))
    before = [(stream.param, {}), *after][:-1]
    return [
        Step(param, g, state, a) for (param, state), g, a in zip(before, given, after, strict=True)
    ]


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


def stacked(steps: Iterable[After]) -> Results:
    """One array per quantity, steps first; without what changes its shape on the way."""
    results = [named(*step) for step in steps]
    return {
        name: np.array([r[name] for r in results])
        for name, first in results[0].items()
        if all(name in r and r[name].shape == first.shape for r in results)
    }
