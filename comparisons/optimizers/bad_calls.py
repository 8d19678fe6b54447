"""Bad calls of the optimizers: their first step with one wrong argument or setting, and a later one
from a wrong state."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..ops import optimizers
from ..ops.bad_calls import Case, compared, of_call, spoiled, summed, unlooked
from ..verdict.classes import DIFFERENT, worst
from ..verdict.judge import judge
from .runs import named

SHAPE = (4, 3)


def entry(name: str) -> tuple[dict[str, Any], list[Case]]:
    """The row of one optimizer in the coverage table, and the cases that it sums up."""
    cases = [_tried(name, *call) for call in _calls(name)]
    return summed(name, name, cases), cases


def _calls(name: str) -> Iterator[tuple[str, Any, Any]]:
    optimizer = optimizers.named(name)
    given = base(optimizer.facts.takes)
    yield from spoiled(optimizer.rule, given, {})
    if optimizer.facts.takes == "closure":
        return
    _, state = optimizer.rule(*given)
    for key, value in state.items():
        for what, changed, _ in spoiled(_one, (value,), {}):
            yield (
                f"state: {key}, {what.partition(': ')[2]}",
                (*given[:2], state | {key: changed[0]}),
                {},
            )


def _one(value: Any) -> None:
    """What has one argument, to be spoiled."""


def base(takes: str) -> tuple[Any, Any, dict[str, Any]]:
    """Parameter, what a step is given, and the state before the first."""
    rng = np.random.default_rng(0)
    param, grad = rng.standard_normal((2, *SHAPE))
    if takes == "rows":
        return param, (np.array([0, 2]), grad[:2]), {}
    return ([param], _closure, {}) if takes == "closure" else (param, grad, {})


def _closure(params: Any) -> tuple[Any, list[np.ndarray]]:
    """Σ x² / 2."""
    return np.asarray(sum((p * p).sum() for p in params) / 2), [np.array(p) for p in params]


def _tried(name: str, what: str, args: Any, kwargs: Any) -> Case:
    optimizer = optimizers.named(name)
    ours, twin = optimizer.rule, optimizer.mirror
    setting, _, fault = what.partition(": ")

    def side(step: Callable[..., Any]) -> Callable[[Any], Any]:
        return lambda inputs: named(*step(*inputs[0], **inputs[1]))

    def judged() -> Case:
        try:
            verdicts = judge(side(ours), side(twin), (args, kwargs), np.dtype("float64"))
        except Exception as error:
            return {"class": DIFFERENT, "note": f"{type(error).__name__}: {error}"}
        return {"class": worst(v.kind for v in verdicts.values())}

    default = getattr(inspect.signature(ours).parameters[setting], "default", None)
    # Of settings out of range that torch takes as well, some overflow or have no root.
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        return compared(
            of_call(name, what, args, kwargs),
            lambda: ours(*args, **kwargs),
            lambda: twin(*args, **kwargs),
            [*inspect.signature(ours).parameters, "values", "indices"],
            judged,
            unlooked(fault, default),
        )
