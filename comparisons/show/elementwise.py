"""An op that works element by element: its kinks, and a plot of value and slope."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...reference.adapters import leaves
from .. import exact, ops
from ..ops import evaluate
from ..samples import Call
from ..verdict.noise import is_floating

REACH, WIDTH, HEIGHT = 4.0, 65, 13  # the plot: x from −4 to 4, and its columns and rows


def _elementwise(op: str, row: Call) -> tuple[Any, Any] | None:
    """The call, if its one array is the first argument, and each number of it has its own y."""
    args, kwargs = row.draw(0, np.dtype(float))
    arrays = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    if len(arrays) != 1 or not is_floating(args[0]) or not args[0].size:
        return None

    def valued(x: np.ndarray) -> np.ndarray:
        given = evaluate.completed(op, (x, *args[1:]), kwargs, 0)
        y, _ = ops.named(op).rule(*given[0], **given[1])
        if isinstance(y, tuple):
            raise ValueError(f"{op}: expected one result, got {len(y)}")
        return np.asarray(y)

    try:
        whole, alone = valued(args[0]), [valued(number) for number in args[0].reshape(-1, 1)]
    except (ValueError, IndexError, RuntimeError):  # it needs its shape
        return None
    apart = args[0].shape == whole.shape and all(y.shape == (1,) for y in alone)
    same = apart and np.array_equal(np.ravel(alone), whole.ravel(), equal_nan=True)
    return (args, kwargs) if same else None


def corners(op: str) -> Iterator[dict[str, Any]]:
    """Where an op that works element by element has a kink or an infinite slope at a corner: its
    derivatives on both sides, what both give, and which side that is."""
    definition = ops.named(op).exact
    for kind, row in ops.named(op).rows():
        call = _elementwise(op, row) if kind == "corner" else None
        if call is None or definition is None:
            continue
        args, kwargs, dy = evaluate.completed(op, *call, 0)
        dy = np.ones_like(dy)
        slopes = [np.asarray(rule(*args, **kwargs)[1](dy)) for rule in ops.named(op).pair]
        name = next(iter(inspect.signature(ops.named(op).rule).parameters))
        for index in np.ndindex(args[0].shape):
            if not np.isfinite(args[0][index]):
                continue
            left, right = exact.sides(definition, (args, kwargs, dy), name, index)
            ours, torchs = (float(slope[index]) for slope in slopes)
            if math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-300):
                continue
            yield {
                "sample": repr(row),
                "x": float(args[0][index]),
                "left": left,
                "right": right,
                "manual": ours,
                "torch": torchs,
                "convention": _side(torchs, left, right),
            }


def _side(slope: float, left: float, right: float) -> str:
    sides = {"left": left, "right": right, "mean": (left + right) / 2}
    return next((n for n, s in sides.items() if math.isclose(slope, s, rel_tol=1e-6)), "neither")


def plotted(op: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """x, value and slope of an op that works element by element, with the settings of its first
    sample; None for any other."""
    _, row = next(ops.named(op).rows())
    call = _elementwise(op, row)
    if call is None:
        return None
    x = np.linspace(-REACH, REACH, WIDTH)
    args, kwargs, _ = evaluate.completed(op, (x, *call[0][1:]), call[1], 0)
    y, pullback = ops.named(op).rule(*args, **kwargs)
    return x, np.asarray(y), np.asarray(pullback(np.ones_like(y)))


def drawn_lines(x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> list[str]:
    """The lines of a plot: a column for each x."""
    numbers = np.concatenate([y, slope])
    numbers = numbers[np.isfinite(numbers)]
    low, high = max(float(numbers.min()), -REACH), min(float(numbers.max()), REACH)
    high += 1e-9 * (high == low) + (low == high)
    rows = [[" "] * len(x) for _ in range(HEIGHT)]

    def line(value: float) -> int:
        return round((high - value) / (high - low) * (HEIGHT - 1))

    for i in range(len(x)):
        for values, mark in ((slope, "∘"), (y, "•")):
            if low <= values[i] <= high:
                rows[line(values[i])][i] = mark
    labels = {line(value): f"{value:.3g}" for value in (low, high)}
    lines = [f"{labels.get(n, ''):>8} {''.join(row)}" for n, row in enumerate(rows)]
    return [*lines, f"{'':>8} {x[0]:<{len(x) // 2}g}{x[len(x) // 2]:<{len(x) // 2 - 1}g}{x[-1]:>g}"]


def figure(op: str, x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, label=op)
    axes.plot(x, slope, "--", label="slope")
    axes.set(xlabel="x", title=op)
    axes.axhline(0, color="0.8", zorder=0)
    axes.legend()
    return figure
