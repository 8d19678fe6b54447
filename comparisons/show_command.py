"""The command `gradtwin show`: all that there is about one op, optimizer or schedule."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from torch.utils._python_dispatch import TorchDispatchMode

from .. import manual, reference
from ..manual import dialects
from ..reference.adapters import leaves, tensor
from . import exact, gradients, report, samples
from .dialect_command import print_lines
from .noise import is_floating
from .samples.optimizers import SAMPLES as OPTIMIZERS
from .samples.optimizers import configurations
from .samples.schedules import SAMPLES as SCHEDULES
from .session import known

REACH, WIDTH, HEIGHT = 4.0, 65, 13  # of the plot: x from −4 to 4, and its columns and rows


def show(
    op: Annotated[str, typer.Argument(help="An op, an optimizer or a schedule.")],
    save: Annotated[
        Path | None, typer.Option(help="Save the plot of value and slope as a picture.")
    ] = None,
) -> None:
    """Rule, mirror, torch's nodes, dialects, samples, corners with what torch follows there, and a
    plot of value and slope."""
    known("op", op, [*samples.ops(), *OPTIMIZERS, *SCHEDULES])
    console = Console(highlight=False)
    curve = plotted(op) if op in samples.ops() else None
    if save and curve is None:
        raise typer.BadParameter(
            f"expected an op that works element by element, got {op}", param_hint="--save"
        )
    _sources(console, op)
    if op in samples.ops():
        _in_torch(console, op)
    for dialect in dialects.of("adam" if op == "adamw" else op):
        console.print(Text(f"\n{dialect.about}: {dialect.name}", style="bold"))
        console.print(Text(f"  {dialect.source}", style="dim"))
        print_lines(console, dialect)
    if op in samples.ops():
        rows = [(f"{kind}s", repr(row)) for kind, row in samples.calls(op)]
    else:
        settings = configurations(op) if op in OPTIMIZERS else SCHEDULES[op]
        rows = [("settings", samples.written(s) or "defaults") for s in settings]
    for kind, group in itertools.groupby(rows, key=lambda row: row[0]):
        console.print(Text(f"\n{kind}", style="bold"))
        for _, text in group:
            console.print(f"  {op}({text})", markup=False)
    if op in samples.ops():
        _corners(console, op)
    if curve:
        console.print(Text(f"\n{op} • and its slope ∘", style="bold"))
        console.print("\n".join(_drawn(*curve)), markup=False)
        if save:
            report.write(save, report.png(_figure(op, *curve)))


def _sources(console: Console, op: str) -> None:
    """The rule and its mirror, with the helpers that this names."""

    def code(title: str, text: str) -> None:
        console.print(Text(title, style="bold"))
        console.print(Syntax(text.rstrip(), "python", background_color="default", word_wrap=True))

    module: ModuleType
    if op in OPTIMIZERS:
        rule, module = getattr(manual.optimizers, op), reference.optimizers
    elif op in SCHEDULES:
        rule, module = getattr(manual.schedules, op), reference.schedules
    else:
        rule, _ = gradients.rule_pair(op)
        module = getattr(reference, samples.family(op))
    code(f"manual/{Path(inspect.getfile(rule)).name}", inspect.getsource(rule))
    source = inspect.getsource(module)
    lines = [n for n in ast.parse(source).body if isinstance(n, ast.Assign)]
    mirror = [n for n in lines if op in {getattr(t, "id", "") for t in n.targets}]
    text = (
        str(ast.get_source_segment(source, mirror[0]))
        if mirror
        else inspect.getsource(getattr(module, op).__wrapped__)
    )
    named = [getattr(module, name, None) for name in re.findall(r"\b_\w+", text)]
    helpers = [inspect.getsource(f.__code__) for f in named if f]
    code(f"\nreference/{Path(inspect.getfile(module)).name}", "\n\n".join([*helpers, text]))


class Recorder(TorchDispatchMode):
    """The names of all that ATen is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function).removeprefix("aten.").rpartition(".")[0]
        if name not in ("lift_fresh", "detach"):  # which compute nothing
            self.names.append(name)
        return function(*args, **kwargs or {})


