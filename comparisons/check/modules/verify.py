"""A port held to its original, submodule by submodule, from the original's own inputs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...report import tables
from ...report.text import raised
from ...verdict.classes import DIFFERENT, Results
from ...verdict.halves import is_half
from ...verdict.judge import settle
from ..causes.case import Cause
from ..findings import NOT_APPLICABLE
from ..pace import Pace
from .causes import cause_of
from .evaluation import (
    Incomparable,
    Inputs,
    Side,
    arranged,
    as_array,
    evaluated,
    judged_in,
    only,
    some,
)
from .failure import Failure
from .forms import Given, Watched, form_of
from .memory import Memory, Moment, below
from .original import Original
from .pairing import Names, Pairing, paired
from .recording import Call, floating
from .report import BAD, FAILED, ModulesReport, Place, Source, row
from .state import (
    is_numeric,
    modules_of,
    parameters_of,
    refuse_empty,
    refuse_unmade,
    tensors_of,
)
from .stepping import Stepping, Training

CALL = "call"  # the result of one that cannot be compared
# Why a submodule has no place of its own.
NO_PARTNER = "the port has no such submodule"
UNCALLED = "the port does not call it"
NO_NUMBERS = "it is given no numbers, and holds none"
MANY = 2**22  # elements of the parameters whose gradients are judged at once


def check_modules(
    port: torch.nn.Module,
    original: Original,
    names: Names,
    pace: Pace,
    training: Training | None = None,
) -> ModulesReport:
    """Whether a module is another one; see `check`.

    The port gets copies of the parameters and buffers of the original; it is not changed. The
    original ran once; at each call of a submodule that both have, innermost first, the port's is
    given what the original's was, with the cotangents that arrived there: outputs, gradients and
    buffers are held to those in float64, within a measured floor. Then come the steps.
    """
    refuse_unmade(port, "the port")
    pairing = paired(port, original.module, names)
    alone = {n: t for n, t in tensors_of(port).items() if n not in pairing.sources}
    refuse_empty(alone, "the port")
    pace.expect(len(original.calls))
    judged = _Judged(port, original, pairing, pace)
    places = _blamed(judged.places())
    cause, warned = judged.cause(), tuple(judged.warnings())
    notes = (original.note, *pairing.notes) if original.note else pairing.notes
    if training:
        right = not any(place.kind in BAD for place in places)
        stepping = Stepping(port, original.module, pairing, training, pace)
        state = tensors_of(original.module)
        places += stepping.places(original.calls[-1], state, judged if right else None)
        cause = cause or stepping.cause
        notes, warned = notes + stepping.notes, warned + stepping.warnings
    return ModulesReport(
        type(port).__name__,
        original.name,
        tables.table(row(p) for p in places),
        tuple(places),
        notes,
        cause,
        warned,
        judged.source(places),
    )


def _blamed(places: list[Place]) -> list[Place]:
    """What a submodule raises, of which the inputs may be of another form in the port, is different
    if the whole raises as well."""
    calls = [p for p in places if p.result == CALL]
    if not any(p.kind == DIFFERENT for p in calls):
        return places
    return [_failed(p) if p.result == CALL else p for p in places]


def _is_bad(place: Place) -> bool:
    return place.kind in BAD


def _all_right(places: Sequence[Place]) -> bool:
    """Whether a call was judged, and nothing of it is different."""
    return any(p.verdict for p in places) and not any(map(_is_bad, places))


def _failed(place: Place) -> Place:
    return replace(place, kind=DIFFERENT, verdict=FAILED)


class _Judged:
    """Judges calls, in order."""

    def __init__(
        self, port: torch.nn.Module, original: Original, pairing: Pairing, pace: Pace
    ) -> None:
        self.port, self.original, self.pairing, self.pace = port, original, pairing, pace
        self.seen: set[str] = set()  # submodules that were judged
        self.failures: dict[Call, Failure] = {}  # in order
        self.formed: set[Call] = set()  # that were judged in the form that the port's takes
        self.whole: dict[str, tuple[bool, bool]] = {}  # of what is true of the module itself
        self.memory: Memory = {}  # what the port keeps from call to call, as it is now
        self.memory = self._changed()

    def _changed(self) -> Memory:
        """What the port does to its memory in a call of the whole."""
        before = Moment(self.port)
        self._run(contextlib.nullcontext())
        return before.changed()

    def _run(self, around: contextlib.AbstractContextManager[Any]) -> None:
        """The port's whole forward, with this around it. What it raises is a finding about the
        whole, made where that is judged."""
        whole = self.original.calls[-1]
        if sides := self._sides(whole, ""):
            inputs = self.original.inputs(whole)
            with contextlib.suppress(Exception):
                side = replace(sides[0], around=lambda: around)
                evaluated(side, inputs, inputs.arrays, backward=False)

    def places(self) -> list[Place]:
        """Of all calls. One in another form that is different, around which all is right, is judged
        with that: its form was not found."""
        found = {call: list(self.of(call)) for call in self.original.calls}
        right = {c for c, places in found.items() if _all_right(places)}
        for call in self.formed - right:
            if right.intersection(self._around(call)):
                self.failures.pop(call, None)
                found[call] = [Place(call, NOT_APPLICABLE, note="it takes another form")]
        return [place for places in found.values() for place in places]

    def _around(self, call: Call) -> Iterable[Call]:
        """The calls that a call is made in: of each submodule around it the next that ends."""
        calls = self.original.calls
        around: dict[str, Call] = {}
        for later in calls[calls.index(call) + 1 :]:
            if not later.place or call.place.startswith(f"{later.place}."):
                around.setdefault(later.place, later)
        return around.values()

    def of(self, call: Call) -> Iterator[Place]:
        """A place for each result of a call, or one that says why there are none."""
        self.pace.step()
        ours = self._partner(call)
        if ours is None:
            yield Place(call, NOT_APPLICABLE, note=NO_PARTNER)
        elif call.unseen:
            yield Place(call, NOT_APPLICABLE, note=call.unseen)
        elif self.pace.over:
            yield Place(call, NOT_APPLICABLE, note="not judged within the budget")
        elif not (sides := self._sides(call, ours)):
            yield Place(call, NOT_APPLICABLE, note="made of what lies outside of it")
        elif call.dys:
            self.pace.first = self.pace.first or call
            inputs = self.original.inputs(call)
            if inputs.arrays:
                places = self._judged(call, *sides, inputs)
                if call.place and not _all_right(places):
                    exact = not any(p.verdict for p in places)
                    places = self._in_its_form(call, *sides, inputs, exact) or places
                if call not in self.formed and any(p.verdict for p in places):
                    self.seen.add(call.place)
                yield from places
            else:
                yield Place(call, NOT_APPLICABLE, note=NO_NUMBERS)

    def _judged(self, call: Call, subject: Side, reference: Side, inputs: Inputs) -> list[Place]:
        places: list[Place] = []
        for number, part in enumerate(self._parts(subject, reference)):
            if number and not any(p.verdict for p in places):
                break
            places += self._settled(call, *part, inputs, gradients=number > 0)
        return places

    def _in_its_form(
        self, call: Call, subject: Side, reference: Side, inputs: Inputs, exact: bool
    ) -> list[Place]:
        """The same, where the port gives its submodule the tensors in another form, which it shows;
        else nothing. It need not be `exact` where what the original's was given fits as well."""
        shown = self._shown[call.place]
        if self._shown[""] and not shown:
            self.failures.pop(call, None)
            return [Place(call, NOT_APPLICABLE, note=UNCALLED)]
        if len(shown) != sum(other.place == call.place for other in self.original.calls):
            return []
        native = self.original.answers(subject, reference, inputs).native
        theirs = floating((call.args, call.kwargs))
        numbers = [i for i, t in enumerate(theirs) if t.requires_grad]
        gradients = [native.get(f"gradient of {n}") for n in inputs.names]
        flat = {i for i, g in zip(numbers, gradients, strict=True) if g is None or not g.any()}
        names = [n for n in native if n.startswith("output")]
        paths = call.paths or names  # older records know none
        outputs = {p: torch.from_numpy(native[n]) for p, n in zip(paths, names, strict=True)}
        form = form_of(shown[call.number], call, outputs, flat, exact)
        missed = form.missed(call) if form else None
        if form is None or not (self.original.runs or not (form.tied or missed)):
            return []
        inputs = inputs.tied() if form.tied else inputs
        alone = self.failures.pop(call, None)
        sides = replace(subject, form=form), replace(reference, form=missed)
        places = self._judged(call, *sides, inputs)
        if not any(p.verdict for p in places):
            self.failures |= {call: alone} if alone else {}
            return []
        self.formed.add(call)
        return places

    @functools.cached_property
    def _shown(self) -> dict[str, list[Given]]:
        """What the port gives its submodules, under the names that they have in the original, when
        it is given what the original was."""
        port = modules_of(self.port)
        watched = Watched({n: port[ours] for ours, n in self.pairing.modules.items()})
        self._run(watched)
        return watched.calls

    def _partner(self, call: Call) -> str | None:
        """The name of the port's submodule that is held to a call's."""
        theirs = self.pairing.modules.items()
        return next((ours for ours, other in theirs if other == call.place), None)

    def cause(self) -> Cause | None:
        """Of the first that is different."""
        if not self.failures or self.pace.over:
            return None
        failure = next(iter(self.failures.values()))

        def given(side: Side, backward: bool) -> Results:
            found = evaluated(side, failure.inputs, failure.inputs.arrays, backward=backward)
            own = side.arrange is failure.subject.arrange
            return found if own else arranged(found, failure.subject, side)

        return cause_of(failure, given)

    def source(self, places: Sequence[Place]) -> Source | None:
        """The port's forward where the first result is different, if its file is there."""
        call = next((p.call for p in places if p.kind in BAD), None)
        ours = self._partner(call) if call else None
        module = modules_of(self.port)[ours] if ours is not None else None
        if module is None or isinstance(module, torch.jit.ScriptModule):
            return None
        forward = inspect.unwrap(type(module).forward)
        try:
            lines, first = inspect.getsourcelines(forward)
            file = Path(inspect.getsourcefile(forward) or "").name
        except (OSError, TypeError):  # typed in, or no Python
            return None
        return Source(f"{forward.__qualname__} ({file})", first, tuple(lines))

    def warnings(self) -> Iterator[str]:
        """What makes agreement say less than it seems to."""
        grads = [is_some for n, (is_some, _) in self.whole.items() if n.startswith("gradient")]
        if self.whole and not grads:
            yield "of the original no gradient can be asked: only values are judged"
        elif grads and not any(grads):
            yield "every gradient of the original is zero, with which anything agrees"
        if narrow := sorted({name for call in self.original.calls for name in call.narrow}):
            yield f"no float64 is known by {', '.join(narrow)}: as exact as in the module's dtype"
        if any(is_none for _, is_none in self.whole.values()):
            yield "the original gives NaN alone, with which anything agrees"

    def _sides(self, call: Call, ours: str) -> tuple[Side, Side] | None:
        """The submodules of both, the port's state made of what the original's holds.

        Gradients of parameters that a submodule inside has answered for are asked of the whole
        again, and of a submodule of which no other gradient is: there a path may be cut.
        """
        module, pairing = modules_of(self.port)[ours], self.pairing
        prefix, other = (f"{name}." if name else "" for name in (ours, call.place))
        own = tensors_of(module)
        full = {n: f"{prefix}{n}" for n in own}
        if not all(s.startswith(other) for f in full.values() for s in pairing.sources.get(f, ())):
            return None

        def arrange(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            there = {f"{other}{n}": t for n, t in given.items()}
            dtype = next((t.dtype for t in given.values() if t.is_floating_point()), None)
            made = pairing.made(there, [f for f in full.values() if f in pairing.sources])
            return {n: made[f] if f in made else _alone(own[n], dtype) for n, f in full.items()}

        held = (n for n in parameters_of(module) if full[n] in pairing.sources)
        wanted = [n for n in held if is_numeric(own[n]) and own[n].requires_grad]
        theirs = [n for n, p in parameters_of(call.module).items() if p.requires_grad]
        if call.place and call.differentiable:
            seen = self.seen - {call.place}
            inside = {n for n in theirs if f"{other}{n}".rpartition(".")[0] in seen}
            theirs = [n for n in theirs if n not in inside]
            within = {f"{other}{n}" for n in inside}
            wanted = [n for n in wanted if not within.issuperset(pairing.sources[full[n]])]
        runs = self.original.runs
        made_of = {n: [s[len(other) :] for s in pairing.sources[full[n]]] for n in wanted}
        memory = below(self.memory, ours)
        memory |= {key: call.memory[key] for key in memory if key in call.memory}
        return Side(module, arrange, wanted, made_of=made_of, memory=memory), Side(
            call.module, dict, theirs, runs=runs, memory=call.memory
        )

    def _parts(self, subject: Side, reference: Side) -> Iterator[tuple[Side, Side]]:
        """The same, each asked for the gradients of some parameters: of a large module, all of them
        at once, with their floors, take many times its memory."""
        tensors = tensors_of(reference.module)
        sizes = {
            name: sum(tensors[source].numel() for source in subject.made_of[name])
            for name in subject.wanted
        }
        for group in _groups(sizes) if reference.runs else [subject.wanted]:
            held = {id(tensors[source]) for name in group for source in subject.made_of[name]}
            theirs = [name for name in reference.wanted if id(tensors[name]) in held]
            yield _asked(subject, group), _asked(reference, theirs)

    def _right(self, call: Call) -> tuple[tuple[torch.nn.Module, ...], ...]:
        """The submodules inside of a call, the first that is wrong, that were judged: those of the
        original, and those of the port."""
        prefix = f"{call.place}." if call.place else ""
        names = [n for n in self.seen if n.startswith(prefix) and n != call.place]
        theirs = tuple(modules_of(call.module)[n.removeprefix(prefix)] for n in names)
        port = modules_of(self.port)
        ours = tuple(port[mine] for mine, n in self.pairing.modules.items() if n in names)
        return theirs, ours

    def _settled(
        self,
        call: Call,
        subject: Side,
        reference: Side,
        inputs: Inputs,
        gradients: bool = False,
    ) -> Iterator[Place]:
        """The results of a call; or the gradients alone that are asked of both sides."""

        def ours(arrays: Any, kind: torch.dtype | None = None) -> Results:
            return evaluated(subject, inputs, arrays, kind)

        try:
            results = dict(ours(inputs.arrays))
        except Incomparable as why:
            if why.lacking and self.original.runs:
                rest = inputs.without(why.lacking)
                yield from self._settled(call, subject, reference, rest, gradients)
            elif call.place:
                yield Place(call, NOT_APPLICABLE, note=str(why))
            else:  # around which nothing else is judged
                yield Place(call, DIFFERENT, CALL, verdict=FAILED, note=str(why))
            return
        except Exception as error:  # whatever it raises on what the original takes is a finding
            note = f"the port raises {raised(error)}"
            inside = Place(call, NOT_APPLICABLE, CALL, note=note)
            yield inside if call.place else _failed(inside)
            return
        dtype = judged_in(inputs.kinds)
        answers = self.original.answers(subject, reference, inputs)
        if gradients:
            names = [f"gradient of {n}" for n in subject.wanted]
        else:
            written = {f"buffer {n}" for n in _written(subject, inputs, results)}
            names = [n for n in answers.truth if not n.startswith("buffer") or n in written]
        for name in names:
            if name not in results and name.startswith("output"):
                yield Place(call, NOT_APPLICABLE, name, note="the port gives none")
            elif name not in results:
                yield Place(call, DIFFERENT, name, verdict=FAILED, note="the port has none")
        both = [n for n in names if n in results]
        if not call.place:
            self.whole |= {n: _says(answers.truth[n]) for n in names}
        given = some(results, both)
        floor = answers.floor(both)
        verdicts = settle(
            floor,
            only(both, ours),
            inputs.arrays,
            given,
            finer=only(both, partial(ours, kind=torch.float32)) if is_half(dtype) else None,
            hopeless=both if self.failures.keys() - self.formed else (),
        )
        wrong = tuple(n for n, v in verdicts.items() if v.kind == DIFFERENT)
        if wrong and call not in self.failures:
            self.failures[call] = Failure(
                *(subject, reference, inputs, given, floor.truth, floor.values, wrong),
                *self._right(call),
            )
        for name, verdict in verdicts.items():
            kind = str(given[name].dtype)
            yield Place(call, verdict.kind, name, kind, verdict, verdict.note)


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """The names of parameters, parted so that of each group no more are judged at once than may
    be."""
    groups: list[list[str]] = [[]]
    elements = 0
    for name, size in sizes.items():
        if elements + size > MANY and groups[-1]:
            groups.append([])
            elements = 0
        groups[-1].append(name)
        elements += size
    return groups


def _asked(side: Side, wanted: Sequence[str]) -> Side:
    """A side of which fewer gradients are asked."""
    return replace(side, wanted=wanted, beside=[n for n in side.wanted if n not in set(wanted)])


def _says(a: np.ndarray) -> tuple[bool, bool]:
    """Whether any of a result is not 0, and whether all of it is NaN."""
    return bool(a.any()), bool(a.size and np.isnan(a).all())


def _alone(t: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    own = t.detach().clone()
    return own.to(dtype) if dtype and own.is_floating_point() else own


def _written(subject: Side, inputs: Inputs, results: Results) -> set[str]:
    """The buffers of the port that it changes, or the original its own."""
    given = inputs.tree[0]
    marked = {n: torch.zeros_like(t) for n, t in given.items()}
    marked |= {n: torch.ones_like(marked[n]) for n in inputs.call.written}
    theirs = {n for n, t in subject.arrange(marked).items() if t.any()}
    before = subject.arrange(given)
    names = [n.removeprefix("buffer ") for n in results if n.startswith("buffer ")]
    ours = {n for n in names if not np.array_equal(results[f"buffer {n}"], as_array(before[n]))}
    return theirs.intersection(names) | ours
