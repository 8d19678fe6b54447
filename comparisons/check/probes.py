"""Probes: further points, cotangents, shapes and layouts, all made from one call's own values.

They stay in the domain of the function as far as the caller's values show it: what is never
negative stays so, and what lies between 0 and 1. Whether a probe is one is up to the reference,
which may refuse it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from ..verdict.noise import is_floating

WIDE = 512  # elements of a probe that looks for an error confined to a range
ROWS = 4  # of a large array that are kept: enough for an order in memory to be seen
BLOCKS, MOST = 67, 2**13  # a length that no block divides, and the most elements of it
MANY, AT_MOST = 70_000, 2**17  # more than float16 counts, and the most elements of it
KINKS = (0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0)  # where functions in use have kinks and thresholds


# Names of those that are always tried; chosen alone, all others are left out.
AS_GIVEN, FIRST_ROWS = "as given", "the first rows"

# Traits of a probe.
OWN = "own"  # the caller's own arguments, with the caller's call as its point
ORDINARY = "ordinary"  # a point, or a dy, as the caller's own might be
SPARSE = "sparse"  # dy is 0 but at one element
CALLS = "calls"  # other calls stand around it
LAYOUT = "layout"  # the same numbers, laid out in memory in another way
KINK = "kink"  # where functions may have kinks, ties or poles
SHAPE = "shape"  # y may have another shape than at the caller's own call
FOREIGN = "foreign"  # shapes that the caller's call does not show to be meant
LONG = "long"  # an axis of MANY elements, all of them equal
FAR = "far"  # values of other sizes than the caller's
MUST_ANSWER = "must answer"  # where raising is a fault, and no refusal
ALSO_IN_FLOAT32 = "also in float32"
UNASKED = "unasked"  # in a dtype that nobody asked for
QUICK = "quick"  # among the few that find most mistakes
THOROUGH = "thorough"  # finds what others find too, and is left out unless it is asked for
TRAITS = (ORDINARY, SPARSE, CALLS, LAYOUT, KINK, SHAPE, LONG, FOREIGN, FAR)  # that can be asked for


@dataclass(frozen=True)
class Probe:
    """A call, in float64, and its traits."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    traits: frozenset[str] = frozenset()


class Wanted:
    """Whether a probe is among those chosen by name or trait, and none of those with a minus; where
    none is chosen, all but the thorough ones, or the quick ones alone. Raises TypeError for what is
    no list of names."""

    def __init__(
        self, chosen: Sequence[str] = (), thorough: bool = False, quick: bool = False
    ) -> None:
        if isinstance(chosen, str) or not all(isinstance(c, str) for c in chosen):
            raise TypeError(f"probes: expected a list of names, got {chosen!r}")
        self.without = {c[1:] for c in chosen if c.startswith("-")}
        self.named = {c for c in chosen if not c.startswith("-")}
        self.thorough, self.quick = thorough, quick
        self.seen = {*TRAITS, AS_GIVEN, FIRST_ROWS}

    def __call__(self, probe: Probe) -> bool:
        self.seen.add(probe.name)
        known = {probe.name, *probe.traits}
        if known & self.without:
            return False
        if self.named:
            return bool(known & self.named)
        return QUICK in known if self.quick else self.thorough or THOROUGH not in known

    def sparing(self) -> Wanted:
        """The same, of the quick ones alone unless others are asked for."""
        other = copy.copy(self)
        other.quick = not self.thorough
        return other

    def but(self, trait: str) -> Wanted:
        """The same, without those of a trait."""
        other = copy.copy(self)
        other.without = self.without | {trait}
        return other

    def look_back(self) -> None:
        """Raises ValueError for a name that no probe had."""
        if unknown := sorted((self.without | self.named) - self.seen):
            known = ", ".join(sorted(self.seen))
            raise ValueError(f"probes: expected some of {known}, got {', '.join(unknown)}")


def within(probe: Probe, domain: Callable[[np.ndarray], Any], free: str = "") -> Probe:
    """The probe, its floating arrays brought into the domain, save those of a keyword that is free
    of it. Raises ValueError where that gives no such array."""

    def brought(leaf: Any) -> Any:
        if not is_floating(leaf):
            return leaf
        found = np.asarray(domain(leaf.copy()))
        if found.dtype.kind != "f":
            raise ValueError(f"domain: expected a floating array, got dtype {found.dtype}")
        return found.astype(leaf.dtype)

    args, kwargs = tree_map(brought, (probe.args, probe.kwargs))
    kwargs |= {free: probe.kwargs[free]} if free in kwargs else {}
    return replace(probe, args=args, kwargs=kwargs)


