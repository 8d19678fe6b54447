"""The norms: other settings, and torch's own written by hand in another way."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .....reference.adapters import is_differentiable
from ..calls import Change, Trace
from .make import argument, with_argument

EPS = tuple(10.0**-k for k in range(3, 13))
PLACES = {"rms_norm": 3, "layer_norm": 4, "group_norm": 4, "batch_norm": 7, "instance_norm": 7}
ARGUMENTS = {
    "layer_norm": ("x", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("x", "normalized_shape", "weight", "eps"),
    "group_norm": ("x", "num_groups", "weight", "bias", "eps"),
    "batch_norm": ("x", "mean", "var", "weight", "bias", "training", "momentum", "eps"),
}
BY_HAND: dict[str, dict[str, Any]] = {
    "variance: over n − 1": {"correction": 1},
    "eps: added to the deviation": {"outside": True},
    "missing: not centred": {"centred": False},
    "variance: centred": {"centred": True},
    "missing: not scaled": {"scaled": False},
}
DETACHED: dict[str, dict[str, Any]] = {
    "detached: the mean": {"detached": "mean"},
    "detached: the deviation": {"detached": "deviation"},
    "detached: mean and deviation": {"detached": "both"},
}
STATISTICS: dict[str, dict[str, Any]] = {
    "variance: the running one over n": {"kept": "biased"},
    "variance: the running one of the square, not centred": {"kept": "square"},
    "variance: the running one of the square over n − 1": {"kept": "square", "less": 1},
}
Changes = Iterator[tuple[str, Change]]


def settings(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    yield from _squares(trace, k)
    if call.name not in PLACES:
        if call.name in ("rsqrt", "sqrt") and _addend(trace, k):
            yield "eps: added to the root", _eps_outside
        return
    for eps in EPS:
        yield f"eps: {eps:g} in {call.name}", with_argument(PLACES[call.name], "eps", eps)
    if call.name == "batch_norm" and not argument(call.args, call.kwargs, 5, "training"):
        yield "mode: by the statistics of the batch", with_argument(5, "training", True)
    elif call.name == "batch_norm":
        yield "mode: by the running statistics", with_argument(5, "training", False)
    if call.name == "group_norm":
        channels, own = call.args[0].shape[1], argument(call.args, call.kwargs, 1, "num_groups")
        for n in range(1, channels + 1):
            if channels % n == 0 and n != own:
                yield f"count: {n} groups instead of {own}", with_argument(1, "num_groups", n)
        yield "order: every n-th channel in a group", _strided


def _squares(trace: Trace, k: int) -> Changes:
    """A mean of squares as a variance, a variance as a mean of squares."""
    call = trace.seen[k]
    if call.name in ("var", "std"):
        yield "variance: of the square, not centred", _of_squares
    elif call.name == "mean" and (j := trace.maker(call.args[0], k)) is not None:
        made = trace.seen[j]
        twice = made.name == "mul" and made.args[0] is made.args[1]
        if made.name == "square" or (made.name == "pow" and made.number == 2) or twice:
            for correction in (0, 1):
                text = f"variance: centred, with correction {correction}"
                yield text, functools.partial(_centred, correction, j)


def _of_squares(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    axes = argument(args, kwargs, 1, "dim")
    square = args[0].square().mean(axes, keepdim=kwargs.get("keepdim", False))
    return square.sqrt() if function.__name__ == "std" else square


def _centred(correction: int, j: int, function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    axes, kept = argument(args, kwargs, 1, "dim"), argument(args, kwargs, 2, "keepdim", False)
    return seen[j].args[0].var(axes, correction=correction, keepdim=kept)


def _addend(trace: Trace, k: int) -> float:
    """The number that was added to what a root is taken of."""
    j = trace.maker(trace.seen[k].args[0], k)
    made = trace.seen[j] if j is not None else None
    return made.number if made is not None and made.name in ("add", "radd") else 0.0


def _eps_outside(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """The root of a sum with a small number, added behind it."""
    made = next(call for call in reversed(seen) if call.y is args[0])
    x = next(a for a in made.args if isinstance(a, torch.Tensor))
    root = x.sqrt() + made.number
    return 1 / root if function(torch.full((), 4.0)) < 1 else root


def _strided(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    x, groups = args[0], argument(args, kwargs, 1, "num_groups")
    names = dict(zip(ARGUMENTS["group_norm"], args, strict=False)) | kwargs

    def turned(t: torch.Tensor, axis: int, n: int) -> torch.Tensor:
        return t.unflatten(axis, (n, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1)

    y = function(turned(x, 1, x.shape[1] // groups), groups, eps=names.get("eps", 1e-5))
    along = [-1, *[1] * (x.ndim - 2)]
    y = turned(y, 1, groups)
    y = y if names.get("weight") is None else y * names["weight"].reshape(along)
    return y if names.get("bias") is None else y + names["bias"].reshape(along)


def by_hand(trace: Trace, k: int) -> Changes:
    """Statistics that are taken otherwise."""
    yield from _ways(trace, k, BY_HAND)
    if trace.seen[k].name == "batch_norm":
        yield from _ways(trace, k, STATISTICS)


def detached(trace: Trace, k: int) -> Changes:
    """Statistics that no gradient goes through."""
    yield from _ways(trace, k, DETACHED)


def _ways(trace: Trace, k: int, ways: Mapping[str, dict[str, Any]]) -> Changes:
    call = trace.seen[k]
    if call.name in ARGUMENTS and is_differentiable(call.args[0]):
        for text, how in ways.items():
            if (how.get("centred") is True) <= (call.name == "rms_norm"):
                yield text, functools.partial(_by_hand, call.name, how)


def _by_hand(
    name: str, how: dict[str, Any], function: Any, args: Any, kwargs: Any, seen: Any
) -> Any:
    given = {"eps": 1e-5, "weight": None, "bias": None}
    given |= dict(zip(ARGUMENTS[name], args, strict=False)) | kwargs
    x = given["x"]
    whole = x.shape
    if name == "batch_norm":
        if not given["training"]:
            raise LookupError
        axes = [i for i in range(x.ndim) if i != 1]
    elif name == "group_norm":
        x = x.reshape(x.shape[0], given["num_groups"], -1)
        axes = [2]
    else:
        axes = list(range(x.ndim - len(given["normalized_shape"]), x.ndim))
    detached = how.get("detached", "")
    mean = x.mean(axes, keepdim=True)
    if not how.get("centred", name != "rms_norm"):
        mean = torch.zeros_like(mean)
    mean = mean.detach() if detached in ("mean", "both") else mean
    n = math.prod(x.shape[axis] for axis in axes)
    square = ((x - mean) ** 2).sum(axes, keepdim=True) / (n - how.get("correction", 0))
    eps = given["eps"] if given["eps"] is not None else torch.finfo(x.dtype).eps
    deviation = square.sqrt() + eps if how.get("outside") else (square + eps).sqrt()
    deviation = deviation.detach() if detached in ("deviation", "both") else deviation
    if name == "batch_norm":
        _keep(how, function, args, kwargs, given, axes)
    y = ((x - mean) / deviation if how.get("scaled", True) else x - mean).reshape(whole)
    along = [1, -1, *[1] * (y.ndim - 2)] if name in ("batch_norm", "group_norm") else [-1]
    if name in ("layer_norm", "rms_norm"):
        along = list(given["normalized_shape"])
    y = y if given["weight"] is None else y * given["weight"].reshape(along)
    return y if given["bias"] is None else y + given["bias"].reshape(along)


def _keep(
    how: dict[str, Any], function: Any, args: Any, kwargs: Any, given: Any, axes: list[int]
) -> None:
    """Running statistics, as torch keeps them or of something else."""
    kept, before = how.get("kept"), given["var"]
    before = before.clone() if before is not None else None
    function(*args, **kwargs)
    if kept and before is not None:
        x, m = given["x"].detach(), given.get("momentum", 0.1)
        biased = x.var(axes, correction=0) if kept == "biased" else x.square().mean(axes)
        n = x.numel() // x.shape[1]
        biased = biased * n / (n - how.get("less", 0))
        given["var"].copy_((1 - m) * before + m * biased)
