"""A function in many bits as if all that it computes were rounded to fewer."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ...reference.adapters import tree_map
from .classes import Function, Results
from .halves import is_half
from .noise import OneUlpNoise, cast, is_floating, unit_roundoff


def emulated(function: Function, dtype: Any, seed: int) -> Function:
    """The function with every result on the way, by NumPy or by torch, moved by up to one ulp of
    float32 and rounded to that, while it sees float64; or of a type of 16 bits, while it sees
    float32. It loses the digits, overflows and underflows as in few bits, but no mistake is in it
    that is made in few bits alone."""

    def as_if(inputs: Any) -> Results:
        few = _Few(dtype, np.random.default_rng(seed))
        taken = tree_map(lambda a: stepwise(a, few) if is_floating(a) else a, inputs)
        with np.errstate(all="ignore"), _Rounding(few, seed):
            found = function(taken)
        return {name: np.asarray(a).view(np.ndarray) for name, a in found.items()}

    return as_if


class Step(NamedTuple):
    """What NumPy computes."""

    ufunc: np.ufunc
    method: str
    inputs: tuple[Any, ...]
    settings: dict[str, Any]


class Moving(Protocol):
    """What becomes of what NumPy computes: which results change, and how; those of functions that
    mostly copy are only rounded."""

    def fits(self, a: Any) -> bool: ...
    def moved(self, a: np.ndarray, step: Step) -> np.ndarray: ...
    def rounded(self, a: np.ndarray) -> np.ndarray: ...


class _Few(NamedTuple):
    """The few bits, and the random numbers by which all is moved."""

    dtype: Any
    random: np.random.Generator

    @property
    def wide(self) -> np.dtype:
        return np.dtype(np.float32 if is_half(self.dtype) else np.float64)

    @property
    def ulp(self) -> float:
        return 2 * unit_roundoff(self.dtype)

    def rounded(self, a: np.ndarray) -> np.ndarray:
        few = np.asarray(cast(cast(a, self.dtype), self.wide))
        return np.where(np.isinf(few), a, few) if is_half(self.dtype) else few

    def moved(self, a: np.ndarray, step: Step | None = None) -> np.ndarray:
        return self.rounded(np.asarray(a * (1 + self.random.uniform(-self.ulp, self.ulp, a.shape))))

    def fits(self, a: Any) -> bool:
        return isinstance(a, (np.ndarray, np.generic)) and a.dtype == self.wide


class _Stepwise(np.ndarray):
    """An array, from which NumPy computes such as are moved, as those of few bits are rounded."""

    few: Moving

    def __array_finalize__(self, source: Any) -> None:
        self.few = getattr(source, "few", None) or _Few(np.float32, np.random.default_rng(0))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        few = next(a.few for a in (*inputs, *kwargs.get("out", ())) if isinstance(a, _Stepwise))
        plain = {name: tree_map(_plain, a) for name, a in kwargs.items()}
        step = Step(ufunc, method, tuple(map(_plain, inputs)), plain)
        result = getattr(ufunc, method)(*step.inputs, **plain)
        if written := inputs[:1] if method == "at" else kwargs.get("out", ()):
            for a in filter(few.fits, written):
                _plain(a)[...] = few.moved(_plain(a), step)
            return written[0] if len(written) == 1 else written
        results = result if isinstance(result, tuple) else (result,)
        made = tuple(
            stepwise(few.moved(np.asarray(a), step), few) if few.fits(a) else a for a in results
        )
        return made if isinstance(result, tuple) else made[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Most are made of what is rounded already, or copy; products are neither."""
        result = super().__array_function__(function, types, args, kwargs)
        if not self.few.fits(result):
            return result
        plain = np.asarray(result).view(np.ndarray)
        rounded = self.few.rounded(plain)
        return stepwise(
            plain if np.array_equal(rounded, plain, equal_nan=True) else rounded, self.few
        )


class _Rounding(OneUlpNoise):
    """Noise that leaves what torch computes rounded to few bits."""

    def __init__(self, few: _Few, seed: int) -> None:
        super().__init__(few.ulp / 2, seed)
        self.wide = torch.float32 if is_half(few.dtype) else torch.float64
        self.few = getattr(torch, few.dtype) if is_half(few.dtype) else torch.float32

    def _scale(self, t: torch.Tensor, size: float | None = None) -> None:
        super()._scale(t, size)
        self._round(t)

    def _take_off(self, t: torch.Tensor, move: torch.Tensor) -> None:
        super()._take_off(t, move)
        self._round(t)

    def _round(self, t: torch.Tensor) -> None:
        if t.dtype == self.wide:
            few = t.to(self.few).to(t.dtype)
            t.copy_(torch.where(few.isinf(), t, few) if self.few.itemsize == 2 else few)


def stepwise(a: np.ndarray, few: Moving) -> np.ndarray:
    """The array, from which NumPy computes what moves."""
    found = a.view(_Stepwise)
    found.few = few
    return found


def _plain(a: Any) -> Any:
    return a.view(np.ndarray) if isinstance(a, _Stepwise) else a