def anatomy(op: str) -> tuple[list[str], list[str], list[str]]:
    """What torch makes of the op's first call: the nodes of its graph from the last one back, and
    the functions of ATen that it runs forward and backward."""
    _, row = next(samples.calls(op))
    args, kwargs, dy = gradients.drawn(op, row, "float64", 0)
    sources = []

    def source(leaf: Any) -> torch.Tensor:
        sources.append(tensor(leaf).requires_grad_())
        return sources[-1]

    with Recorder() as forward:
        y = gradients.by_torch(op, args, kwargs, source)
    pairs = [(o, tensor(d)) for o, d in zip(leaves(y), leaves(dy), strict=True) if d is not None]
    nodes, todo = [], [o.grad_fn for o, _ in pairs]
    for node in todo:  # which grows meanwhile
        if node is not None and node not in nodes:
            nodes.append(node)
            todo += [behind for behind, _ in node.next_functions]
    with Recorder() as backward:
        if pairs:
            outputs, cotangents = zip(*pairs, strict=True)
            torch.autograd.grad(outputs, sources, cotangents, allow_unused=True)
    names = [node.name().rpartition("::")[2] for node in nodes]
    return [n for n in names if n != "AccumulateGrad"], forward.names, backward.names


def _in_torch(console: Console, op: str) -> None:
    nodes, forward, backward = anatomy(op)
    console.print(Text("\ntorch", style="bold"))
    for title, names in (("nodes", nodes), ("forward", forward), ("backward", backward)):
        if names:
            console.print(f"  {title:<9}{', '.join(dict.fromkeys(names))}", markup=False)


def _elementwise(op: str, row: samples.Call) -> tuple[Any, Any] | None:
    """The call, if its one array is the first argument, and each number of it has its own y."""
    args, kwargs = row.draw(0, np.dtype(float))
    arrays = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
    if len(arrays) != 1 or not is_floating(args[0]) or not args[0].size:
        return None

    def valued(x: np.ndarray) -> np.ndarray:
        given = gradients.completed(op, (x, *args[1:]), kwargs, 0)
        return np.asarray(gradients.rule_pair(op)[0](*given[0], **given[1])[0])

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
    for kind, row in samples.calls(op):
        call = _elementwise(op, row) if kind == "corner" else None
        if call is None:
            continue
        args, kwargs, dy = gradients.completed(op, *call, 0)
        dy = np.ones_like(dy)
        slopes = [np.asarray(rule(*args, **kwargs)[1](dy)) for rule in gradients.rule_pair(op)]
        name = next(iter(inspect.signature(gradients.rule_pair(op)[0]).parameters))
        for index in np.ndindex(args[0].shape):
            if not np.isfinite(args[0][index]):
                continue
            left, right = exact.sides(op, (args, kwargs, dy), name, index)
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


def _corners(console: Console, op: str) -> None:
    found = list(corners(op))
    if not found:
        return
    table = Table(
        box=None, pad_edge=False, title="\nkinks", title_justify="left", title_style="bold"
    )
    for column in ("x", "left", "right", "manual", "torch", "convention"):
        table.add_column(f"  {column}" if column == "x" else column, justify="right")
    for r in found:
        numbers = (f"{r[name]:.6g}" for name in ("x", "left", "right", "manual", "torch"))
        table.add_row(*numbers, r["convention"])
    console.print(table)


def plotted(op: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """x, value and slope of an op that works element by element, with the settings of its first
    sample; None for any other."""
    _, row = next(samples.calls(op))
    call = _elementwise(op, row)
    if call is None:
        return None
    x = np.linspace(-REACH, REACH, WIDTH)
    args, kwargs, _ = gradients.completed(op, (x, *call[0][1:]), call[1], 0)
    y, pullback = gradients.rule_pair(op)[0](*args, **kwargs)
    return x, np.asarray(y), np.asarray(pullback(np.ones_like(y)))


def _drawn(x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> list[str]:
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


def _figure(op: str, x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, label=op)
    axes.plot(x, slope, "--", label="slope")
    axes.set(xlabel="x", title=op)
    axes.axhline(0, color="0.8", zorder=0)
    axes.legend()
    return figure
