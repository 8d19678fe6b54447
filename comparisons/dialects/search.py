"""Which optimizer, dialect and settings a recorded trajectory was made by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import joblib
import numpy as np

from ...manual.dialects import DIALECTS
from .candidates import CLIPS, Candidate, candidates, run
from .facts import ELSEWHERE, OPTIMIZERS
from .forced import SOFT, Fit, by_signs, looked
from .groups import Tensor, as_groups
from .judged import Match, lost_state, moves_too_little, seen_by
from .settled import SHORT, STEPS, in_reach, part, reach, sensible, settled
from .trajectory import Trajectory

LOOK = 12  # steps of a first look
LOOKED = 24  # elements of a first look
KEPT = 10  # candidates that are followed, of those that a first look found nearest
UNEVEN = 100.0  # what a bend of the logarithm by 1 counts, in its own distance
ALIKE = 5  # of these in one tier, of the same optimizer
HOPELESS = 30  # times the distance of the nearest, from which a candidate is dropped
MOST_DIALECTS = 3  # in one candidate
# In turn: how many dialects, behind which clip, and of how many optimizers, the nearest so far.
TIERS = [
    (0, None, None),
    (1, None, None),
    (2, None, 10),
    *((spoken, clip, 10) for spoken in (0, 1) for clip in CLIPS),
    (MOST_DIALECTS, None, 6),
]
# Seconds after which nothing more is begun: for one optimizer, and for all.
BUDGET, EACH_BUDGET = 150.0, 20.0


@dataclass(frozen=True)
class Answer:
    """What made a record, or comes nearest: of each tensor, in groups of one candidate."""

    tensors: tuple[Tensor, ...]

    @property
    def match(self) -> Match:
        """That of the tensor with the most elements, or of the first that leaves."""
        wrong = [t.match for t in self.tensors if not t.match.reproduced and not t.still]
        return wrong[0] if wrong else self.tensors[0].match

    @property
    def reproduced(self) -> bool:
        return all(t.match.reproduced or t.still for t in self.tensors)

    @property
    def groups(self) -> list[list[Tensor]]:
        return as_groups(self.tensors)

    def digits(self) -> int:
        return sum(group[0].match.candidate.digits() for group in self.groups)


@dataclass
class Clock:
    """Whether there is time left, and what was not tried for want of it: something always is. It
    counts what this process computes; with others beside it, what time goes by."""

    budget: float
    time: Callable[[], float] = time.process_time
    began: float = field(init=False)
    skipped: int = 0

    def __post_init__(self) -> None:
        self.began = self.time()

    @property
    def over(self) -> bool:
        return self.time() - self.began > self.budget

    @property
    def nearly(self) -> bool:
        """Whether it is time to look closer at what was found."""
        return self.time() - self.began > 0.7 * self.budget


def search(
    record: Trajectory,
    jobs: int = 1,
    names: Sequence[str] = tuple(OPTIMIZERS),
    budget: float | None = None,
) -> tuple[list[Answer], Clock]:
    """What reproduces the record, the plainest first; else the nearest. And the clock, which says
    whether the time was enough for all.

    Settings are found on the tensor with the most elements: without dialects, and then with one,
    two and three at a time, and behind clips of the gradient, until something follows it. Every
    other tensor is then given the same settings, no decay, another rate or what else it needs.
    """
    if budget is None:
        budget = min(BUDGET, EACH_BUDGET * len(names))
    clock = Clock(budget, time.process_time if jobs == 1 else time.monotonic)
    order = sorted(range(len(record.tensors)), key=lambda i: -record.tensors[i][0].size)
    record = replace(record, norms=record.all_norms())
    moving = [i for i in order if np.ptp(record.tensors[i][0], axis=0).any()] or order
    first = record.tensor(moving[0])
    with joblib.Parallel(n_jobs=jobs) as side_by_side:
        matches = _first(first, names, clock, side_by_side)
    rest = [i for i in order if i != moving[0]]
    answers = []
    for match in matches[: KEPT if len(rest) else None]:
        tensors = [Tensor(first.names[0], match)]
        tensors += [Tensor.of(record.tensor(i), match, i in moving) for i in rest]
        answers.append(Answer(tuple(tensors)))
    if rest and not any(a.reproduced for a in answers):
        answers[0] = _alone(record, answers[0], names, clock, jobs)
    answers.sort(key=lambda a: (not a.reproduced, a.digits()))
    if not answers[0].reproduced:
        return answers[:1], clock
    return [a for a in answers if a.reproduced], clock


def _alone(
    record: Trajectory, answer: Answer, names: Sequence[str], clock: Clock, jobs: int
) -> Answer:
    """The answer, where tensors that nothing of the first explains are looked at for themselves,
    one of each number of axes; what explains one of them is tried on the others."""
    index = {name: i for i, name in enumerate(record.names)}
    axes = {t.name: record.tensors[index[t.name]][0].ndim for t in answer.tensors}
    first = answer.tensors[0]
    seen = set() if first.match.reproduced else {axes[first.name]}
    tensors = list(answer.tensors)
    with joblib.Parallel(n_jobs=jobs) as side_by_side:
        for tensor in answer.tensors[1:]:
            now = tensors[answer.tensors.index(tensor)]
            if now.match.reproduced or now.still or axes[now.name] in seen or clock.over:
                continue
            seen.add(axes[now.name])
            own = _first(record.tensor(index[now.name]), names, clock, side_by_side)[0]
            if own.reproduced and own.candidate.plain():
                by_own = [
                    t if t.still else Tensor.of(record.tensor(index[t.name]), own, moves=True)
                    for t in tensors
                ]
                if Answer(tuple(by_own)).reproduced:
                    return Answer(tuple(by_own))
                tensors = [
                    one if one.match.reproduced and not t.match.reproduced else t
                    for t, one in zip(tensors, by_own, strict=True)
                ]
    return Answer(tuple(tensors))


def _first(
    record: Trajectory, names: Sequence[str], clock: Clock, side_by_side: joblib.Parallel
) -> list[Match]:
    """What reproduces one tensor, the plainest first; else the nearest."""
    nearest: list[Match] = []
    found: list[Match] = []
    distances: dict[str, float] = {}
    for spoken, clip, kept in TIERS:
        if clock.over and (found or nearest):
            clock.skipped += 1
            continue
        ranked = sorted(names, key=lambda n: distances.get(n, math.inf))[:kept]
        tier = _candidates(record, spoken, ranked, clip)
        matches = _tier(record, tier, distances, clock, side_by_side)
        before = bool(found)
        told = [m for m in matches if m.candidate.rate is None or m.candidate.rate.known]
        far = max((m.leaves - 1 for m in told if m.leaves), default=0)
        if far >= SHORT and not found:  # it is this one, and something happened on the way
            names = [n for n in names if any(_reaches(m, n, far) for m in told)]
            best = lost_state(_plainest(told), record)
            if best.again:
                return [best]
        found += [m for m in matches if m.reproduced]
        nearest += [m for m in matches if not m.reproduced]
        unseen = [m for m in matches if m.unseen]
        if unseen and moves_too_little(record):  # then others look no better
            return unseen[:1]
        if before or any(m.candidate.plain() for m in found):
            break
    if not found:
        if not nearest:
            raise ValueError("optimizer: expected one that may take the record's steps")
        return [lost_state(sensible(_plainest(nearest), record), record)]
    found.sort(key=lambda m: _order(m.candidate))
    found = [m for m in found if _worth_it(m.candidate, found[0].candidate)]
    distinct = {
        run(m.candidate, seen_by(m.candidate, record)).tobytes(): m for m in reversed(found)
    }
    return list(reversed(distinct.values()))


def _reaches(match: Match, name: str, steps: int) -> bool:
    return match.candidate.optimizer == name and (match.leaves or 0) > steps // 2


def _plainest(matches: list[Match]) -> Match:
    """Of those that go furthest, and are off by at most twice the least there, the plainest."""
    best = max(matches, key=reach)
    alike = [m for m in matches if m.leaves == best.leaves and m.off <= 2 * best.off]
    return min(alike, key=lambda m: (m.candidate.rate is not None, m.candidate.digits()))


def uneven(rates: np.ndarray) -> float:
    """How little the rates of the first steps look like a schedule: of those that explain as much
    with a rate for each step, the one whose rates are even is looked at first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bends = abs(np.diff(np.log(rates), 2))
    bends = bends[np.isfinite(bends)]
    return UNEVEN * float(np.median(bends)) if bends.size else 0.0


