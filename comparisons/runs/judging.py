"""The rule for recorded runs: every quantity has its own floor, and what leaves it first says what
it means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..verdict.classes import DIFFERENT, LIMIT, ROUNDING, UNDECIDED
from .recording import BUFFER, DTYPES, GRADIENT, INPUT, LOSS, PARAMETER
from .traces import NEW, Traces

# Floors, for distances that are estimated from sixteen sums, and for the sizes of all tensors. In
# 16 bits it is LIMIT: there no kink is larger than the noise, which makes for the long tails.
SKETCH_LIMIT = 16.0
UNSEEN = 1 / 16  # of ‖x‖: perturbed runs further apart show nothing of that tensor at that step
KINK = 1 / 4  # of ‖x‖: a jump of gradients up to this size may be a kink
# Beyond so many u |loss|, a loss that is computed from the same numbers is no rounding: in float32
# those of right rewrites (other orders and parts of the batch, threads, layouts, attention and
# norms by hand, float64) of five nets, at once and four times torch's weights, 12 seeds, reach 237.
FAR = 2.0**12
# Parameters at the start. What `torch.nn.init` draws with the kernels of another processor is off
# by 30 u of its size in one number and 2 in the median, what it makes orthogonal by 415 and 8.4;
# and of all parts 12 % differ at least.
START_PEAK, START_FAR, START_MANY = 64.0, 256.0, 1 / 16
# What is judged beside the tensors: how far all parameters have come, and how large all gradients
# are, against the old run, in the median. Their noise is that of one direction of many.
MOVEMENT, GRADIENTS = "movement of all parameters", "size of all gradients"
ALONE = 2.0**12  # times as many floors: gradients of a forward pass are at most 400 times
SHARED = 1.05  # the ratios of all gradients differ by less where they have one factor
SUSPECT = 2.0  # floors: the median of the gradients of a right run stays below, at each step
# Kinds of what differs.
START, OPTIMIZER, DATA, FORWARD = "start", "optimizer", "data", "forward"
STATISTICS, BACKWARD, FORWARD_OR_DATA = "statistics", "backward", "forward or data"


def far(precision: Iterable[str]) -> float:
    """FAR u, u being that of the coarsest dtype that is computed in; infinite for none."""
    u = [torch.finfo(DTYPES[dtype]).eps / 2 for dtype in precision]
    return FAR * max(u, default=math.inf)


@dataclass(frozen=True)
class Judged:
    """What became of a run."""

    kind: str  # the class
    at: int | None = None  # index in the window of the step and of the quantity that left first
    what: int | None = None
    meaning: str = ""  # one of the kinds, where something left
    note: str = ""
    lasts: bool = False  # whether no later step makes it another


@dataclass(frozen=True)
class Floors:
    """The floor of every quantity at every step; all matrices are (steps, quantities)."""

    floor: np.ndarray
    ratio: np.ndarray  # of the judged run, in floors
    unseen: np.ndarray
    limit: np.ndarray  # (quantities,)
    low: bool  # whether the run computes in 16 bits
    lowered: np.ndarray  # where the floor is that of a first difference, not of perturbed runs

    @property
    def out(self) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ~self.unseen & (self.ratio > self.limit)


def floors(found: Traces, runs: Sequence[int], low: bool) -> tuple[Traces, Floors]:
    """The floors of all quantities, and the traces with MOVEMENT and GRADIENTS among them; `low`
    where the run computes in 16 bits.

    A floor is u ‖x‖ + the largest distance of any of the runs at the step itself and its
    neighbours; of the first step in 16 bits, at that step alone. Where x is 0, its size is that of
    the largest tensor of its kind.
    """
    apart = found.apart[NEW]
    near = _neighbours(np.fmax.reduce([found.apart[run] for run in runs], axis=0), low)
    absent = np.isnan(found.size) & ~np.isnan(apart)  # as a gradient that is not there
    near = np.where(absent, np.nan_to_num(near), near)
    size = np.where(absent, 0, found.size)
    for kind in (PARAMETER, BUFFER, GRADIENT):
        mine = found.kind(kind)
        if mine.any():
            most = np.fmax.reduce(size[:, mine], axis=1, initial=0)[:, None]
            size[:, mine] = np.where(size[:, mine] == 0, most, size[:, mine])
    unseen = ~np.isfinite(near) | (near > UNSEEN * size)
    unseen[:, found.kind(INPUT)] = True
    limit = np.where(found.exact | low, LIMIT, SKETCH_LIMIT)
    alone = Floors(found.roundoff * size + near, apart, unseen, limit, low, np.zeros_like(unseen))
    return _with_scales(found, alone, runs)


def _with_scales(found: Traces, held: Floors, runs: Sequence[int]) -> tuple[Traces, Floors]:
    kinds = {MOVEMENT: (PARAMETER, found.moved), GRADIENTS: (GRADIENT, found.sizes)}
    scales = {
        name: {run: _scale(of[run], of[0], found.kind(kind)) for run in found.apart}
        for name, (kind, of) in kinds.items()
        if found.kind(kind).any()
    }
    columns = {run: [abs(of[run]) for of in scales.values()] for run in found.apart}
    apart = {run: _beside(rows, *columns[run]) for run, rows in found.apart.items()}
    differs = {
        run: _beside(rows, *(column > 0 for column in columns[run])).astype(bool)
        for run, rows in found.differs.items()
    }
    ones = [np.ones(len(found.steps)) for _ in scales]
    roundoff = [found.roundoff[found.kind(kinds[name][0])].max() for name in scales]
    wide = replace(
        found,
        names=[*found.names, *scales],
        apart=apart,
        differs=differs,
        sizes={run: _beside(found.sizes[run], *ones) for run in (0, NEW)},
        moved={0: _beside(found.moved[0], *ones)},
        stepped=_beside(found.stepped, *ones),
        exact=np.append(found.exact, [True for _ in scales]),
        roundoff=np.append(found.roundoff, roundoff),
        scales={name: of[NEW] for name, of in scales.items()},
    )
    noise = [np.fmax.reduce([columns[run][i] for run in runs], axis=0) for i in range(len(scales))]
    near = [
        _neighbours(of[:, None], held.low)[:, 0] + u for of, u in zip(noise, roundoff, strict=True)
    ]
    floor = _beside(held.floor, *near)
    new = apart[NEW]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(new > 0, new / floor, np.where(np.isnan(new), np.nan, 0.0))
    unseen = _beside(held.unseen, *(of > 1 for of in near)).astype(bool)
    unseen[0, wide.kind(MOVEMENT)] = True  # nothing has moved yet
    limit = np.append(held.limit, [LIMIT if held.low else SKETCH_LIMIT for _ in scales])
    lowered = np.zeros_like(unseen)
    return wide, Floors(floor, ratio, unseen, limit, held.low, lowered)


def _scale(of: np.ndarray, to: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The median over the tensors of a kind of the logarithm of the ratio of two sizes, by step."""
    with np.errstate(invalid="ignore", divide="ignore"):
        good = kind & (to > 0) & np.isfinite(of) & np.isfinite(to)
        nothing = np.finfo(np.float64).tiny  # what does not move at all is infinitely less
        logarithms = np.where(good, np.log(np.maximum(of / to, nothing)), np.nan)
    return np.nan_to_num(_medians(logarithms))


