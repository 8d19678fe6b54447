"""Which optimizer, dialect and settings a recorded trajectory was made by."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from scipy.optimize import least_squares

from ...manual.dialects import DIALECTS
from ..ops import optimizers
from ..verdict.classes import LIMIT
from ..verdict.drift import RUNS, free_drift, trajectory_scale
from ..verdict.noise import moved, unit_roundoff
from .candidates import BOUNDS, OPTIMIZERS, RARE, Candidate, candidates, run
from .trajectory import Trajectory

PREFIXES = (2, 4)  # steps that a first look fits the settings to, in turn
# Then the best are fitted to more: number of steps → number of candidates.
ROUNDS = {8: 16, 16: 10, 32: 6}
ELEMENTS = 64  # recorded elements that settings are fitted to
EVALUATIONS = 30
MOST_DIALECTS = 3  # in one candidate
HOPELESS = 1e4  # times the distance of the nearest, from which a candidate is dropped

# Where else to start than at the defaults: an ε that is seen, a memory of a few steps.
STARTS: list[dict[str, Any]] = [
    {},
    {"eps": 1e-4},
    {"eps": 1e-4, "betas": (0.5, 0.7), "rho": 0.5, "alpha": 0.5},
]


def fit(candidate: Candidate, record: Trajectory, rough: bool = False) -> tuple[Candidate, float]:
    """The candidate with those open settings that bring its free run nearest to the record, and how
    far that is: the root mean square over all steps and elements.

    A difference is measured in units of rounding of the parameter. Rough, it is taken between the
    inverse hyperbolic sines of the two ways from the start, in that unit: where both are long, that
    is the logarithm of their ratio, which guides a search from far away.
    """
    double = record.double()
    target = double.parameters()
    unit = unit_roundoff(record.dtype) * trajectory_scale(target)
    start = np.concatenate([p[0].ravel() for p, _ in double.tensors])
    way = np.arcsinh((target - start) / unit)

    def at(x: np.ndarray) -> Candidate:
        return candidate.moved([c.back(v) for c, v in zip(candidate.free, x.tolist(), strict=True)])

    def residual(x: np.ndarray) -> np.ndarray:
        try:
            found = run(at(x), double)
        except (ValueError, OverflowError, ZeroDivisionError):
            found = np.full(target.shape, math.inf)
        apart = np.arcsinh((found - start) / unit) - way if rough else (found - target) / unit
        return np.clip(np.nan_to_num(apart, nan=1e20), -1e20, 1e20).ravel()

    x = np.array([c.there(c.of(candidate.settings)) for c in candidate.free])
    # What diverged is as far off as can be said, and of what is reached no slope is left.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if len(x):
            x = least_squares(
                residual,
                x,
                bounds=tuple(np.transpose([BOUNDS[c.kind] for c in candidate.free])),
                x_scale="jac",
                xtol=1e-15,
                ftol=1e-10 if rough else 1e-15,
                gtol=None,
                diff_step=1e-5,  # NAdam and ASGD round to float32 on their way
                max_nfev=EVALUATIONS if rough else 2 * EVALUATIONS,
            ).x
        return at(x), float(np.sqrt(np.mean(residual(x) ** 2)))


def looked(candidate: Candidate, record: Trajectory) -> tuple[Candidate, float]:
    """A first look: the best of all starts."""
    starts = [_from(candidate, start) for start in STARTS]
    found = []
    for i, settings in enumerate(starts):
        if settings in starts[:i]:
            continue
        tried, distance = replace(candidate, settings=settings), math.inf
        for steps in PREFIXES:
            tried, distance = fit(tried, _part(record, tried, steps), rough=True)
        found.append((tried, distance))
    return min(found, key=_distance)


def _from(candidate: Candidate, start: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the candidate, with the open ones from that start, if it has them."""
    settings = dict(candidate.settings)
    for c in candidate.free:
        value = start.get(c.setting)
        if isinstance(value, tuple):
            settings = c.into(settings, value[c.index or 0])
        elif value is not None and not c.index:
            settings = c.into(settings, value)
    return settings


