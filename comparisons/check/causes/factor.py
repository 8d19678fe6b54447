"""The gradient times a number, or times an array of the call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ....reference.adapters import array, leaves
from ...verdict.noise import is_floating
from ..arguments import floating
from ..traced import BothWays
from .case import Candidate, Case, Wrong
from .closeness import alike, broadcasts, where_finite
from .graphs import Gradients, both_ways_of, candidates

INSIDE = 150  # the most steps of the pullback and values that are tried with one another


def times_a_number(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The factor that fits best; a mean where there should be a sum, −1 and 0 have other names."""
    ours, truth = where_finite(wrong.ours, wrong.truth)
    square = float(np.sum(truth * truth))
    factor = float(np.sum(ours * truth)) / square if square else 0.0
    made = factor * wrong.truth
    if factor < 0 and abs(factor + 1) < 1e-6:
        yield Candidate("sign", "of the wrong sign", -wrong.truth)
    elif cause := _of_a_mean(factor, wrong):
        yield Candidate(cause, "averaged over what it was broadcast to, not summed", made)
    elif factor == 0:
        yield Candidate("missing term", "zero", np.zeros_like(wrong.truth))
    elif known := _of_sums(factor, wrong):
        yield Candidate("counts", f"divided by another count: {known} times as large", made)
    else:
        known = named_factor(factor, wrong.inputs, case.done.settings)
        text, fitted = f"{known} times what it should be", None if is_known(known) else factor
        if fitted and _is_dy(wrong):
            yield Candidate("missing term", "dy itself, without what is added to it", made)
        yield Candidate("factor", text, made, fitted)
    flipped = np.where(wrong.ours * wrong.truth < 0, -wrong.truth, wrong.truth)
    yield Candidate("sign", "of the wrong sign at some elements", flipped)


