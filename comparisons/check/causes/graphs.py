"""The reference as a graph, and what is tried of it: once for all arguments of one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ....reference.adapters import leaves
from ...verdict.noise import cast, is_floating
from ..traced import BothWays, Trace, traced, traced_both_ways
from .case import Candidate, Case, Wrong

LARGE = 2**14  # elements of a call of which nothing is tried by the dozen
VAIN = 4  # gradients that are looked into in vain

Gradients = list[np.ndarray]  # of every floating array of a call


def forward_of(case: Case, wrong: Wrong) -> Trace | None:
    return _kept(traced, case, wrong)


def both_ways_of(case: Case, wrong: Wrong) -> BothWays | None:
    """With the pullback; None where that gives other gradients than the reference does."""
    both, trace = _kept(traced_both_ways, case, wrong), forward_of(case, wrong)
    if both is None or trace is None:
        return None
    for a, b in zip(both.gradients({}), trace.right, strict=True):
        if not np.allclose(a, b, 1e-9, 1e-12):
            return None
    return both


def candidates(
    case: Case,
    wrong: Wrong,
    cause: str,
    found: Callable[[Case, Wrong], Iterator[tuple[str, Gradients]]],
) -> Iterator[Candidate]:
    """What was found of all arguments, of this one."""
    key = found, id(wrong.inputs)
    if key not in case.known:
        case.known[key] = []
        if sum(a.size for a in leaves(wrong.inputs) if is_floating(a)) <= LARGE:
            case.known[key] = list(found(case, wrong))
    position = list(case.done.order).index(wrong.name)
    for text, gradients in case.known[key]:
        yield Candidate(cause, text, gradients[position])


def once(
    case: Case, wrong: Wrong, found: Callable[[Case, Wrong], Iterator[Candidate]]
) -> Iterator[Candidate]:
    """Each candidate is looked for once, though it is asked for again for every other one; after
    some gradients in vain, of which none had any, for no further one."""
    key = found, id(wrong)
    if key not in case.known:
        tried = [k for k in case.known if k[0] is found]
        if len(tried) >= VAIN and not any(case.known[k][1] for k in tried):
            return
        case.known[key] = wrong, [], found(case, wrong)
    _, known, rest = case.known[key]
    yield from known
    for candidate in rest:
        known.append(candidate)
        yield candidate


def _kept(make: Callable[..., Any], case: Case, wrong: Wrong) -> Any:
    """What is made of the reference; None where there is none or it cannot be traced."""
    key = make, id(wrong.inputs)
    if key not in case.known:
        function = case.done.reference.in_torch if case.done.reference else None
        case.known[key] = None
        if function is not None and is_floating(wrong.inputs[2]):
            with contextlib.suppress(Exception):
                inputs = cast(wrong.inputs, np.float64)
                case.known[key] = make(function, inputs, list(case.done.order))
    return case.known[key]