def _look(record: Trajectory, candidate: Candidate) -> Trajectory:
    return part(record, candidate, STEPS if by_signs(candidate) else LOOK, LOOKED)


def _order(candidate: Candidate) -> tuple[int, ...]:
    """By what has to be said; torch's own before others, dialects as they stand in the list."""
    elsewhere = candidate.optimizer in ELSEWHERE
    return (candidate.digits(), elsewhere, *map(DIALECTS.index, candidate.dialects))


def _worth_it(candidate: Candidate, best: Candidate) -> bool:
    """Whether it says something beside the best: as plain, or the same otherwise written. Every
    optimizer is also the limit of others, at settings that nobody writes."""
    written = all(in_reach(candidate, c) for c in candidate.free)
    if candidate == best or (candidate.plain() and written):
        return True
    same_rate = (candidate.rate and candidate.rate.shape) == (best.rate and best.rate.shape)
    one, other = set(candidate.dialects), set(best.dialects)
    return candidate.optimizer == best.optimizer and same_rate and (one <= other or other <= one)


def _candidates(
    record: Trajectory, spoken: int, names: Sequence[str], clip: str | None
) -> list[Candidate]:
    """Those with so many dialects; what torch does not have counts as one."""
    theirs = [n for n in names if n not in ELSEWHERE]
    others = [n for n in names if n in ELSEWHERE]
    found = list(candidates(record, spoken, theirs, clip))
    if spoken:
        found += candidates(record, spoken - 1, others, clip)
    return found


def _tier(
    record: Trajectory,
    tier: list[Candidate],
    distances: dict[str, float],
    clock: Clock,
    side_by_side: joblib.Parallel,
) -> list[Match]:
    fits: list[tuple[Fit, str]] = []
    for some in range(0, len(tier), 32):
        if clock.nearly and fits:
            clock.skipped += len(tier) - some
            break
        # What is three times as far off as the best so far, at the first look, is left at that.
        near = min((f.distance for f, _ in fits), default=math.inf)
        fits += side_by_side(
            joblib.delayed(looked)(c, _look(record, c), max(0.1, 3 * SOFT[1] / SOFT[0] * near))
            for c in tier[some : some + 32]
        )
    fits.sort(key=lambda pair: pair[0].distance * (1 + uneven(pair[0].rates)))
    for fit, _ in reversed(fits):
        name = fit.candidate.optimizer
        distances[name] = min(fit.distance, distances.get(name, math.inf))
    limit = HOPELESS * fits[0][0].distance if fits else 0.0
    best: list[tuple[Fit, str]] = []
    for pair in fits:
        alike = [p for p in best if p[0].candidate.optimizer == pair[0].candidate.optimizer]
        if len(best) < KEPT and len(alike) < ALIKE and pair[0].distance <= limit:
            best.append(pair)
    matches: list[Match] = []
    for fit, how in best:
        if clock.over and matches:
            clock.skipped += 1
            continue
        matches.append(settled(fit.candidate, record, how))
    return matches
