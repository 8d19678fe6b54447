"""All that is tried, stage by stage: adapted, evaluated, judged."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..ops.arguments import array_names, in_order, signature_of
from ..ops.torch_samples import Sample, in_torch
from ..report.text import raised
from ..verdict.classes import HALF_DTYPES
from ..verdict.halves import is_half
from . import findings
from .adapt import Subject, subject_of
from .arguments import argument, converted, double, private
from .calls import numbers_among, settings_of, weight
from .findings import NOT_APPLICABLE, Finding, Outcome, Reason
from .isolation import OVER, PATIENCE, Died, apart
from .laws import under_laws, with_other_cotangents
from .pace import Pace
from .probes import (
    ALSO_IN_FLOAT32,
    FAR,
    FOREIGN,
    KINK,
    LONG,
    ORDINARY,
    OWN,
    SHAPE,
    UNASKED,
    Probe,
    Wanted,
    fewer_rows,
    points,
    twice_the_rows,
    within,
)
from .report import note
from .surroundings import Surroundings
from .targets import Target
from .torch_subjects import steps_of
from .trials import Trial, Trials
from .verdicts import hold_to_differences, judge, repeat, settled_at_first_sight, vote

STEPS = 500  # of a reference that is long
BRIEF = 1.0  # seconds for an axis that is so long that a loop over it would take minutes
BEYOND = {SHAPE, FOREIGN, FAR}  # where a kernel may end the process
Judged = Callable[[Sequence[Trials]], None]


@dataclass(frozen=True)
class Asked:
    """What is asked of a check.

    sampled  whether the calls are samples, which a subject may refuse
    wanted   whether a probe is wanted
    kinks    whether any slope at a kink is accepted
    allow    the relative deviation that is
    pace     how long it may take, and who is told how far it is
    once     whether a kernel of 16 bits is held to one rounding
    free     a keyword that is free of the domain
    """

    dtypes: tuple[str, ...]
    sampled: bool
    seed: int
    wanted: Wanted
    domain: Callable[[np.ndarray], Any] | None
    kinks: bool
    allow: float
    pace: Pace
    once: bool = False
    free: str = ""

    def of_derived(self, further: str) -> Asked:
        """The same of what is derived from a subject, and takes one argument more: a kink has no
        second derivative."""
        return replace(self, wanted=self.wanted.but(KINK), free=further)


def judging(thing: Any, target: Target, asked: Asked) -> Judged:
    """How all that is tried of this subject is judged."""
    return partial(
        judge,
        exact=target.exact,
        sides=target.sides if isinstance(thing, str) else None,
        ways=target.ways,
        any_kink=asked.kinks or not target.documented,
        allow=asked.allow,
    )


def tried(
    thing: Any, target: Target, calls: Sequence[Sample], asked: Asked, judged: Judged
) -> list[Trials]:
    """All calls, tried and judged; of many, the largest ordinary one has all the probes."""
    dtypes, sampled, pace = asked.dtypes, asked.sampled, asked.pace
    around = Surroundings()
    probed = max(calls, key=weight)
    done: list[Trials] = []
    with_probes: list[Trials] = []
    refusals: dict[Trials, ValueError | TypeError] = {}

    def held(t: Trials, step: Callable[[], None]) -> None:
        """Does one step; what the reference refuses is an error only for the caller's own call."""
        if t not in refusals:
            try:
                step()
            except ValueError as refusal:
                if not sampled:
                    raise
                refusals[t] = refusal

    pace.expect(len(calls) + 1)
    for call in calls:
        chosen = call is probed
        subject = subject_of(thing, call.args, call.kwargs, call.constant, dtypes, around)
        subject = _drawing(_named_as(subject, target), target)
        names = array_names(call.args, call.kwargs, subject.signature)
        # Of a dict that has no gradient, nothing inside has one.
        inside = {name for name in names if name.partition(".")[0] in call.constant}
        subject = replace(subject, constant=subject.constant | inside)
        kwargs = in_order(call.kwargs, subject.signature)
        call = replace(call, kwargs=kwargs, constant=call.constant | inside)
        twin = target.reference(subject, call.constant)
        numbers = []
        if chosen:
            numbers = numbers_among(settings_of(target.function, subject.signature, call.kwargs))
        t = Trials(subject, twin, call, numbers, asked.seed, asked.once, pace)
        done.append(t)
        if chosen:
            with_probes.append(t)
        if sampled and subject.signature:
            try:
                subject.signature.bind(*call.args, **call.kwargs)
            except TypeError as error:
                refusals[t] = TypeError(f"the subject takes no such call: {error}")
        held(t, partial(_try, t, asked, chosen, judged))
        pace.step()
    judged([t for t in done if t not in refusals])
    for t in done:
        if not pace.over:
            held(t, partial(_conclude, t, t in with_probes))
    pace.step()
    for t, refusal in refusals.items():
        _skip(t, dtypes, refusal)
    late = asked.free and pace.over  # what is derived from a subject may come too late as a whole
    if not late and all(o.kind == NOT_APPLICABLE for t in done for o in t.outcomes):
        for refusal in refusals.values():
            if isinstance(refusal, ValueError):
                raise refusal
        notes = {note(o) for t in done for o in t.outcomes}
        raise ValueError(f"subject: nothing could be judged: {'; '.join(sorted(notes)[:3])}")
    return done


