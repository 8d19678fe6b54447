"""A rule's forward and backward pass beside torch eager, over the size of its arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ...reference.adapters import leaves, tensor
from .. import ops
from ..ops import evaluate
from ..parallel import limited
from ..samples import large
from .costs import REPEATS, Row, quartiles
from .timing import interleaved

# How many times as long as torch a rule may take, the geometric mean over all at each size; and
# each of them.
MEANS = {10**3: 0.6, 10**5: 1.5, 2 * 10**6: 2.0}
LARGEST = 5.0
SIZES = tuple(MEANS)


def rows(name: str, sizes: Sequence[int] = SIZES, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """One row for each size: how many times as long as torch, the median of interleaved runs in
    float32 on one thread, with both quartiles."""
    with limited(1):
        return [_row(name, n, repeats) for n in sizes]


def _row(name: str, elements: int, repeats: int) -> dict[str, Any]:
    args, kwargs = large.calls(elements)[name].draw(0, np.dtype("float32"))
    args, kwargs, dy = evaluate.completed(name, args, kwargs, 0)
    tasks = {"manual": by_hand(name, args, kwargs, dy), "torch": by_torch(name, args, kwargs, dy)}
    seconds = interleaved(tasks, repeats)
    return {
        "id": f"{name}/{elements}/float32",
        "op": name,
        "elements": elements,
        **quartiles(seconds["manual"], seconds["torch"]),
    }


def by_hand(name: str, args: Any, kwargs: Any, dy: Any) -> Callable[[], Any]:
    rule = ops.named(name).rule

    def run() -> Any:
        _, pullback = rule(*args, **kwargs)
        return pullback(dy)

    return run


def by_torch(name: str, args: Any, kwargs: Any, dy: Any) -> Callable[[], Any]:
    sources: list[torch.Tensor] = []

    def source(leaf: np.ndarray) -> torch.Tensor:
        sources.append(tensor(leaf).requires_grad_())
        return sources[-1]

    call = evaluate.torch_call(name, args, kwargs, source)
    call = partial(_unguarded(call.func), *call.args, **call.keywords)
    sloped = [i for i, d in enumerate(leaves(dy)) if d is not None]
    cotangents = [tensor(leaves(dy)[i]) for i in sloped]

    def run() -> Any:
        y = leaves(call())
        return torch.autograd.grad([y[i] for i in sloped], sources, cotangents)

    return run


def _unguarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, without what may refuse a call of it, which would be timed as torch's."""
    bare: Callable[..., Any] = getattr(function, "unguarded", function)
    return bare if bare is getattr(function, "__wrapped__", None) else function


def means(frame: pd.DataFrame) -> dict[int, float]:
    """The geometric mean over all ops at each size."""
    logs = np.log(frame["ratio"]).groupby(frame["elements"]).mean()
    return {int(n): float(np.exp(mean)) for n, mean in logs.items()}


def held(frame: pd.DataFrame, every: bool) -> list[Row]:
    """What has a bound, with it: the largest of all ratios and, of every rule, the means."""
    rows = [
        {"case": f"the mean at {n:,}", "ratio": mean, "bound": MEANS.get(n, math.nan)}
        for n, mean in means(frame).items()
        if every
    ]
    worst = frame.nlargest(1, "ratio").iloc[0]
    case = f"{worst['op']} at {worst['elements']:,}"
    return [*rows, {"case": case, "ratio": float(worst["ratio"]), "bound": LARGEST}]


def figure(frame: pd.DataFrame) -> Figure:
    """The ratio of each op over the size, those named that are largest at the end, and the
    geometric mean."""
    drawn = Figure(figsize=(7, 5), layout="constrained")
    axes = drawn.subplots()
    at = frame["elements"].max()
    worst = list(frame[frame["elements"] == at].nlargest(5, "ratio")["op"])
    for op, of_op in frame.groupby("op"):
        style: dict[str, Any] = {"color": "0.75", "linewidth": 0.8}
        if op in worst:
            style = {"color": f"C{worst.index(op) + 1}", "label": op}
        axes.plot(of_op["elements"], of_op["ratio"], **style)
    mean = means(frame)
    axes.plot(list(mean), list(mean.values()), "o-", color="C0", label="geometric mean")
    axes.axhline(1, color="0.5", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="time by hand / time of torch")
    axes.legend(loc="lower right")
    return drawn
