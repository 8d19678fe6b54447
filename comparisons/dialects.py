"""Which optimizer, dialect and settings a recorded trajectory was made by."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy.optimize import least_squares

from ..manual import dialects, optimizers
from ..manual.dialects import DIALECTS, Dialect
from .noise import moved, unit_roundoff
from .optimizers import WHOLE, trajectory_scale
from .verdict import LIMIT, RUNS, free_drift

PREFIXES = (2, 4)  # steps that a first look fits the settings to, one after the other
ROUNDS = {8: 16, 16: 10, 32: 6}  # steps that they are then fitted to: how many of the best are
ELEMENTS = 64  # that they are fitted to, of as many as were recorded
EVALUATIONS = 30
MOST = 3  # dialects at a time
HOPELESS = 1e4  # times as far off as the nearest

# How a setting is looked for: by its logarithm, by that of 1 less it, or as it is, from 0 on.
SCALE, SHARE, AMOUNT = "scale", "share", "amount"
BOUNDS = {SCALE: (math.log(1e-30), math.log(1e4)), SHARE: (0.0, 14.0), AMOUNT: (0.0, 10.0)}
MOMENTS = {"lr": SCALE, "betas": (SHARE, SHARE), "eps": SCALE, "weight_decay": AMOUNT}
FREE: dict[str, dict[str, Any]] = {
    "sgd": {"lr": SCALE, "momentum": SHARE, "dampening": SHARE, "weight_decay": AMOUNT},
    "adagrad": {
        "lr": SCALE,
        "eps": SCALE,
        "initial_accumulator_value": AMOUNT,
        "lr_decay": AMOUNT,
        "weight_decay": AMOUNT,
    },
    "rmsprop": {
        "lr": SCALE,
        "alpha": SHARE,
        "eps": SCALE,
        "momentum": SHARE,
        "weight_decay": AMOUNT,
    },
    "adadelta": {"lr": SCALE, "rho": SHARE, "eps": SCALE, "weight_decay": AMOUNT},
    "adam": MOMENTS,
    "adamax": MOMENTS,
    "nadam": {**MOMENTS, "momentum_decay": AMOUNT},
    "radam": MOMENTS,
    "rprop": {"lr": SCALE, "etas": (SHARE, SCALE), "step_sizes": (SCALE, SCALE)},
    "asgd": {"lr": SCALE, "lambd": AMOUNT, "alpha": AMOUNT, "weight_decay": AMOUNT},
    "adafactor": {"lr": SCALE, "eps": (SCALE, SCALE), "weight_decay": AMOUNT},
}
# The choices that are tried besides the defaults; a setting that stands here is not open.
CHOICES: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"nesterov": True, "dampening": 0.0}],
    "rmsprop": [{"centered": True}],
    "adam": [
        {"amsgrad": True},
        {"decoupled_weight_decay": True},
        {"amsgrad": True, "decoupled_weight_decay": True},
    ],
    "nadam": [{"decoupled_weight_decay": True}],
    "radam": [{"decoupled_weight_decay": True}],
}
# Settings that are usually 0: left alone at first, and then looked for from here.
RARE = {
    "momentum": 0.5,
    "dampening": 0.1,
    "weight_decay": 1e-3,
    "initial_accumulator_value": 0.1,
    "lr_decay": 1e-3,
}
# Where else to start than at the defaults: an ε that is seen, a memory of a few steps.
STARTS: list[dict[str, Any]] = [
    {},
    {"eps": 1e-4},
    {"eps": 1e-4, "betas": (0.5, 0.7), "rho": 0.5, "alpha": 0.5},
]


@dataclass(frozen=True)
class Record:
    """A trajectory: tensors (parameters (steps + 1, …), gradients (steps, …)), all of one dtype.

    lr has the rate of every step, or is None: one that is not known, and does not change.
    """

    tensors: tuple[tuple[np.ndarray, np.ndarray], ...]
    lr: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return len(self.tensors[0][1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensors[0][0].dtype

    def first(self, steps: int) -> Record:
        lr = self.lr if self.lr is None else self.lr[:steps]
        return Record(tuple((p[: steps + 1], g[:steps]) for p, g in self.tensors), lr)

    def double(self) -> Record:
        tensors = ((p.astype(np.float64), g.astype(np.float64)) for p, g in self.tensors)
        return Record(tuple(tensors), self.lr)

    def flat(self, elements: int | None = None) -> Record:
        """All tensors as one, or so many of its elements, drawn at random."""
        p, g = (
            np.concatenate([t[i].reshape(len(t[i]), -1) for t in self.tensors], 1) for i in (0, 1)
        )
        if elements is not None and elements < p.shape[1]:
            chosen = np.random.default_rng(0).choice(p.shape[1], elements, replace=False)
            p, g = p[:, chosen], g[:, chosen]
        return Record(((p, g),), self.lr)

    def parameters(self) -> np.ndarray:
        """(steps, elements), what was recorded after every step."""
        return np.concatenate([p[1:].reshape(self.steps, -1) for p, _ in self.tensors], axis=1)


def read(path: Path) -> Record:
    """The record in an .npz file: params (steps + 1, …) and grads (steps, …), or params.NAME and
    grads.NAME for each of several tensors, and lr (steps,) if the rate changes.

    Raises ValueError, naming the array, if it is anything else.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile):
        raise ValueError(f"{path}: expected an .npz file of arrays") from None
    names = [match[1] for name in arrays if (match := re.fullmatch(r"params(|\..+)", name))]
    if not names:
        raise ValueError(f"{path}: expected arrays params and grads, got {', '.join(arrays)}")
    tensors = []
    for name in names:
        if f"grads{name}" not in arrays:
            raise ValueError(f"grads{name}: missing beside params{name}")
        p, g = arrays[f"params{name}"], arrays[f"grads{name}"]
        if p.dtype.kind != "f" or p.dtype != g.dtype or p.dtype.itemsize not in (4, 8):
            raise ValueError(
                f"params{name}, grads{name}: expected both float32 or both float64, got {p.dtype} "
                f"and {g.dtype}"
            )
        if p.ndim == 0 or len(p) < 2 or g.shape != (len(p) - 1, *p.shape[1:]):
            raise ValueError(
                f"grads{name}: expected the shape of params{name} {p.shape} with one step less, "
                f"got {g.shape}"
            )
        tensors.append((p, g))
    if len({(p.dtype, len(p)) for p, _ in tensors}) > 1:
        raise ValueError("params: expected one dtype and as many steps for all")
    if not sum(p[0].size for p, _ in tensors):
        raise ValueError("params: expected at least one element")
    steps = len(tensors[0][1])
    lr = arrays.get("lr")
    if lr is not None and (lr.shape != (steps,) or lr.dtype.kind != "f"):
        raise ValueError(f"lr: expected {steps} numbers, got {lr.dtype} {lr.shape}")
    return Record(tuple(tensors), lr)


