"""Calls that are wrong in one thing: where torch refuses, a rule must refuse."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import ops
from ..ops import evaluate
from ..ops.torch_samples import text
from ..verdict.classes import DIFFERENT, IDENTICAL, worst
from ..verdict.noise import is_floating

INEXPRESSIBLE = "not expressible"
REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError)
WHOLE, COMPLEX = "whole numbers", "complex numbers"
NEGATIVE, TOO_LARGE = "a negative one", "one too large"

# What `unsafe` of a mirror calls these.
UNSAFE = {NEGATIVE: "negative", TOO_LARGE: "large"}
Case = dict[str, Any]


def new_case(op: str, what: str, call: str, dtype: str = "float64") -> Case:
    return {
        "id": f"{op}({call})/{what}/{dtype}",
        "op": op,
        "what": what,
        "call": call,
        "dtype": dtype,
        "argument": None,
        "margin": np.nan,
        "manual": None,
        "torch": None,
    }


def judged(op: str, args: Any, kwargs: Any, dtype: str, seed: int) -> Case:
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


def outcome(rule: Callable[..., Any], args: Any, kwargs: Any) -> tuple[str, bool]:
    """What our rule says to a call, and whether that is a refusal: one of the four errors, which
    begins with the name of an argument and says what was expected."""
    try:
        rule(*args, **kwargs)
    except Exception as error:
        names = "|".join(inspect.signature(rule).parameters)
        named = re.match(rf"({names})\b.*: expected", str(error), re.DOTALL)
        refuses = isinstance(error, REFUSALS) and named is not None
        return f"{type(error).__name__}: {error}", refuses
    return "computes", False


def bad_calls(op: str) -> list[Case]:
    """Calls that went wrong in one thing, each on both sides: where torch refuses, we refuse, and
    where it computes, we compute the same."""
    ours = ops.named(op).rule
    return [_tried(op, what, *call) for base in _bases(op) for what, call in _spoiled(ours, *base)]


def _bases(op: str) -> Iterator[tuple[Any, Any]]:
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


def _spoiled(rule: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, Any]]:
    """(what is wrong, the arguments and keywords with that) for everything that is tried."""
    bound = inspect.signature(rule).bind(*args, **kwargs)
    for name, parameter in bound.signature.parameters.items():
        value = bound.arguments.get(name, parameter.default)
        if isinstance(value, np.ndarray):
            wrong = _spoiled_array(value)
        else:
            wrong = ((repr(v), v) for v in _spoiled_setting(value))
        for what, bad in wrong:
            spoiled = inspect.BoundArguments(
                bound.signature, OrderedDict(bound.arguments | {name: bad})
            )
            yield f"{name}: {what}", (spoiled.args, spoiled.kwargs)


def _spoiled_array(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "one axis more", a[np.newaxis]
    if a.ndim and len(a):
        yield "one axis less", np.array(a[0])
    for axis in range(a.ndim):
        if a.shape[axis]:
            longer = np.take(a, [*range(a.shape[axis]), 0], axis)
            yield f"axis {axis} longer", longer
    if is_floating(a):
        yield WHOLE, a.astype(np.int64)
        yield COMPLEX, a.astype(np.complex128)
    else:
        yield "real numbers", a.astype(np.float64)
        if a.size:
            yield NEGATIVE, np.where(np.arange(a.size).reshape(a.shape) == 0, -7, a)
            yield TOO_LARGE, np.where(np.arange(a.size).reshape(a.shape) == 0, 10**6, a)


def _spoiled_setting(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return ["wrong", None]
    if isinstance(value, (int, float)):
        return [-1, 7, 0.5, "wrong", None]
    if isinstance(value, str):
        return ["wrong", 3, None]
    return ["wrong"]


def _tried(op: str, what: str, args: Any, kwargs: Any) -> Case:
    ours, twin = ops.named(op).pair
    name, _, fault = what.partition(": ")
    case = new_case(op, "bad call", f"{text(args, kwargs)}; {what}")
    theirs = "computes"
    if UNSAFE.get(fault) in ops.named(op).facts.unsafe:
        answer, refuses = outcome(ours, args, kwargs)
        kind = INEXPRESSIBLE if refuses else DIFFERENT
        return case | {"manual": answer, "torch": "crashes", "class": kind, "note": "torch crashes"}
    try:
        if hasattr(twin, "draw"):
            kwargs = kwargs | twin.draw(*args, **kwargs)
        y, pullback = twin(*args, **kwargs)
        pullback(evaluate.cotangent(y, pullback.constant, 0))
    except Exception as error:
        theirs = f"{type(error).__name__}: {error}"
    answer, refuses = outcome(ours, args, kwargs)
    found = {"manual": answer, "torch": theirs, "class": IDENTICAL, "note": ""}
    no_gradient = fault == WHOLE and name not in twin.facts.constant
    if theirs == "computes" and refuses and (fault == COMPLEX or no_gradient):
        found |= {"class": INEXPRESSIBLE, "note": f"the rules are not of {fault}"}
    elif theirs == answer == "computes":
        found |= judged(op, args, kwargs, "float64", 0)
    elif theirs == "computes" or not refuses:
        found |= {"class": DIFFERENT, "note": "torch refuses" if answer == "computes" else answer}
    return case | found
