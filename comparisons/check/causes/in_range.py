"""Wrong where an argument is beyond some value, right elsewhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...report.text import apart
from ..arguments import floating
from ..findings import Finding
from ..probes import ORDINARY, SPARSE
from .case import CASES, Case, Cause
from .closeness import alike, where_finite
from .factor import named_factor

BY_CHANCE = 1e-2  # how often what is said may be an accident, at most


class Bound(NamedTuple):
    """What tells the wrong elements from the right: where `what` is on a side of a value."""

    finding: Finding
    what: str
    sign: str
    text: str
    chance: float  # that as many elements, chosen at random, would be told from the others
    wrong: tuple[float, float]  # from the least to the largest of the wrong ones
    right: tuple[float, float]  # the nearest of the right ones below and above


def beyond_a_value(case: Case) -> Iterator[Cause]:
    usual = [
        f for f in case.findings if ORDINARY in f.probe.traits and SPARSE not in f.probe.traits
    ]
    tried = sorted(usual or case.findings, key=lambda f: f.dtype != "float64")[:CASES]
    bounds = [bound for f in tried for bound in _bounds(case, f)]
    needed = len({id(f.probe) for f in tried}) if usual else 0
    for bound in bounds:
        f, what, sign, text = bound[:4]
        agreeing = [b for b in bounds if (b.what, b.sign) == (what, sign)]
        seen_at = {id(b.finding.probe): b.chance for b in agreeing}
        if (
            not _at_one_place(agreeing)
            or len(seen_at) < needed
            or math.prod(seen_at.values()) > BY_CHANCE
        ):
            continue
        place = f"where {what} {sign} {text}"
        if factor := _factor_there(case, f, sign, text):
            cause = "sign" if factor == "-1" else "factor"
            yield Cause(cause, f"{f.name} is {factor} times what it should be {place}")
        yield Cause("range", f"{f.name} is wrong only {place} ({f.probe.name})")


def at_odd_points(case: Case) -> Iterator[Cause]:
    if not case.has(ORDINARY):
        probes = ", ".join(sorted({f.probe.name for f in case.findings})[:4])
        yield Cause("range", f"right at ordinary points, wrong at: {probes}")


def _bounds(case: Case, f: Finding) -> Iterator[Bound]:
    if (where := _outside(case, f)) is None:
        return
    inputs, outside = where
    named = list(zip(case.done.order, floating(inputs), strict=True))
    named += [
        (f"{name} − {other}", a - b)
        for (name, a), (other, b) in itertools.combinations(named, 2)
        if a.shape == b.shape
    ]
    for name, a in named:
        for what, value, wrong in _views(name, a, outside):
            if found := _threshold(value, wrong):
                yield Bound(f, what, *found, _chance(found[0], wrong), *_ends(value, wrong))


def _ends(a: np.ndarray, outside: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    wrong, right = a[outside], a[~outside]
    low, high = float(wrong.min()), float(wrong.max())
    below, above = right[right < low], right[right > high]
    return (low, high), (
        float(below.max(initial=-math.inf)),
        float(above.min(initial=math.inf)),
    )


def _at_one_place(bounds: Sequence[Bound]) -> bool:
    """Whether one bound tells the wrong from the right at all these probes."""
    low, high = min(b.wrong[0] for b in bounds), max(b.wrong[1] for b in bounds)
    below, above = max(b.right[0] for b in bounds), min(b.right[1] for b in bounds)
    sign = bounds[0].sign
    return (sign == "<" or below < low) and (sign == ">" or high < above)


def _chance(sign: str, outside: np.ndarray) -> float:
    """That an order at random has the wrong elements at an end, or next to one another."""
    n, wrong = outside.size, int(outside.sum())
    places = 1 if sign in "<>" else n - wrong + 1
    return places / math.comb(n, wrong)


def _outside(case: Case, f: Finding) -> tuple[Any, np.ndarray] | None:
    """The inputs, and which elements are wrong; differences found but one of them."""
    if f.truth is not None and f.outside is not None:
        return f.inputs, f.outside
    if (sides := case.sides(f)) is None or sides.ours.shape != sides.truth.shape:
        return None
    gap = abs(sides.ours - sides.truth)
    return sides.inputs, gap > 1e-6 * np.max(abs(sides.truth), initial=0)


def _views(
    name: str, a: np.ndarray, outside: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(what it is called, values, which are wrong): element by element, or row by row."""
    if a.shape == outside.shape:
        yield name, a, outside
        yield f"|{name}|", abs(a), outside
    if a.ndim and outside.ndim and a.ndim == outside.ndim:
        for axis in range(a.ndim):
            rows = np.asarray(outside.any(axis))
            if a.shape[:axis] + a.shape[axis + 1 :] == rows.shape:
                yield f"the largest of {name} along axis {axis}", a.max(axis), rows
                yield f"the smallest of {name} along axis {axis}", a.min(axis), rows


def _threshold(a: np.ndarray, outside: np.ndarray) -> tuple[str, str] | None:
    """How the wrong elements can be told by their values: a sign and a bound."""
    wrong, right = a[outside], a[~outside]
    if not wrong.size or not right.size:
        return None
    if wrong.min() > right.max():
        return ">", _between(right.max(), wrong.min())
    if wrong.max() < right.min():
        return "<", _between(wrong.max(), right.min())
    inside = (right >= wrong.min()) & (right <= wrong.max())
    if wrong.size > 2 and not inside.any():
        return "is from", " to ".join(apart(wrong.min(), wrong.max(), least=4))
    return None


def _between(low: float, high: float) -> str:
    return " … ".join(apart(low, high, least=4))


def _factor_there(case: Case, f: Finding, sign: str, text: str) -> str:
    """On one side of 0 lies a branch of the function, not a range: its factor, if it is one."""
    low, _, high = text.partition(" … ")
    if sign not in "<>" or not high or not float(low) <= 0 <= float(high):
        return ""
    if f.truth is None or f.ours is None:
        return ""
    ours, truth = f.ours[f.outside], f.truth[f.outside]
    if not np.all(truth) or ours.size < 2:
        return ""
    factor = float(ours[0] / truth[0])
    within = 1e-9 if f.dtype == "float64" else 1e-4
    if (
        not factor
        or not math.isfinite(factor)
        or not alike(*where_finite(ours, factor * truth), within)
    ):
        return ""
    return named_factor(factor, f.inputs, case.done.settings)
