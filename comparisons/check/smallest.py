"""The smallest shapes at which a wrong result is still wrong."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...reference.adapters import leaves
from ..ops.arguments import positional_names
from ..verdict.noise import is_floating
from .arguments import arrays, once_each
from .findings import RAISED, Finding, Outcome, Smallest
from .isolation import Died, apart
from .pace import Pace
from .probes import CALLS, LAYOUT, LONG, of_length
from .stages import Judged, to_be_judged
from .trees import items
from .trials import Trials

# An axis of a thousand comes to 1 by ten halvings: three of them do, or one that ends in between.
TRIES = 32
SECONDS = 1.0  # after which no more is tried: that it is wrong is known
PATIENCE = 5.0  # seconds until what hangs is ended
FEW = 12  # numbers of all arguments together that are shown
BESIDE = {LAYOUT, CALLS, LONG}  # what is wrong there is not wrong for its arguments' shapes alone
Call = tuple[tuple[Any, ...], dict[str, Any]]


def smallest(t: Trials, judged: Judged, outcome: Outcome, seconds: float) -> Smallest | None:
    """Cuts axes of the call by halves, then by ones, as long as the same result is wrong by the
    same verdict; None where nothing can be cut.

    Axes of one length are cut together, and where that is refused, each axis of the first array
    with those that share it. All happens in a process of its own, in so many seconds at most: one
    that ends, or hangs, leaves nothing. No more than TRIES are begun.
    """
    found = outcome.why
    if not isinstance(found, Finding) or found.kind == RAISED or found.probe.traits & BESIDE:
        return None
    t.pace = Pace()  # what was left of it is `seconds`
    until = time.monotonic() + min(seconds, PATIENCE)
    search, fork = partial(_search, t, judged), t.subject.forks
    done = apart(search, [outcome], until=until, fork=fork)[0]
    return None if isinstance(done, Died) else done


def _search(t: Trials, judged: Judged, outcome: Outcome) -> Smallest | None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _searched(t, judged, outcome)
        except Exception:  # shapes that nothing was made for; the verdict stands
            return None


def _searched(t: Trials, judged: Judged, outcome: Outcome) -> Smallest | None:
    if t.subject.around:
        t.subject.around.look()  # a process of its own has one thread
    ends = time.monotonic() + SECONDS
    call: Call = outcome.probe.args, outcome.probe.kwargs
    seen: set[tuple[Any, ...]] = set()
    last: Finding | None = None
    going = True
    while going:
        going = False
        for key, smaller in _cuts(call):
            if len(seen) == TRIES or time.monotonic() > ends:
                break
            if key in seen:
                continue
            seen.add(key)
            if still := _wrong(t, judged, outcome, smaller):
                call, last, going = smaller, still, True
                break
    return _described(t, call, last) if last else None


def _wrong(t: Trials, judged: Judged, outcome: Outcome, call: Call) -> Finding | None:
    """What is wrong about the result there, if it is wrong as it was."""
    assert isinstance(outcome.why, Finding)
    branch = t.branch()
    probe = replace(outcome.probe, args=call[0], kwargs=call[1], traits=frozenset())
    if trial := branch.at(probe, outcome.dtype):
        to_be_judged(branch, trial)
    judged([branch])
    for other in branch.outcomes:
        if (other.name, other.kind) == (outcome.name, outcome.kind) and isinstance(
            other.why, Finding
        ):
            return other.why if other.why.kind == outcome.why.kind else None
    return None


def _cuts(call: Call) -> Iterator[tuple[Any, Call]]:
    """Smaller calls, the smallest first, each with what tells it from others."""
    given = arrays(call)
    lengths = sorted({n for a in given for n in a.shape if n > 1}, reverse=True)
    ways: list[tuple[int, Callable[[int, bool], Call]]]
    ways = [(n, partial(_of_all, call, (n,))) for n in lengths]
    lead = next((a for a in leaves(call) if is_floating(a)), None)
    if lead is not None:
        ways += [(n, partial(_of_axis, call, lead, k)) for k, n in enumerate(lead.shape) if n > 1]
    if lengths:
        ways.insert(0, (2, partial(_of_all, call, tuple(lengths))))
    for length, cut in ways:
        for m in dict.fromkeys((1, length // 2, length - 1)):
            for last in (False, True):
                smaller = cut(m, last)
                shapes = tuple(a.shape for a in arrays(smaller))
                if shapes != tuple(a.shape for a in given):
                    yield (shapes, last), smaller


def _of_all(call: Call, lengths: tuple[int, ...], m: int, last: bool) -> Call:
    """The first or last m along every axis of these lengths."""

    def cut(a: np.ndarray) -> np.ndarray:
        part = slice(-m, None) if last else slice(m)
        return np.asarray(a[tuple(part if n in lengths else slice(None) for n in a.shape)])

    made: Call = once_each(cut, call)
    return made


def _of_axis(call: Call, lead: np.ndarray, axis: int, m: int, last: bool) -> Call:
    """The same along one axis of the first array, for all that share it with that."""

    def cut(a: np.ndarray) -> np.ndarray:
        turned = np.flip(a) if last else a
        made = of_length(turned, np.flip(lead) if last else lead, axis, m)
        return np.flip(made) if last else made

    made: Call = once_each(cut, call)
    return made


def _described(t: Trials, call: Call, found: Finding) -> Smallest:
    shapes = tuple(a.shape for a in arrays(call))
    args, kwargs, dy = found.inputs
    names = positional_names(len(args), t.subject.signature)
    passed = [*zip(names, args, strict=True), *kwargs.items(), ("dy", dy)]
    inputs = {
        path: leaf
        for name, tree in passed
        for path, leaf in items(tree, name)
        if isinstance(leaf, np.ndarray)
    }
    results = [a for a in (found.ours, found.truth) if a is not None]
    if sum(a.size for a in inputs.values()) > FEW or any(a.size > FEW for a in results):
        return Smallest(found.name, shapes, {})
    return Smallest(found.name, shapes, inputs, found.ours, found.truth)