def _skip(t: Trials, dtypes: Sequence[str], why: Exception) -> None:
    """Marks the sample as not judged, whatever was found."""
    t.votes = []
    reason = Reason(findings.NOT_TRIED, str(why))
    t.outcomes = [Outcome(t.own, "", d, NOT_APPLICABLE, None, reason) for d in dtypes]


def _try(t: Trials, asked: Asked, probing: bool, judged: Judged) -> None:
    """Tries the call in every dtype, with all the probes or at its own point alone. Raises
    ValueError where the reference refuses the call itself."""
    dtypes = asked.dtypes
    bases = [_at_own_point(t, dtype) for dtype in dtypes]
    if not probing or not t.base or not (all(bases) or t.pace.over):
        return
    _look_closer(t)
    long, loops = _counted(t)
    t.spared = long and not asked.wanted.thorough
    if t.spared:
        dtypes, bases = dtypes[:1], bases[:1]
        asked = replace(asked, wanted=asked.wanted.sparing())
    for base in filter(None, bases):
        _beside(t, base, asked)
    wanted = filter(
        asked.wanted, points(t.point.args, t.point.kwargs, t.settings, t.seed, not loops)
    )
    probes = list(_within_domain(t, wanted, asked))
    beyond = [probe for probe in probes if probe.traits & BEYOND]
    t.pace.expect(len(probes) - len(beyond))
    elsewhere = dict(zip(map(id, beyond), _elsewhere(t, beyond, dtypes, judged), strict=True))
    for probe in probes:
        if id(probe) not in elsewhere:
            _at(t, probe, dtypes)
            t.pace.step()
        elif isinstance(found := elsewhere[id(probe)], Reason):
            t.not_judged(probe, dtypes[0], found.kind, found.detail)
        else:
            t.tried += [_unpacked(t, probe, outcome) for outcome in found]
    if t.subject.in_torch and t.reference and not asked.wanted.quick:
        _unasked(t, [half for half in HALF_DTYPES if half not in dtypes])


def _look_closer(t: Trials) -> None:
    """Of a large call, what is tried beside it is tried at fewer of its rows, if both sides answer
    to these: its own arrays cost a hundred times as much, and show the same."""
    smaller = fewer_rows(t.own)
    if not smaller:
        return
    if apart(t.answers, [smaller], until=t.pace.until, fork=t.subject.forks) == [True]:
        t.point = smaller


def _counted(t: Trials) -> tuple[bool, bool]:
    """Whether the reference takes more than STEPS at the point from which probes are made, and
    whether it is a loop over rows: then more of them cost more steps. No function of torch's own
    is one."""
    function = t.reference.in_torch if t.reference else None
    if function is None or in_torch(function):
        return False, False
    counted, call = partial(_steps, function), (t.point.args, t.point.kwargs)
    if (steps := counted(call)) is None:  # it answers once
        return False, False
    if steps > STEPS:
        return True, True
    (more,) = apart(counted, [twice_the_rows(*call)], until=t.pace.until, fork=t.subject.forks)
    return False, isinstance(more, int) and more > steps


def _steps(function: Callable[..., Any], call: Any) -> int | None:
    """None where it refuses the call."""
    with contextlib.suppress(Exception):
        return steps_of(function, *private(double(call)))
    return None


def _unasked(t: Trials, dtypes: Sequence[str]) -> None:
    """A torch callable at this point in 16 bits as well, if it and the reference know them."""
    point = replace(t.point, traits=frozenset((ORDINARY, UNASKED)))
    for dtype in dtypes:
        if trial := t.at(point, dtype):
            to_be_judged(t, trial)


def _at(t: Trials, probe: Probe, dtypes: Sequence[str]) -> None:
    dy = None
    if LONG in probe.traits and t.subject.in_torch:
        dtypes = [*dtypes, *(half for half in HALF_DTYPES if half not in dtypes)]
    for dtype in dtypes if ALSO_IN_FLOAT32 in probe.traits else dtypes[:1]:
        if trial := t.at(probe, dtype, dy):
            to_be_judged(t, trial)
            dy = trial.inputs[2] if dy is None else dy  # whatever dtypes there are between