def _part(record: Trajectory, candidate: Candidate, steps: int) -> Trajectory:
    """What settings are fitted to: some elements, unless the optimizer looks at the whole."""
    first = record.first(steps)
    return first.flat(ELEMENTS) if _elementwise(candidate) else first


def _elementwise(candidate: Candidate) -> bool:
    return optimizers.named(candidate.optimizer).facts.elementwise


@dataclass(frozen=True)
class Match:
    """A candidate, fitted: how far its run is from the record, in floors, up to where it leaves."""

    candidate: Candidate
    ratio: float  # the largest drift / floor, over the steps before it leaves
    leaves: int | None  # the first step, from 1, beyond its limit


def judged(candidate: Candidate, record: Trajectory) -> Match:
    """The candidate's free run beside the record, against how far one ulp of noise drives it."""
    whole = record.flat() if _elementwise(candidate) else record
    u = unit_roundoff(record.dtype)
    rngs = map(np.random.default_rng, range(RUNS))
    clean = run(candidate, whole)
    noisy = [run(candidate, whole, functools.partial(moved, size=2 * u, rng=r)) for r in rngs]
    target = whole.parameters()
    drift = free_drift(target, clean, np.array(noisy), u, trajectory_scale(target))
    lost = np.isfinite(target) & ~np.isfinite([clean, *noisy]).all(axis=0)
    beyond = np.flatnonzero((drift.ratio > LIMIT) | lost.any(axis=1))
    leaves = int(beyond[0]) + 1 if beyond.size else None
    before = drift.ratio[: None if leaves is None else leaves - 1]
    return Match(candidate, float(before.max(initial=0)), leaves)


def longer(candidate: Candidate, record: Trajectory, steps: int) -> tuple[Candidate, float]:
    """The candidate, fitted to so many steps: from its settings, and with those that hardly matter
    set to each of the starts."""
    part = _part(record, candidate, steps)
    starts = [settled(candidate, part, start) for start in STARTS]
    fits = [fit(s, part, rough=True) for i, s in enumerate(starts) if s not in starts[:i]]
    return min(fits, key=_distance)


def _distance(pair: tuple[Candidate, float]) -> float:
    return pair[1]


def followed(candidate: Candidate, record: Trajectory) -> Match:
    """The candidate, fitted to as many steps as it can follow."""
    found = []
    for steps in (max(ROUNDS), min(ROUNDS)):
        match = _exactly(candidate, record, steps)
        while match.leaves and match.leaves > steps:
            steps = match.leaves
            further = _exactly(match.candidate, record, steps)
            if further.leaves and further.leaves <= match.leaves:
                break
            match = further
        if match.leaves is None:
            return match
        found.append(match)
    return max(found, key=_reach)


def _reach(match: Match) -> tuple[float, float]:
    return (math.inf if match.leaves is None else match.leaves, -match.ratio)


def _exactly(candidate: Candidate, record: Trajectory, steps: int) -> Match:
    """The candidate, fitted to so many steps to the last digit."""
    part = _part(record, candidate, steps)
    candidate, _ = fit(without(settled(candidate, part, {}), part), part)
    return judged(snapped(candidate, part), record)


def settled(candidate: Candidate, record: Trajectory, start: Mapping[str, Any]) -> Candidate:
    """The candidate, with every setting put back to where it usually starts unless the fit needs it
    elsewhere: one that ran away cannot come back where it has no effect."""
    usual = _from(candidate, {**optimizers.named(candidate.optimizer).defaults, **start})

    def distance(of: Candidate) -> float:
        return fit(replace(of, free=()), record, rough=True)[1]

    so_far = distance(candidate)
    for c in candidate.free:
        back = replace(candidate, settings=c.into(candidate.settings, c.of(usual)))
        if (further := distance(back)) <= 1.1 * so_far:
            candidate, so_far = back, further
    return candidate


