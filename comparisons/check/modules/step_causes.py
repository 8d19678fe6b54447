"""Why a step of a port's optimizer is not the original's: what is not alike in the two, and
explains all that the port gives."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..causes.case import Cause
from .optimizing import Machine, Maker, reached, regrouped
from .stepped import Step

SHOWN = 3  # parameters that a cause names


def cause_of(step: Step) -> Cause | None:
    """The first change of the original's optimizer that makes of it what the port's is."""
    for name, text, changed in _changes(step):
        with contextlib.suppress(Exception):  # whatever a change is refused with, it is none
            if step.gives(changed):
                return Cause(name, text)
    return None


def other_settings(step: Step) -> dict[str, tuple[str, dict[str, Any]]]:
    """Of each setting that is not alike on both sides, what is to be said of it, and what it is in
    the port, by the name of the original's parameter."""
    ours, theirs = _used(step), step.theirs.used
    pairs = {n: (ours[n][0], theirs[n][0]) for n in theirs if ours[n] and theirs[n]}
    found = {}
    for key in dict.fromkeys(key for _, settings in pairs.values() for key in settings):
        new = {n: a[key] for n, (a, b) in pairs.items() if key in a and a[key] != b[key]}
        if new:
            name, value = next(iter(new.items()))
            where = "" if new.keys() == pairs.keys() else f" for {_listed(list(new))}"
            found[key] = f"{key} = {value!r} instead of {pairs[name][1][key]!r}{where}", new
    return found


def _changes(step: Step) -> Iterator[tuple[str, str, Machine]]:
    """(name, text, the original's optimizer changed): other parameters in its groups or with a
    gradient, one other setting, all of them, one that counts for nothing, a step made twice,
    another class."""
    module, maker = step.original.module, step.original.maker
    ours, theirs = _used(step), step.theirs.used

    def changed(groups: Mapping[str, list[Any]], maker: Maker = maker) -> Machine:
        return Machine(module, maker, regrouped(groups))

    def other(change: Mapping[str, Any]) -> Machine:
        return changed({n: [change.get(n, {})] * len(every) for n, every in theirs.items()})

    as_often = changed({n: [{}] * len(every) for n, every in ours.items()})
    if left := [n for n in theirs if len(ours[n]) < len(theirs[n])]:
        yield "left out", f"the port's optimizer does not move {_listed(left)}", as_often
    if more := [n for n in theirs if len(ours[n]) > len(theirs[n])]:
        yield "too often", f"the port's optimizer has {_listed(more)} once more", as_often
    has = step.arranging.has(step.before.gradients)
    zero, none = _made_of(step, step.reached - has), _made_of(step, has - step.reached)
    if zero or none:
        text = f"of {_listed([*zero, *none])} only the {'port' if zero else 'original'} has one"
        yield "no gradient", text, Machine(module, maker, reached(zero, none))
    settings = other_settings(step)
    for key, (text, new) in settings.items():
        yield key, text, other({n: {key: value} for n, value in new.items()})
    if settings:
        yield "settings", "; ".join(text for text, _ in settings.values()), changed(ours)
    for key in dict.fromkeys(k for every in theirs.values() for of in every for k in of):
        values = [of.get(key) for every in theirs.values() for of in every]
        if any(isinstance(value, float) and value for value in values):
            yield key, f"as if {key} were 0", other({n: {key: 0.0} for n in theirs})
    twice = changed({n: [{}] * 2 * len(every) for n, every in theirs.items()})
    yield "too often", "each step is made twice", twice
    if step.ours.kind != step.theirs.kind:
        text = f"{step.ours.kind} instead of {step.theirs.kind}"
        yield "optimizer", text, changed(ours, step.port.maker)


def _used(step: Step) -> dict[str, list[dict[str, Any]]]:
    """With which settings the port moves what is made of each parameter of the original; of one
    that it has not, those of the original."""
    found = dict(step.theirs.used)
    for name, sources in step.arranging.sources.items():
        found |= dict.fromkeys(sources, step.ours.used[name])
    return found


def _made_of(step: Step, names: Collection[str]) -> list[str]:
    """The parameters of the original that these of the port are made of."""
    return [s for n, sources in step.arranging.sources.items() if n in names for s in sources]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