def times_an_array(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Multiplied once more by an array of the call, or by a value on the way to y, or not
    multiplied by it at all."""
    for name, a in _arrays(case, wrong):
        cause = "cotangent" if name == "dy" else "elementwise factor"
        for spread in _spread(a, wrong.truth.shape):
            text = f"what it should be times {name} once more"
            yield Candidate(cause, text, wrong.truth * spread)
            divided = wrong.truth / np.where(spread == 0, np.nan, spread)
            yield Candidate(cause, f"what it should be without its factor {name}", divided)


def times_an_array_inside(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The same of one step of the pullback: a factor left out there, or taken once more."""
    yield from candidates(case, wrong, "elementwise factor", _scaled_inside)


def _scaled_inside(case: Case, wrong: Wrong) -> Iterator[tuple[str, Gradients]]:
    if (both := both_ways_of(case, wrong)) is None:
        return
    steps = [n for n in both.backward if _varies(both.values[n.name])]
    arrays = [n for n in both.values if n in both.forward and _varies(both.values[n])]
    without = ((n, *way) for n in steps for way in _without_a_factor(both, n))
    scaled = (
        (n, *way)
        for n, name in itertools.islice(itertools.product(steps, arrays), INSIDE)
        for way in _scaled(both, n, name)
    )
    for node, value, text in itertools.chain(without, scaled):
        if value.shape == both.values[node.name].shape:
            yield f"what it should be {text}", both.gradients({node.name: value})


def _without_a_factor(both: BothWays, node: Any) -> Iterator[tuple[torch.Tensor, str]]:
    """One operand of a product or a quotient in the place of it."""
    operation = str(node.target).partition(".")[2].partition(".")[0]
    operands = [both.values.get(getattr(a, "name", ""), a) for a in node.args]
    if operation not in ("mul", "div") or not all(isinstance(a, torch.Tensor) for a in operands):
        return
    names = [both.plain(a.name) for a in node.args]
    shape = both.values[node.name].shape
    for k in (1, 0) if operation == "mul" else (1,):
        if _varies(operands[k]):
            there = f"in {names[1 - k]} → {operation}"
            yield operands[1 - k].expand(shape), f"without the factor {names[k]} {there}"


def _scaled(both: BothWays, node: Any, name: str) -> Iterator[tuple[torch.Tensor, str]]:
    value, a = both.values[node.name], both.values[name]
    if value.is_floating_point() and broadcasts(tuple(a.shape), tuple(value.shape)):
        known, there = both.plain(name), f"in {both.plain(node.name)}"
        yield value * a, f"times {known} once more {there}"
        yield value / a, f"without the factor {known} {there}"


def _arrays(case: Case, wrong: Wrong) -> Iterator[tuple[str, np.ndarray]]:
    """The floating arrays of the call, then the values on the way to y, each once."""
    given: dict[str, Any] = dict(zip(case.done.order, floating(wrong.inputs), strict=True))
    seen = set()
    for name, a in {**given, "dy": wrong.inputs[2], "y": wrong.y}.items():
        if is_floating(a):
            seen.add((a.size, a.astype(float).tobytes()))
            yield name, a
    if (both := both_ways_of(case, wrong)) is None:
        return
    for name in both.nodes:
        value = both.values.get(name)
        if name not in both.forward or not _varies(value):
            continue
        a = np.asarray(array(value), float)
        if (key := (a.size, a.tobytes())) not in seen:
            seen.add(key)
            yield both.plain(name), a


def _varies(value: Any) -> bool:
    """Whether it is a tensor that is more than one number."""
    if not isinstance(value, torch.Tensor) or value.numel() < 2 or value.is_complex():
        return False
    return bool((value != value.flatten()[0]).any())


def _spread(a: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The array as it fits one of this shape; a row also along its other axes."""
    if broadcasts(a.shape, shape):
        yield a
    if a.ndim == 1 < len(shape):
        for axis, n in enumerate(shape[:-1]):
            if n == a.size > 1:
                yield a.reshape([-1 if k == axis else 1 for k in range(len(shape))])


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


def _of_sums(factor: float, wrong: Wrong) -> str:
    """The factor as the sum of weights to how many there are, or the other way; "" if it is not."""
    for a in floating(wrong.inputs):
        total = float(np.sum(a)) if a.size > 1 and np.all(a >= 0) and np.ptp(a) else 0.0
        for value, text in ((total / a.size, "Σw/n"), (a.size / total if total else 0.0, "n/Σw")):
            if value and abs(factor - value) <= 1e-9 * value:
                return f"{text} = {value:.9g}"
    return ""


def is_known(named: str) -> bool:
    """Whether a factor has another name than its digits."""
    return not (named[-1:].isdigit() and "." in named)


def of_a_part(named: str) -> str:
    """What a known factor of a part is: of n/(n − 1) that is a variance, or a mean, over n − 1."""
    return "variant" if named.startswith(("n/(n", "(n − 1)/n")) else "factor"


def _of_a_mean(factor: float, wrong: Wrong) -> str:
    """What it is to take the mean for the sum: over the rows of a batch, which all take the
    argument, a factor; over axes that it has, of length one, or that stand behind its own, a
    broadcast that is undone wrongly. "" if the factor is no mean's."""
    shape = wrong.x.shape
    rows, others = [], wrong.repeated
    for other in floating(wrong.inputs):
        before = other.ndim - wrong.x.ndim
        if before >= 0:
            rows += [*other.shape[:before], math.prod(other.shape[:before])]
            others += [n for n, m in zip(other.shape[before:], shape, strict=True) if n > 1 == m]
        if 0 < wrong.x.ndim < other.ndim and other.shape[: wrong.x.ndim] == shape:
            others += other.shape[wrong.x.ndim :]
    for lengths, cause in ((rows, "factor"), (others, "broadcast")):
        if any(n > 1 and abs(factor * n - 1) < 1e-6 for n in lengths):
            return cause
    return ""


def _is_dy(wrong: Wrong) -> bool:
    """Whether it is dy, or the part of dy of one of several results in a row."""
    dy = wrong.inputs[2]
    parts = [dy, *dy] if is_floating(dy) and dy.ndim else []
    return any(np.shape(part) == wrong.ours.shape and alike(wrong.ours, part) for part in parts)
