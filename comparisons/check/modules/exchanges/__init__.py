"""What ports get wrong: changes of calls that a forward makes, what is likeliest first."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..calls import Change, Trace
from . import (
    attention,
    detached,
    functions,
    masks,
    norms,
    numbers,
    operands,
    parts,
    recurrent,
    reductions,
    rotations,
    shapes,
    windows,
)
from .numbers import Number

MOST = 200  # changes of a kind that are tried
# (the trace, the number of a call in it) → what may stand in the place of that call
Kind = Callable[[Trace, int], Iterator[tuple[str, Change]]]
LIKELY: tuple[Kind, ...] = (
    functions.exchanged,
    norms.settings,
    attention.settings,
    masks.exchanged,
    rotations.exchanged,
    numbers.counts,
    numbers.listed,
    shapes.exchanged,
    reductions.exchanged,
    windows.exchanged,
    parts.exchanged,
)
STRUCTURE: tuple[Kind, ...] = (
    operands.left_out,
    operands.commuted,
    norms.by_hand,
    recurrent.exchanged,
    operands.swapped,
    operands.inserted,
)
ELSEWHERE: tuple[Kind, ...] = (operands.taken_elsewhere,)
BACKWARD: tuple[Kind, ...] = (
    detached.undone,
    functions.padding,
    detached.results,
    detached.operands,
    norms.detached,
)


class Candidate(NamedTuple):
    """A change of several calls at once: by the number of a call, its name and what stands in its
    place."""

    text: str
    changes: dict[int, tuple[str, Change]]


def candidates(trace: Trace, kinds: Sequence[Kind], single: bool) -> Iterator[Candidate]:
    """Each change of some kinds at all calls of a name and at those of one place of the source; or
    at single ones of several that are made there."""
    for kind in kinds:
        yield from itertools.islice(_of_kind(trace, kind, single), MOST // 4 if single else MOST)


def _of_kind(trace: Trace, kind: Kind, single: bool) -> Iterator[Candidate]:
    wide: dict[tuple[object, ...], dict[int, tuple[str, Change]]] = {}
    narrow: dict[tuple[object, ...], dict[int, tuple[str, Change]]] = {}
    for k, call in enumerate(trace.seen):
        of_call: Counter[str] = Counter()
        for text, change in _made(kind, trace, k):
            of_call[text] += 1  # several that are told alike
            key = text, of_call[text]
            wide.setdefault((*key, call.name), {})[k] = call.name, change
            narrow.setdefault((*key, call.site), {})[k] = call.name, change
    tried: set[tuple[object, ...]] = set()
    for key, changes in (*wide.items(), *narrow.items()):
        text, number, _ = key
        parts = [{k: change} for k, change in changes.items()] if single else [changes]
        for part in parts if len(parts) > 1 or not single else ():
            if (same := (text, number, frozenset(part))) not in tried:
                tried.add(same)
                yield Candidate(str(text), part)


def _made(kind: Kind, trace: Trace, k: int) -> Iterator[tuple[str, Change]]:
    with contextlib.suppress(Exception):  # of a call in a form that it does not know
        yield from kind(trace, k)


def numbers_of(trace: Trace) -> Iterator[tuple[Number, dict[int, str]]]:
    """The numbers that stand in calls, each with the calls that it stands in, at one place of the
    source or at all of a name."""
    groups: dict[tuple[object, ...], tuple[Number, dict[int, str]]] = {}
    for k, call in enumerate(trace.seen):
        for number in numbers.all_of(trace, k):
            for where in ((call.name,), (call.name, call.site)):
                key = (where, number.path, number.value)
                groups.setdefault(key, (number, {}))[1][k] = call.name
    seen = set()
    for number, calls in groups.values():
        if (key := (number.path, frozenset(calls))) not in seen:
            seen.add(key)
            yield number, calls


__all__ = ["BACKWARD", "ELSEWHERE", "LIKELY", "STRUCTURE", "Kind", "candidates", "numbers_of"]
