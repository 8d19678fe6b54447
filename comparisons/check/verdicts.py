"""What was tried, judged: most of it together, by the first terms of the floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..report.text import raised
from ..verdict.classes import (
    CONVENTION,
    DIFFERENT,
    HALF_DTYPES,
    IMPRECISE,
    LIMIT,
    REFERENCE_IMPRECISE,
    UNDECIDED,
    Exactly,
    Function,
    Results,
    Sides,
    Verdict,
)
from ..verdict.floor import LOOKS, Floor
from ..verdict.halves import is_half
from ..verdict.judge import screen, settle
from ..verdict.noise import is_floating, unit_roundoff
from ..verdict.ulps import difference
from . import findings
from .arguments import double, floating
from .compositions import Way, Whole
from .conventions import is_convention
from .findings import NOT_APPLICABLE, Finding, Outcome, Reason
from .probes import LONG, OWN
from .trials import Trial, Trials
from .votes import Direction, U

ASKED = 3  # times that it is asked in vain what excuses a result, at different points
Known = Mapping[tuple[int, str], Verdict]  # by trial and name


def judge(
    all_tried: Sequence[Trials],
    exact: Exactly | None = None,
    sides: Callable[[Any], Sides | None] | None = None,
    ways: Mapping[str, Way] | None = None,
    any_kink: bool = False,
    allow: float = 0.0,
) -> None:
    """Makes outcomes of all that was tried, in order.

    `exact` decides where the reference may be the one that is wrong, and so do the `ways` in which
    torch computes the same otherwise; with `sides`, any slope between both sides of a kink is a
    convention, and accepted. With `any_kink` all of those are; and with `allow`, results that
    deviate by no more than that.
    """
    excuses = Excuses(exact, sides, ways or {}, any_kink, allow)
    known = _known(all_tried)
    for tried in all_tried:
        _Judge(tried, excuses, known).all()


def settled_at_first_sight(all_tried: Sequence[Trials]) -> bool:
    """Whether no noise has to be drawn for any of these."""
    known = _known(all_tried)
    trials = [t for tried in all_tried for t in tried.tried if isinstance(t, Trial)]
    return all((id(t), name) in known for t in trials for name in t.results)


def _known(all_tried: Sequence[Trials]) -> Known:
    """What the first terms of the floor settle."""
    asked = [
        (trial, name)
        for tried in all_tried
        for trial in tried.tried
        if isinstance(trial, Trial)
        for name, ours in trial.results.items()
        if name in trial.truth
        and not (tried.once and is_half(trial.dtype))
        and (ours.dtype == trial.carrier or not is_floating(ours))
        and ours.shape == trial.truth[name].shape
    ]
    known: dict[tuple[int, str], Verdict] = {}
    for half in ("", *HALF_DTYPES):
        chosen = [(t, n) for t, n in asked if (t.dtype if is_half(t.dtype) else "") == half]
        pairs = [(t.results[n], t.truth[n]) for t, n in chosen]
        settled = screen(pairs, [t.derived for t, _ in chosen], half)
        known |= {(id(t), n): v for (t, n), v in zip(chosen, settled, strict=True) if v}
    return known


@dataclass(frozen=True)
class Excuses:
    """What is asked before a result is different; see `judge`."""

    exact: Exactly | None
    sides: Callable[[Any], Sides | None] | None
    ways: Mapping[str, Way]
    any_kink: bool
    allow: float


class _Judge:
    """Judges what was tried on one call."""

    def __init__(self, t: Trials, excuses: Excuses, known: Known) -> None:
        self.t, self.excuses, self.known = t, excuses, known
        self.base: tuple[Trial, dict[str, Verdict], dict[str, np.ndarray]] | None = None

    def all(self) -> None:
        done = 0
        while done < len(self.t.tried):  # to which judging adds
            tried = self.t.tried[done]
            done += 1
            self.t.outcomes += self._judged(tried) if isinstance(tried, Trial) else [tried]
        self.t.tried.clear()

    def _judged(self, trial: Trial) -> Iterator[Outcome]:
        verdicts = {
            n: v for n in trial.results if (v := self.known.get((id(trial), n))) is not None
        }
        names = [n for n in trial.results if n not in verdicts]
        outside: dict[str, np.ndarray] = {}
        if names and self.base and self.base[0].truth is trial.truth:
            base, found, where = self.base  # most layouts do not change a bit
            same = [n for n in names if n in found and trial.results[n] is base.results[n]]
            verdicts |= {n: found[n] for n in same}
            outside = {n: where[n] for n in same if n in where}
            names = [n for n in names if n not in same]
        if names and self.t.pace.over and trial is not self.t.pace.first:
            why = Reason(findings.OUT_OF_BUDGET, self.t.pace.seconds)
            for name in names:
                yield Outcome(trial.probe, name, trial.dtype, NOT_APPLICABLE, None, why)
        elif names:
            known_before = trial.dtype == "float64" or is_half(trial.dtype)
            native = trial.truth if known_before else self._native(trial)
            if native is None:
                return
            try:
                found, where = self._settled(trial, names, native)
            except Exception as refusal:  # at a point nearby
                why = Reason(findings.LEFT_NEARBY, raised(refusal))
                # What noise takes apart may not fit into memory at an axis that is so long.
                large = LONG in trial.probe.traits and "allocate memory" in str(refusal)
                kind = NOT_APPLICABLE if large else UNDECIDED
                yield Outcome(trial.probe, "", trial.dtype, kind, None, why)
                return
            verdicts, outside = verdicts | found, outside | where
            if trial.probe is self.t.own or trial.probe is self.t.point:
                self.base = trial, found, where
        for name in trial.results:
            if name in verdicts:
                yield self._outcome(trial, name, verdicts[name], outside.get(name))

    def _native(self, trial: Trial) -> Results | None:
        """The reference in the dtype of the trial."""
        try:
            return self.t.truth(trial.inputs)
        except Exception as refusal:
            if self.t.reference:
                kind = findings.REFUSED_BY_REFERENCE
                self.t.not_judged(trial.probe, trial.dtype, kind, raised(refusal))
            else:  # the subject itself, which has answered before
                self.t.refused(trial.probe, trial.dtype, trial.inputs, refusal)
            return None

    def _settled(
        self, trial: Trial, names: Sequence[str], native: Results
    ) -> tuple[dict[str, Verdict], dict[str, np.ndarray]]:
        """Verdicts with all of the floor, and which elements are outside."""
        ours, *known = ({n: of[n] for n in names} for of in (trial.results, trial.truth, native))
        reference, call = only(names, self.t.truth), only(names, trial.call, trial.truth)
        floor = Floor(
            reference, trial.inputs, _floored(trial.dtype), known, once=self.t.once, looks=LOOKS
        )
        exact = self.excuses.exact if self.t.reference else None
        sides = self.excuses.sides(trial.inputs) if self.excuses.sides else None
        finer = only(names, self.t.call, trial.truth) if is_half(trial.dtype) else None
        verdicts = settle(
            floor,
            call,
            trial.inputs,
            ours,
            exact,
            finite=trial.derived,
            sides=sides,
            finer=finer,
            hopeless={n for n in names if self._hopeless(n)},
        )
        outside = {}
        for name, verdict in verdicts.items():
            if verdict.kind == DIFFERENT and not verdict.note:
                outside[name] = floor.margin(name, ours[name]) > 1
                if trial.derived:
                    outside[name] &= np.isfinite(floor.truth[name])
        return verdicts, outside

    def _outcome(
        self, trial: Trial, name: str, verdict: Verdict, outside: np.ndarray | None
    ) -> Outcome:
        ours, truth = trial.results[name], trial.truth[name]
        row = Outcome(trial.probe, name, trial.dtype, verdict.kind, verdict)
        if verdict.kind == IMPRECISE:
            lost = digits_lost(verdict, trial.dtype)
            return replace(row, why=Reason(findings.DIGITS_LOST, lost))
        if verdict.kind != DIFFERENT:
            if not self.t.reference and np.any(~np.isfinite(ours) & np.isfinite(truth)):
                return replace(row, kind=IMPRECISE, why=Reason(findings.OVERFLOWS))
            return replace(row, accepted=verdict.kind == CONVENTION)
        finding = self._finding(trial, name, outside)
        if outside is None:
            return replace(row, kind=self.t.wrong(finding), why=finding)
        if not self._hopeless(name):
            if excused := self._excused(trial, name, outside):
                kind, why = excused
                return replace(row, kind=kind, why=why)
            self.t.unexcused[name] += 1
        if (
            name in self.t.order
            and self.t.reference
            and is_convention(self.t, trial, name, outside)
        ):
            accepted = self.excuses.any_kink
            return replace(row, kind=CONVENTION, why=finding, accepted=accepted)
        kind = self.t.wrong(finding)
        accepted = finding.kind == findings.OUTSIDE and verdict.error <= self.excuses.allow
        accepted &= kind == DIFFERENT and self.excuses.allow > 0
        return replace(row, kind=kind, why=finding, accepted=accepted)

    def _hopeless(self, name: str) -> bool:
        """Whether nothing has excused this result, so that it is wrong whatever comes."""
        return self.t.unexcused[name] >= ASKED

    def _finding(self, trial: Trial, name: str, outside: np.ndarray | None) -> Finding:
        ours, truth = trial.results[name], trial.truth[name]
        if ours.shape != truth.shape:
            kind = findings.WRONG_SHAPE
        elif outside is None:
            kind = findings.WRONG_DTYPE
        else:
            finite = np.isfinite(ours[outside]).any()
            kind = findings.OUTSIDE if finite else findings.NOT_FINITE
        return self.t.finding(
            kind,
            trial.probe,
            name,
            trial.dtype,
            trial.inputs,
            ours=ours,
            truth=truth,
            outside=outside,
        )

    def _excused(self, trial: Trial, name: str, outside: np.ndarray) -> tuple[str, Reason] | None:
        """Class and reason of what is outside the floor and does not shrink with u, and not wrong
        nevertheless."""
        t = self.t
        if not is_floating(trial.results[name]):
            return self._as_chosen(trial, name)
        if trial.lay and t.reference:
            theirs = t.as_torch_lays(trial.lay(trial.inputs))[name]
            if theirs is not None and np.array_equal(theirs, trial.results[name], equal_nan=True):
                return NOT_APPLICABLE, Reason(findings.LAYOUT_MATTERS)
        if t.reference and is_half(trial.dtype):
            itself, ours = t.as_torch_in(trial.dtype, trial.inputs).get(name), trial.results[name]
            if itself is not None and np.array_equal(
                itself[outside], ours[outside], equal_nan=True
            ):
                return REFERENCE_IMPRECISE, Reason(findings.AS_ITSELF, trial.dtype)
        if t.reference and name in t.order and trial.dtype == "float64":
            direction = Direction(t.subject, trial.inputs, t.order.index(name), t.seed)
            vote = direction.vote(name, trial.results[name], trial.truth[name], outside)
            if vote and vote.alone == "reference":
                return REFERENCE_IMPRECISE, Reason(findings.TORCH_ALONE)
        if (lost := self._cut_off(trial, name, outside)) is not None:
            return IMPRECISE, Reason(findings.DIGITS_LOST, lost)
        if way := self._otherwise(trial, name, outside):
            return REFERENCE_IMPRECISE, Reason(findings.AS_COMPOSED, way)
        return None

    def _as_chosen(self, trial: Trial, name: str) -> tuple[str, Reason] | None:
        """An index, or another whole number, that torch chooses in this dtype as well: of numbers
        that are equal there, and not in float64."""
        if not self.t.reference or trial.dtype == "float64":
            return None
        t, half = self.t, is_half(trial.dtype)
        theirs = t.as_torch_in(trial.dtype, trial.inputs) if half else t.truth(trial.inputs)
        if name in theirs and np.array_equal(theirs[name], trial.results[name]):
            return REFERENCE_IMPRECISE, Reason(findings.AS_ITSELF, trial.dtype)
        return None

    def _cut_off(self, trial: Trial, name: str, outside: np.ndarray) -> float | None:
        """The digits that the subject loses to functions of torch which are cut off, where it would
        lose none to them as a whole."""
        try:
            with Whole():
                found = trial.call(trial.inputs)[name]
        except Exception:  # whatever the subject raises there is no excuse for it
            return None
        ours, truth = trial.results[name], trial.truth[name]
        if found is None or found.shape != ours.shape:
            return None
        gap, left = (difference(a, truth)[outside] for a in (ours, found))
        if not np.all(LIMIT * left < gap):
            return None
        return float(np.max(np.log10(gap / np.maximum(left, U * abs(truth[outside])))))

    def _otherwise(self, trial: Trial, name: str, outside: np.ndarray) -> str:
        """The way in which torch computes what the subject gives, if there is one. It is not asked
        where it is wrong already: each time costs a trace."""
        if self.t.unexcused.total() >= ASKED:
            return ""
        call, ours = only([name], trial.call, trial.truth), trial.results[name]
        distance = difference(ours, trial.truth[name])
        for what, way in self.excuses.ways.items():
            try:
                reference = only([name], way(self.t))
                other = reference(double(trial.inputs))[name]
                near = np.isfinite(other) & (difference(ours, other) < distance)
                if not near[outside].all():
                    continue
                floor = Floor(reference, trial.inputs, _floored(trial.dtype), looks=LOOKS)
                results = {name: ours}
                verdict = settle(floor, call, trial.inputs, results, finite=trial.derived)[name]
            except Exception:  # torch has no such way
                continue
            if verdict.margin <= 1:
                return what
        return ""


def hold_to_differences(t: Trials, trial: Trial) -> None:
    """Judges every gradient of a trial by differences of the subject's own forward."""
    probe, dtype, inputs = trial.probe, trial.dtype, trial.inputs
    for position, (name, x) in enumerate(zip(t.order, floating(inputs), strict=True)):
        if name in t.sample.constant or name not in trial.results:
            continue
        gradient = trial.results[name]
        if gradient.shape != x.shape or gradient.dtype != x.dtype:
            kind = findings.WRONG_SHAPE if gradient.shape != x.shape else findings.WRONG_DTYPE
            t.fail(kind, probe, name, dtype, inputs, ours=gradient)
            continue
        direction = Direction(t.subject, inputs, position, t.seed)
        found = direction.verdict(gradient, together=OWN not in probe.traits)
        if isinstance(found, str):
            t.not_judged(probe, dtype, findings.NO_DIFFERENCES, f"{name}: {found}")
            continue
        verdict, outside = found
        if verdict.kind != DIFFERENT:
            t.tried.append(Outcome(probe, name, dtype, verdict.kind, verdict))
            continue
        made = t.finding(
            findings.OUTSIDE, probe, name, dtype, inputs, ours=gradient, outside=outside
        )
        t.tried.append(Outcome(probe, name, dtype, t.wrong(made), verdict, made))


