"""Calls that are wrong in one thing: where torch refuses, we must refuse, and where it computes, we
must compute the same. What is here serves rules, optimizers and schedules alike."""

from __future__ import annotations

import inspect
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...reference.adapters import NotAsked
from ..verdict.classes import CLASSES, DIFFERENT, IDENTICAL, worst
from ..verdict.noise import is_floating
from .torch_samples import text

INEXPRESSIBLE = "not expressible"
REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError)
WHOLE, COMPLEX = "whole numbers", "complex numbers"
NEGATIVE, TOO_LARGE = "a negative one", "one too large"
NUMBERS, HUGE = (-1, 7, 0.5), 2**70

# What torch takes, and a rule does not.
NARROWER = {
    WHOLE: "the rules are not of whole numbers",
    COMPLEX: "the rules are not of complex numbers",
    "a number": "a number is taken for no array",
    "True": "True is taken for no number",
    repr(HUGE): "a whole number has 64 bits",
}
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


def summed(
    name: str, op: str | None, cases: Sequence[Case], kind: str | None = None
) -> dict[str, Any]:
    """The row of the coverage table for these cases, whose class is the worst of theirs unless it
    is said."""

    def of(what: str) -> list[Case]:
        return [c for c in cases if c["what"] == what]

    drawn, errors, bad = of("sample"), of("error input"), of("bad call")
    good = [c for c in drawn if c["class"] in CLASSES and c["class"] != DIFFERENT]
    open_cases = [c["call"] for c in cases if c["class"] == DIFFERENT]
    return {
        "id": name,
        "op": name,
        "rule": op,
        "samples": len(drawn),
        "explained": len(good),
        "inexpressible": sum(c["class"] == INEXPRESSIBLE for c in drawn),
        "error_inputs": len(errors),
        "refused": sum(c["class"] != DIFFERENT for c in errors),
        "bad_calls": len(bad),
        "matched": sum(c["class"] in CLASSES and c["class"] != DIFFERENT for c in bad),
        "incomparable": sum(c["class"] == INEXPRESSIBLE for c in bad),
        "margin": max((c["margin"] for c in good), default=np.nan),
        "class": kind or worst(c["class"] for c in cases if c["class"] in CLASSES),
        "note": f"{len(open_cases)} open, first {open_cases[0]}" if open_cases else "",
    }


def outcome(
    call: Callable[[], Any], names: Sequence[str], *refusals: type[Exception]
) -> tuple[str, bool]:
    """What our side says to a call, and whether that is a refusal: one of four errors, which begins
    with the name of an argument and says what was expected."""
    try:
        call()
    except Exception as error:
        named = re.match(rf"(unknown )?({'|'.join(names)})\b.*: (expected|did)", str(error), re.S)
        refuses = isinstance(error, (*REFUSALS, *refusals)) and named is not None
        return f"{type(error).__name__}: {error}", refuses
    return "computes", False


def spoiled(rule: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, Any, Any]]:
    """(what is wrong, arguments, keywords) for everything that is tried."""
    bound = inspect.signature(rule).bind(*args, **kwargs)
    for name, parameter in bound.signature.parameters.items():
        value = bound.arguments.get(name, parameter.default)
        if parameter.kind is parameter.VAR_POSITIONAL:  # each of them is an argument
            for i, a in enumerate(value):
                for what, bad in _spoiled_array(a):
                    changed = inspect.BoundArguments(
                        bound.signature,
                        OrderedDict(bound.arguments | {name: (*value[:i], bad, *value[i + 1 :])}),
                    )
                    yield f"{name}.{i}: {what}", changed.args, changed.kwargs
            continue
        if isinstance(value, np.ndarray):
            wrong = _spoiled_array(value)
        else:
            wrong = ((repr(v), v) for v in _spoiled_setting(value))
        for what, bad in wrong:
            changed = inspect.BoundArguments(
                bound.signature, OrderedDict(bound.arguments | {name: bad})
            )
            yield f"{name}: {what}", changed.args, changed.kwargs


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
        yield "longdouble", a.astype(np.longdouble)
    else:
        yield "real numbers", a.astype(np.float64)
        if a.size:
            yield NEGATIVE, np.where(np.arange(a.size).reshape(a.shape) == 0, -7, a)
            yield TOO_LARGE, np.where(np.arange(a.size).reshape(a.shape) == 0, 10**6, a)
    yield "the other byte order", a.astype(a.dtype.newbyteorder())
    yield "byte strings", a.astype(np.bytes_)
    yield "objects", a.astype(object)
    yield "a list", a.tolist() if a.ndim else [a.item()]
    yield "a number", a.flat[0].item() if a.size else 0.5
    yield "None", None


def _spoiled_setting(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return ["wrong", None]
    if isinstance(value, (int, float)):
        return [*NUMBERS, HUGE, True, "wrong", b"wrong", None]
    if isinstance(value, str):
        return ["wrong", b"wrong", 3, None]
    if isinstance(value, (tuple, list)) and value:
        return ["wrong", 0.5, None, value[:0], value[:1], type(value)(["wrong", *value[1:]])]
    return ["wrong", None, []] if isinstance(value, dict) else ["wrong"]


def compared(
    case: Case,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    names: Sequence[str],
    judged: Callable[[], Case],
    narrower: str | None = None,
    *refusals: type[Exception],
) -> Case:
    """The case, with what both sides say to a bad call; `judged` compares what they compute, and
    `narrower` is why we may refuse it although torch does not. `refusals` are errors that are
    refusals as well."""
    try:
        with warnings.catch_warnings(action="ignore"):
            theirs()  # first: what it draws, ours is given
        said = "computes"
    except NotAsked as reason:
        answer, refuses = outcome(ours, names, *refusals)
        kind = INEXPRESSIBLE if refuses or answer == "computes" else DIFFERENT
        return case | {"manual": answer, "torch": "not asked", "class": kind, "note": str(reason)}
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    answer, refuses = outcome(ours, names, *refusals)
    found = {"manual": answer, "torch": said, "class": IDENTICAL, "note": ""}
    if said == "computes" and refuses and narrower:
        found |= {"class": INEXPRESSIBLE, "note": narrower}
    elif said == answer == "computes":
        found |= judged()
    elif said == "computes" or not refuses:
        found |= {"class": DIFFERENT, "note": "torch refuses" if answer == "computes" else answer}
    return case | found


def unlooked(fault: str, default: Any, numbers: Sequence[float] = NUMBERS) -> str | None:
    """Why an optimizer or a schedule may refuse a setting with this fault where torch computes: it
    looks at few of them. Not where the fault is one of the numbers that the setting could be."""
    could_be = fault in map(repr, numbers) and not (fault == "0.5" and isinstance(default, int))
    return None if could_be else "torch does not look at it"


def of_call(op: str, what: str, args: Any, kwargs: Any) -> Case:
    """The case of a bad call of this op, before it is tried."""
    return new_case(op, "bad call", f"{text(args, kwargs)}; {what}")