def _medians(of: np.ndarray) -> np.ndarray:
    """The median of the numbers of each row, NaN where there are none."""
    found = np.full(len(of), np.nan)
    rows = ~np.isnan(of).all(axis=1)
    found[rows] = np.nanmedian(of[rows], axis=1)
    return found


def _beside(matrix: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    return np.column_stack([matrix, *columns])


def _neighbours(of: np.ndarray, low: bool) -> np.ndarray:
    """The largest of a step and its two neighbours. In 16 bits the first stands alone: what moves
    every eighth result moves it by more than right rewrites do, and the second step by chaos."""
    padded = np.pad(of, ((1, 1), (0, 0)), constant_values=np.nan)
    near = np.fmax(np.fmax(padded[:-2], padded[1:-1]), padded[2:])
    if low:
        near[0] = of[0]
    return near


def first_out(found: Traces, held: Floors, begins: bool) -> Judged:
    """The first step of a window at which something has left its floor, and what that means;
    `begins` where both runs begin with their training, so that parameters have to be the same bits
    then."""
    out = held.out & found.own[:, None]
    if begins and found.own[0]:
        other, unclear = other_start(found)
        if unclear.any() and not other.any():  # all else may follow from it
            return Judged(UNDECIDED, 0, int(np.argmax(unclear)), START, lasts=True)
        out[0] |= other
    few = _in_few_elements(found, held, out)
    out &= ~(few & _turned(found, held))
    few &= out
    steps = np.flatnonzero((out & ~few).any(axis=1))
    if not steps.size:
        if not few.any():
            return Judged(ROUNDING)
        at, what = (int(i) for i in np.argwhere(few)[0])
        return Judged(UNDECIDED, at, what, OPTIMIZER)
    at = int(steps[0])
    out &= ~few
    guarded = _may_be_a_kink(found, out[at], at)
    what, meaning = _meant(found, held, out[at], at)
    if meaning == OPTIMIZER and _suspect(found, held, at - 1):
        # An optimizer may make a large step of a gradient that is off by less than its limit.
        near = held.ratio[at - 1] > SUSPECT
        meaning = _meant(found, held, near & ~found.kind(PARAMETER), at - 1)[1]
    return Judged(UNDECIDED if guarded else DIFFERENT, at, what, meaning, lasts=True)


def other_start(found: Traces) -> tuple[np.ndarray, np.ndarray]:
    """(quantities,) whether a run starts from another parameter, and whether from one that may be.

    By its bits; but other last digits, as another processor draws them, are none: they are many,
    and off by START_PEAK u at most and LIMIT in the median. More in the median, as of an orthogonal
    start, may be that, and may be a change; above START_FAR it is a change, and where few are off
    by more. Of recordings that do not say, every other bit is one.
    """
    parameters = found.kind(PARAMETER) & found.differs[NEW][0]
    width = found.starts.shape[1]
    u = found.roundoff[:width]
    most, median, share = np.pad(found.starts, ((0, 0), (0, len(parameters) - width)))
    most[:width], median[:width] = most[:width] / u, median[:width] / u
    known = (share > START_MANY) & (most <= START_PEAK * np.fmax(median, 1))
    other = parameters & ~(known & (median <= START_FAR))
    return other, parameters & ~other & (median > LIMIT)


def _suspect(found: Traces, held: Floors, at: int) -> bool:
    """Whether half of the gradients of a step are further off than those of right runs are."""
    gradients = found.kind(GRADIENT) & ~held.unseen[at]
    if not gradients.any():
        return False
    return float(_medians(held.ratio[at, gradients][None])[0]) > SUSPECT


def _in_few_elements(found: Traces, held: Floors, out: np.ndarray) -> np.ndarray:
    """(steps, quantities) whether parameters are out in one or two of their sixteen parts alone.

    Adam and the like make a whole step of the sign of a gradient however small it is, so that
    where it is as small as its rounding, one element goes the other way in one run of many.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        width = found.spread.shape[1]
        spread = found.spread / held.floor[:, :width] > held.limit[:width]
    wide = np.zeros_like(out)
    wide[:, : spread.shape[1]] = spread
    few = out & ~wide & found.kind(PARAMETER)
    few[0] = False
    return few


def _turned(found: Traces, held: Floors) -> np.ndarray:
    """(steps, quantities) whether a parameter is off by no more than two of its elements are that
    went the other way, while in half of the parameters perturbed runs are further apart, for their
    way, than in this one. So rare a turn is in none of six runs, and in one more."""
    parameters = found.kind(PARAMETER)
    width = found.spread.shape[1]
    turned = np.zeros(held.floor.shape, bool)
    if not parameters.any():
        return turned
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(parameters, held.floor / found.moved[0], np.nan)
        usual = _medians(np.where(np.isfinite(noise), noise, np.nan)[1:])
        each = found.moved[0][1:, :width] / np.sqrt(found.elements)
        apart = found.apart[NEW][1:, :width]
        small = (apart >= each[:1]) & (apart <= 2 * 2 * each)
        turned[1:, :width] = small & (noise[1:, :width] < usual[:, None])
    return turned


def _may_be_a_kink(found: Traces, out: np.ndarray, at: int) -> bool:
    """Whether one run may have come to the other side of a kink first: behind the first step, only
    gradients are out, by no more than KINK of their size, and what they follow from is not the
    same to the bit."""
    gradients = found.kind(GRADIENT) | found.kind(GRADIENTS)
    before = ~gradients & ~found.kind(INPUT) & found.differs[NEW][at]
    if at == 0 or out[~gradients].any() or not before.any():
        return False
    mine = out & gradients
    return bool((found.apart[NEW][at, mine] <= KINK * found.size[at, mine]).all())


def _meant(found: Traces, held: Floors, out: np.ndarray, at: int) -> tuple[int, str]:
    """The quantity that tells most of those that are out at a step, and what it means."""
    parameters, buffers, gradients = map(found.kind, (PARAMETER, BUFFER, GRADIENT))
    loss = found.names.index(LOSS)
    for moved in (parameters, found.kind(MOVEMENT)):
        if (out & moved).any():
            furthest = np.where(out & moved, np.nan_to_num(held.ratio[at], nan=np.inf), -1.0)
            return int(np.argmax(furthest)), START if at == 0 else OPTIMIZER
    near = held.ratio[at] > SUSPECT
    if at and (held.ratio[at, parameters & ~held.unseen[at]] > 2 * SUSPECT).any():
        what = loss if out[loss] else int(np.flatnonzero(out)[0])
        return what, OPTIMIZER  # whose trace is not yet beyond the limit
    if out[loss]:
        return loss, before_the_loss(found, at)
    if (out & buffers).any() and not (out & gradients).any():
        what = int(np.flatnonzero(out & buffers)[0])
        meaning = before_the_loss(found, at)
        forward = meaning == DATA or (meaning != FORWARD and held.ratio[at, loss] > SUSPECT)
        return what, meaning if forward else STATISTICS
    mine = out & gradients
    if not mine.any():
        mine = gradients & near
    if not mine.any():
        return int(np.flatnonzero(out)[0]), BACKWARD
    first = int(np.flatnonzero(mine)[0])  # they stand in backward order
    if _forward(found, held, mine | (gradients & near), at):
        return first, before_the_loss(found, at)
    return first, BACKWARD


def _forward(found: Traces, held: Floors, out: np.ndarray, at: int) -> bool:
    """Whether gradients are out because of the forward pass: more than half of them are, and the
    loss is not the same. One that is off by roundings alone, while they are off by ALONE times as
    many, is as good as the same."""
    loss = found.names.index(LOSS)
    there = found.kind(GRADIENT) & ~np.isnan(found.apart[NEW][at])
    if not found.differs[NEW][at, loss] or out.sum() <= there.sum() / 2:
        return False
    if held.ratio[at, loss] < SUSPECT and not math.isnan(shared_factor(found, held, at)):
        return False
    return held.ratio[at, loss] * ALONE >= float(np.median(held.ratio[at, out]))


def before_the_loss(found: Traces, at: int) -> str:
    """Which it is, as far as the inputs of the model are known: other numbers in more than half of
    their digits, or in another order, are other data. In another order with the targets they would
    make no difference."""
    apart, size = (of[at, found.kind(INPUT)] for of in (found.apart[NEW], found.size))
    if np.isnan(apart).all():
        return FORWARD_OR_DATA
    return DATA if (apart > np.sqrt(np.finfo(np.float32).eps / 2) * size).any() else FORWARD


def shared_factor(found: Traces, held: Floors | None, at: int) -> float:
    """By what all gradients of a step are multiplied, NaN if by nothing that they share."""
    mine = found.kind(GRADIENT)
    if held is not None:
        mine = mine & ~held.unseen[at]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (found.sizes[NEW][at] / found.size[at])[mine]
    ratios = ratios[np.isfinite(ratios)]
    if not ratios.size or not ratios.min() > 0 or ratios.max() > SHARED * ratios.min():
        return math.nan
    factor = float(np.median(ratios))
    return factor if max(factor, 1 / factor) > SHARED else math.nan