def without(candidate: Candidate, record: Trajectory) -> Candidate:
    """The candidate, without those settings that are usually 0 and that the fit can do without."""
    candidate, distance = fit(candidate, record, rough=True)
    for c in candidate.free:
        if c.setting in RARE:
            open_ = tuple(other for other in candidate.free if other != c)
            none = replace(candidate, settings=c.into(candidate.settings, 0.0), free=open_)
            try:
                tried, further = fit(none, record, rough=True)
            except ValueError:
                continue
            if further <= 1.1 * distance:
                candidate, distance = tried, further
    return candidate


def snapped(candidate: Candidate, record: Trajectory) -> Candidate:
    """The candidate, with settings of the fewest digits, all together, that are no further off."""
    _, distance = fit(replace(candidate, free=()), record)
    for digits in range(10):
        values = [float(f"{c.of(candidate.settings):.{digits}e}") for c in candidate.free]
        tried = candidate.moved(values)
        if fit(replace(tried, free=()), record)[1] <= distance:
            return tried
    return candidate


def rounded(match: Match, record: Trajectory) -> Match:
    """The same with the roundest settings that reproduce the record, the default before others."""
    usual = optimizers.named(match.candidate.optimizer).defaults
    steps = max(ROUNDS)
    for coordinate in match.candidate.free:
        value = coordinate.of(match.candidate.settings)
        zero = {coordinate.setting: 0.0} if coordinate.setting in RARE else usual
        tries = [coordinate.of(zero), *(float(f"{value:.{d}e}") for d in range(16))]
        for number in dict.fromkeys(tries):
            candidate = match.candidate
            open_ = tuple(c for c in candidate.free if c != coordinate)
            settings = coordinate.into(candidate.settings, number)
            tried = replace(candidate, settings=settings, free=open_)
            try:
                tried, _ = fit(tried, _part(record, tried, steps))
                found = judged(tried, record)
            except ValueError:
                continue
            if found.leaves is None:
                match = found
                break
    return match


def search(
    record: Trajectory, jobs: int = 1, names: Sequence[str] = tuple(OPTIMIZERS)
) -> list[Match]:
    """What reproduces the record, the plainest first; else the nearest.

    First without dialects, and then with one, two and three at a time, until something does. What
    makes the same run, bit by bit, is one.
    """
    tried: list[Match] = []
    with joblib.Parallel(n_jobs=jobs) as side_by_side:
        for spoken in range(MOST_DIALECTS + 1):
            tier = list(candidates(record.first(max(ROUNDS)), spoken, names))
            found = side_by_side(joblib.delayed(looked)(c, record) for c in tier)
            names = tuple(dict.fromkeys(c.optimizer for c in _nearest(found, max(ROUNDS.values()))))
            for steps, kept in ROUNDS.items():
                best = _nearest(found, kept)
                found = side_by_side(joblib.delayed(longer)(c, record, steps) for c in best)
            best = _nearest(found, kept)
            matches = side_by_side(joblib.delayed(followed)(c, record) for c in best)
            if right := [m for m in matches if m.leaves is None]:
                right = side_by_side(joblib.delayed(rounded)(m, record) for m in right)
                break
            tried += matches
        else:
            return [max(tried, key=_reach)]
    right.sort(key=lambda m: (m.candidate.digits(), *map(DIALECTS.index, m.candidate.dialects)))
    distinct = {run(m.candidate, record.first(steps)).tobytes(): m for m in reversed(right)}
    return list(reversed(distinct.values()))


def _nearest(found: list[tuple[Candidate, float]], kept: int) -> list[Candidate]:
    """So many of the nearest, but none that is out of all proportion to the first."""
    nearest = sorted(found, key=_distance)[:kept]
    return [c for c, distance in nearest if distance <= HOPELESS * nearest[0][1]]
