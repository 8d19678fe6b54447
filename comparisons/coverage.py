"""The coverage table: the rules on PyTorch's own test inputs, and on calls that must be refused."""

from __future__ import annotations

import inspect
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .. import manual
from ..reference.adapters import array, leaves, tree_map
from . import gradients, samples
from .noise import is_floating
from .torch_samples import differentiable, text
from .verdict import CLASSES, DIFFERENT, DTYPES, IDENTICAL, worst

NO_RULE, NOT_JUDGEABLE = "no rule", "not judgeable"
INEXPRESSIBLE = "not expressible"
REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError)
WHOLE, COMPLEX = "whole numbers", "complex numbers"
NEGATIVE, TOO_LARGE = "a negative one", "one too large"
UNSAFE = ("ctc_loss",)  # torch does not check its indices, and crashes
LEFT_OUT = ("inplace", "_stacklevel")  # settings without a meaning here

# Entries of op_db whose op is not called like the function of their name.
BOUND: dict[str, Callable[..., Any]] = {
    "nn.functional.embedding": lambda weight, indices, **settings: ((indices, weight), settings),
    "nn.functional.embedding_bag": lambda weight, indices, *args, **settings: (
        (indices, weight, *args),
        settings,
    ),
    "where": lambda x, condition, other: ((condition, x, other), {}),
}

# Modules of torch among the arguments, and what they are here.
DISTANCES: dict[type, Callable[[Any], Any]] = {
    torch.nn.PairwiseDistance: lambda module: manual.distances.pairwise_distance
}

CONVENTIONAL = ("ctc_loss",)  # whose points are all corners

Case = dict[str, Any]


class Inexpressible(Exception):
    """A call that cannot be put in NumPy, and why."""


def rule_name(info: Any) -> str | None:
    """The name of our rule for an entry of op_db, None if there is none."""
    names = (info.name, *(alias.name for alias in info.aliases))
    known = {name.removeprefix("nn.functional.").strip("_") for name in names}
    known &= set(samples.ops())
    return known.pop() if known else None


def entries() -> dict[str, set[str]]:
    """Every entry of op_db and every rule without one, and the names that it may be called by."""
    found = {}
    for name, info in differentiable().items():
        found[name] = {name, info.name, info.name.removeprefix("nn.functional.")}
        if op := rule_name(info):
            found[name].add(op)
    listed = set().union(*found.values())
    own = [op for op in samples.ops() if samples.family(op) != "models" and op not in listed]
    return found | {op: {op} for op in own}


def entry(name: str, seed: int = 0) -> tuple[dict[str, Any], list[Case]]:
    """The row of one entry of op_db, or of a rule without one, and the cases that it sums up."""
    info = differentiable().get(name)
    op = rule_name(info) if info else name
    cases: list[Case] = []
    if info is None:
        cases = [*_on_own_samples(name, seed), *bad_calls(name)]
    elif op is None and not _dtypes(info):
        return _summed(name, op, NOT_JUDGEABLE, []), []
    elif op is None:
        cases = [{"what": "sample", "class": NO_RULE} for _ in _sampled(info, _dtypes(info)[0])]
    else:
        cases = [
            *_on_samples(info, op, seed),
            *_on_error_inputs(info, op),
            *(bad_calls(op) if name == _first_entry(op) else ()),
        ]
    kind = worst(c["class"] for c in cases if c["class"] in CLASSES) if op else NO_RULE
    return _summed(name, op, kind, cases), cases if op else []


def _first_entry(op: str) -> str:
    """Of the variants of one op, the entry that its bad calls are listed under."""
    return next(name for name, info in differentiable().items() if rule_name(info) == op)


def _summed(name: str, op: str | None, kind: str, cases: list[Case]) -> dict[str, Any]:
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
        "class": kind,
        "note": f"{len(open_cases)} open, first {open_cases[0]}" if open_cases else "",
    }


def _case(op: str, what: str, call: str, dtype: str = "float64") -> Case:
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


def _dtypes(info: Any) -> list[str]:
    return [dtype for dtype in DTYPES if getattr(torch, dtype) in info.dtypes]


def _sampled(info: Any, dtype: str) -> list[Any]:
    floats = dtype in _dtypes(info)
    given = getattr(torch, dtype) if floats else torch.int64
    with warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        return list(info.sample_inputs("cpu", given, requires_grad=floats))


