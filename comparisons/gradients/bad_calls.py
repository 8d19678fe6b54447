"""Bad calls of the rules."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from .. import ops
from ..ops import evaluate
from ..ops.bad_calls import (
    INEXPRESSIBLE,
    NARROWER,
    UNSAFE,
    WHOLE,
    Case,
    compared,
    of_call,
    outcome,
    spoiled,
)
from ..verdict.classes import DIFFERENT, worst

T = TypeVar("T")


def judged(op: str, args: Any, kwargs: Any, dtype: str, seed: int) -> Case:
    """What a case says of a call that both sides compute."""
    try:
        inputs = evaluate.completed(op, args, kwargs, seed)
        verdicts = evaluate.judge_inputs(op, inputs, dtype)
    except Exception as error:  # whatever a rule does on its samples is a finding, not a crash
        return {"class": DIFFERENT, "note": f"{type(error).__name__}: {error}"}
    kind = worst(v.kind for v in verdicts.values())
    name, largest = max(verdicts.items(), key=lambda item: (item[1].kind == kind, item[1].margin))
    return {
        "class": kind,
        "argument": name,
        "margin": largest.margin,
        "manual": str(largest.manual),
        "torch": str(largest.reference),
        "note": largest.note,
    }


def bad_calls(op: str, most: int | None = None) -> list[Case]:
    """Calls of a rule that went wrong in one thing, each on both sides; at most so many, evenly
    spread over all."""
    ours = ops.named(op).rule
    every = [call for base in bases(op) for call in spoiled(ours, *base)]
    return [_tried(op, *call) for call in spread(every, most)]


def spread(every: Sequence[T], most: int | None) -> Sequence[T]:
    """At most so many, evenly spread; all without a number."""
    return every[:: max(-(-len(every) // most), 1)] if most else every


def bases(op: str) -> Iterator[tuple[Any, Any]]:
    """Our samples, or where all are corners these, one of each kind of arrays."""
    seen = set()
    rows = list(ops.named(op).rows())
    for _, row in [row for row in rows if row[0] == "sample"] or rows:
        args, kwargs = row.draw(0, np.dtype("float64"))
        bound = inspect.signature(ops.named(op).rule).bind(*args, **kwargs)
        shape = tuple(
            (n, a.ndim, a.dtype.kind)
            for n, a in bound.arguments.items()
            if isinstance(a, np.ndarray)
        )
        if shape not in seen:
            seen.add(shape)
            yield args, kwargs


def _tried(op: str, what: str, args: Any, kwargs: Any) -> Case:
    ours, twin = ops.named(op).pair
    name, _, fault = what.partition(": ")
    case, names = of_call(op, what, args, kwargs), list(inspect.signature(ours).parameters)
    if UNSAFE.get(fault) in ops.named(op).facts.unsafe:
        answer, refuses = outcome(lambda: ours(*args, **kwargs), names)
        kind = INEXPRESSIBLE if refuses else DIFFERENT
        return case | {"manual": answer, "torch": "crashes", "class": kind, "note": "torch crashes"}
    drawn = {}

    def by_torch() -> None:
        if hasattr(twin, "draw"):
            drawn.update(twin.draw(*args, **kwargs))
        y, pullback = twin(*args, **kwargs | drawn)
        pullback(evaluate.cotangent(y, pullback.constant, 0))

    return compared(
        case,
        lambda: ours(*args, **kwargs | drawn),
        by_torch,
        names,
        lambda: judged(op, args, kwargs | drawn, "float64", 0),
        None if fault == WHOLE and name in twin.facts.constant else NARROWER.get(fault),
    )
