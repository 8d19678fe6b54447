"""The rule for recorded runs: every quantity has its own floor, and what leaves it first says what
it means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..verdict.classes import DIFFERENT, LIMIT, ROUNDING, UNDECIDED
from .recording import BUFFER, GRADIENT, INPUT, LOSS, PARAMETER
from .traces import NEW, Traces

SKETCH_LIMIT = 16.0  # floors, for distances that are estimated from sixteen sums
UNSEEN = 1 / 16  # of ‖x‖: perturbed runs further apart show nothing of that tensor at that step
KINK = 1 / 4  # of ‖x‖: a jump of gradients up to this size may be a kink
FAR = 2.0**16  # u |loss|: a first loss that is further off is different without any floor
SUSPECT = 2.0  # floors: the median of the gradients of a right run stays below, at each step
# Kinds of what differs.
START, OPTIMIZER, DATA, FORWARD = "start", "optimizer", "data", "forward"
STATISTICS, BACKWARD, FORWARD_OR_DATA = "statistics", "backward", "forward or data"


@dataclass(frozen=True)
class Judged:
    """What became of a run."""

    kind: str  # the class
    at: int | None = None  # index of the step and of the quantity that left first
    what: int | None = None
    meaning: str = ""  # one of the kinds, where something left
    note: str = ""
    guarded: bool = False  # whether a kink may be what left


@dataclass(frozen=True)
class Floors:
    """The floor of every quantity at every step; all matrices are (steps, quantities)."""

    floor: np.ndarray
    ratio: np.ndarray  # of the judged run, in floors
    unseen: np.ndarray
    limit: np.ndarray  # (quantities,)

    @property
    def out(self) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ~self.unseen & (self.ratio > self.limit)


def floors(found: Traces, runs: list[int], judged: int = NEW) -> Floors:
    """u ‖x‖ + the largest distance of any of the runs at the step itself and its neighbours. Where
    x is 0, its size is that of the largest tensor of its kind."""
    apart = found.apart[judged]
    near = _neighbours(np.fmax.reduce([found.apart[run] for run in runs], axis=0))
    absent = np.isnan(found.size) & ~np.isnan(apart)  # as a gradient that is not there
    near = np.where(absent, np.nan_to_num(near), near)
    size = np.where(absent, 0, found.size)
    for kind in (PARAMETER, BUFFER, GRADIENT):
        mine = found.kind(kind)
        if mine.any():
            most = np.fmax.reduce(size[:, mine], axis=1, initial=0)[:, None]
            size[:, mine] = np.where(size[:, mine] == 0, most, size[:, mine])
    floor = found.roundoff * size + near
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(apart > 0, apart / floor, np.where(np.isnan(apart), np.nan, 0.0))
        unseen = ~np.isfinite(floor) | (near > UNSEEN * size)
    unseen[:, found.kind(INPUT)] = True
    return Floors(floor, ratio, unseen, np.where(found.exact, LIMIT, SKETCH_LIMIT))


def _neighbours(of: np.ndarray) -> np.ndarray:
    """The largest of a step and its two neighbours."""
    padded = np.pad(of, ((1, 1), (0, 0)), constant_values=np.nan)
    return np.fmax(np.fmax(padded[:-2], padded[1:-1]), padded[2:])


def first_out(found: Traces, held: Floors, begins: bool) -> Judged:
    """The first step at which something has left its floor, and what that means; `begins` where
    both runs begin with their training, so that parameters have to be the same bits then."""
    out = held.out
    if begins:
        out[0] |= found.kind(PARAMETER) & found.differs[NEW][0]
    steps = np.flatnonzero(out.any(axis=1))
    if not steps.size:
        return Judged(ROUNDING)
    at = int(steps[0])
    guarded = _may_be_a_kink(found, out[at], at)
    what, meaning = _meant(found, held, out[at], at)
    if meaning == OPTIMIZER and _suspect(found, held, at - 1):
        # An optimizer may make a large step of a gradient that is off by less than its limit.
        near = held.ratio[at - 1] > SUSPECT
        meaning = _meant(found, held, near & ~found.kind(PARAMETER), at - 1)[1]
    return Judged(UNDECIDED if guarded else DIFFERENT, at, what, meaning, guarded=guarded)


def _suspect(found: Traces, held: Floors, at: int) -> bool:
    """Whether half of the gradients of a step are further off than those of right runs are."""
    gradients = found.kind(GRADIENT) & ~held.unseen[at]
    return gradients.any() and float(np.nanmedian(held.ratio[at, gradients])) > SUSPECT


def _may_be_a_kink(found: Traces, out: np.ndarray, at: int) -> bool:
    """Whether one run may have come to the other side of a kink first: behind the first step, only
    gradients are out, by no more than KINK of their size, and what they follow from is not the
    same to the bit."""
    gradients = found.kind(GRADIENT)
    before = ~gradients & ~found.kind(INPUT) & found.differs[NEW][at]
    if at == 0 or out[~gradients].any() or not before.any():
        return False
    mine = out & gradients
    return bool((found.apart[NEW][at, mine] <= KINK * found.size[at, mine]).all())


def _meant(found: Traces, held: Floors, out: np.ndarray, at: int) -> tuple[int, str]:
    """The quantity that tells most of those that are out at a step, and what it means."""
    parameters, buffers, gradients = map(found.kind, (PARAMETER, BUFFER, GRADIENT))
    loss = found.names.index(LOSS)
    if (out & parameters).any():
        furthest = np.where(out & parameters, np.nan_to_num(held.ratio[at], nan=np.inf), -1.0)
        return int(np.argmax(furthest)), START if at == 0 else OPTIMIZER
    if out[loss]:
        return loss, before_the_loss(found, at)
    if (out & buffers).any() and not (out & gradients).any():
        return int(np.flatnonzero(out & buffers)[0]), STATISTICS
    first = int(np.flatnonzero(out & gradients)[0])  # they stand in backward order
    there = gradients & ~np.isnan(found.apart[NEW][at])
    if found.differs[NEW][at, loss] and (out & gradients).sum() > there.sum() / 2:
        return first, before_the_loss(found, at)
    return first, BACKWARD


def before_the_loss(found: Traces, at: int) -> str:
    """Which it is, as far as the inputs of the model are known: other numbers in more than half of
    their digits are other data."""
    if INPUT not in found.names:
        return FORWARD_OR_DATA
    what = found.names.index(INPUT)
    apart, size = found.apart[NEW][at, what], found.size[at, what]
    if np.isnan(apart):
        return FORWARD_OR_DATA
    return DATA if apart > np.sqrt(np.finfo(np.float32).eps / 2) * size else FORWARD
