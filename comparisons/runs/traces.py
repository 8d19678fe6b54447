"""How far runs lie from the first of them, step by step and tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from .names import unwrapped
from .recording import (
    BITS,
    DENSE,
    DIGEST,
    GRADIENT,
    LOSS,
    PARAMETER,
    SKETCH,
    SKETCHES,
    SUMS,
    Layout,
    Quantity,
    Recorded,
    Step,
    values,
)
from .sketches import distance, size, sketch, start_distances

NEW = -1  # the run that is judged, among those of the old recording


@dataclass
class Traces:
    """Distances of runs from the run itself; every matrix is (steps, quantities), NaN where a
    quantity is not recorded in both."""

    names: list[str]
    steps: np.ndarray  # their numbers
    sizes: dict[int, np.ndarray]  # ‖x‖, by run, 0 being the run itself
    moved: dict[int, np.ndarray]  # how far each is from its own first step
    stepped: np.ndarray  # how far the run itself is from its step before
    apart: dict[int, np.ndarray]  # ‖x − x′‖, by run
    differs: dict[int, np.ndarray]  # whether anything at all does
    starts: np.ndarray  # (3, quantities), see _Pair.starts
    spread: np.ndarray  # of the judged run, ‖x − x′‖ without the parts that differ most
    elements: np.ndarray  # (quantities,) how many numbers it has
    exact: np.ndarray  # (quantities,) whether the distance is that of all numbers, or of dense sums
    roundoff: np.ndarray  # (quantities,) u
    losses: dict[int, np.ndarray]  # by run, 0 being the run itself
    alone: list[str]  # quantities that only one of old and new has
    scales: dict[str, np.ndarray] = field(default_factory=dict)  # of all, (steps,), logarithms

    @property
    def size(self) -> np.ndarray:
        """‖x‖ of the run itself."""
        return self.sizes[0]

    def kind(self, of: str) -> np.ndarray:
        """(quantities,) whether the name begins so."""
        return np.array([name.startswith(of) for name in self.names])


class _Column:
    """The place of each quantity, in the order of computing."""

    def __init__(self) -> None:
        self.names = [LOSS]
        self.places = {LOSS: 0}
        self.dtypes: dict[str, str] = {}
        self.elements: dict[str, int] = {}
        self.sketched: set[str] = set()

    def of(self, quantity: Quantity) -> int:
        name = unwrapped(quantity.name)
        if name not in self.places:
            self.places[name] = len(self.names)
            self.names.append(name)
            self.dtypes[name] = quantity.dtype
            self.elements[name] = math.prod(quantity.shape)
        if quantity.form == SKETCH:
            self.sketched.add(name)
        return self.places[name]


def traces(old: Recorded, runs: list[int], others: Mapping[int, Recorded]) -> Traces:
    """The distances of runs of the old recording, and of the run itself in each of the others.

    Raises ValueError for a quantity of another dtype or shape.
    """
    start = max([old.start, *(other.start for other in others.values())])
    walks = {run: _from(old.walk(run), start) for run in (0, *runs)}
    walks |= {run: _from(other.walk(0), start) for run, other in others.items()}
    columns = _Column()
    steps: list[int] = []
    sizes: dict[int, list[np.ndarray]] = {run: [] for run in walks}
    moved: dict[int, list[np.ndarray]] = {run: [] for run in walks}
    apart: dict[int, list[np.ndarray]] = {run: [] for run in walks if run}
    differs: dict[int, list[np.ndarray]] = {run: [] for run in walks if run}
    starts = np.full((3, 1), np.nan)
    spread: list[np.ndarray] = []
    stepped: list[np.ndarray] = []
    losses: dict[int, list[float]] = {run: [] for run in walks}
    alone: set[str] = set()
    pairs: dict[tuple[Layout, Layout], _Pair] = {}
    first: dict[int, Step] = {}
    before: Step | None = None
    for at in zip(*walks.values(), strict=False):
        base = at[0]
        before = before or base
        stepped.append(_paired(pairs, before, base, columns).compare(before, base, columns).apart)
        before = base
        steps.append(base.number)
        for run, step in zip(walks, at, strict=True):
            begun = first.setdefault(run, step)
            losses[run].append(step.loss)
            sizes[run].append(_paired(pairs, step, step, columns).sizes(step, columns))
            moves = _paired(pairs, begun, step, columns).compare(begun, step, columns)
            moved[run].append(moves.apart)
            if run:
                pair = _paired(pairs, base, step, columns)
                compared = pair.compare(base, step, columns)
                apart[run].append(compared.apart)
                differs[run].append(compared.differs)
                if run == NEW:
                    if not spread:
                        starts = pair.starts(base, step, columns)
                    alone |= pair.alone
                    spread.append(compared.spread)
    order = _order(columns.names)
    loss = next(old.walk(0)).layout.loss
    dtypes = [columns.dtypes.get(name, loss) for name in columns.names]
    return Traces(
        [columns.names[i] for i in order],
        np.array(steps),
        {run: _stacked(rows, order) for run, rows in sizes.items()},
        {run: _stacked(rows, order) for run, rows in moved.items()},
        _stacked(stepped, order),
        {run: _stacked(rows, order) for run, rows in apart.items()},
        {run: _stacked(rows, order) == 1 for run, rows in differs.items()},
        _stacked([*starts], order),
        _stacked(spread, order),
        np.array([columns.elements.get(columns.names[i], 1) for i in order]),
        np.array([columns.names[i] not in columns.sketched for i in order]),
        np.array([_roundoff(dtypes[i]) for i in order]),
        {run: np.array(of) for run, of in losses.items()},
        sorted(alone),
    )


def _from(walk: Iterator[Step], start: int) -> Iterator[Step]:
    return (step for step in walk if step.number >= start)


def _order(names: list[str]) -> list[int]:
    """Parameters, buffers, the loss, gradients: as they are computed."""
    ranks = {PARAMETER: 0, GRADIENT: 3, LOSS: 2}
    rank = [next((r for k, r in ranks.items() if name.startswith(k)), 1) for name in names]
    return sorted(range(len(names)), key=lambda i: (rank[i], i))


def _stacked(rows: list[np.ndarray], order: list[int]) -> np.ndarray:
    width = len(order)
    padded = [np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows]
    return np.array(padded).reshape(len(rows), width)[:, order]


def _roundoff(dtype: str) -> float:
    known = getattr(torch, dtype, torch.float32)
    return torch.finfo(known if known.is_floating_point else torch.float32).eps / 2


def _paired(
    pairs: dict[tuple[Layout, Layout], _Pair], old: Step, new: Step, columns: _Column
) -> _Pair:
    key = old.layout, new.layout
    if key not in pairs:
        pairs[key] = _Pair(*key, columns)
    return pairs[key]


class _Compared(NamedTuple):
    """Two steps, compared, by quantity."""

    apart: np.ndarray
    differs: np.ndarray  # 1 or 0
    spread: np.ndarray  # as apart, without the parts that differ most


def _without_few(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The distance of sketches, (…, 1 + parts), without an eighth of the parts: those
    that differ most."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.square(np.subtract(old, new, dtype=np.float64)[..., 1:])
    kept = apart.shape[-1] - apart.shape[-1] // 8
    apart = np.where(np.isfinite(apart), apart, np.inf)
    least = np.partition(apart, max(kept - 1, 0), axis=-1)[..., :kept]
    return np.asarray(np.sqrt(least.sum(axis=-1)))


class _Pair:
    """Which quantities of two layouts belong together."""

    def __init__(self, old: Layout, new: Layout, columns: _Column) -> None:
        theirs, ours = (_by_name(layout) for layout in (old, new))
        both = [key for key in theirs if key in ours]
        alone = {name for name, form in theirs.keys() ^ ours.keys() if not form}
        # A parameter without a gradient, where the other run has one: as if it were zero.
        lost = {name for name in alone if _parameter(name) in theirs and _parameter(name) in ours}
        self.alone = alone - lost
        self.lost = [(theirs[n, ""], True) for n in sorted(lost) if (n, "") in theirs]
        self.lost += [(ours[n, ""], False) for n in sorted(lost) if (n, "") in ours]
        for quantity, _ in self.lost:
            columns.of(quantity)
        sketched = [key for key in both if not key[1] and _sketches(theirs, ours, key)]
        for key in both:
            _same(theirs[key], ours[key])
        places = {name: i for i, name in enumerate(old.sketched)}
        others = {name: i for i, name in enumerate(new.sketched)}
        plain = [key for key in sketched if BITS not in _forms(theirs, ours, key)]
        self.old = [places[theirs[key].name] for key in plain]
        self.new = [others[ours[key].name] for key in plain]
        self.columns = [columns.of(theirs[key]) for key in plain]
        self.dense = np.array([theirs[key].form == DENSE for key in plain], bool)
        mixed = [key for key in sketched if key not in plain]
        exact = [key for key in both if not key[1] and _forms(theirs, ours, key) == {BITS}]
        self.mixed = [(theirs[key], ours[key]) for key in mixed]
        self.bits = [(theirs[key].name, ours[key].name, columns.of(theirs[key])) for key in exact]
        for a, b in self.mixed:
            columns.of(b._replace(name=a.name) if a.form == BITS else a)
        self.parameters = [
            (theirs[key].name, ours[key].name)
            for key in both
            if not key[1] and key[0].startswith(PARAMETER)
        ]
        self.digests = [
            (theirs[key].name, ours[key].name, columns.of(theirs[key]._replace(form=BITS)))
            for key in both
            if key[1] == DIGEST
        ]

    def sizes(self, base: Step, columns: _Column) -> np.ndarray:
        found = np.full(len(columns.names), np.nan)
        found[0] = abs(base.loss)
        if self.old:
            found[self.columns] = size(base.sketches()[self.old])
        if self.bits:
            others = base.others()
            for name, _, column in self.bits:
                found[column] = np.linalg.norm(_numbers(others[name]))
        return found

    def compare(self, old: Step, new: Step, columns: _Column) -> _Compared:
        apart, differs, spread = np.full((3, len(columns.names)), np.nan)
        apart[0], differs[0] = _scalars(old.loss, new.loss)
        if self.old:
            was, got = old.sketches()[self.old], new.sketches()[self.new]
            apart[self.columns] = distance(was, got)
            spread[self.columns] = np.where(self.dense, apart[self.columns], _without_few(was, got))
            equal = (was == got) | (np.isnan(was) & np.isnan(got))
            differs[self.columns] = ~equal.all(axis=1)
        if self.bits or self.digests or self.mixed:
            theirs, ours = old.others(), new.others()
            for a, b, column in self.bits:
                pair = _numbers(theirs[a]), _numbers(ours[b])
                apart[column], differs[column] = _arrays(*pair)
                spread[column] = _without_few(*(np.append(0, of) for of in pair))
            for one, other in self.mixed:
                form = other.form if one.form == BITS else one.form
                pair = _one(old, one, form), _one(new, other, form)
                column = columns.places[unwrapped(one.name)]
                apart[column], differs[column] = distance(*pair), (pair[0] != pair[1]).any()
            for a, b, column in self.digests:
                if theirs[a][1] != ours[b][1]:
                    differs[column] = 1.0
        for quantity, of_old in self.lost:
            there = _one(old if of_old else new, quantity, quantity.form)
            column = columns.places[unwrapped(quantity.name)]
            apart[column], differs[column] = size(there), there.any()
        return _Compared(apart, differs, spread)

    def starts(self, old: Step, new: Step, columns: _Column) -> np.ndarray:
        """(3, quantities) how far parameters are apart at the start, at most and in the median of
        their parts, by the size of such a part, and in how many; NaN where that is not known."""
        found = np.full((3, len(columns.names)), np.nan)
        for one, other in self.parameters:
            before, after = old.start_sums(one), new.start_sums(other)
            if before is not None and after is not None:
                found[:, columns.places[unwrapped(one)]] = start_distances(before, after)
        return found


def _parameter(gradient: str) -> tuple[str, str]:
    """The key of what this is a gradient of, if it is one."""
    return PARAMETER + gradient.removeprefix(GRADIENT), ""


def _by_name(layout: Layout) -> dict[tuple[str, str], Quantity]:
    """By the name that pairs; a digest and sums stand beside what they are of."""
    beside = (DIGEST, SUMS)
    return {(unwrapped(q.name), q.form if q.form in beside else ""): q for q in layout.quantities}


def _forms(
    theirs: Mapping[tuple[str, str], Quantity],
    ours: Mapping[tuple[str, str], Quantity],
    key: tuple[str, str],
) -> set[str]:
    return {theirs[key].form, ours[key].form}


def _sketches(
    theirs: Mapping[tuple[str, str], Quantity],
    ours: Mapping[tuple[str, str], Quantity],
    key: tuple[str, str],
) -> set[str]:
    """Which sketches there are of a quantity. ValueError for two that cannot be compared."""
    forms = _forms(theirs, ours, key) & SKETCHES.keys()
    if len(forms) > 1:
        expected, got = theirs[key].form, ours[key].form
        raise ValueError(
            f"sketch of {ours[key].name}: expected {expected} as in the old run, got {got}"
        )
    return forms


def _same(old: Quantity, new: Quantity) -> None:
    pairs = (("dtype", old.dtype, new.dtype), ("shape", old.shape, new.shape))
    for what, was, got in pairs:
        if was != got:
            raise ValueError(f"{what} of {new.name}: expected {was} as in the old run, got {got}")


def _numbers(kept: tuple[Quantity, bytes]) -> np.ndarray:
    quantity, data = kept
    return values((quantity.dtype, quantity.shape, data)).astype(np.float64).reshape(-1)


def _one(step: Step, quantity: Quantity, form: str) -> np.ndarray:
    """The sketch of a quantity in this form, made of its bits if need be."""
    if quantity.form in SKETCHES:
        return step.sketches()[step.layout.sketched.index(quantity.name)]
    kept, data = step.others()[quantity.name]
    numbers = torch.from_numpy(values((kept.dtype, kept.shape, data)))
    return SKETCHES.get(form, sketch)([numbers])[0]


def _scalars(old: float, new: float) -> tuple[float, float]:
    if old == new or (np.isnan(old) and np.isnan(new)):
        return 0.0, 0.0
    apart = abs(old - new) if np.isfinite(old) and np.isfinite(new) else np.inf
    return apart, 1.0


def _arrays(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    if same.all():
        return 0.0, 0.0
    both = np.isfinite(old) & np.isfinite(new)
    if (~both & ~same).any():
        return np.inf, 1.0
    return float(np.linalg.norm(old[both] - new[both])), 1.0
