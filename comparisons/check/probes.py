"""Probes: further points, cotangents, shapes and layouts, all made from one call's own values.

They stay in the domain of the function as far as the caller's values show it: what is never
negative stays so, and what lies between 0 and 1. Whether a probe is one is up to the reference,
which may refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...reference.adapters import leaves, tree_map
from ..verdict.noise import is_floating

WIDE = 512  # elements of a probe that looks for an error confined to a range
KINKS = (0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0)  # where functions in use have kinks and thresholds


@dataclass(frozen=True)
class Probe:
    """A call, in float64.

    reshaped   y may have another shape than at the caller's own call
    foreign    the shapes broadcast, where the caller's own do not, or to another shape
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reshaped: bool = False
    foreign: bool = False


def points(
    args: tuple[Any, ...], kwargs: dict[str, Any], settings: Sequence[float], seed: int
) -> Iterator[Probe]:
    """The probes of one call; `settings` are the numbers among its settings, defaults included."""
    rng = np.random.default_rng([seed, 2])
    given = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    floats = [i for i, a in enumerate(given) if is_floating(a) and a.size]
    if not floats:
        return

    def probe(name: str, arrays: Sequence[np.ndarray], **flags: bool) -> Probe:
        made = iter(arrays)
        tree = tree_map(
            lambda leaf: next(made) if isinstance(leaf, np.ndarray) else leaf, (args, kwargs)
        )
        return Probe(name, tree[0], tree[1], **flags)

    def mapped(function: Callable[[np.ndarray], np.ndarray], only: int | None = None) -> list[Any]:
        """The arrays, with the function applied to every floating one, or only to one."""
        return [
            function(a) if i in floats and only in (None, i) else a for i, a in enumerate(given)
        ]

    yield probe("permuted", [_permuted(a, rng) for a in given])
    yield probe("mixed", [_mixed(a, rng) if is_floating(a) else a for a in given])
    yield probe("× 2⁻¹⁰", mapped(lambda a: a * 2.0**-10))
    yield probe("× 2⁻⁴⁰", mapped(lambda a: a * 2.0**-40))
    yield probe("× 32", mapped(lambda a: a * 32))
    yield probe("× 2²⁰", mapped(lambda a: a * 2.0**20))

    yield probe("ties", mapped(lambda a: rng.choice(a.ravel()[:3], a.shape)))
    yield probe("all equal", mapped(lambda a: np.full_like(a, a.flat[0])))
    if _changes(whole := [_permuted_ties(a, rng) for a in given], given):
        yield probe("repeated indices", whole)

    at = [*KINKS, *settings]
    first, *others = floats
    yield probe("on kinks", mapped(lambda a: _on(a, at, rng), first))
    yield probe("on settings", mapped(lambda a: _on(a, settings or [0.0], rng), first))
    for name, places in (("apart by kinks", at), ("apart by settings", settings)):
        arrays = list(given)
        for i in others:
            if arrays[i].shape == given[first].shape and places:
                arrays[i] = given[first] + _on(given[i], places, rng, signed=True)
                yield probe(f"{name} {i}" if len(others) > 1 else name, arrays)
                break
    for i in floats[:3]:
        label = f" in argument {i}" if len(floats) > 1 else ""
        yield probe(f"zeros{label}", mapped(np.zeros_like, i))
        yield probe(f"some zeros{label}", mapped(lambda a: _with_zeros(a, rng), i))
    for i in others:
        if given[i].shape == given[first].shape:
            arrays = list(given)
            arrays[i] = arrays[first]  # the same object: written to, it changes twice
            yield probe("one operand twice", arrays)
            break

    for name, arrays in _reshaped(given, floats):
        yield probe(name, arrays, reshaped=True)
    shape = _broadcast([given[i] for i in floats])
    for name, arrays in _broadcasting(given, floats):
        meant = shape is not None and _broadcast([arrays[i] for i in floats]) == shape
        yield probe(name, arrays, reshaped=True, foreign=not meant)
    many = _tiled(given, first)
    for name, spread in (("wide", 10.0), ("far", 1e3)):
        arrays = [_spread(a, spread, rng) if is_floating(a) else a for a in many]
        yield probe(name, arrays, reshaped=True)
        if len(floats) > 1:
            lone = [arrays[first] if i == first else a for i, a in enumerate(many)]
            yield probe(f"{name} in argument {first}", lone, reshaped=True)


def cut(
    args: tuple[Any, ...], kwargs: dict[str, Any], elements: int = 2 * WIDE
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with fewer rows, where the first array has far more elements than probes need."""
    given = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    lead = next((a for a in given if is_floating(a)), np.zeros(()))
    if lead.size <= elements or not lead.ndim:
        return args, kwargs
    rows = max(1, len(lead) * elements // lead.size)

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
    times = -(-WIDE // lead.size)
    return [np.concatenate([a] * times) if a.ndim and len(a) == len(lead) else a for a in given]


def _reshaped(
    given: Sequence[np.ndarray], floats: Sequence[int]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    lead = given[floats[0]]
    if not lead.ndim:
        return
    along = [a.ndim > 0 and len(a) == len(lead) for a in given]
    for name, length in (("first row", 1), ("no rows", 0)):
        if len(lead) != length:
            yield name, [a[:length] if b else a for a, b in zip(given, along, strict=True)]
    yield "0-d", [np.array(a.flat[0]) if a.size else a for a in given]
    longer = [np.concatenate([a, a[:1]]) if b else a for a, b in zip(given, along, strict=True)]
    yield "one more row", longer


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


def _broadcast(arrays: Sequence[np.ndarray]) -> tuple[int, ...] | None:
    """The shape that arrays of several shapes are broadcast to, if they are."""
    try:
        whole = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        return None
    return whole if any(a.shape != whole for a in arrays) else None
