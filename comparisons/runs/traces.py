"""How far runs lie from the first of them, step by step and tensor by tensor, a window of steps at
a time, so that no run has to fit into the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from .pairing import Columns, Compared, Pair, Stretch
from .recording import GRADIENT, LOSS, PARAMETER, Layout, Recorded, Step

NEW = -1  # the run that is judged, among those of the old recording
STRETCH = 2**20  # bytes of all runs that are compared at once, about
ROOM, LEAST = 2**14, 16  # numbers in a matrix of a window, about, and steps in one, at least
# What a window has beside its own steps: the first of all, which later ones are held to, and its
# neighbours.
FIRST, BEFORE, BEHIND = 3, 2, 1


@dataclass
class Traces:
    """Distances of runs from the run itself in a window of steps; every matrix is (steps,
    quantities), NaN where a quantity is not recorded in both."""

    names: list[str]
    steps: np.ndarray  # their numbers
    own: np.ndarray  # (steps,) whether the step is one of the window, or stands beside it
    sizes: dict[int, np.ndarray]  # ‖x‖, by run, 0 being the run itself
    moved: dict[int, np.ndarray]  # how far each is from its own first step
    stepped: np.ndarray  # how far the run itself is from its step before
    apart: dict[int, np.ndarray]  # ‖x − x′‖, by run
    differs: dict[int, np.ndarray]  # whether anything at all does
    starts: np.ndarray  # (3, quantities), see Pair.starts
    spread: np.ndarray  # of the judged run, ‖x − x′‖ without the parts that differ most
    elements: np.ndarray  # (quantities,) how many numbers it has
    exact: np.ndarray  # (quantities,) whether the distance is that of all numbers, or of dense sums
    roundoff: np.ndarray  # (quantities,) u
    losses: dict[int, np.ndarray]  # by run, 0 being the run itself
    peak: np.ndarray  # (steps,) the largest |loss| of the run itself so far
    alone: list[str]  # quantities that only one of old and new has
    scales: dict[str, np.ndarray] = field(default_factory=dict)  # of all, (steps,), logarithms

    @property
    def size(self) -> np.ndarray:
        """‖x‖ of the run itself."""
        return self.sizes[0]

    def kind(self, of: str) -> np.ndarray:
        """(quantities,) whether the name begins so."""
        return np.array([name.startswith(of) for name in self.names])


Rows = tuple[np.ndarray, ...]  # numbers, losses, peak and matrices, each (steps, …)


def windows(old: Recorded, runs: list[int], others: Mapping[int, Recorded]) -> Iterator[Traces]:
    """The distances of runs of the old recording, and of the run itself in each of the others.

    Raises ValueError for a quantity of another dtype or shape, before the first window.
    """
    together = _Together(old, runs, others)
    for rows, own in _cut(together.rows(), max(LEAST, ROOM // len(together.names))):
        yield together.traces(rows, own)


def _cut(pieces: Iterator[Rows], length: int) -> Iterator[tuple[Rows, np.ndarray]]:
    """Windows of so many steps, with what stands beside them, and which are their own."""
    first: list[Rows] = []  # what stands in front of a window but the first
    held: Rows = ()
    done = 0  # steps in `held` that a window had already

    def window(rows: Rows, own: slice) -> tuple[Rows, np.ndarray]:
        mine = np.zeros(len(rows[0]), bool)
        mine[own] = True
        return _joined(*first, rows), np.append(np.zeros(FIRST * len(first), bool), mine)

    for piece in pieces:
        held = _joined(held, piece) if held else piece
        while len(held[0]) >= done + length + BEHIND:
            end = done + length
            yield window(_sliced(held, 0, end + BEHIND), slice(done, end))
            first = first or [_sliced(held, 0, FIRST)]
            held, done = _sliced(held, end - BEFORE, None), BEFORE
    if held:
        yield window(held, slice(done, None))


def _joined(*parts: Rows) -> Rows:
    return tuple(np.concatenate(of) for of in zip(*parts, strict=True))


def _sliced(rows: Rows, first: int, end: int | None) -> Rows:
    return tuple(of[first:end] for of in rows)


class _Together:
    """Runs side by side, and all that they have in any step, which is known before the first of
    them is compared."""

    def __init__(self, old: Recorded, runs: list[int], others: Mapping[int, Recorded]) -> None:
        self.old, self.others = old, others
        self.runs = [0, *runs, *others]
        self.start = max([old.start, *(other.start for other in others.values())])
        self.columns, self.alone = Columns(), set[str]()
        self.pairs: dict[tuple[Layout, Layout], Pair] = {}
        self.first: tuple[Step, ...] = ()
        before: list[Layout] = []
        for at in self.steps():
            self.first = self.first or at
            now = [step.layout for step in at]
            if now != before:
                self._meet(before or now, now)
            before = now
        self.order = _order(self.columns.names)
        self.names = [self.columns.names[i] for i in self.order]

    def steps(self) -> Iterator[tuple[Step, ...]]:
        """A step of each run at a time."""
        walks = [self.old.walk(run) for run in self.runs if run not in self.others]
        walks += [other.walk(0) for other in self.others.values()]
        return zip(*(_from(walk, self.start) for walk in walks), strict=False)

    def _meet(self, before: list[Layout], now: list[Layout]) -> None:
        """The pairs of layouts that are compared in a step."""
        self.pair(before[0], now[0])
        for run, layout, begun in zip(self.runs, now, self.first, strict=True):
            self.pair(layout, layout)
            self.pair(begun.layout, layout)
            if run:
                pair = self.pair(now[0], layout)
                self.alone |= pair.alone if run == NEW else set()

    def pair(self, old: Layout, new: Layout) -> Pair:
        if (old, new) not in self.pairs:
            self.pairs[old, new] = Pair(old, new, self.columns)
        return self.pairs[old, new]

    def stretches(self) -> Iterator[list[Stretch]]:
        """As many steps at a time as have the same layouts."""
        held: list[tuple[Step, ...]] = []
        size = 0
        for at in self.steps():
            same = held and all(a.layout is b.layout for a, b in zip(at, held[0], strict=True))
            if held and (not same or size > STRETCH):
                yield [Stretch(steps) for steps in zip(*held, strict=True)]
                held, size = [], 0
            held.append(at)
            size += sum(len(step.data) for step in at)
        if held:
            yield [Stretch(steps) for steps in zip(*held, strict=True)]

    def rows(self) -> Iterator[Rows]:
        """Sizes and movements of all runs, distances and differences of all but the first, and how
        far the first has stepped and the judged one is spread."""
        first = [Stretch([step]) for step in self.first]
        before, peak = first[0], 0.0
        for all_of in self.stretches():
            base = all_of[0]
            sizes = [self.pair(of.layout, of.layout).sizes(of) for of in all_of]
            moved = [self._compared(*pair).apart for pair in zip(first, all_of, strict=True)]
            others = {
                run: self._compared(base, of)
                for run, of in zip(self.runs, all_of, strict=True)
                if run
            }
            stepped = [self._compared(before, Stretch(base.steps[:1])).apart]
            if len(base.steps) > 1:
                pair = Stretch(base.steps[:-1]), Stretch(base.steps[1:])
                stepped.append(self._compared(*pair).apart)
            spread = others[NEW].spread if NEW in others else np.full_like(sizes[0], np.nan)
            apart, differs = ([of[i] for of in others.values()] for i in (0, 1))
            matrices = [*sizes, *moved, *apart, *differs, np.concatenate(stepped), spread]
            losses = np.array([of.losses for of in all_of]).T
            peaks = np.fmax.accumulate(np.append(peak, abs(losses[:, 0])))[1:]
            numbers = np.array([step.number for step in base.steps])
            yield numbers, losses, peaks, np.stack(matrices, axis=1)[:, :, self.order]
            before, peak = Stretch(base.steps[-1:]), peaks[-1]

    def _compared(self, old: Stretch, new: Stretch) -> Compared:
        return self.pair(old.layout, new.layout).compare(old, new)

    def traces(self, rows: Rows, own: np.ndarray) -> Traces:
        numbers, losses, peaks, matrices = rows
        runs, others = self.runs, self.runs[1:]
        planes = iter(np.moveaxis(matrices, 1, 0))
        names, columns = self.names, self.columns
        dtypes = [columns.dtypes.get(name, self.first[0].layout.loss) for name in names]
        starts = np.full((3, len(names)), np.nan)
        if NEW in runs:
            pair = self.first[0], self.first[runs.index(NEW)]
            starts = self.pair(*(step.layout for step in pair)).starts(*pair)[:, self.order]
        return Traces(
            names,
            numbers,
            own,
            sizes={run: next(planes) for run in runs},
            moved={run: next(planes) for run in runs},
            apart={run: next(planes) for run in others},
            differs={run: next(planes) == 1 for run in others},
            stepped=next(planes),
            spread=next(planes),
            starts=starts,
            elements=np.array([columns.elements.get(name, 1) for name in names]),
            exact=np.array([name not in columns.sketched for name in names]),
            roundoff=np.array([_roundoff(dtype) for dtype in dtypes]),
            losses=dict(zip(runs, losses.T, strict=True)),
            peak=peaks,
            alone=sorted(self.alone),
        )


def _from(walk: Iterator[Step], start: int) -> Iterator[Step]:
    return (step for step in walk if step.number >= start)


def _order(names: list[str]) -> list[int]:
    """Parameters, buffers, the loss, gradients: as they are computed."""
    ranks = {PARAMETER: 0, GRADIENT: 3, LOSS: 2}
    rank = [next((r for k, r in ranks.items() if name.startswith(k)), 1) for name in names]
    return sorted(range(len(names)), key=lambda i: (rank[i], i))


def _roundoff(dtype: str) -> float:
    known = getattr(torch, dtype, torch.float32)
    return torch.finfo(known if known.is_floating_point else torch.float32).eps / 2
