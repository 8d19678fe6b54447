"""The first quantity that is not the same, however little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..verdict.ulps import ulps
from .names import unwrapped
from .recording import BITS, INPUT, LOSS, Recorded, Step, values
from .traces import Traces


@dataclass(frozen=True)
class Leaving:
    """The first quantity that differs, in the order of computing: parameters, buffers, the loss,
    gradients from the last layer back. Of a sketch the norms are known, else the element with the
    most ULPs."""

    step: int | None = None
    quantity: str = ""
    index: str = ""
    ulp: int = 0
    old: float = math.nan
    new: float = math.nan


def first_difference(found: Traces, run: int) -> tuple[int, str] | None:
    """The step of a window, and the quantity, in which a run first differs, if it does."""
    at = np.argwhere(found.differs[run] & ~found.kind(INPUT) & found.own[:, None])
    return (int(found.steps[at[0, 0]]), found.names[at[0, 1]]) if at.size else None


def leaving(where: tuple[int, str] | None, old: Recorded, new: Recorded) -> Leaving:
    """What the new run has where it leaves the old one, if it does."""
    if where is None:
        return Leaving()
    step, name = where
    return _shown(step, name, _step(old, step), _step(new, step))


def number(run: Recorded, step: int, name: str) -> float:
    """The value of a quantity at a step: the loss, or the norm of a tensor."""
    return _number(_step(run, step), name)


def _step(run: Recorded, step: int) -> Step:
    return next(s for s in run.walk(0) if s.number == step)


def _shown(step: int, name: str, old: Step, new: Step) -> Leaving:
    if name == LOSS:
        distance = distances(old.layout.loss, np.array(old.loss), np.array(new.loss))
        return Leaving(step, name, "", int(distance), old.loss, new.loss)
    pair = [_bits(s, name) for s in (old, new)]
    if any(found is None for found in pair):
        return Leaving(step, name, "", 0, _number(old, name), _number(new, name))
    (dtype, one), (_, other) = (found for found in pair if found is not None)
    distance = distances(dtype, one, other)
    index = np.unravel_index(np.argmax(distance), distance.shape)
    where = ", ".join(map(str, index))
    numbers = (float(array[index]) for array in (one, other))
    return Leaving(step, name, where, int(distance[index]), *numbers)


def _bits(step: Step, name: str) -> tuple[str, np.ndarray] | None:
    """The numbers of a quantity that is kept to the bit."""
    for quantity, data in step.others().values():
        if quantity.form == BITS and unwrapped(quantity.name) == name:
            return quantity.dtype, values((quantity.dtype, quantity.shape, data))
    return None


def _number(step: Step, name: str) -> float:
    """The loss, or the norm of a tensor, NaN where it is not there."""
    if name == LOSS:
        return step.loss
    kept = _bits(step, name)
    if kept is not None:
        return float(np.linalg.norm(kept[1].astype(np.float64)))
    named = [unwrapped(n) for n in step.layout.sketched]
    return float(step.sketches()[named.index(name), 0]) if name in named else math.nan


def distances(dtype: str, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The distance of each element; bfloat16 comes as float32, of which it is the upper half."""
    if dtype == "bfloat16":
        return ulps(new.astype(np.float32), old.astype(np.float32)) >> 16
    return ulps(new.astype(dtype), old.astype(dtype))
