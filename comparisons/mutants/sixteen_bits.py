"""The same mistakes in kernels of 16 bits, before a measured tolerance and before fixed ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from ...reference.adapters import tensor
from ..check.adapt import Subject, of_torch, subject_of
from ..check.arguments import converted, double, native, private
from ..check.findings import NOT_APPLICABLE
from ..check.trials import cotangent
from ..ops.arguments import signature_of
from ..report.text import raised
from ..verdict.classes import DIFFERENT, LIMIT, Function, Results
from ..verdict.floor import Floor
from ..verdict.halves import rounded
from ..verdict.judge import settle
from ..verdict.noise import cast, unit_roundoff
from ..verdict.ulps import difference
from .corpus import MUTANTS, SAMPLES
from .table import against, planted, right

EVERY_STEP, ONCE, KNOWN = "every step rounded", "rounded once", "known to be"
# How many times what the floor allows a mistake has to be: of who is known to round once, that is
# one rounding, and his own may undo as much.
VISIBLE = {EVERY_STEP: 1, ONCE: 1, KNOWN: 2}


def numbers(op: str) -> list[int | None]:
    """The right rule of an op, and those of its mutants that are wrong at their first call."""
    return [None, *(n for n, m in enumerate(MUTANTS.get(op, ())) if m.cause != "state")]


def rows(op: str, number: int | None, half: str, seed: int) -> list[dict[str, Any]]:
    """One mutant of the op, or its right rule, in a type of 16 bits, as each kind of kernel: a row
    for each result at the first call, as far as NumPy computes in that type."""
    rule = right(op) if number is None else planted(op, MUTANTS[op][number])
    args, kwargs = SAMPLES[op][0].draw(seed, np.dtype(float))
    call = converted((args, kwargs), half)

    def of(which: Any) -> Subject:
        return subject_of(which, args, kwargs)

    function = against(op)
    reference = of_torch(function, signature_of(rule), frozenset(), tensor)
    y, _ = reference.run(*private(double(call)))
    dy = cotangent(y, np.random.default_rng([seed, 13]), np.dtype(np.float32))
    inputs = (*call, converted(dy, half))
    single = partial(_in_float32, of(rule))
    kernels: dict[str, Function] = {
        EVERY_STEP: partial(_in_16_bits, of(rule), half),
        ONCE: partial(_rounded_once, single, half),
    }
    kernels[KNOWN] = kernels[ONCE]
    effects = _effects(of(right(op)), of(rule), inputs)
    u = unit_roundoff(half)
    found = []
    for how, kernel in kernels.items():
        name = f"{op}/{'right' if number is None else number}/{half}/{how}/{seed}"
        row = {"op": op, "right": number is None, "dtype": half, "kernel": how, "says": ""}
        try:
            ours = kernel(inputs)
        except Exception as refusal:  # NumPy has no such function of this type, or rules refuse it
            none = dict.fromkeys(("effect", "resolution_in_u", "margin"), math.nan)
            says = {"class": NOT_APPLICABLE, "found": False, "assert_close": False}
            row |= {**none, **says, "says": raised(refusal)}
            found.append({"id": f"sixteen bits/{name}", **row})
            continue
        floor = Floor(reference, inputs, half, once=how == KNOWN)
        for result, verdict in settle(
            floor, kernel, inputs, ours, finer=single, thorough=True
        ).items():
            found.append(
                {
                    "id": f"sixteen bits/{name}/{result}",
                    **row,
                    "effect": _share(effects.get(result), floor, result),
                    "resolution_in_u": verdict.resolution / u,
                    "margin": verdict.margin,
                    "class": verdict.kind,
                    "found": verdict.kind == DIFFERENT,
                    "assert_close": not _close(ours[result], floor.truth[result], half),
                }
            )
    return found


def _in_16_bits(subject: Subject, half: str, inputs: Any) -> Results:
    """All of it in the type itself, as far as NumPy stays in it, and the results in any case."""
    return _carried(subject(native(private(inputs), half)), half)


def _in_float32(subject: Subject, inputs: Any) -> Results:
    return subject(converted(inputs, "float32"))


def _rounded_once(single: Callable[[Any], Results], half: str, inputs: Any) -> Results:
    return _carried(single(inputs), half)


def _carried(results: Mapping[str, Any], half: str) -> Results:
    return {name: rounded(np.asarray(a, np.float64), half) for name, a in results.items()}


def _effects(good: Function, wrong: Function, inputs: Any) -> Results:
    """How far the mistake moves each element of each result in float64."""
    theirs = good(private(double(inputs)))
    try:
        ours = wrong(private(double(inputs)))
    except Exception:  # a mistake that is an error moves everything
        return {}
    same = {n: t for n, t in theirs.items() if n in ours and np.shape(ours[n]) == t.shape}
    return {name: difference(ours[name], truth) for name, truth in same.items()}


def _share(effect: np.ndarray | None, floor: Floor, name: str) -> float:
    """The effect as a multiple of what the floor allows, at the element where it is largest."""
    if effect is None:
        return math.inf
    return float(np.max(effect / (LIMIT * floor.values[name]), initial=0))


def _close(ours: np.ndarray, truth: np.ndarray, half: str) -> bool:
    """Whether torch's own test of nearness takes it, with what it tolerates of this type."""
    dtype = getattr(torch, half)
    a, b = (torch.from_numpy(np.array(cast(side, half))).to(dtype) for side in (ours, truth))
    try:
        torch.testing.assert_close(a, b, equal_nan=True)
    except AssertionError:
        return False
    return True