@dataclass(frozen=True)
class Coordinate:
    """One number among the settings, as it is looked for."""

    setting: str
    index: int | None
    kind: str

    @property
    def name(self) -> str:
        return self.setting if self.index is None else f"{self.setting}[{self.index}]"

    def of(self, settings: Mapping[str, Any]) -> float:
        value = settings[self.setting]
        return float(value if self.index is None else value[self.index])

    def into(self, settings: Mapping[str, Any], value: float) -> dict[str, Any]:
        if self.index is None:
            return {**settings, self.setting: value}
        several = list(settings[self.setting])
        several[self.index] = value
        return {**settings, self.setting: tuple(several)}

    def there(self, value: float) -> float:
        if self.kind == SCALE:
            value = math.log(max(value, 1e-30))
        elif self.kind == SHARE:
            value = -math.log1p(-min(value, 1 - 1e-10))
        return float(np.clip(value, *BOUNDS[self.kind]))

    def back(self, x: float) -> float:
        if self.kind == SCALE:
            return math.exp(x)
        return -math.expm1(-x) if self.kind == SHARE else x


@dataclass(frozen=True)
class Candidate:
    """An optimizer in some dialects, its settings, and those of them that are still open."""

    optimizer: str
    dialects: tuple[Dialect, ...]
    settings: Mapping[str, Any]
    free: tuple[Coordinate, ...]

    @property
    def name(self) -> str:
        """As torch calls it."""
        decoupled = self.settings.get("decoupled_weight_decay")
        return "adamw" if self.optimizer == "adam" and decoupled else self.optimizer

    def unusual(self) -> dict[str, Any]:
        """The settings that are not the defaults."""
        usual = {**dict.fromkeys(self.settings, False), **defaults(self.optimizer)}
        if self.name == "adamw":
            usual["decoupled_weight_decay"] = True
        return {n: v for n, v in self.settings.items() if v != usual[n]}

    def digits(self) -> int:
        """How much has to be said: the digits of the unusual settings, and the dialects."""
        numbers = (
            float(n)
            for value in self.unusual().values()
            for n in (value if isinstance(value, tuple) else (value,))
        )
        return len(self.dialects) + sum(
            len(np.format_float_scientific(n, trim="-").split("e")[0].replace(".", ""))
            for n in numbers
        )

    def moved(self, values: Sequence[float]) -> Candidate:
        settings: Mapping[str, Any] = self.settings
        for coordinate, value in zip(self.free, values, strict=True):
            settings = coordinate.into(settings, value)
        return replace(self, settings=settings)


