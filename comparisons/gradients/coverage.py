"""The coverage table: the rules on PyTorch's own test inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch

from ...reference.adapters import array, leaves, tree_map
from .. import ops
from ..ops.bad_calls import INEXPRESSIBLE, Case, new_case, outcome, summed
from ..ops.torch_modules import calls_of
from ..ops.torch_samples import differentiable, listed, text
from ..verdict.classes import DIFFERENT, DTYPES, IDENTICAL
from .bad_calls import bad_calls, judged, spread

NO_RULE, NOT_JUDGEABLE = "no rule", "not judgeable"
MOST_AXES = 64  # of an array of NumPy


class Inexpressible(Exception):
    """A call that cannot be put in NumPy, and why."""


def rule_name(info: Any) -> str | None:
    """The name of our rule for an entry of op_db, None if there is none."""
    names = (info.name, *(alias.name for alias in info.aliases))
    plain = (name.removeprefix("nn.functional.").strip("_") for name in names)
    known = map(ops.named, (name for name in plain if name in ops.names()))
    return next((op.name for op in known if op.facts.entry in ("", info.name)), None)


def entries() -> dict[str, set[str]]:
    """Every entry of op_db and every rule without one, and the names that it may be called by."""
    found = {}
    for name, info in differentiable().items():
        op, short = rule_name(info), info.name.removeprefix("nn.functional.")
        called = {name, info.name, short}
        found[name] = called | {op} if op else called - set(ops.names())
    listed = set().union(*found.values())
    own = [op for op in ops.names() if ops.named(op).family != "models" and op not in listed]
    return found | {op: {op} for op in own}


def entry(
    name: str, seed: int = 0, dtypes: Sequence[str] = DTYPES, most: int | None = None
) -> tuple[dict[str, Any], list[Case]]:
    """The row of one entry of op_db, or of a rule without one, and the cases that it sums up; of
    torch's samples, and of bad calls, at most so many, evenly spread over all."""
    info = differentiable().get(name)
    op = rule_name(info) if info else name
    cases: list[Case] = []
    if info is None:
        cases = [
            *_on_own_samples(name, seed, dtypes),
            *_on_modules(name, seed, dtypes, most),
            *bad_calls(name, most),
        ]
    elif not info.dtypes or (op is None and not _dtypes(info)):
        return summed(name, op, [], NOT_JUDGEABLE), []
    elif op is None:
        cases = [{"what": "sample", "class": NO_RULE} for _ in _sampled(info, _dtypes(info)[0])]
    else:
        cases = [
            *_on_samples(info, op, seed, dtypes, most),
            *_on_modules(op, seed, dtypes, most),
            *_on_error_inputs(info, op),
            *(bad_calls(op, most) if name == _first_entry(op) else ()),
        ]
    return summed(name, op, cases, None if op else NO_RULE), cases if op else []


def _first_entry(op: str) -> str:
    """Of the variants of one op, the entry that its bad calls are listed under."""
    return next(name for name, info in differentiable().items() if rule_name(info) == op)


def _dtypes(info: Any) -> list[str]:
    return [dtype for dtype in DTYPES if getattr(torch, dtype) in info.dtypes]


def _sampled(info: Any, dtype: str) -> list[Any]:
    floats = dtype in _dtypes(info)
    given = getattr(torch, dtype) if floats else torch.int64
    return listed(info.sample_inputs_func, info, "cpu", given, floats)


def _on_samples(
    info: Any, op: str, seed: int, dtypes: Sequence[str], most: int | None
) -> Iterator[Case]:
    known = [dtype for dtype in _dtypes(info) if dtype in dtypes]
    for dtype in known or ["float64"]:  # what takes whole numbers alone is drawn in those
        for sample in spread(_sampled(info, dtype), most):
            try:
                args, kwargs = expressed(info, op, sample)
            except Inexpressible as reason:
                case = new_case(op, "sample", str(sample.input)[:40], dtype)
                yield case | {"class": INEXPRESSIBLE, "note": str(reason)}
                continue
            call = text(args, kwargs)
            yield new_case(op, "sample", call, dtype) | judged(op, args, kwargs, dtype, seed)