def _elsewhere(
    t: Trials, probes: Sequence[Probe], dtypes: Sequence[str], judged: Judged
) -> list[Any]:
    """The outcomes of each probe, from a process of its own, or the Reason why there are none.

    What is not settled at first sight takes noise, for which torch imports its compiler: where that
    is not there yet, here, once and not in every fork; at once if anything here is not. What was
    tried before is judged first: it says what is asked in vain.
    """
    if "torch._dynamo" not in sys.modules and not settled_at_first_sight([t]):
        import torch._dynamo
    judged([t])
    found: list[Any] = [None] * len(probes)
    for i, probe in enumerate(probes):
        if LONG in probe.traits and not t.reference:
            found[i] = Reason(findings.NOT_TRIED, "so many differences would be dear")
        elif LONG in probe.traits and t.findings:
            found[i] = Reason(findings.NOT_TRIED, "dear, and it is wrong already")
        elif LONG in probe.traits and not t.subject.forks:
            found[i] = Reason(findings.NOT_TRIED, "JAX runs in no fork, where a loop can be ended")
    for _ in range(2):
        whole = "torch._dynamo" in sys.modules
        for long, patience in ((False, PATIENCE), (True, BRIEF)):
            open_ = [
                i
                for i, probe in enumerate(probes)
                if found[i] is None and (LONG in probe.traits) == long
            ]
            task, trying = partial(_alone, t, dtypes, judged, whole), [probes[i] for i in open_]
            t.pace.expect(len(trying))
            results = apart(task, trying, patience, t.pace.until, t.pace.step, t.subject.forks)
            for i, result in zip(open_, results, strict=True):
                found[i] = _reason(t, result) if isinstance(result, Died) else result
        if None in found:
            import torch._dynamo  # noqa: F401
    return found


def _reason(t: Trials, died: Died) -> Reason:
    if died.how == OVER:
        return Reason(findings.OUT_OF_BUDGET, t.pace.seconds)
    return Reason(findings.CRASHED, died.how)


def _alone(
    t: Trials, dtypes: Sequence[str], judged: Judged, whole: bool, probe: Probe
) -> list[Outcome] | None:
    """A probe tried and judged in another process, without what this one has of it already; None
    where more than the first sight is needed, and not asked for."""
    branch = t.branch()
    if t.subject.around:
        t.subject.around.look()  # a process of its own has one thread
    _at(branch, probe, dtypes)
    if not whole and not settled_at_first_sight([branch]):
        return None
    judged([branch])
    return [_packed(outcome) for outcome in branch.outcomes]


def _packed(outcome: Outcome) -> Outcome:
    light = Probe(outcome.probe.name, (), {})
    why = outcome.why
    if isinstance(why, Finding):
        why = replace(why, probe=light, inputs=why.inputs and why.inputs[2], argument=None)
    return replace(outcome, probe=light, why=why)


def _unpacked(t: Trials, probe: Probe, outcome: Outcome) -> Outcome:
    why = outcome.why
    if isinstance(why, Finding):
        call = converted((probe.args, probe.kwargs), why.dtype)
        inputs = None if why.inputs is None else (*call, why.inputs)
        why = replace(why, probe=probe, inputs=inputs, argument=argument(t.order, inputs, why.name))
    return replace(outcome, probe=probe, why=why)


def _within_domain(t: Trials, probes: Iterable[Probe], asked: Asked) -> Iterator[Probe]:
    """The probes, brought into the domain where there is one; what cannot be is not judged."""
    for probe in probes:
        if asked.domain is None:
            yield probe
            continue
        try:
            yield within(probe, asked.domain, asked.free)
        except Exception as refusal:
            t.not_judged(probe, asked.dtypes[0], findings.OUTSIDE_DOMAIN, raised(refusal))


def _at_own_point(t: Trials, dtype: str) -> Trial | None:
    """None if it cannot be called, or answers like no rule."""
    trial = t.at(t.own, dtype, t.base and t.base.inputs[2])
    if trial:
        to_be_judged(t, trial)
        t.base = t.base or trial
    return trial


def _beside(t: Trials, own: Trial, asked: Asked) -> None:
    """What must not change a result there, and other cotangents."""
    base: Trial | None = own
    if t.point is not t.own and (base := t.at(t.point, own.dtype)):
        to_be_judged(t, base)
    if base is None:
        return
    first = own is t.base
    t.beside = t.beside or base
    if first and not is_half(own.dtype):
        t.tried.extend(under_laws(t, base, asked.wanted))
    for trial in with_other_cotangents(t, base, first, asked.wanted):
        to_be_judged(t, trial)


def to_be_judged(t: Trials, trial: Trial) -> None:
    """By the reference; without one, by differences, and at the caller's own point by itself."""
    t.pace.first = t.pace.first or trial
    alone = not t.reference and trial.dtype == "float64"
    if alone:
        hold_to_differences(t, trial)
    if not alone or OWN in trial.probe.traits:
        t.tried.append(trial)


def _conclude(t: Trials, probing: bool) -> None:
    """Raises ValueError where the reference differs from itself; else the oracles vote."""
    if probing or any(OWN in f.probe.traits for f in t.findings):
        repeat(t)
    if probing:
        vote(t)


def _named_as(subject: Subject, target: Target) -> Subject:
    """The subject, its arguments called as those of the reference where it has no names of its
    own."""
    theirs = signature_of(target.function) if target.function else None
    return subject if subject.signature else replace(subject, signature=theirs)


def _drawing(subject: Subject, target: Target) -> Subject:
    """The subject, given in every call what torch draws, if it takes that."""
    taken = subject.signature.parameters if subject.signature else {}
    if target.draw is None or target.draw.keyword not in taken:
        return subject
    return replace(
        subject, rule=lambda *args, **kwargs: subject.rule(*args, **target.drawn(args, kwargs))
    )