def points(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: Sequence[float],
    seed: int,
    repeat: bool = True,
) -> Iterator[Probe]:
    """The probes of one call; `settings` are the numbers among its settings, defaults included.
    Those with values of all sizes have WIDE of them, unless the arrays shall not `repeat`."""
    rng = np.random.default_rng([seed, 2])
    given = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    floats = [i for i, a in enumerate(given) if is_floating(a) and a.size]
    if not floats:
        return

    def probe(name: str, arrays: Sequence[np.ndarray], *traits: str) -> Probe:
        made = iter(map(np.asarray, arrays))  # of one without axes, arithmetic makes a number
        tree = tree_map(
            lambda leaf: next(made) if isinstance(leaf, np.ndarray) else leaf, (args, kwargs)
        )
        return Probe(name, tree[0], tree[1], frozenset(traits))

    def mapped(function: Callable[[np.ndarray], np.ndarray], only: int | None = None) -> list[Any]:
        """The arrays, with the function applied to every floating one, or only to one."""
        return [
            function(a) if i in floats and only in (None, i) else a for i, a in enumerate(given)
        ]

    usual = ORDINARY, MUST_ANSWER, ALSO_IN_FLOAT32
    yield probe("permuted", [_permuted(a, rng) for a in given], *usual, THOROUGH)
    yield probe("mixed", [_mixed(a, rng) if is_floating(a) else a for a in given], *usual)
    yield probe("× 2⁻¹⁰", mapped(lambda a: a * 2.0**-10), FAR, THOROUGH)
    yield probe("× 2⁻⁴⁰", mapped(lambda a: a * 2.0**-40), FAR)
    yield probe("× 32", mapped(lambda a: a * 32), FAR, THOROUGH)
    yield probe("× 2²⁰", mapped(lambda a: a * 2.0**20), FAR)

    yield probe("ties", mapped(lambda a: rng.choice(a.ravel()[:3], a.shape)), KINK)
    yield probe("all equal", mapped(lambda a: np.full_like(a, a.flat[0])), KINK, THOROUGH)
    if _changes(whole := [_permuted_ties(a, rng) for a in given], given):
        yield probe("repeated indices", whole, KINK, QUICK)

    at = [*KINKS, *settings]
    first, *others = floats
    single = KINK, ALSO_IN_FLOAT32
    yield probe("on kinks", mapped(lambda a: _on(a, at, rng), first), *single, QUICK)
    on_settings = mapped(lambda a: _on(a, settings or [0.0], rng), first)
    yield probe("on settings", on_settings, KINK, THOROUGH)
    for name, places, *more in (("apart by kinks", at), ("apart by settings", settings, THOROUGH)):
        arrays = list(given)
        for i in others:
            if arrays[i].shape == given[first].shape and places:
                arrays[i] = given[first] + _on(given[i], places, rng, signed=True)
                yield probe(f"{name} {i}" if len(others) > 1 else name, arrays, KINK, *more)
                break
    for i in floats[:3]:
        label = f" in argument {i}" if len(floats) > 1 else ""
        yield probe(f"zeros{label}", mapped(np.zeros_like, i), KINK)
        yield probe(f"some zeros{label}", mapped(lambda a: _with_zeros(a, rng), i), *single)
    for i in others:
        if given[i].shape == given[first].shape:
            arrays = list(given)
            arrays[i] = arrays[first]  # the same object: written to, it changes twice
            yield probe("one operand twice", arrays, KINK, QUICK)
            break

    for name, arrays in _resized(given, given[first]):
        yield probe(name, arrays, SHAPE, *[THOROUGH] * name.endswith("shorter"))
    for name, arrays in _long(given, given[first]):
        yield probe(name, arrays, SHAPE, KINK, LONG, ALSO_IN_FLOAT32)
    for name, arrays in _reduced(given, given[first]):
        yield probe(name, arrays, SHAPE, FOREIGN)
    for name, arrays in _broadcasting(given, floats):
        yield probe(name, arrays, SHAPE, FOREIGN)
    many = _tiled(given, first) if repeat else given
    for name, spread, *more in (("wide", 10.0), ("far", 1e3, QUICK)):
        arrays = [_spread(a, spread, rng) if is_floating(a) else a for a in many]
        yield probe(name, arrays, SHAPE, FAR, ALSO_IN_FLOAT32, *more)
        if len(floats) > 1:
            lone = [arrays[first] if i == first else a for i, a in enumerate(many)]
            yield probe(f"{name} in argument {first}", lone, SHAPE, FAR, THOROUGH)


