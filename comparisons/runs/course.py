"""The course of two runs beside each other: what is kept of it, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..verdict.classes import DIFFERENT, ROUNDING, UNDECIDED
from ..verdict.drift import Drift, free_drift
from .judging import (
    START,
    Floors,
    Judged,
    before_the_loss,
    first_out,
    floors,
    other_start,
    shared_factor,
)
from .leaving import first_difference
from .recording import INPUT, LOSS
from .repeating import unrepeated
from .resolution import Resolution
from .sharpening import sharpened
from .traces import NEW, Traces


@dataclass(frozen=True)
class Spot:
    """A quantity at a step, and how far the runs lie apart there."""

    step: int  # its number
    name: str
    apart: float
    ratio: float = math.nan  # in floors
    limit: float = math.nan
    floor: float = math.nan
    factor: float = math.nan  # by which all gradients are multiplied, if by one
    scale: float = math.nan  # of all sizes of a kind, the new over the old


def spot(found: Traces, held: Floors | None, at: int, what: int) -> Spot:
    """That of a place in a window."""
    name = found.names[what]
    known = Spot(
        int(found.steps[at]),
        name,
        float(found.apart[NEW][at, what]),
        factor=shared_factor(found, held, at),
        scale=math.exp(found.scales[name][at]) if name in found.scales else math.nan,
    )
    if held is None:
        return known
    ratio = 0.0 if held.unseen[at, what] else float(np.nan_to_num(held.ratio[at, what]))
    return replace(
        known, ratio=ratio, limit=float(held.limit[what]), floor=float(held.floor[at, what])
    )


class Course:
    """Where runs leave each other and their floors, what could be seen, and of each step the loss
    beside its floor."""

    def __init__(
        self,
        name: str,
        noisy: Sequence[int],
        low: bool,
        precision: Sequence[str],
        halves: bool,
        begins: bool,
    ) -> None:
        """`name` is that of the old recording and `noisy` are the perturbed runs that make floors;
        the rest is that of `floors`, `sharpened` and `first_out`."""
        self.name, self.noisy, self.low = name, list(noisy), low
        self.precision, self.halves, self.begins = precision, halves, begins
        self.windows = 0
        self.differs: tuple[int, str] | None = None  # where the new run first does
        self.unrepeated = ""  # in words
        self.judged = Judged(ROUNDING)
        self.out: Spot | None = None  # what left its floor first
        self.most: Spot | None = None  # what came nearest to its limit
        self.most_within: Spot | None = None  # and of what is not beyond it
        self.resolution = Resolution()
        self.seen = self.judgeable = 0
        self.losses_alone = bool(noisy)  # whether the loss is all that has a floor
        self.curves: dict[int, list[np.ndarray]] = {}
        self.lines: list[np.ndarray] = []  # (3, steps) of the loss: drift, floor and ratio

    def add(self, found: Traces) -> None:
        """One window more."""
        self.windows += 1
        self.differs = self.differs or first_difference(found, NEW)
        self.unrepeated = self.unrepeated or unrepeated(found, self.name)
        held = None
        if self.noisy:
            found, held = floors(found, self.noisy, self.low)
            step = None if self.differs is None else self.differs[0]
            held = sharpened(found, held, step, self.precision, self.halves)
            self._judge(found, held)
            self._see(found, held)
        if self.windows == 1:
            self.first, self.held = found, held
        self._follow(found, held)

    def _judge(self, found: Traces, held: Floors) -> None:
        if self.judged.lasts:
            return
        judged = first_out(found, held, self.begins)
        if judged.kind != ROUNDING and (judged.lasts or self.judged.kind == ROUNDING):
            assert judged.at is not None
            assert judged.what is not None
            self.judged, self.out = judged, spot(found, held, judged.at, judged.what)

    def _see(self, found: Traces, held: Floors) -> None:
        own = found.own[:, None]
        judgeable = own & ~found.kind(INPUT) & ~np.isnan(held.floor)
        self.judgeable += int(judgeable.sum())
        self.seen += int((judgeable & ~held.unseen).sum())
        self.resolution.add(found, held)
        margins = np.where(held.unseen, 0, np.nan_to_num(held.ratio)) / held.limit
        self.most = _larger(self.most, found, held, np.where(own, margins, -1))
        within = np.where(margins > 1, 0, margins)  # what is beyond it was excused
        self.most_within = _larger(self.most_within, found, held, np.where(own, within, -1))
        others = np.array([name != LOSS for name in found.names])
        self.losses_alone &= bool(np.isnan(held.ratio[:, others]).all())

    def _follow(self, found: Traces, held: Floors | None) -> None:
        """Keeps the losses: of perturbed runs as long as they are all that there is."""
        kept = found.losses if self.losses_alone else (0, NEW)
        for run in kept:
            self.curves.setdefault(run, []).append(found.losses[run][found.own])
        loss = found.names.index(LOSS)
        drift = found.apart[NEW][:, loss]
        floor, ratio = np.full((2, len(drift)), math.nan)
        if held is not None:
            floor = held.floor[:, loss]
            ratio = np.where(held.unseen[:, loss], 0, np.nan_to_num(held.ratio[:, loss]))
        self.lines.append(np.array([drift, floor, ratio])[:, found.own])

    def losses(self, run: int) -> np.ndarray:
        """(steps,)"""
        return np.concatenate(self.curves[run])

    def drift(self) -> Drift:
        """That of the loss, for the picture."""
        drift, floor, ratio = np.concatenate(self.lines, axis=1)
        if not self.losses_alone:
            return Drift(drift, floor, ratio, math.nan)
        runs = np.array([self.losses(run) for run in self.noisy])
        u = self.first.roundoff[self.first.names.index(LOSS)]
        return free_drift(self.losses(NEW), self.losses(0), runs, u)

    def by_losses(self) -> None:
        """Judges losses alone, whose runs may come over kinks unseen: their floor is that of ten
        steps before and after; at the first step that of the step itself."""
        found, held, drift = self.first, self.held, self.drift()
        assert held is not None
        at = int(np.argmax(drift.ratio))
        self.most = self.most_within = self._of_loss(drift, at)
        self.judged, self.out = Judged(ROUNDING), None
        for kind, those in zip((DIFFERENT, UNDECIDED), other_start(found), strict=True):
            if those.any():
                what = int(np.argmax(those))
                self.judged = Judged(kind, 0, what, START)
                self.out = spot(found, held, 0, what)
                return
        if held.out[0, found.names.index(LOSS)]:
            self.judged = Judged(DIFFERENT, meaning=before_the_loss(found, 0))
            self.out = self._of_loss(drift, 0)
        elif drift.parted is not None:
            self.judged, self.out = Judged(DIFFERENT), self._of_loss(drift, drift.parted)

    def _of_loss(self, drift: Drift, at: int) -> Spot:
        found, held = self.first, self.held
        assert held is not None
        floor = float(np.concatenate(self.lines, axis=1)[1, at])
        limit = float(held.limit[found.names.index(LOSS)])
        step = int(found.steps[0]) + at
        return Spot(step, LOSS, float(drift.drift[at]), float(drift.ratio[at]), limit, floor)


def _larger(most: Spot | None, found: Traces, held: Floors, margins: np.ndarray) -> Spot:
    """The place with the largest margin, if it is larger than the one before."""
    at, what = (int(i) for i in np.unravel_index(int(np.argmax(margins)), margins.shape))
    if most is not None and margins[at, what] <= most.ratio / most.limit:
        return most
    return spot(found, held, at, what)