def _on_samples(info: Any, op: str, seed: int) -> Iterator[Case]:
    for dtype in _dtypes(info) or ["float64"]:  # what takes whole numbers alone is drawn in those
        for sample in _sampled(info, dtype):
            try:
                args, kwargs = expressed(info, op, sample)
            except Inexpressible as reason:
                case = _case(op, "sample", str(sample.input)[:40], dtype)
                yield case | {"class": INEXPRESSIBLE, "note": str(reason)}
                continue
            call = text(args, kwargs)
            yield _case(op, "sample", call, dtype) | _judged(op, args, kwargs, dtype, seed)


def _on_own_samples(op: str, seed: int) -> Iterator[Case]:
    for _, row in samples.calls(op):
        for dtype in DTYPES:
            inputs = row.draw(seed, np.dtype(dtype))
            yield _case(op, "sample", repr(row), dtype) | _judged(op, *inputs, dtype, seed)


def expressed(info: Any, op: str, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A SampleInput as the arguments of our rule. Raises Inexpressible."""
    args, kwargs = (sample.input, *sample.args), dict(sample.kwargs)
    if info.name in BOUND:
        args, kwargs = BOUND[info.name](*args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if name not in LEFT_OUT}
    for leaf in leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            if leaf.layout is not torch.strided:
                raise Inexpressible(f"a tensor of layout {leaf.layout}")
            if leaf.dtype in (torch.bfloat16, torch.complex32) or leaf.is_quantized:
                raise Inexpressible(f"NumPy has no {leaf.dtype}")
    return tree_map(lambda leaf: DISTANCES.get(type(leaf), array)(leaf), (tuple(args), kwargs))


def _judged(op: str, args: Any, kwargs: Any, dtype: str, seed: int) -> Case:
    try:
        inputs = gradients.completed(op, args, kwargs, seed)
        verdicts = gradients.judge_inputs(op, inputs, dtype)
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


def _on_error_inputs(info: Any, op: str) -> Iterator[Case]:
    with warnings.catch_warnings(action="ignore"):
        given = list(info.error_inputs("cpu")) if info.error_inputs_func else []
    for error in given:
        case = _case(op, "error input", str(error.error_regex))
        try:
            args, kwargs = expressed(info, op, error.sample_input)
        except Inexpressible as reason:
            yield case | {"class": INEXPRESSIBLE, "note": str(reason)}
            continue
        answer, refuses = outcome(gradients.rule_pair(op)[0], args, kwargs)
        yield case | {
            "call": text(args, kwargs),
            "manual": answer,
            "torch": f"{error.error_type.__name__}: {error.error_regex}",
            "class": IDENTICAL if refuses else DIFFERENT,
            "note": "" if refuses else answer,
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
    ours = gradients.rule_pair(op)[0]
    return [_tried(op, what, *call) for base in _bases(op) for what, call in _spoiled(ours, *base)]


def _bases(op: str) -> Iterator[tuple[Any, Any]]:
    """Our samples, one of each kind of arrays."""
    seen = set()
    for kind, row in samples.calls(op):
        args, kwargs = row.draw(0, np.dtype("float64"))
        bound = inspect.signature(gradients.rule_pair(op)[0]).bind(*args, **kwargs)
        shape = tuple(
            (n, a.ndim, a.dtype.kind)
            for n, a in bound.arguments.items()
            if isinstance(a, np.ndarray)
        )
        if (kind == "sample" or op in CONVENTIONAL) and shape not in seen:
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
    ours, twin = gradients.rule_pair(op)
    name, _, fault = what.partition(": ")
    case = _case(op, "bad call", f"{text(args, kwargs)}; {what}")
    theirs = "computes"
    if op in UNSAFE and fault in (NEGATIVE, TOO_LARGE):
        answer, refuses = outcome(ours, args, kwargs)
        kind = INEXPRESSIBLE if refuses else DIFFERENT
        return case | {"manual": answer, "torch": "crashes", "class": kind, "note": "torch crashes"}
    try:
        if hasattr(twin, "draw"):
            kwargs = kwargs | twin.draw(*args, **kwargs)
        y, pullback = twin(*args, **kwargs)
        pullback(gradients.cotangent(y, pullback.constant, 0))
    except Exception as error:
        theirs = f"{type(error).__name__}: {error}"
    answer, refuses = outcome(ours, args, kwargs)
    found = {"manual": answer, "torch": theirs, "class": IDENTICAL, "note": ""}
    no_gradient = fault == WHOLE and name not in twin.constant
    if theirs == "computes" and refuses and (fault == COMPLEX or no_gradient):
        found |= {"class": INEXPRESSIBLE, "note": f"the rules are not of {fault}"}
    elif theirs == answer == "computes":
        found |= _judged(op, args, kwargs, "float64", 0)
    elif theirs == "computes" or not refuses:
        found |= {"class": DIFFERENT, "note": "torch refuses" if answer == "computes" else answer}
    return case | found