def _on_own_samples(op: str, seed: int, dtypes: Sequence[str]) -> Iterator[Case]:
    for _, row in ops.named(op).rows():
        for dtype in dtypes:
            inputs = row.draw(seed, np.dtype(dtype))
            yield new_case(op, "sample", repr(row), dtype) | judged(op, *inputs, dtype, seed)


def _on_modules(op: str, seed: int, dtypes: Sequence[str], most: int | None) -> Iterator[Case]:
    """What a module calls it with on torch's test inputs, where its mirror names one."""
    facts = ops.named(op).facts
    for dtype in dtypes if facts.within else ():
        for args, kwargs in spread(list(calls_of(op, facts.within, dtype)), most):
            bound, taken = ops.named(op).bound(*args, **kwargs)
            case = new_case(op, "sample", text(bound, taken), dtype)
            yield case | judged(op, bound, taken, dtype, seed)


def expressed(info: Any, op: str, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A SampleInput as the arguments of our rule. Raises Inexpressible."""
    args, kwargs = ops.named(op).bound(sample.input, *sample.args, **sample.kwargs)
    if isinstance(sample.kwargs.get("out"), torch.Tensor):
        raise Inexpressible("a tensor that is written into")
    for leaf in leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            if leaf.layout is not torch.strided:
                raise Inexpressible(f"a tensor of layout {leaf.layout}")
            if leaf.dtype in (torch.bfloat16, torch.complex32) or leaf.is_quantized:
                raise Inexpressible(f"NumPy has no {leaf.dtype}")
            if leaf.ndim > MOST_AXES:
                raise Inexpressible(f"NumPy has no array of {leaf.ndim} axes")
    return tree_map(_in_numpy, (args, kwargs))


def _in_numpy(leaf: Any) -> Any:
    """A tensor as an array, a module as the rule that it calls."""
    if isinstance(leaf, torch.nn.Module):
        every = map(ops.named, ops.names())
        return next((op.rule for op in every if op.facts.module is type(leaf)), leaf)
    return array(leaf)


def _on_error_inputs(info: Any, op: str) -> Iterator[Case]:
    for error in listed(info.error_inputs_func, info, "cpu"):
        case = new_case(op, "error input", str(error.error_regex))
        try:
            args, kwargs = expressed(info, op, error.sample_input)
        except Inexpressible as reason:
            yield case | {"class": INEXPRESSIBLE, "note": str(reason)}
            continue
        rule = ops.named(op).rule
        answer, refuses = outcome(partial(rule, *args, **kwargs), list(signature(rule).parameters))
        yield case | {
            "call": text(args, kwargs),
            "manual": answer,
            "torch": f"{error.error_type.__name__}: {error.error_regex}",
            "class": IDENTICAL if refuses else DIFFERENT,
            "note": "" if refuses else answer,
        }


def totals(rows: Sequence[dict[str, Any]]) -> str:
    """The totals of the table in one line."""
    ruled = [r for r in rows if r["rule"]]

    def total(column: str) -> int:
        return sum(r[column] for r in ruled)

    complete = sum(r["explained"] == r["samples"] > 0 for r in ruled)
    entries = sum(r["samples"] > 0 or not r["rule"] for r in rows)  # the others have bad calls only
    return (
        f"{complete} of {entries} entries complete; with a rule, "
        f"{total('explained')} of {total('samples')} samples explained "
        f"({total('inexpressible')} not expressible), "
        f"{total('refused')} of {total('error_inputs')} error inputs refused, "
        f"{total('matched')} of {total('bad_calls')} bad calls answered as torch does "
        f"({total('incomparable')} not comparable: what only torch takes, as whole numbers, "
        "and what crashes it)."
    )