def fewer_rows(own: Probe) -> Probe | None:
    """The call with fewer rows, where the first array has far more elements than probes need."""
    args, kwargs = cut(own.args, own.kwargs, 2 * WIDE, ROWS)
    if args is own.args:
        return None
    return Probe(FIRST_ROWS, args, kwargs, own.traits - {OWN})


def cut(
    args: tuple[Any, ...], kwargs: dict[str, Any], elements: int, at_least: int = 1
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with so few rows that the first array has no more elements than this, but at least
    so many; itself where that is so."""
    given = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    lead = next((a for a in given if is_floating(a)), np.zeros(()))
    if lead.size <= elements or not lead.ndim:
        return args, kwargs
    rows = max(at_least, len(lead) * elements // lead.size)
    if rows >= len(lead):
        return args, kwargs

    def shorter(leaf: Any) -> Any:
        along = isinstance(leaf, np.ndarray) and leaf.ndim and len(leaf) == len(lead)
        return leaf[:rows] if along else leaf

    return tree_map(shorter, (args, kwargs))


def layouts(a: np.ndarray, kind: str) -> np.ndarray:
    """The same numbers, laid out in memory in another way, as far as their shape allows."""
    if kind == "non-contiguous":
        spread = np.empty((*a.shape, 2), a.dtype)
        spread[..., 0], spread[..., 1] = a, np.nan if is_floating(a) else 0
        return spread[..., 0]
    laid = np.array(a, order="F" if kind == "Fortran order" else "C")
    if kind == "read-only":
        laid.setflags(write=False)
    return np.array(a[::-1])[::-1] if kind == "negative strides" and a.ndim else laid


def _permuted(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(a.ravel()).reshape(a.shape)


def _permuted_ties(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices that occur more than once, where they are indices."""
    if a.dtype.kind != "i" or a.size < 2:
        return a
    return rng.choice(a.ravel()[: max(1, a.size // 2)], a.shape)


def _changes(arrays: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> bool:
    return any(a is not b for a, b in zip(arrays, given, strict=True))


def _mixed(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Between the caller's values, so that it lies in their convex hull."""
    share = rng.random(a.shape)
    return np.asarray(share * _permuted(a, rng) + (1 - share) * _permuted(a, rng))


def _fitted(new: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Values with the signs, and within the bounds 0 and 1, that the caller's have."""
    low, high = np.min(given, initial=np.inf), np.max(given, initial=-np.inf)
    if low >= 0 and high <= 1:
        return np.where(abs(new) > 1, 1 / np.where(new == 0, 1, abs(new)), abs(new))
    if low >= 0:
        return abs(new)
    return -abs(new) if high <= 0 else new


def _on(
    given: np.ndarray, places: Sequence[float], rng: np.random.Generator, signed: bool = False
) -> np.ndarray:
    """Values exactly on ± the places."""
    new = rng.choice(np.array([*places, *(-p for p in places)]), given.shape)
    return np.asarray(new if signed else _fitted(new, given))


def _with_zeros(a: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of every three values one is 0 and one −0, which is where the caller has values of both
    signs."""
    minus = -0.0 if np.any(a < 0) else 0.0
    kind = rng.integers(3, size=a.shape)
    return np.where(kind == 0, 0.0, np.where(kind == 1, minus, a))


def _spread(given: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Half of it evenly spread up to ± size, half over all magnitudes down to 10⁻⁸ of that."""
    sign = rng.choice([-1.0, 1.0], given.shape)
    even = rng.uniform(0, size, given.shape)
    magnitudes = size * 10.0 ** rng.uniform(-8, 0, given.shape)
    return _fitted(sign * np.where(rng.random(given.shape) < 0.5, even, magnitudes), given)


def _tiled(given: Sequence[np.ndarray], first: int) -> list[np.ndarray]:
    """The arrays repeated along the leading axis, all that have the length of the first."""
    lead = given[first]
    if not lead.ndim or lead.size >= WIDE:
        return list(given)
    return [_so_many_times(a, lead, -(-WIDE // lead.size)) for a in given]


def _so_many_times(a: np.ndarray, lead: np.ndarray, times: int) -> np.ndarray:
    return np.concatenate([a] * times) if a.ndim and len(a) == len(lead) else a


def twice_the_rows(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with its arrays repeated once along the leading axis of the first floating one."""
    given = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    lead = next((a for a in given if is_floating(a)), np.zeros(()))
    if not lead.ndim:
        return args, kwargs
    return tree_map(
        lambda leaf: _so_many_times(leaf, lead, 2) if isinstance(leaf, np.ndarray) else leaf,
        (args, kwargs),
    )


def _resized(
    given: Sequence[np.ndarray], lead: np.ndarray
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Other lengths of every axis, for all arrays that share it with the first: around the caller's
    own, and of the last one that no block of a kernel divides."""
    for axis in range(lead.ndim):
        own = lead.shape[axis]
        lengths = {"first row": 1, "one more row": own + 1} if not axis else {}
        if axis:
            lengths = {f"axis {axis} one longer": own + 1, f"axis {axis} one shorter": own - 1}
        if axis == lead.ndim - 1 and lead.size // max(own, 1) * BLOCKS <= MOST:
            lengths[f"axis {axis} of length {BLOCKS}"] = BLOCKS
        for name, length in lengths.items():
            if own and length not in (0, own):
                yield name, [of_length(a, lead, axis, length) for a in given]


def of_length(a: np.ndarray, lead: np.ndarray, axis: int, length: int) -> np.ndarray:
    """The array with another length along this axis of the first, if it shares it: counted from the
    front for the first axis, from the end for the others. An array with fewer axes that fits both
    ways is one of columns, as it would be if it were broadcast."""
    behind = a.ndim - lead.ndim
    if not axis and behind < 0 and a.ndim and a.shape[0] == lead.shape[-behind]:
        return a
    place = axis if not axis else behind + axis
    if not 0 <= place < a.ndim or a.shape[place] != lead.shape[axis]:
        return a
    longer = np.take(a, np.arange(length) % a.shape[place], place)
    if not is_floating(a) or length <= a.shape[place]:
        return longer
    along = [1] * a.ndim
    along[place] = length
    times = np.arange(length) // a.shape[place] / (2.0 * length)  # so that nothing is repeated
    return np.asarray(longer * (1 - times.reshape(along)))


def _long(given: Sequence[np.ndarray], lead: np.ndarray) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The last axis, and the first, of a length that a count in few bits does not reach, all
    elements being equal; with the other of the two cut where that is too many. They are powers of
    two, of which a sum is exact: near what is constant, a standard deviation has no gradient."""
    last = lead.ndim - 1
    for axis, other in ((last, 0), (0, last)) if last > 0 else ((0, None),) if not last else ():
        arrays, now = list(given), lead
        if other is not None and lead.size // max(lead.shape[axis], 1) * MANY > AT_MOST:
            arrays = [of_length(a, lead, other, 1) for a in given]
            now = of_length(lead, lead, other, 1)
        if now.size and now.size // now.shape[axis] * MANY <= AT_MOST:
            longer = [of_length(a, now, axis, MANY) for a in arrays]
            yield (
                f"axis {axis} of {MANY:,} ties",
                [_constant(a) if is_floating(a) and a.size else a for a in longer],
            )


def _constant(a: np.ndarray) -> np.ndarray:
    """All elements as the first, to a power of two."""
    first = float(a.flat[0])
    _, exponent = np.frexp(first)
    return np.full_like(a, np.copysign(2.0 ** float(exponent), first) if first else 0.0)


def _reduced(
    given: Sequence[np.ndarray], lead: np.ndarray
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Shapes at the end of what there is: no rows, no axes."""
    if not lead.ndim:
        return
    if len(lead):
        yield "no rows", [of_length(a, lead, 0, 0) for a in given]
    yield "0-d", [np.array(a.flat[0]) if a.size else a for a in given]


def _broadcasting(
    given: Sequence[np.ndarray], floats: Sequence[int]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """One of several arrays cut along an axis, so that it has to be broadcast."""
    for i in floats[:3] if len(floats) > 1 else ():
        a = given[i]
        cuts = {f"axis {k} of argument {i} cut": a.take([0], k) for k in range(min(a.ndim, 3))}
        if a.ndim:
            cuts[f"argument {i} without its first axis"] = np.asarray(a[0])
        for name, shorter in cuts.items():
            if shorter.shape != a.shape:
                yield name, [shorter if j == i else b for j, b in enumerate(given)]
