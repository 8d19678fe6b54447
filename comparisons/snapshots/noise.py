"""A call of a user's, made again and again while its arguments and what it computes move by one
ulp: how far its results move is what rounding can do."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch

from ...reference.adapters import leaves
from ..report.text import raised
from ..verdict import floor as measured
from ..verdict.classes import LIMIT, Results
from ..verdict.emulated import Step, stepwise
from ..verdict.floor import DRAWS
from ..verdict.noise import PIECES, OneUlpNoise, is_floating, unit_roundoff
from ..verdict.ulps import difference, finite_part, same_values
from . import arrays as stored
from .arrays import BITS, Array

FIRST = DRAWS  # draws of noise that are always made

# Whose unit roundoff is not that of what they are stored as, or seen as.
SMALL = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


class Noise:
    """How far each element of what a call gives can move by rounding: u |value| + the largest
    movement of the draws of noise so far.

    `function` takes no arguments. Those of a functools.partial move: arrays, tensors and modules,
    also in lists and dicts; so does every result that torch computes on the way, or NumPy from
    these. It computes in its own dtypes, from copies, and may change them. `now` is what it has
    given; ValueError where it gives something else, or cannot be called again.

    No noise reaches inside some kernels. So, when all is drawn, an array is held to what float32
    loses in it against float64, where the call computes in both: if that is somewhere more than all
    this, all this is scaled to it. Beyond LIMIT times it does not count: there the call computes
    something else in the other dtype, as one that draws other numbers does.
    """

    def __init__(self, function: Callable[[], Any], now: Mapping[str, Array]) -> None:
        call = _Call(function)
        there = call(call.values())
        if (lost := now.keys() ^ there.keys()) or any(
            there[name].shape != array.bits.shape for name, array in now.items()
        ):
            wrong = f"{sorted(lost)[0]!r} in one of them only" if lost else "other shapes"
            raise ValueError(f"floor: expected the call that gives these arrays, got {wrong}")
        dtype = np.float64 if call.wide(there) else np.float32
        self._floor = _Floor(call, call.values(), dtype, known=(there, there))
        self._rounding = {name: _u(now[name]) * abs(finite_part(there[name])) for name in now}
        self._call, self._there = call, there
        self._scales: dict[str, float] = {}
        self.draw(FIRST)
        for name, array in now.items():
            apart = difference(array.values(), there[name])
            if np.any(apart > LIMIT * self[name]) or not _stand_alike(array.values(), there[name]):
                raise ValueError(
                    f"floor: expected the call that gives these arrays, got others for {name!r}: "
                    "seed what it draws, and give it what was given before"
                )

    def __getitem__(self, name: str) -> np.ndarray:
        drawn = self._rounding[name] + self._floor.noise[name]
        return drawn * self._scales.get(name, 1.0)

    def leaps(self, name: str, far: np.ndarray) -> np.ndarray:
        """Whether noise, 32 times as large as rounding, has moved an element about as far as that.
        Where the floor is far less, it leaps there: something that is computed decides by a hair.
        """
        return np.asarray(2 * self._floor.furthest[name] >= far)

    def draw(self, most: int) -> bool:
        """Draws once more, or until there are as many as the first; of all that there may be, what
        is lost is asked. False when nothing is left."""
        if self._floor.draws == most:
            return not self._scales and self._scaled()
        while True:
            self._floor.draw()
            if self._floor.draws >= FIRST:
                return True

    def _scaled(self) -> bool:
        lost = _lost(self._call, self._there)
        for name in self._rounding:
            drawn = self[name]
            known = lost.get(name, np.zeros(drawn.shape))
            ratio = np.divide(known, drawn, out=np.where(known > 0, np.inf, 0.0), where=drawn > 0)
            most = ratio.max(initial=0)
            self._scales[name] = max(1.0, float(most)) if most <= LIMIT else 1.0
        return True


def _lost(call: _Call, there: Results) -> Results:
    """|in float32 − in float64|, for a call in float64 times the ratio of their u; nothing where it
    computes in one of them alone."""
    values, wide = call.values(), call.wide(there)
    try:
        if not wide:
            return _apart(there, call.in_dtype(np.float64)(values))
        single = [a.astype(np.float32) for a in values]
        low, high = call.in_dtype(np.float32)(single), call(single)
    except Exception:  # a function of the user's may raise anything where it is given other dtypes
        return {}
    ratio = unit_roundoff(np.float64) / unit_roundoff(np.float32)
    return {name: ratio * apart for name, apart in _apart(low, high).items()}


def _apart(a: Results, b: Results) -> Results:
    """Where one is not finite, nothing is known."""
    return {
        name: np.where(
            np.isfinite(a[name]) == np.isfinite(b[name]), difference(a[name], b[name]), np.inf
        )
        for name in a.keys() & b.keys()
        if a[name].shape == b[name].shape
    }


def _u(array: Array) -> float:
    if array.dtype in SMALL:
        return SMALL[array.dtype]
    a = array.values()
    if array.dtype in BITS:  # of 8 bits, of which there are few
        return float(torch.finfo(getattr(torch, array.dtype)).eps) / 2
    return unit_roundoff(a.dtype) if is_floating(a) else 0.0


def _stand_alike(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.all((np.isfinite(a) & np.isfinite(b)) | same_values(a, b)))


class _Floor(measured.Floor):
    """Whose reference is told how large the noise is, for what NumPy computes."""

    reference: Any

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.furthest: dict[str, Any] = {}  # that noise of the smaller size has moved, leaps too
        super().__init__(*args, **settings)

    def _look_nearby(self, seeds: Sequence[int]) -> list[tuple[Any, Results]]:
        """Nothing: what it loses in few digits it cannot be asked, for it has its own dtypes."""
        return []

    def _evaluated(
        self, inputs: Any, together: bool, inside: AbstractContextManager[Any]
    ) -> Results:
        noise = inside if isinstance(inside, OneUlpNoise) and not inside.half else None
        self.reference.noise = noise and _Moving(noise.size, np.random.default_rng(self.draws))
        try:
            with np.errstate(all="ignore"):
                found = super()._evaluated(inputs, together, inside)
        finally:
            self.reference.noise = None
        if noise and noise.size == measured.SMALL * self._u:
            for name, value in self.truth.items():
                movement = difference(found[name][0], value)
                self.furthest[name] = np.maximum(self.furthest.get(name, 0.0), movement)
        return found


class _Moving(NamedTuple):
    """Noise in what NumPy computes; see `stepwise`."""

    size: float
    random: np.random.Generator

    def fits(self, a: Any) -> bool:
        return isinstance(a, (np.ndarray, np.generic)) and is_floating(np.asarray(a))

    def moved(self, a: np.ndarray, step: Step) -> np.ndarray:
        random = self.random.uniform(-math.sqrt(3), math.sqrt(3), a.shape)
        return np.asarray((a + self.size * random * _scale(a, step)).astype(a.dtype))

    def rounded(self, a: np.ndarray) -> np.ndarray:
        return a


def _scale(a: np.ndarray, step: Step) -> np.ndarray:
    """What the noise of a result is relative to: its size, or, of a sum or product of many terms,
    that of its partial sums, whose roundings add up however small it is itself."""
    ufunc, method, inputs, settings = step
    if ufunc is np.matmul:
        terms, squares = inputs[0].shape[-1], [np.square(x) for x in inputs]
    elif ufunc is np.add and method == "reduce":
        terms, squares = inputs[0].size // max(a.size, 1), [np.square(inputs[0])]
    else:
        return abs(a)
    kept = {name: settings[name] for name in ("axis", "axes", "keepdims") if name in settings}
    partial = np.sqrt(getattr(ufunc, method)(*squares, **kept))
    return np.maximum(abs(a), partial) * math.sqrt(max(1, terms / PIECES))


class _Call:
    """The call, with other numbers in its arguments."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function: Callable[..., Any] = function
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        if isinstance(function, functools.partial):
            self.function = function.func
            self.arguments = function.args, function.keywords
        self.sources = {id(a): a for a in _sources(self.arguments)}
        self.noise: _Moving | None = None
        self.dtype: Any = None  # in which it computes, if not in its own

    def in_dtype(self, dtype: Any) -> _Call:
        """The same, with all its arguments in this dtype."""
        other = copy.copy(self)
        other.dtype = np.dtype(dtype)
        return other

    def wide(self, there: Results) -> bool:
        """Whether what it takes and gives is in float64 alone."""
        every = filter(is_floating, (*self.values(), *there.values()))
        return all(a.dtype == np.float64 for a in every)

    def values(self) -> list[np.ndarray]:
        """What the arguments hold."""
        return [_numbers(a) for a in self.sources.values()]

    def __call__(self, inputs: Sequence[np.ndarray]) -> Results:
        """What it gives, by name, where the arguments hold these numbers."""
        pairs = zip(self.sources.items(), inputs, strict=True)
        # A copy takes these for the copies of what they stand for, wherever that is met.
        memo = {key: self._like(source, values) for (key, source), values in pairs}
        try:
            args, kwargs = copy.deepcopy(self.arguments, memo)
        except Exception as error:  # a class of the user's may raise anything
            raise ValueError(
                f"floor: expected arguments that can be copied: {raised(error)}"
            ) from error
        try:
            found = stored.collect(self.function(*args, **kwargs))
        except (TypeError, ValueError) as error:
            if not str(error).startswith("arrays: "):
                raise
            raise type(error)(f"floor: of what it gives, {str(error)[8:]}") from None
        return {name: _plain(array) for name, array in found.items()}

    def _like(self, source: Any, values: np.ndarray) -> Any:
        if isinstance(source, np.ndarray):
            own = values.astype(self.dtype or source.dtype)  # a copy
            return own if self.noise is None else stepwise(own, self.noise)
        dtype = getattr(torch, self.dtype.name) if self.dtype else source.dtype
        made = torch.from_numpy(values.copy()).to(source.device, dtype)
        if isinstance(source, torch.nn.Parameter):
            return torch.nn.Parameter(made, source.requires_grad)
        return made.requires_grad_(source.requires_grad)


def _sources(arguments: Any) -> list[Any]:
    """The floating arrays and tensors that can move; of a module, its parameters and buffers."""
    found: list[Any] = []
    for leaf in leaves(arguments):
        if isinstance(leaf, torch.nn.Module):
            found += [*leaf.parameters(), *leaf.buffers()]
        else:
            found.append(leaf)
    return [a for a in found if _floats(a)]


def _floats(a: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.layout is torch.strided and a.is_floating_point()
    return type(a) is np.ndarray and is_floating(a)


def _numbers(a: Any) -> np.ndarray:
    """In an array; of 16 bits and fewer, in float32."""
    if isinstance(a, torch.Tensor):
        small = a.dtype not in (torch.float32, torch.float64)
        return (a.detach().float() if small else a).numpy(force=True)
    return a.astype(np.float32) if a.itemsize < 4 else a


def _plain(array: Array) -> np.ndarray:
    found = array.values()
    return found.astype(np.float32) if found.dtype == np.float16 else found
