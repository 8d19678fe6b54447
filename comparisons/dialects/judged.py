"""A candidate's free run beside a record, in floors of rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...reference.adapters import SHARE
from ..verdict.classes import LIMIT
from ..verdict.drift import RUNS, WINDOW, trajectory_scale
from ..verdict.noise import unit_roundoff
from .candidates import Candidate, coordinates, digits, run
from .facts import facts
from .trajectory import Trajectory

# What a share lacks to 1 is moved by noise at most as for a share of 0.999: nearer to 1 a candidate
# would excuse itself.
NEAREST = 1e-3
ROUND = 6  # digits that a setting has at most which someone wrote; only these are moved by noise
MOST = 1024  # elements, drawn at random
SEEN = 1 / 16  # share of the movement, above which a floor hides what moves


@dataclass(frozen=True)
class Match:
    """A candidate: how far its run is from the record, in floors, up to where it leaves."""

    candidate: Candidate
    ratio: float  # the largest drift / floor, over the steps before it leaves
    leaves: int | None  # the first step, from 1, beyond its limit
    resolution: float = 0.0  # what share of the movement could have been seen, at the last step
    off: float = 0.0  # where it leaves, by what share of the movement until then
    again: bool = False  # whether it follows to the end if its state begins anew where it leaves

    @property
    def unseen(self) -> bool:
        """Whether the record moves too little for its dtype to tell anything."""
        return self.leaves is None and self.resolution > SEEN

    @property
    def any_rate(self) -> bool:
        """Whether it follows only because the rate of every step may be any: many others do then,
        as one whose step is scaled by a norm."""
        return self.leaves is None and bool(self.candidate.rate and not self.candidate.rate.known)

    @property
    def reproduced(self) -> bool:
        return self.leaves is None and not self.unseen and not self.any_rate


def judged(candidate: Candidate, record: Trajectory) -> Match:
    """The candidate's free run beside the record, against a floor for every element: u of the
    record, how far runs drift whose parameters and gradients move by one ulp at every step, and
    whose settings do once, and how far the rule's own run in float32 is from that in float64, all
    within WINDOW steps. (In float32, libraries compute bias corrections in it too, or do not.)

    A setting that is not round has been fitted to the record already: it is not moved. Where every
    element is treated alike, MOST of them are looked at.
    """
    whole = seen_by(candidate, record)
    u = unit_roundoff(record.dtype)
    clean, target = run(candidate, whole), whole.parameters()
    spread = _by_data(candidate, whole, clean, u) + _by_settings(candidate, whole, clean, u)
    if record.dtype == np.float32:
        spread += _in_single(candidate, whole, clean)
    scale = trajectory_scale(target)
    with np.errstate(invalid="ignore", over="ignore"):
        drift = abs(np.subtract(clean, target, dtype=float))
    padded = np.pad(spread, ((WINDOW, WINDOW), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * WINDOW + 1, axis=0)
    floor = u * scale + np.nan_to_num(windows, nan=np.inf).max(axis=-1)
    lost = ~np.isfinite(drift) | ~np.isfinite(floor)
    ratio = np.divide(drift, floor, out=np.full_like(drift, np.inf), where=~lost).max(axis=1)
    beyond = np.flatnonzero(ratio > LIMIT)
    first = int(beyond[0]) if beyond.size else None
    start = np.concatenate([p[0].ravel() for p, _ in whole.tensors]).astype(float)
    last = len(target) - 1 if first is None else first
    way = _norm(target[last] - start)
    return Match(
        candidate,
        float(ratio[:first].max(initial=0)),
        None if first is None else first + 1,
        _share(LIMIT * _norm(floor[last]), way) if first is None else 0.0,
        0.0 if first is None else _share(_norm(drift[first]), way),
    )


def moves_too_little(record: Trajectory) -> bool:
    """Whether rounding of the record alone hides its movement, whatever made it."""
    params = np.concatenate([p.reshape(record.steps + 1, -1) for p, _ in record.tensors], axis=1)
    floor = unit_roundoff(record.dtype) * trajectory_scale(params)[-1]
    return (
        _share(LIMIT * _norm(floor), _norm(np.subtract(params[-1], params[0], dtype=float))) > SEEN
    )


def seen_by(candidate: Candidate, record: Trajectory) -> Trajectory:
    """What of the record a verdict on the candidate looks at."""
    return record.flat(MOST) if candidate.elementwise else record


def _by_data(candidate: Candidate, record: Trajectory, clean: np.ndarray, u: float) -> np.ndarray:
    """(steps, elements), how far runs drift whose parameters and gradients move by 1 ± 2u. Those of
    an optimizer that treats every element alike are one run, side by side."""
    rng = np.random.default_rng(0)
    factors = np.array((1 - 2 * u, 1 + 2 * u))

    def noise(arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        return [
            (a * factors[rng.integers(0, 2, a.shape)]).astype(a.dtype, copy=False) for a in arrays
        ]

    if candidate.elementwise:
        norms = record.all_norms()
        several = replace(
            record,
            tensors=tuple((np.tile(p, RUNS), np.tile(g, RUNS)) for p, g in record.tensors),
            norms=norms,
        )
        runs = run(candidate, several, noise).reshape(len(clean), RUNS, -1).swapaxes(0, 1)
    else:
        runs = np.array([run(candidate, record, noise) for _ in range(RUNS)])
    return _furthest(runs, clean)


def _by_settings(
    candidate: Candidate, record: Trajectory, clean: np.ndarray, u: float
) -> np.ndarray:
    """The same of runs whose settings move."""
    rng = np.random.default_rng(1)
    shaken_ones = [shaken(candidate, u, rng) for _ in range(RUNS)]
    return _furthest(np.array([run(c, record) for c in shaken_ones]), clean)


def _in_single(candidate: Candidate, record: Trajectory, clean: np.ndarray) -> np.ndarray:
    """What the rule itself loses in float32, and what 1 − βᵗ does there."""
    held = _held(candidate)
    counts = [run(held, record, counted_as=dtype) for dtype in ("float32", "float64")]
    return _furthest(run(candidate, record.double())[None], clean) + _furthest(
        counts[0][None], counts[1].astype(float)
    )


def _held(candidate: Candidate) -> Candidate:
    """The candidate with shares that lack at least NEAREST to 1."""
    settings = candidate.settings
    for c in coordinates(candidate.optimizer):
        if c.kind == SHARE:
            settings = c.into(settings, min(c.of(settings), 1 - NEAREST))
    return replace(candidate, settings=settings)


def _furthest(runs: np.ndarray, clean: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(abs(runs.astype(float) - clean).max(axis=0))


def lost_state(match: Match, record: Trajectory) -> Match:
    """The same, with a word on whether the state began anew where it leaves."""
    if match.leaves is None or not 2 < match.leaves <= record.steps - 2:
        return match
    rest = judged(match.candidate, record.part(match.leaves - 1, record.steps))
    return replace(match, again=rest.reproduced)


def shaken(candidate: Candidate, u: float, rng: np.random.Generator) -> Candidate:
    """The candidate with round settings moved by two roundings."""
    free = facts(candidate.optimizer).free

    def each(value: Any, kind: Any) -> Any:
        if isinstance(value, tuple):
            kinds = kind if isinstance(kind, tuple) else (kind,) * len(value)
            return tuple(map(each, value, kinds))
        if not isinstance(value, float) or digits(value) > ROUND:
            return value
        sign = 1 if rng.random() < 0.5 else -1
        if kind == SHARE and value < 1:
            lacks = 1 - value
            return 1 - lacks * (1 + sign * min(2 * u * value / lacks, 2 * u / NEAREST))
        return value * (1 + sign * 2 * u)

    settings: Mapping[str, Any] = {n: each(v, free.get(n)) for n, v in candidate.settings.items()}
    return replace(candidate, settings=settings)


def _norm(a: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.sum(np.square(a))))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.inf
