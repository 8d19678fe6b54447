"""Why a submodule of a port is not the original's: what ports get wrong, and what `check` knows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from ...verdict.classes import Results
from ..causes.case import Cause
from ..verify import check
from .as_function import arrays_of, as_function
from .attributes import changed
from .buffers import moved
from .calls import Calls, Trace
from .evaluation import Side
from .exchanges import BACKWARD, ELSEWHERE, LIKELY, STRUCTURE, Kind, candidates, numbers_of
from .exchanges.numbers import Number
from .failure import Failure
from .solving import shortest, solved
from .states import exchanged

BUDGET = 20.0  # seconds for the causes of `check`
Given = Callable[[Side, bool], Results]  # what a side gives, with its gradients or without


def cause_of(failure: Failure, given: Given) -> Cause | None:
    """The first change of the original that makes of it what the port is, or of the port that makes
    the original of it; else what `check` says of the two as functions, where a gradient is wrong
    and the value is not."""
    if said := _untied(failure) or moved(failure):
        return _named(said)
    searches = [
        _Search(failure, given, failure.reference, failure.ours, failure.right, ""),
        _Search(
            *(failure, given, failure.subject, failure.truth, failure.right_here),
            ", with which the port would be right",
        ),
    ]
    for stage in BACKWARD_STAGES if failure.backward_alone else STAGES:
        for search in searches:
            for text, side in stage(search) if search.side.runs else ():
                if search.explained(side):
                    return _named(text + search.how)
    return _of_check(failure) if failure.backward_alone and failure.reference.runs else None


class _Search:
    """Changes of one side, held to what the other gives."""

    def __init__(
        self,
        failure: Failure,
        given: Given,
        side: Side,
        wanted: Results,
        right: tuple[torch.nn.Module, ...],
        how: str,
    ) -> None:
        self.failure, self.given, self.side = failure, given, side
        self.wanted, self.right, self.how = wanted, right, how

    @functools.cached_property
    def trace(self) -> Trace:
        """The calls of this side as it is."""
        calls = Calls(self.right)
        self.before = self.given(replace(self.side, around=lambda: calls), False)
        return Trace(calls.seen)

    def explained(self, side: Side) -> bool:
        """Whether a side is what is wanted: what it gives first, which is cheap."""
        with contextlib.suppress(Exception):  # whatever a change is refused with, it is none
            failure, wanted = self.failure, self.wanted
            if not failure.backward_alone and not failure.gives(self.given(side, False), wanted):
                return False
            found = self.given(side, True)
            return wanted.keys() <= found.keys() and failure.gives(found, wanted)
        return False

    def attributes(self) -> Iterator[tuple[str, Side]]:
        failure = self.failure
        other = failure.subject if self.side is failure.reference else failure.reference
        for text, module in changed(self.side.module, other.module, self.right):
            yield text, replace(self.side, module=module)
        if any(t._backward_hooks for t in self.side.tensors.values()):
            yield "hook: without those of the parameters", replace(self.side, hooked=False)

    def calls(self, kinds: Sequence[Kind], single: bool) -> Iterator[tuple[str, Side]]:
        """Some kinds of changes of its calls."""
        for text, changes in candidates(self.trace, kinds, single):
            yield text, replace(self.side, around=partial(Calls, self.right, changes))

    def states(self) -> Iterator[tuple[str, Side]]:
        if not self.failure.backward_alone:
            yield from exchanged(self.side)

    def numbers(self) -> Iterator[tuple[str, Side]]:
        """Its calls with another number, which is solved for."""
        if self.failure.backward_alone:
            return
        for number, calls in numbers_of(self.trace):
            made = partial(self._with_number, number, calls)
            with contextlib.suppress(Exception):  # as above
                value = solved(number.value, partial(self._given, made), self.wanted, self.before)
                if value is None or not self.failure.gives(self._given(made, value), self.wanted):
                    continue
                yield from ((number.text(v), made(v)) for v in shortest(value))

    def _with_number(self, number: Number, calls: Mapping[int, str], value: float) -> Side:
        changes = {k: (name, number.changed(value)) for k, name in calls.items()}
        return replace(self.side, around=partial(Calls, self.right, changes))

    def _given(self, made: Callable[[float], Side], value: float) -> Results:
        return self.given(made(value), False)


def _calls(kinds: Sequence[Kind], single: bool = False) -> Stage:
    return lambda search: search.calls(kinds, single)


Stage = Callable[[_Search], Iterator[tuple[str, Side]]]
# In the order in which they are tried, each of the original and of the port.
STAGES: tuple[Stage, ...] = (
    _Search.attributes,
    _calls(LIKELY),
    _calls(STRUCTURE),
    _Search.states,
    _Search.numbers,
    _calls(ELSEWHERE),
    _calls(BACKWARD),
    _calls((*LIKELY, *STRUCTURE, *ELSEWHERE), single=True),
)
BACKWARD_STAGES: tuple[Stage, ...] = (
    _Search.attributes,
    _calls(BACKWARD),
    _calls(BACKWARD, single=True),
)


def _of_check(failure: Failure) -> Cause | None:
    """What `check` says of the two as functions."""
    subject, reference = (
        as_function(side, failure.inputs) for side in (failure.subject, failure.reference)
    )
    arrays = arrays_of(failure.inputs)
    own = ["as given"]
    try:
        report = check(subject, reference, arrays, dtypes=["float64"], probes=own, budget=BUDGET)
    except (TypeError, ValueError):
        return None
    cause: Cause | None = report.cause
    return cause


def _named(text: str) -> Cause:
    name, _, rest = text.partition(": ")
    return Cause(name, rest)


def _untied(failure: Failure) -> str:
    """Whether what is wrong are gradients of what is one tensor in the original and several here,
    each of which has a part of it, or the other way round."""

    def groups(module: torch.nn.Module) -> set[frozenset[str]]:
        names: dict[int, set[str]] = {}
        for name, t in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(t), set()).add(name)
        return {frozenset(group) for group in names.values() if len(group) > 1}

    ours, theirs = groups(failure.subject.module), groups(failure.reference.module)
    wrong = {n.removeprefix("gradient of ") for n in failure.wrong}
    parted = sorted(theirs ^ ours, key=sorted)
    for group in parted:
        if wrong & group and wrong <= frozenset().union(*parted):
            other = "in the original, not in the port" if group in theirs else "in the port alone"
            return f"untied: {' and '.join(sorted(group))} are one tensor {other}"
    return ""
