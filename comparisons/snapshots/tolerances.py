"""How far the arrays of a test may be from what is stored: by what rounding can do, which is
measured, or by what a user allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..verdict.classes import LIMIT
from ..verdict.judge import HOPELESS
from ..verdict.ulps import difference, same_values
from . import arrays as stored
from .arrays import Array
from .noise import Noise

# Draws of noise, at most. The largest of n random movements is small by chance somewhere among many
# elements: of a million, six leave one at an eighth of its deviation, 24 at three quarters.
MOST = 24


class Tolerance(Protocol):
    """What is allowed."""

    @property
    def said(self) -> str:
        """In words."""

    def margins(self, name: str, now: Array, then: Array) -> np.ndarray:
        """How far each element is from what is stored, in units of what is allowed."""


def tolerance(
    now: Mapping[str, Array],
    floor: Callable[[], Any] | None = None,
    ulps: int | None = None,
    rtol: float | None = None,
) -> Tolerance | None:
    """The tolerance that a check of these arrays asks for, None if they must be the same bits.

    TypeError or ValueError for two at once, and for what is none.
    """
    given = {"floor": floor, "ulps": ulps, "rtol": rtol}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise TypeError(f"{' and '.join(names)}: expected one of them")
    if ulps is not None:
        if not isinstance(ulps, (int, np.integer)) or isinstance(ulps, bool) or ulps < 0:
            raise ValueError(f"ulps: expected a whole number from 0 on, got {ulps!r}")
        return Ulps(int(ulps))
    if rtol is not None:
        if not isinstance(rtol, (int, float, np.floating)) or not 0 <= rtol < math.inf:
            raise ValueError(f"rtol: expected a number from 0 on, got {rtol!r}")
        return Relative(float(rtol))
    if floor is None:
        return None
    if not callable(floor):
        raise TypeError(
            "floor: expected the call that makes the arrays, functools.partial(function, "
            f"*arguments), got {type(floor).__name__}"
        )
    return Floor(floor, now)


@dataclass(frozen=True)
class Ulps:
    limit: int

    @property
    def said(self) -> str:
        return f"{self.limit} ULPs are allowed"

    def margins(self, name: str, now: Array, then: Array) -> np.ndarray:
        a, b = now.values(), then.values()
        far = stored.distance(now.dtype, a.ravel(), b.ravel()).reshape(a.shape)
        return _margins(a, b, far.astype(np.float64), np.full(a.shape, float(self.limit)))


@dataclass(frozen=True)
class Relative:
    limit: float

    @property
    def said(self) -> str:
        return f"a relative error of {self.limit:g} is allowed"

    def margins(self, name: str, now: Array, then: Array) -> np.ndarray:
        a, b = now.values(), then.values()
        return _margins(a, b, difference(a, b), self.limit * abs(b.astype(np.float64)))


@dataclass(frozen=True)
class Floor:
    """LIMIT floors, where the floor of an element is how far it moves when the function that makes
    it is called again under noise. It is measured when something differs, not before."""

    function: Callable[[], Any]
    now: Mapping[str, Array]
    # Of each array that is beyond, whether it leaps as far under noise wherever it is.
    turned: dict[str, bool] = field(default_factory=dict)

    @property
    def said(self) -> str:
        kink = ", but rounding may turn over what this call decides, as at the kink of a ReLU"
        turned = any(self.turned.values()) and all(self.turned.values())
        return f"{LIMIT:g} floors are allowed, of what rounding can do{kink if turned else ''}"

    @cached_property
    def noise(self) -> Noise:
        return Noise(self.function, self.now)

    def margins(self, name: str, now: Array, then: Array) -> np.ndarray:
        a, b = now.values(), then.values()
        while True:
            found = _margins(a, b, difference(a, b), LIMIT * self.noise[name])
            if not 1 < found.max(initial=0) < HOPELESS or not self.noise.draw(MOST):
                break
        if np.any(found > 1):
            leaps = self.noise.leaps(name, difference(a, b))
            self.turned[name] = bool(np.all(leaps[found > 1]))
        return found


def _margins(a: np.ndarray, b: np.ndarray, apart: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """NaN and ±∞ must stand in the same places."""
    found = np.divide(apart, allowed, out=np.where(apart > 0, np.inf, 0.0), where=allowed > 0)
    finite = np.isfinite(a) & np.isfinite(b)
    return np.where(finite, found, np.where(same_values(a, b), 0.0, np.inf))