def repeat(t: Trials) -> None:
    """Whether both sides give the same again. Raises ValueError where the reference does not."""
    if not (base := t.beside or t.base):
        return
    inputs = double(base.inputs)
    found = [t.truth(inputs), t.truth(inputs)] if t.reference else []
    if not all(_identical(again, base.truth) for again in found):
        raise ValueError(
            "against: it gives different results when it is called again with the same "
            "arguments; expected a function that draws nothing at random"
        )
    try:
        results = dict(base.call(base.inputs))
        again = t.trial(base.probe, base.dtype, base.inputs, base.truth, results, base.call)
        t.random = not _identical(again.results, base.results)
    except Exception:  # it answers once only, which has failed already
        t.random = True


def vote(t: Trials) -> None:
    """Along one direction of each argument: subject, reference, and differences."""
    base = t.beside
    if not t.reference or not base or base.dtype != "float64":
        return
    for position, name in enumerate(t.order):
        ours, theirs = base.results.get(name), base.truth.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            continue
        direction = Direction(t.subject, base.inputs, position, t.seed)
        if found := direction.vote(name, ours, theirs):
            t.votes.append(found)


def _floored(dtype: str) -> Any:
    """The dtype as a floor wants it."""
    return dtype if is_half(dtype) else np.dtype(dtype)


def only(names: Sequence[str], function: Function, given: Results | None = None) -> Function:
    """The function with these of its results; 0 in the shape of the given where it has None."""

    def results(inputs: Any) -> Results:
        found = function(inputs)
        return {n: given[n] * 0 if given and found[n] is None else found[n] for n in names}

    return results


def digits_lost(verdict: Verdict, dtype: str) -> float:
    """Decimal digits of the worst element beyond those that one rounding loses."""
    gap = abs(verdict.manual - verdict.reference)
    if not gap or not math.isfinite(gap):
        return math.inf
    relative = min(gap / abs(verdict.reference), 1.0) if verdict.reference else 1.0
    return max(math.log10(relative / unit_roundoff(_floored(dtype))), 0.0)


def _identical(a: Results, b: Results) -> bool:
    return all(
        g is not None and np.array_equal(g, b[n], equal_nan=True) for n, g in a.items() if n in b
    )
