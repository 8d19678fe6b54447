"""What narrows a mistake down that has no known cause: which argument, which elements, what ratio.

Each is true of every wrong element at one point, the caller's own if it is wrong there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ....reference.adapters import leaves
from ...verdict.classes import IDENTICAL, IMPRECISE, REFERENCE_IMPRECISE, ROUNDING
from ..arguments import floating
from ..findings import Finding
from ..probes import OWN
from ..trials import Trials
from .closeness import alike

RIGHT = (IDENTICAL, ROUNDING, IMPRECISE, REFERENCE_IMPRECISE)
NAMED = 4  # wrong elements, or places along an axis, that are listed one by one


def facts(t: Trials) -> tuple[str, ...]:
    """At most three."""
    wrong = [f for f in t.findings if f.name and f.outside is not None and f.truth is not None]
    first = next((f for f in wrong if OWN in f.probe.traits), wrong[0] if wrong else None)
    if first is None:
        return ()
    there = [f for f in wrong if f.probe is first.probe and f.dtype == first.dtype]
    there = list({f.name: f for f in there}.values())
    lines = [_arguments(t, there)]
    elements = [_elements(t, f) for f in there]
    lines.append(f"wrong there: {_joined(there, elements)}")
    ratios = [_ratio(f) for f in there]
    if any(ratios):
        lines.append(f"got / expected: {_joined(there, [r or 'no one number' for r in ratios])}")
    return tuple(lines)


def _arguments(t: Trials, there: Sequence[Finding]) -> str:
    first = there[0]
    right = [
        o.name
        for o in t.outcomes
        if o.probe is first.probe and o.dtype == first.dtype and o.kind in RIGHT and o.name
    ]

    def listed(names: Sequence[str]) -> str:
        values = [n.replace("value", "y", 1) for n in names if n not in t.order]
        gradients = [f"the gradient of {n}" for n in names if n in t.order]
        return ", ".join([*gradients, *values])

    wrong = listed([f.name for f in there])
    others = listed([n for n in dict.fromkeys(right) if n not in {f.name for f in there}])
    place = "" if OWN in first.probe.traits else f" ({first.probe.name})"
    return f"wrong: {wrong}{f'; right: {others}' if others else ''}{place}"


def _joined(there: Sequence[Finding], texts: Sequence[str]) -> str:
    """One text, where all have the same; else each with its name."""
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{f.name}: {text}" for f, text in zip(there, texts, strict=True))


# Which elements --------------------------------------------------------------------------------


def _elements(t: Trials, f: Finding) -> str:
    """The plainest description that holds for those elements, and for no others."""
    assert f.outside is not None
    outside = f.outside
    if outside.all():
        return "every element"
    for text, where in (*_by_repetition(f), *_by_place(outside), *_by_value(t, f)):
        if where.shape == outside.shape and np.array_equal(where, outside):
            return f"only {text}"
    count = f"{int(outside.sum())} of {outside.size} elements"
    if outside.sum() > NAMED:
        return count
    return f"{count}, at {', '.join(str(list(map(int, i))) for i in np.argwhere(outside))}"


def _by_place(outside: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for axis, n in enumerate(outside.shape):
        others = tuple(k for k in range(outside.ndim) if k != axis)
        along = outside.any(others)
        places = np.flatnonzero(along)
        ends = len(places) > 1 and places[-1] - places[0] + 1 == len(places)
        if len(places) == 1:
            text = f"at {places[0]} of axis {axis}"
        elif ends and places[-1] == n - 1:
            text = f"the last {len(places)} of axis {axis}"
        elif ends and not places[0]:
            text = f"the first {len(places)} of axis {axis}"
        elif ends:
            text = f"at {places[0]} to {places[-1]} of axis {axis}"
        elif len(places) <= NAMED:
            text = f"at {', '.join(map(str, places))} of axis {axis}"
        else:
            continue
        yield text, np.broadcast_to(np.expand_dims(along, others), outside.shape)


SIGNS: dict[str, Callable[[Any], Any]] = {
    "< 0": lambda a: a < 0,
    "> 0": lambda a: a > 0,
    "= 0": lambda a: a == 0,
    "≤ 0": lambda a: a <= 0,
    "≥ 0": lambda a: a >= 0,
}


def _by_value(t: Trials, f: Finding) -> Iterator[tuple[str, np.ndarray]]:
    named = dict(zip(t.order, floating(f.inputs), strict=True))
    for name, a in {**named, "dy": f.inputs[2], "the right gradient": f.truth}.items():
        if isinstance(a, np.ndarray):
            for sign, where in SIGNS.items():
                yield f"where {name} {sign}", where(a)


def _by_repetition(f: Finding) -> Iterator[tuple[str, np.ndarray]]:
    """Rows along an axis to which indices of the call lead more than once."""
    assert f.outside is not None
    for a in leaves(f.inputs[:2]):
        if not isinstance(a, np.ndarray) or a.dtype.kind not in "iu":
            continue
        for axis, n in enumerate(f.outside.shape):
            if a.size and a.min() >= 0 and a.max() < n:
                shape = [n if k == axis else 1 for k in range(f.outside.ndim)]
                often = (np.bincount(a.ravel(), minlength=n) > 1).reshape(shape)
                yield "where indices repeat", np.broadcast_to(often, f.outside.shape)


# What ratio ------------------------------------------------------------------------------------


def _ratio(f: Finding) -> str:
    """Got / expected of all wrong elements, where that is one number, or one along an axis."""
    assert f.outside is not None
    assert f.ours is not None
    assert f.truth is not None
    within = 1e-9 if f.dtype == "float64" else 1e-4  # what rounding may do to a quotient
    with np.errstate(all="ignore"):
        ratio = np.where(f.outside, f.ours / f.truth, 1.0)
    if not np.isfinite(ratio).all():
        return ""
    every = ratio[f.outside]
    if every.size > 1 and alike(every, np.full_like(every, every[0]), within):
        return f"{every[0]:.9g}"
    for axis, n in enumerate(ratio.shape):
        rows = np.moveaxis(ratio, axis, 0).reshape(n, -1)
        where = np.moveaxis(f.outside, axis, 0).reshape(n, -1)
        parts = [row[w] for row, w in zip(rows, where, strict=True)]
        if all(p.size > 1 and alike(p, np.full_like(p, p[0]), within) for p in parts if p.size):
            shown = [f"{p[0]:.6g}" if p.size else "–" for p in parts]
            if len(shown) <= 2 * NAMED:
                return f"one number at each place of axis {axis}: {', '.join(shown)}"
            return f"one number at each place of axis {axis}"
    return ""
