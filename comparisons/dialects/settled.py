"""A candidate's settings to the last digit, then the roundest of them, and its verdict."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np

from ...reference.adapters import AMOUNT, SCALE, SHARE
from ..verdict.classes import LIMIT
from ..verdict.noise import unit_roundoff
from .candidates import CLIPS, PLAIN, RARE, Candidate, Coordinate, coordinates
from .forced import EACH, FALLING, GIVEN, ONE, RELATIVE, Fit, Problem, fitted, linearity, usual
from .judged import Match, judged
from .rates import UNKNOWN, Rate, recognised, same
from .trajectory import Trajectory

ELEMENTS = 64  # recorded elements that settings are fitted to
STEPS = 200  # the first steps that they are fitted to, at most
SHORT = 16  # steps that are tried first: one who leaves later is fitted to what it follows
# Times the noise of a step: what is further off on what it was fitted to is not it. Right ones come
# to at most 2 (tests/trajectories).
FAR = 64.0
CLOSE = 1e-3  # share of a setting, by which it is taken for a shorter one if that is no worse
BOLD = 100.0
EPS = {"eps", "eps_root"}
FEWEST = 4  # steps that a schedule is recognised by, at least
SHARP = 4.0  # roundings of one step
# Between what settings of the nearest are shown, as their coordinates go: sizes from 1e-12 to 1,
# shares up to 0.9999, amounts up to 1.
SENSIBLE = {SCALE: (math.log(1e-12), 0.0), SHARE: (0.0, -math.log(1e-4)), AMOUNT: (0.0, 1.0)}


def part(
    record: Trajectory, candidate: Candidate, steps: int, elements: int = ELEMENTS
) -> Trajectory:
    """What settings are fitted to: some elements, unless the optimizer looks at the whole."""
    first = record.first(steps)
    return first.flat(elements) if candidate.elementwise else first


def settled(candidate: Candidate, record: Trajectory, how: str) -> Match:
    """The candidate, fitted to as many steps as it can follow."""
    best: Match | None = None
    lengths = [min(SHORT, record.steps), min(STEPS, record.steps)]
    for steps in dict.fromkeys(lengths):
        match = _to(candidate, record, how, steps)
        if math.isinf(match.off) or (match.leaves or SHORT) <= SHORT // 2:
            return match
        if match.leaves is not None and match.leaves > steps + 1:
            further = _to(match.candidate, record, how, min(match.leaves - 1, STEPS))
            match = _further(match, further)
        if match.leaves is None:
            return match
        best = _further(best, match)
    assert best is not None
    return best


def _further(one: Match | None, other: Match) -> Match:
    """The other, if it goes further: the first is the rounder."""
    if one is None or (one.leaves or math.inf) < (other.leaves or math.inf):
        return other
    return one


def reach(match: Match) -> tuple[float, float, float]:
    """How far a match goes."""
    return (math.inf if match.leaves is None else match.leaves, -match.off, -match.ratio)


def _to(candidate: Candidate, record: Trajectory, how: str, steps: int) -> Match:
    u = unit_roundoff(record.dtype)
    known: list[tuple[Fit, Problem, str]] = []
    any_rate: list[tuple[Fit, Problem, str]] = []
    matches: list[Match] = []
    for relative in (RELATIVE * u, SHARP * u):
        problem = Problem(part(record, candidate, steps), relative)
        fit = fitted(candidate, problem, how, (relative,))
        if fit.distance > FAR:
            fit = min([fit, *_from_zero(fit, problem, how)], key=lambda f: f.distance)
        fit = _at_rest(fit, problem, how)
        rated = _rated(fit, record, how, relative)
        if fit.distance > FAR:
            matches.append(tried(rated[0][0] if rated else fit.candidate, record))
            break
        for found, way in rated:
            open_ = (*found.free, *(c for c in candidate.free if c not in found.free))
            found = replace(
                found, free=tuple(c for c in open_ if c.setting != "lr" or not found.rate)
            )
            whole = fitted(found, problem, way, (relative,))
            if found.rate and not found.rate.known:
                any_rate.append((whole, problem, way))
                continue
            for one in (whole, *_from_zero(whole, problem, way)):
                known.append((one, problem, way))
                match = tried(rounded(one, problem, way), record)
                if _unquestioned(match):
                    return match
                matches.append(match)
    plain = [m for m in matches if m.leaves is None and m.candidate.plain()]
    if plain:
        return min(plain, key=_said)
    for several in (known, any_rate):
        for fit, problem, way in several:
            matches += _less_round(fit, problem, way, record)
            right = [m for m in matches if m.leaves is None]
            if right:
                return min(right, key=_said)
    return functools.reduce(_further, matches, Match(candidate, math.inf, 1, 0.0, math.inf))


def _at_rest(fit: Fit, problem: Problem, how: str) -> Fit:
    """The fit without what is usually 0 and may be: with a rate for each step there are settings,
    as a dampening, that go with the rates, and would hide what schedule they are of."""
    rare = tuple(c for c in fit.candidate.free if c.setting in RARE)
    if how != EACH or not rare:
        return fit
    settings = rounded(fit, problem, how, only=rare).settings
    still = {c for c in rare if c.of(settings) == 0}
    free = tuple(c for c in fit.candidate.free if c not in still)
    zero = fit.candidate
    for c in still:
        zero = replace(zero, settings=c.into(zero.settings, 0.0))
    return fitted(replace(zero, free=free), problem, how, (problem.soft,)) if still else fit


def _unquestioned(match: Match) -> bool:
    """Whether it is plain and within one floor: what is further off may yet be a little other."""
    return match.leaves is None and match.ratio <= 1 and match.candidate.plain()


def _said(match: Match) -> tuple[bool, int]:
    """Of those that follow, first what is within one floor, then what is shortest."""
    return (match.ratio > 1, match.candidate.digits())


def _less_round(fit: Fit, problem: Problem, how: str, record: Trajectory) -> list[Match]:
    """Where rounding is worse than single steps show: as round as the verdict allows."""
    several = (
        rounded(fit, problem, how),
        rounded(fit, problem, how, BOLD * LIMIT),
        written_short(fit.candidate),
        fit.candidate,
    )
    return [tried(candidate, record) for candidate in several]


def _from_zero(fit: Fit, problem: Problem, how: str) -> list[Fit]:
    """The fit, if there is one, where ε is an amount: the logarithm of one that is too small to
    have an effect has no slope, by which it would come to one that has."""
    free = fit.candidate.free
    amounts = tuple(replace(c, kind=AMOUNT) if c.setting in EPS else c for c in free)
    if amounts == free:
        return []
    found = fitted(replace(fit.candidate, free=amounts), problem, how, (problem.soft,))
    return [fitted(replace(found.candidate, free=free), problem, how, (problem.soft,), 3)]


def tried(candidate: Candidate, record: Trajectory, plain: bool = True) -> Match:
    """The verdict; of settings that the optimizer refuses, that the first step leaves. Plain, what
    has no decay is not called one of decoupled decay."""
    try:
        return judged(_plain_decay(candidate) if plain else candidate, record)
    except (ValueError, ArithmeticError):
        return Match(candidate, math.inf, 1, 0.0, math.inf)


def _plain_decay(candidate: Candidate) -> Candidate:
    """Where there is no decay, it is not a decoupled one."""
    settings = dict(candidate.settings)
    if settings.get("weight_decay") == 0.0:
        settings.pop("decoupled_weight_decay", None)
    return replace(candidate, settings=settings)


def in_reach(candidate: Candidate, c: Coordinate) -> bool:
    """Whether that setting is one that people write."""
    low, high = SENSIBLE[c.kind]
    return low <= c.there(c.of(candidate.settings)) <= high


def sensible(match: Match, record: Trajectory) -> Match:
    """What is nearest, with settings of two digits, and the defaults for what lies out of reach: no
    more is known of one that is not it."""
    if match.leaves is None or match.leaves > SHORT:
        return match
    candidate = match.candidate
    for c in candidate.free:
        default, value = usual(candidate, c), c.of(candidate.settings)
        if not in_reach(candidate, c) and default is not None:
            value = default
        else:
            tries = _round(value, c.kind)
            value = tries[2 if c.kind == SHARE and 0.5 < value < 1 else 1]
        settings = c.into(candidate.settings, value)
        candidate = replace(candidate, settings=settings)
    if not candidate.rate and record.lr is None and linearity(candidate) != "no":
        problem = Problem(part(record, candidate, min(SHORT, record.steps)), 0.03)
        lr = float(problem.solved([candidate], ONE)[1][0, 0])
        if math.exp(SENSIBLE[SCALE][0]) < lr <= 1:
            candidate = replace(
                candidate, settings={**candidate.settings, "lr": float(f"{lr:.1e}")}
            )
    found = tried(candidate, record)
    return found if found.leaves is not None else match


def _rated(fit: Fit, record: Trajectory, how: str, relative: float) -> list[tuple[Candidate, str]]:
    """The candidate with what its rates may be: one, a schedule, or each on its own."""
    candidate = fit.candidate
    if how == GIVEN:
        return [(candidate, GIVEN)]
    if fit.distance > FAR:
        how = ONE
    one = Coordinate("lr", None, SCALE)
    if how == ONE:
        lr = float(np.median(fit.rates))
        settings = {**candidate.settings, "lr": lr if lr > 0 else 1e-30}
        return [(replace(candidate, settings=settings, free=(one, *candidate.free)), GIVEN)]
    problem = Problem(part(record, candidate, record.steps), relative)
    (found,), (rates,), (unsure,) = problem.solved([candidate], EACH)
    apart = (abs(found - problem.moves) > FAR * problem.noise).any(axis=1)
    good = int(np.argmax(apart)) if apart.any() else len(rates)  # steps before it parts
    if good < FEWEST:
        return _rated(fit, record, ONE, relative)
    rates, unsure = rates[:good], unsure[:good]
    # What a step's rounding of its own adds.
    unsure = np.hypot(unsure, relative * abs(rates)) * max(1.0, fit.distance)
    if not np.isfinite(rates).all():
        return []
    known = np.isfinite(unsure)
    lr = float(np.average(rates[known], weights=unsure[known] ** -2.0)) if known.any() else 0.0
    constant = {**candidate.settings, "lr": lr if lr > 0 else 1e-30}
    falling = tuple(c for c in coordinates(candidate.optimizer) if c.setting == FALLING)
    free = (one, *falling, *(c for c in candidate.free if c not in falling))
    options = [(replace(candidate, settings=constant, free=free), GIVEN)]
    if known.all() and not same(rates, unsure):
        rates = np.maximum(rates, 0.0)
        rate = recognised(rates, unsure)
        values = (*rates.tolist(), *[float(rates[-1])] * (record.steps - good))
        own = Rate(UNKNOWN, {"values": values})
        schedule = [rate] if rate else []
        options = [(replace(candidate, rate=r), GIVEN) for r in [*schedule, own]] + options
    return options


def rounded(
    fit: Fit,
    problem: Problem,
    how: str,
    limit: float = LIMIT,
    only: tuple[Coordinate, ...] | None = None,
) -> Candidate:
    """The candidate with the roundest settings, one after another, that are within `limit` standard
    errors, while the others are fitted anew: 0 where that is usual, then the default, then others
    of few digits. Or those of them that are named `only`."""
    open_ = sorted(
        fit.candidate.free if only is None else only,
        key=lambda c: (c.setting not in RARE, c.setting not in CLIPS),
    )
    now = fit
    for coordinate in open_:
        errors = dict(zip(now.candidate.free, now.errors.tolist(), strict=True))
        value = coordinate.of(now.candidate.settings)
        x, within = coordinate.there(value), limit * errors[coordinate]
        default = usual(now.candidate, coordinate)
        zero = [0.0] if coordinate.setting in RARE else []
        tries = [*zero, *([] if default is None else [default]), *_round(value, coordinate.kind)]
        for shorter in dict.fromkeys(tries):
            off = abs(coordinate.there(shorter) - x)
            if math.isinf(within) or off <= within:
                settings = coordinate.into(now.candidate.settings, shorter)
                rest = tuple(c for c in now.candidate.free if c != coordinate)
                fixed = replace(now.candidate, settings=settings, free=rest)
                now = fitted(fixed, problem, how, (problem.soft,), 3)
                break
        else:
            rest = tuple(c for c in now.candidate.free if c != coordinate)
            now = replace(
                now,
                candidate=replace(now.candidate, free=rest),
                errors=np.array([errors[c] for c in rest]),
            )
    return replace(now.candidate, free=fit.candidate.free)


def written_short(candidate: Candidate) -> Candidate:
    """With two digits of every open setting that is as good as that: a library that rounds 1 − lr λ
    to float32 has another λ than it was given."""
    settings = candidate.settings
    for c in candidate.free:
        value = c.of(settings)
        lacks = 1 - value if c.kind == SHARE and 0.5 < value < 1 else value
        short = float(f"{lacks:.{PLAIN - 1}e}")
        if abs(short - lacks) <= CLOSE * abs(lacks):
            settings = c.into(settings, float(f"{1 - short:.12g}") if lacks != value else short)
    return replace(candidate, settings=settings)


def _round(value: float, kind: str) -> list[float]:
    """The number in ever more digits; a share also by what it lacks to 1."""
    found = []
    for d in range(12):
        if kind == SHARE and 0.5 < value < 1:
            found.append(float(f"{1 - float(f'{1 - value:.{d}e}'):.12g}"))
        found.append(float(f"{value:.{d}e}"))
    return found


def opened(candidate: Candidate, names: set[str] | None = None) -> Candidate:
    """The candidate with its settings of those names open, or all of them."""
    free = tuple(
        c
        for c in coordinates(candidate.optimizer)
        if (names is None or c.setting in names) and (c.setting != "lr" or candidate.rate is None)
    )
    return replace(candidate, free=free)
