"""The gradient times a number, or times an array of the call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ....reference.adapters import leaves
from ...verdict.noise import is_floating
from ..arguments import floating
from .case import Candidate, Case, Wrong
from .closeness import broadcasts, where_finite


def times_a_number(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The factor that fits best; a mean where there should be a sum, −1 and 0 have other names."""
    ours, truth = where_finite(wrong.ours, wrong.truth)
    square = float(np.sum(truth * truth))
    factor = float(np.sum(ours * truth)) / square if square else 0.0
    made = factor * wrong.truth
    if factor < 0 and abs(factor + 1) < 1e-6:
        yield Candidate("sign", "of the wrong sign", -wrong.truth)
    elif any(abs(factor * n - 1) < 1e-6 for n in _lengths(wrong)):
        yield Candidate("broadcast", "averaged over what it was broadcast to, not summed", made)
    elif factor == 0:
        yield Candidate("missing term", "zero", np.zeros_like(wrong.truth))
    else:
        known = named_factor(factor, wrong.inputs, case.done.settings)
        yield Candidate("factor", f"{known} times what it should be", made)
    flipped = np.where(wrong.ours * wrong.truth < 0, -wrong.truth, wrong.truth)
    yield Candidate("sign", "of the wrong sign at some elements", flipped)


def times_an_array(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Multiplied once more by an array of the call, or not multiplied by it at all."""
    arrays: dict[str, Any] = dict(zip(case.done.order, floating(wrong.inputs), strict=True))
    for name, a in {**arrays, "dy": wrong.inputs[2], "y": wrong.y}.items():
        if not is_floating(a) or not broadcasts(a.shape, wrong.truth.shape):
            continue
        cause = "cotangent" if name == "dy" else "factor"
        yield Candidate(cause, f"what it should be times {name} once more", wrong.truth * a)
        divided = wrong.truth / np.where(a == 0, np.nan, a)
        yield Candidate(cause, f"what it should be without its factor {name}", divided)


def named_factor(factor: float, inputs: Any, settings: Sequence[float]) -> str:
    """The factor as what it probably is: 3 as the length of an axis, 1.5 as n/(n − 1)."""
    arrays = [a for a in leaves(inputs) if isinstance(a, np.ndarray)]
    known = {"2": 2.0, "1/2": 0.5, "−1/2": -0.5, "−2": -2.0, "π": math.pi, "√2": math.sqrt(2)}
    for n in sorted({n for a in arrays for n in (*a.shape, a.size) if n > 1}):
        known |= {
            f"N = {n}": n,
            f"1/N = 1/{n}": 1 / n,
            f"n/(n − 1) = {n}/{n - 1}": n / (n - 1),
            f"(n − 1)/n = {n - 1}/{n}": (n - 1) / n,
            f"√{n}": math.sqrt(n),
            f"1/√{n}": 1 / math.sqrt(n),
        }
    for s in settings:
        if s not in (0, 1):
            known |= {f"the setting {s:g}": s, f"1/{s:g}, of a setting": 1 / s}
            known |= {f"1 − {s:g}": 1 - s, f"{s:g}², of a setting": s * s}
    for sign, prefix in ((1, ""), (-1, "−")):
        for name, value in known.items():
            if abs(factor - sign * value) <= 1e-7 * abs(value):
                return f"{prefix}{name}"
    return f"{factor:.9g}"


def _lengths(wrong: Wrong) -> list[int]:
    """What a mean may have been taken over: what the argument was repeated along, or the axes that
    another one has and it has not, of a batch."""
    found = wrong.repeated
    for other in floating(wrong.inputs):
        if other.ndim >= wrong.x.ndim:
            own = (1,) * (other.ndim - wrong.x.ndim) + wrong.x.shape
            found += [n for n, m in zip(other.shape, own, strict=True) if n > 1 == m]
    return found
