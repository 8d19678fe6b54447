"""Which quantities of two runs belong together, and how far they lie apart, many steps at once."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    Step,
    values,
)
from .sketches import distance, size, sketch, start_distances


class Columns:
    """The place of each quantity, in the order of being met."""

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


@dataclass(frozen=True)
class Stretch:
    """Steps of one run, one after another, all of one layout."""

    steps: Sequence[Step]

    @property
    def layout(self) -> Layout:
        return self.steps[0].layout

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """(steps,)"""
        return np.array([step.loss for step in self.steps])

    @functools.cached_property
    def sketches(self) -> np.ndarray:
        """(steps, sketched quantities, 17)"""
        return np.stack([step.sketches() for step in self.steps])

    @functools.cached_property
    def others(self) -> list[dict[str, tuple[Quantity, bytes]]]:
        """What is kept by bits or digest, by name, of each step."""
        return [step.others() for step in self.steps]

    def numbers(self, name: str) -> np.ndarray:
        """(steps, elements) of a quantity that is kept by its bits."""
        kept = [of[name] for of in self.others]
        shape = len(kept), math.prod(kept[0][0].shape)
        data = b"".join(each for _, each in kept)
        return values((kept[0][0].dtype, shape, data)).astype(np.float64)

    def sketched(self, quantity: Quantity, form: str) -> np.ndarray:
        """(steps, 17) the sketches of a quantity in this form, made of its bits if need be."""
        if quantity.form in SKETCHES:
            return self.sketches[:, self.layout.sketched.index(quantity.name)]
        kind = SKETCHES.get(form, sketch)
        rows = torch.from_numpy(self.numbers(quantity.name))
        if quantity.dtype != "float64":
            rows = rows.float()
        return np.concatenate([kind([row]) for row in rows])


class Compared(NamedTuple):
    """Two stretches, compared; all (steps, quantities)."""

    apart: np.ndarray
    differs: np.ndarray  # 1 or 0
    spread: np.ndarray  # as apart, without the parts that differ most


class Pair:
    """Which quantities of two layouts belong together. ValueError for one of another dtype or
    shape."""

    def __init__(self, old: Layout, new: Layout, columns: Columns) -> None:
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
        self.places = columns.places

    def sizes(self, base: Stretch) -> np.ndarray:
        """(steps, quantities) ‖x‖ of the old one."""
        found = np.full((len(base.steps), len(self.places)), np.nan)
        found[:, 0] = abs(base.losses)
        if self.old:
            found[:, self.columns] = size(base.sketches[:, self.old])
        for name, _, column in self.bits:
            found[:, column] = np.linalg.norm(base.numbers(name), axis=1)
        return found

    def compare(self, old: Stretch, new: Stretch) -> Compared:
        """As many steps of the old layout as of the new, or one that all of them are held to."""
        width = len(new.steps), len(self.places)
        apart, differs, spread = (np.full(width, np.nan) for _ in range(3))
        apart[:, 0], differs[:, 0] = _arrays(old.losses[:, None], new.losses[:, None])
        if self.old:
            was, got = old.sketches[:, self.old], new.sketches[:, self.new]
            distances = distance(was, got)
            apart[:, self.columns] = distances
            spread[:, self.columns] = np.where(self.dense, distances, _without_few(was, got))
            equal = (was == got) | (np.isnan(was) & np.isnan(got))
            differs[:, self.columns] = ~equal.all(axis=-1)
        for a, b, column in self.bits:
            pair = old.numbers(a), new.numbers(b)
            apart[:, column], differs[:, column] = _arrays(*pair)
            spread[:, column] = _without_few(*(np.pad(of, ((0, 0), (1, 0))) for of in pair))
        for one, other in self.mixed:
            form = other.form if one.form == BITS else one.form
            pair = old.sketched(one, form), new.sketched(other, form)
            column = self.places[unwrapped(one.name)]
            apart[:, column] = distance(*pair)
            differs[:, column] = (pair[0] != pair[1]).any(axis=-1)
        for a, b, column in self.digests:
            for i, ours in enumerate(new.others):
                if old.others[i % len(old.steps)][a][1] != ours[b][1]:
                    differs[i, column] = 1.0
        for quantity, of_old in self.lost:
            there = (old if of_old else new).sketched(quantity, quantity.form)
            column = self.places[unwrapped(quantity.name)]
            apart[:, column], differs[:, column] = size(there), there.any(axis=-1)
        return Compared(apart, differs, spread)

    def starts(self, old: Step, new: Step) -> np.ndarray:
        """(3, quantities) how far parameters are apart at the start, at most and in the median of
        their parts, by the size of such a part, and in how many; NaN where that is not known."""
        found = np.full((3, len(self.places)), np.nan)
        for one, other in self.parameters:
            before, after = old.start_sums(one), new.start_sums(other)
            if before is not None and after is not None:
                found[:, self.places[unwrapped(one)]] = start_distances(before, after)
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


def _without_few(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The distance of sketches, (…, 1 + parts), without an eighth of the parts: those
    that differ most."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.square(np.subtract(old, new, dtype=np.float64)[..., 1:])
    kept = apart.shape[-1] - apart.shape[-1] // 8
    apart = np.where(np.isfinite(apart), apart, np.inf)
    least = np.partition(apart, max(kept - 1, 0), axis=-1)[..., :kept]
    return np.asarray(np.sqrt(least.sum(axis=-1)))


def _arrays(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(steps, elements) → (steps,) how far numbers are apart, infinitely where only one is finite,
    and whether at all."""
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    both = np.isfinite(old) & np.isfinite(new)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.linalg.norm(np.where(both & ~same, old - new, 0), axis=-1)
    return np.where((~both & ~same).any(axis=-1), np.inf, apart), ~same.all(axis=-1)
