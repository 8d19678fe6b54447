"""Settings from single steps: each from the parameters that were recorded before it.

A step of nearly every optimizer is linear in its rate, which is solved for: one for all steps, or
one for each of them, so that a schedule that nobody wrote down hides nothing. What is left is
looked for by Levenberg and Marquardt's method, from the nearest points of a coarse grid.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...manual import dialects
from ..verdict.drift import trajectory_scale
from ..verdict.noise import unit_roundoff
from .candidates import CLIPS, Candidate, Coordinate, clipped, rates_of
from .facts import defaults
from .trajectory import Trajectory

ALIKE = 1e-8  # share of their effect, in which two settings that do the same differ by slopes taken
ONE, EACH, GIVEN = "one rate", "a rate for each step", "given"
# Where a search begins: every combination of these, and of the defaults.
GRID: dict[str, list[Any]] = {
    "betas": [(0.9, 0.999), (0.9, 0.9), (0.95, 0.98), (0.5, 0.7), (0.9, 0.99), (0.8, 0.95)],
    "eps": [1e-8, 1e-4, 1e-2, (1e-4, 1e-3), (1e-8, 1e-3)],
    "eps_root": [1e-16, 1e-8, 1e-5],
    "momentum": [0.0, 0.9, 0.5],
    "alpha": [0.99, 0.9, 0.5],
    "rho": [0.9, 0.5],
    "nu": [0.7, 0.3],
    "nus": [(0.7, 1.0), (0.8, 0.8), (0.3, 1.0)],
    "initial_accumulator_value": [0.0, 0.1, 1e-6],
    "final_lr": [0.1, 0.01],
    "gamma": [1e-3, 1e-2],
    "momentum_decay": [4e-3],
}
# Of those that look at signs alone, which no slope leads through.
SIGNS: list[Any] = [
    (beta1, beta2)
    for beta1 in (0.9, 0.95, 0.8, 0.99, 0.5)
    for beta2 in (0.99, 0.98, 0.95, 0.9, 0.999, 0.5)
]
RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]  # of those whose step is not linear in it
SOFT = (0.3, 0.03)  # shares of a movement that a first fit takes for noise, in turn
NEWTON = 4  # steps to the rate where a step is quadratic in it, which is nearly linear at its size
# Units of noise, beyond which it no longer counts by how much a step is off: single elements would
# count alone. A slope's own step may go further, in float64 by 1e-5 / u.
SATURATED, UNBOUND = 1e9, 1e15
KEPT = 2  # points of the grid, from which a first look goes on
FALLING = "lr_decay"  # by which a rate falls: a schedule among the settings
FEW = 4  # elements, from which on each step may have a rate of its own
# Relative noise of a step, in units of roundoff: as far as a share of 0.999, rounded, moves what it
# lacks to 1.
RELATIVE = 2000.0


@dataclass(frozen=True)
class Fit:
    """A candidate, the rate of each step and how unsure that is, and how far its steps are from
    those recorded: the root mean square over all of them, relative to what is taken for noise."""

    candidate: Candidate
    distance: float
    rates: np.ndarray
    unsure: np.ndarray
    errors: np.ndarray  # of the open settings, as their coordinates go


def _at_once(update: Any, param: Any, grad: Any, state: dict[str, Any], **start: float) -> Any:
    new = update(param, grad, *(state.get(name, value) for name, value in start.items()))
    return new[0], dict(zip(start, new[1:], strict=True))


def _counted(state: dict[str, Any]) -> tuple[float, float]:
    t = state.get("step", 0.0) + 1.0
    return t, t


def _nothing(*given: Any, **named: Any) -> None:
    pass


def _side_by_side(values: list[Any]) -> Any:
    """One value for all, or all of them along the first of two axes."""
    if all(v == values[0] for v in values):
        return values[0]
    if isinstance(values[0], tuple):
        return tuple(map(_side_by_side, map(list, zip(*values, strict=True))))
    return np.array(values, float)[:, None]


def _direction(param: Any, grad: Any, weight_decay: Any, maximize: bool) -> Any:
    return (-grad if maximize else grad) + weight_decay * param


# What steps share, without checks and blocks: thousands of them are taken, on few elements.
BARE: dict[str, Any] = {
    "given": lambda param, grad, state: (param, grad),
    "within": _nothing,
    "flag": _nothing,
    "pair": _nothing,
    "real": _nothing,
    "checked_betas": lambda betas: betas,
    "elementwise": _at_once,
    "next_step": _counted,
    "direction": _direction,
    "math": SimpleNamespace(**{**vars(math), "sqrt": np.sqrt}),
    "stored": lambda state, name, like, start=0.0: state.get(name, start),
}


@functools.lru_cache(maxsize=2048)
def _bare(optimizer: str, spoken: tuple[Any, ...]) -> Any:
    return dialects.variant(optimizer, *spoken, **BARE)


class Problem:
    """The steps that a candidate's settings are solved for."""

    def __init__(self, record: Trajectory, soft: float) -> None:
        self.record, self.u = record.double(), unit_roundoff(record.dtype)
        self.before = [p[:-1] for p, _ in self.record.tensors]
        self.moves = np.concatenate(
            [np.diff(p, axis=0).reshape(record.steps, -1) for p, _ in self.record.tensors], 1
        )
        whole = np.concatenate([p.reshape(record.steps + 1, -1) for p, _ in self.record.tensors], 1)
        size = trajectory_scale(whole)[1:]
        self.rounding = self.u * size
        # One that stays for a step, as at a lasso's 0, may be off as it moves at others.
        usual = np.sqrt(np.mean(self.moves**2, axis=0))
        self.sizes = np.where(self.moves == 0, usual, abs(self.moves))
        self.soften(soft)

    def soften(self, soft: float) -> None:
        """Takes this share of each movement for noise."""
        self.soft, self.noise = soft, self.rounding + soft * self.sizes

    def steps(self, points: Sequence[Candidate], rates: Sequence[float] | np.ndarray | None) -> Any:
        """(points, steps, elements), how far each step goes of a candidate whose settings alone
        are others at each point. The rate is that of every step, or among the settings."""
        clips = [tuple(p.settings[c] for c in CLIPS if c in p.settings) for p in points]
        found = np.empty((len(points), *self.moves.shape))
        for clip in dict.fromkeys(clips):
            here = [i for i, c in enumerate(clips) if c == clip]
            some = [points[i] for i in here]
            try:
                found[here] = self._together(some, rates)
            except (ValueError, TypeError, ArithmeticError):  # a rule that asks if a setting is 0
                for i in here:
                    try:
                        found[i] = self._together([points[i]], rates)[0]
                    except (ValueError, ArithmeticError):
                        found[i] = np.inf
        return found

    def _together(self, points: Sequence[Candidate], rates: Any) -> np.ndarray:
        first = points[0]
        step = _bare(first.optimizer, first.dialects)
        record, settings = clipped(self.record, dict(first.settings))
        if len(points) > 1:
            settings = {n: _side_by_side([p.settings[n] for p in points]) for n in settings}
        found, at = np.empty((len(points), *self.moves.shape)), 0
        with np.errstate(all="ignore"):
            for params, grads in record.tensors:
                if first.elementwise:
                    params, grads = (a.reshape(len(a), 1, -1) for a in (params, grads))
                elif len(points) > 1:
                    raise TypeError("one after another")
                state: dict[str, Any] = {}
                size = grads[0].size
                for t, grad in enumerate(grads):
                    if rates is not None:
                        settings["lr"] = float(rates[t])
                    param, state = step(params[t], grad, state, **settings)
                    moves = param - params[t]
                    found[:, t, at : at + size] = moves.reshape(-1, size)
                at += size
        return found

    @np.errstate(all="ignore")  # wrong settings diverge, and are far off then
    def solved(self, points: Sequence[Candidate], how: str) -> tuple[Any, Any, Any]:
        """(points, steps, elements) of each with the rates that suit best, these (points, steps),
        and how unsure they are."""
        n, k = self.record.steps, len(points)
        if how == GIVEN:
            rates = rates_of(points[0], self.record)
            found = self.steps(points, rates)
            if rates is None:
                own = np.array([[p.settings["lr"]] * n for p in points])
            else:
                own = np.tile(rates, (k, 1))
            return found, own, np.zeros((k, n))
        kind = linearity(points[0])
        if how == EACH and kind == "by turns":
            found, own, unsure = zip(*map(self._in_turn, points), strict=True)
            return np.array(found), np.array(own), np.array(unsure)
        base, slope, bend = self._powers(points, kind)
        found, rates = base, np.zeros((k, n))
        for _ in range(NEWTON if kind == "quadratic" else 1):
            along = slope + 2 * bend * rates[..., None]
            weighted = along * self.noise**-2.0
            top, bottom = (weighted * (self.moves - found)).sum(-1), (weighted * along).sum(-1)
            if how == ONE:
                top, bottom = (np.repeat(a.sum(-1, keepdims=True), n, -1) for a in (top, bottom))
            rates = rates + np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
            found = base + rates[..., None] * (slope + bend * rates[..., None])
        return found, rates, 1 / np.sqrt(bottom)

    def _powers(self, points: Sequence[Candidate], kind: str) -> list[Any]:
        """What of each step does not depend on its rate, goes with it, and with its square."""
        several = {"linear": 1, "quadratic": 3}.get(kind, 2)
        at = [self.steps(points, np.full(self.record.steps, 1.0 + i)) for i in range(several)]
        zero = np.zeros(())
        if kind == "linear":
            found = [zero, at[0], zero]
        else:
            bend = (at[0] - 2 * at[1] + at[2]) / 2 if kind == "quadratic" else zero
            slope = at[1] - at[0] - 3 * bend
            found = [at[0] - slope - bend, slope, bend]
        return [np.clip(np.nan_to_num(a, nan=1e30), -1e30, 1e30) for a in found]

    def _in_turn(self, candidate: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            return self._by_turns(candidate)
        except (ValueError, ArithmeticError):  # settings that exclude each other
            n = self.record.steps
            return np.full_like(self.moves, np.inf), np.zeros(n), np.full(n, np.inf)

    def _by_turns(self, candidate: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the state holds the rates of all steps before: one step after another."""
        step = _bare(candidate.optimizer, candidate.dialects)
        record, settings = clipped(self.record, dict(candidate.settings))
        states: list[dict[str, Any]] = [{} for _ in record.tensors]
        n = record.steps
        found, rates, unsure = np.empty_like(self.moves), np.zeros(n), np.zeros(n)

        def moved(t: int, lr: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
            settings["lr"] = lr
            after = [
                step(p[t], g[t], s, **settings)
                for (p, g), s in zip(record.tensors, states, strict=True)
            ]
            moves = [
                (a - p[t]).ravel() for (a, _), (p, _) in zip(after, record.tensors, strict=True)
            ]
            return np.concatenate(moves), [s for _, s in after]

        for t in range(n):
            (one, _), (two, _) = moved(t, 1.0), moved(t, 2.0)
            slope = np.clip(np.nan_to_num(two - one, nan=1e30), -1e30, 1e30)
            base, weight = one - slope, self.noise[t] ** -2.0
            bottom = float((weight * slope**2).sum())
            top = float((weight * slope * (self.moves[t] - base)).sum())
            rates[t] = max(top / bottom, 0.0) if bottom > 0 and math.isfinite(top) else 0.0
            unsure[t] = 1 / math.sqrt(bottom) if bottom > 0 else math.inf
            found[t], states = moved(t, rates[t])
        return found, rates, unsure

    def off(self, points: Sequence[Candidate], how: str, most: float = SATURATED) -> np.ndarray:
        """(points, …), by how much each step is off, in units of noise, and `most` beyond that."""
        with np.errstate(over="ignore", invalid="ignore"):
            off = (self.solved(points, how)[0] - self.moves) / self.noise
        return np.clip(np.nan_to_num(off, nan=most), -most, most).reshape(len(points), -1)


@functools.lru_cache(maxsize=4096)
def _linearity(optimizer: str, spoken: tuple[Any, ...], choices: tuple[Any, ...]) -> str:
    rng = np.random.default_rng(0)
    grads = rng.standard_normal((5, 3, 2))
    params = np.concatenate([np.ones((1, 3, 2)), rng.standard_normal((5, 3, 2))])
    problem = Problem(Trajectory(((params, grads),)), 0.0)
    usual = {"momentum": 0.9, "weight_decay": 0.01, "l1": 0.01, "l2": 0.1, "beta": 0.1}
    known = {n: usual.get(n, v) for n, v in defaults(optimizer).items()}
    candidate = Candidate(optimizer, spoken, known | dict(choices), ())
    order = [1.0, 3.0, 2.0, 1.0, 3.0]
    try:
        one, two, three, four = (
            problem.steps([candidate], np.full(5, float(n)))[0] for n in (1, 2, 3, 4)
        )
        mixed = problem.steps([candidate], order)[0]
    except (ValueError, ArithmeticError):
        return "no"
    if not _same(three - two, two - one):
        bends = three - 2 * two + one, four - 2 * three + two
        return "quadratic" if _same(*bends) else "no"
    apart = np.stack([one, two, three])[np.array(order, int) - 1, range(5)]
    if not _same(mixed, apart):
        # Above all rates before, where one that weighs them by their maximum is not affine.
        last = [problem.steps([candidate], [*order[:-1], lr])[0, -1] for lr in (4.0, 6.0, 8.0)]
        if (last[1] == last[0]).all():  # its rate is no more than where it began
            return "no"
        by_turns = _same(last[2] - last[1], last[1] - last[0])
        return "by turns" if by_turns else "as a whole"
    return "linear" if _same(two, 2 * one) else "affine"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two agree in half of the digits: of all optimizers and dialects, those that do are
    7e-14 apart, and others 3e-4."""
    return bool(abs(a - b).max() <= 2.0**-26 * abs(b).max())


def linearity(candidate: Candidate) -> str:
    """How a step depends on its rate: linear, affine, quadratic, by turns (affine, but the state
    has the rates before), as a whole (affine if all are one), or no."""
    choices = tuple((n, v) for n, v in candidate.settings.items() if isinstance(v, bool))
    return _linearity(candidate.optimizer, candidate.dialects, choices)


def open_ones(candidate: Candidate, how: str) -> Candidate:
    """The candidate without its rate among what is open, where that is solved for or given; nor how
    that falls, where each step has one of its own, which says as much."""
    if how == GIVEN and any(c.setting == "lr" for c in candidate.free):
        return candidate
    closed = {"lr", FALLING} if how == EACH else {"lr"}
    return replace(candidate, free=tuple(c for c in candidate.free if c.setting not in closed))


def ways(candidate: Candidate, record: Trajectory) -> str:
    """How the rates are found at first."""
    if record.lr is not None or candidate.rate or linearity(candidate) == "no":
        return GIVEN
    elements = sum(p[0].size for p, _ in record.tensors)
    return EACH if elements >= FEW and linearity(candidate) != "as a whole" else ONE


def by_signs(candidate: Candidate) -> bool:
    """Whether a step looks at the sign of a mean alone: then its betas have no slope, and few steps
    tell nothing of them."""
    return candidate.optimizer in ("lion", "cautious_lion")


def starts(candidate: Candidate, record: Trajectory, how: str) -> list[Candidate]:
    """The candidate at every point of the grid."""
    names = list(dict.fromkeys(c.setting for c in candidate.free))
    axes = []
    for name in names:
        usual = candidate.settings[name]
        if name == "lr":
            axes.append([usual] if how != GIVEN else RATES)
        elif name in CLIPS:
            axes.append(record.sizes(name))
        elif name == "betas" and by_signs(candidate):
            axes.append(SIGNS)
        elif name == "weight_decay" and by_signs(candidate):
            axes.append([0.0, 1.0])
        else:
            others = [
                v for v in GRID.get(name, []) if isinstance(v, tuple) == isinstance(usual, tuple)
            ]
            axes.append(list(dict.fromkeys([usual, *others])))
    return [
        replace(candidate, settings={**candidate.settings, **dict(zip(names, point, strict=True))})
        for point in itertools.product(*axes)
    ]


def looked(candidate: Candidate, record: Trajectory, hopeless: float = math.inf) -> tuple[Fit, str]:
    """A first look: from the nearest points of the grid. What is further off than `hopeless` even
    where a third of every movement is taken for noise is not looked at more closely."""
    how = ways(candidate, record)
    candidate = open_ones(candidate, how)
    problem = Problem(record, SOFT[0])
    points = starts(candidate, record, how)
    far = np.mean(problem.off(points, how) ** 2, axis=1)
    ranked = [points[i] for i in np.argsort(far)]
    best = ranked if by_signs(candidate) else ranked[:KEPT]
    # Of sizes of a clip, each has a minimum of its own.
    best += [p for p in _of_each_clip(ranked) if p not in best]
    found = [fitted(p, problem, how, SOFT[:1], 4) for p in best]
    nearest = min(found, key=lambda f: f.distance)
    if nearest.distance > hopeless:
        return replace(nearest, distance=nearest.distance * SOFT[0] / SOFT[1]), how
    return fitted(nearest.candidate, problem, how, SOFT[1:], 5), how


def _of_each_clip(ranked: list[Candidate]) -> list[Candidate]:
    """The first of those that have the same clip."""
    first: dict[Any, Candidate] = {}
    for candidate in ranked:
        for clip in CLIPS.keys() & candidate.settings.keys():
            first.setdefault(candidate.settings[clip], candidate)
    return list(first.values())


def fitted(
    candidate: Candidate, problem: Problem, how: str, softs: Sequence[float], most: int = 20
) -> Fit:
    """The candidate with the open settings that bring its steps nearest to those recorded."""
    candidate = open_ones(candidate, how)
    x = np.array([c.there(c.of(candidate.settings)) for c in candidate.free])

    def at(x: np.ndarray) -> Candidate:
        return candidate.moved([c.back(v) for c, v in zip(candidate.free, x.tolist(), strict=True)])

    def off(*at_: np.ndarray, most: float = SATURATED) -> np.ndarray:
        return problem.off([at(x) for x in at_], how, most)

    for soft in softs:
        problem.soften(soft)
        r, damping = off(x)[0], 1e-3
        for _ in range(most if len(x) else 0):
            slopes = _slopes(candidate.free, off, x, r)
            x, r, damping, better = _improved(off, x, r, slopes, damping)
            if better < 1e-3:
                break
    slopes = _slopes(candidate.free, off, x, r)
    distance = math.sqrt(float(np.mean(r**2)))
    found = at(x)
    _, rates, unsure = problem.solved([found], how)
    errors = _errors(slopes) * max(1.0, distance)
    return Fit(found, distance, rates[0], unsure[0] * max(1.0, distance), errors)


def _improved(
    off: Any, x: np.ndarray, r: np.ndarray, slopes: np.ndarray, damping: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """One step of Levenberg and Marquardt's, and what share of the distance it saved."""
    scale = np.linalg.norm(slopes, axis=0)
    scale[scale <= 0] = 1.0
    q, triangle = np.linalg.qr(slopes / scale)
    toward = np.concatenate([q.T @ r, np.zeros(len(x))])
    before = float(r @ r)
    for harder in (1.0, 64.0, 4096.0):  # two at a time
        both = [damping * harder, damping * harder * 8]
        steps = [
            np.linalg.lstsq(
                np.concatenate([triangle, math.sqrt(d) * np.eye(len(x))]), toward, rcond=None
            )[0]
            for d in both
        ]
        trials = [x - np.clip(step / scale, -3, 3) for step in steps]
        new = off(*trials)
        after = np.sum(new**2, axis=1)
        best = int(np.argmin(after))
        if after[best] < before:
            return trials[best], new[best], both[best] / 9, 1 - float(after[best]) / before
    return x, r, damping, 0.0


def _slopes(free: Sequence[Coordinate], off: Any, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    if not len(x):
        return np.zeros((len(r), 0))
    decays = np.array([c.setting == "weight_decay" for c in free])
    sizes = np.where(decays, 1e-6, 1e-5 * np.maximum(1.0, abs(x)))
    moved = off(*(x + np.diag(sizes)), *(x - np.diag(sizes)), most=UNBOUND)
    slopes = ((moved[: len(x)] - moved[len(x) :]) / (2 * sizes[:, None])).T
    return np.where(abs(r[:, None]) < SATURATED, slopes, 0.0)


def _errors(slopes: np.ndarray) -> np.ndarray:
    """The error of each coordinate, one standard deviation; infinite where nothing depends on
    it."""
    if not slopes.shape[1]:
        return np.zeros(0)
    scale = np.linalg.norm(slopes, axis=0)
    seen = scale > 0
    errors = np.full(len(scale), math.inf)
    part = slopes[:, seen] / scale[seen]
    if seen.any():
        _, sizes, ways = np.linalg.svd(part, full_matrices=False)
        alike = sizes < ALIKE * sizes[0]
        found = np.sqrt(np.sum((ways[~alike] / sizes[~alike, None]) ** 2, axis=0)) / scale[seen]
        exchangeable = (abs(ways[alike]) > 0.1).any(axis=0)
        errors[seen] = np.where(exchangeable, math.inf, found)
    return errors


def usual(candidate: Candidate, coordinate: Coordinate) -> float | None:
    """The default of an open setting, None for one that has none."""
    settings = {**defaults(candidate.optimizer), **dict.fromkeys(CLIPS, 1.0)}
    return coordinate.of(settings) if coordinate.setting in settings else None