def candidates(record: Record, spoken: int, names: Sequence[str]) -> Iterator[Candidate]:
    """The optimizers of these names in every choice, with so many dialects at a time: those that
    are not the same as another on this record."""
    p, g = record.flat().tensors[0]
    maximize = bool((np.sign(p[1] - p[0]) * np.sign(g[0])).sum() > 0)
    known = set()
    for name in names:
        several = [
            some
            for some in itertools.combinations(dialects.of(name), spoken)
            if len({d.about for d in some}) == spoken
        ]
        for choice, rare in itertools.product([{}, *CHOICES.get(name, ())], (False, True)):
            settings = defaults(name) | {"maximize": maximize} | choice
            if rare:
                settings |= {n: v for n, v in RARE.items() if n in settings and n not in choice}
            fixed = choice.keys() | ({"lr"} if record.lr is not None else set())
            fixed |= set() if rare else RARE.keys()
            free = tuple(
                Coordinate(n, i if isinstance(kind, tuple) else None, k)
                for n, kind in FREE[name].items()
                if n not in fixed
                for i, k in enumerate(kind if isinstance(kind, tuple) else (kind,))
            )
            for some in several:
                candidate = Candidate(name, some, settings, free)
                try:
                    same = run(candidate, record.first(max(ROUNDS))).tobytes()
                except ValueError:  # Nesterov without momentum
                    continue
                if same not in known:
                    known.add(same)
                    yield candidate


def defaults(name: str) -> dict[str, Any]:
    """The rule's defaults of those settings that are looked for, as numbers."""
    accepted = inspect.signature(getattr(optimizers, name)).parameters
    settings = {n: accepted[n].default for n in FREE[name]}
    return settings | ({"eps": (1e-30, 1e-3)} if name == "adafactor" else {})


def run(
    candidate: Candidate, record: Record, noise: Callable[[Any], Any] | None = None
) -> np.ndarray:
    """The parameters (steps, elements) of a free run from the record's start on its gradients.

    Noise moves the settings once, and what a step sees at every step.
    """
    step = _step(candidate.optimizer, candidate.dialects)
    settings = noise(dict(candidate.settings)) if noise else candidate.settings
    found = []
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # wrong settings diverge
        for params, grads in record.tensors:
            param, after = params[0], []
            state: dict[str, Any] = {}
            for t, grad in enumerate(grads):
                rate = {} if record.lr is None else {"lr": float(record.lr[t])}
                if noise:
                    param, grad = noise((param, grad))
                param, state = step(param, grad, state, **{**settings, **rate})
                after.append(param)
            found.append(np.reshape(after, (len(grads), -1)))
    return np.concatenate(found, axis=1)


@functools.lru_cache(maxsize=512)
def _step(optimizer: str, spoken: tuple[Dialect, ...]) -> Callable[..., Any]:
    return dialects.variant(optimizer, *spoken)


def fit(candidate: Candidate, record: Record, rough: bool = False) -> tuple[Candidate, float]:
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
    with np.errstate(over="ignore", invalid="ignore"):  # what diverged is as far off as can be said
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


def looked(candidate: Candidate, record: Record) -> tuple[Candidate, float]:
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


def _part(record: Record, candidate: Candidate, steps: int) -> Record:
    """What settings are fitted to: some elements, unless the optimizer looks at the whole."""
    first = record.first(steps)
    return first if candidate.optimizer in WHOLE else first.flat(ELEMENTS)


@dataclass(frozen=True)
class Match:
    """A candidate, fitted: how far its run is from the record, in floors, up to where it leaves."""

    candidate: Candidate
    ratio: float  # the largest drift / floor, over the steps before it leaves
    leaves: int | None  # the first step, from 1, beyond its limit


def judged(candidate: Candidate, record: Record) -> Match:
    """The candidate's free run beside the record, against how far one ulp of noise drives it."""
    whole = record if candidate.optimizer in WHOLE else record.flat()
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


def longer(candidate: Candidate, record: Record, steps: int) -> tuple[Candidate, float]:
    """Fitted to so many steps, from where it is, with what does not matter at any of the starts."""
    part = _part(record, candidate, steps)
    starts = [settled(candidate, part, start) for start in STARTS]
    fits = [fit(s, part, rough=True) for i, s in enumerate(starts) if s not in starts[:i]]
    return min(fits, key=_distance)


def _distance(pair: tuple[Candidate, float]) -> float:
    return pair[1]


def followed(candidate: Candidate, record: Record) -> Match:
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


def _exactly(candidate: Candidate, record: Record, steps: int) -> Match:
    """The candidate, fitted to so many steps to the last digit."""
    part = _part(record, candidate, steps)
    candidate, _ = fit(without(settled(candidate, part, {}), part), part)
    return judged(snapped(candidate, part), record)


def settled(candidate: Candidate, record: Record, start: Mapping[str, Any]) -> Candidate:
    """The same, with every setting where it usually starts that the fit does not need elsewhere:
    one that ran away cannot come back where it has no effect."""
    usual = _from(candidate, {**defaults(candidate.optimizer), **start})

    def distance(of: Candidate) -> float:
        return fit(replace(of, free=()), record, rough=True)[1]

    so_far = distance(candidate)
    for c in candidate.free:
        back = replace(candidate, settings=c.into(candidate.settings, c.of(usual)))
        if (further := distance(back)) <= 1.1 * so_far:
            candidate, so_far = back, further
    return candidate


def without(candidate: Candidate, record: Record) -> Candidate:
    """The same, without those settings that are usually 0 and that the fit can do without."""
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


def snapped(candidate: Candidate, record: Record) -> Candidate:
    """The same with settings of the fewest digits, all together, that are no further off."""
    _, distance = fit(replace(candidate, free=()), record)
    for digits in range(10):
        values = [float(f"{c.of(candidate.settings):.{digits}e}") for c in candidate.free]
        tried = candidate.moved(values)
        if fit(replace(tried, free=()), record)[1] <= distance:
            return tried
    return candidate


def rounded(match: Match, record: Record) -> Match:
    """The same with the roundest settings that reproduce the record, the default before others."""
    usual = defaults(match.candidate.optimizer)
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


def search(record: Record, jobs: int = 1, names: Sequence[str] = tuple(FREE)) -> list[Match]:
    """What reproduces the record, the plainest first; else the nearest.

    First without dialects, and then with one, two and three at a time, until something does. What
    makes the same run, bit by bit, is one.
    """
    tried: list[Match] = []
    with joblib.Parallel(n_jobs=jobs) as side_by_side:
        for spoken in range(MOST + 1):
            tier = list(candidates(record, spoken, names))
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
