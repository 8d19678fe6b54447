"""Functions exchanged for others, and settings that are theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ..calls import Called, Change, Trace
from .make import argument, of_first, with_argument, with_settings

Changes = Iterator[tuple[str, Change]]


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


GELUS = ("gelu", "gelu(approximate='tanh')")
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    GELUS[0]: F.gelu,
    GELUS[1]: functools.partial(F.gelu, approximate="tanh"),
    "quick gelu": _quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "softsign": F.softsign,
    "the identity": lambda x: x + 0,
}
# What stands for another one, being cheaper.
NEAR = (
    {*GELUS, "quick gelu"},
    {"silu", "hardswish"},
    {"sigmoid", "hardsigmoid"},
    {"tanh", "hardtanh", "softsign"},
)


def exchanged(trace: Trace, k: int) -> Changes:
    """Other functions and settings that are in use where this one is."""
    call = trace.seen[k]
    if call.name in OTHERS:
        yield from OTHERS[call.name](call)


def padding(trace: Trace, k: int) -> Changes:
    """Of an embedding, another row that does not learn, or none."""
    call = trace.seen[k]
    if call.name == "embedding":
        own = argument(call.args, call.kwargs, 2, "padding_idx")
        for index in (None, 0, 1, 2):
            if index != own:
                text = f"padding: padding_idx = {index} instead of {own}"
                yield text, with_argument(2, "padding_idx", index)


def _activations(call: Called) -> Changes:
    own = GELUS[1] if call.kwargs.get("approximate") == "tanh" else call.name
    for other, function in ACTIVATIONS.items():
        if other != own:
            near = any({own, other} <= group for group in NEAR)
            what = "approximate" if near else "activation"
            yield f"{what}: {other} instead of {own}", of_first(function)


def _slopes(call: Called) -> Changes:
    yield from _activations(call)
    for slope in (0.25, 0.2, 0.1):
        other = functools.partial(F.leaky_relu, negative_slope=slope)
        yield f"activation: one slope, {slope}", of_first(other)


def _softmaxes(call: Called) -> Changes:
    yield "activation: sigmoid instead of softmax", of_first(torch.sigmoid)
    for axis in range(call.args[0].ndim):
        yield f"order: {call.name} over axis {axis}", with_argument(1, "dim", axis)


def _sigmoids(call: Called) -> Changes:
    yield from _activations(call)
    yield "operand: a gate open where it should be shut", of_first(lambda x: torch.sigmoid(-x))
    yield (
        "activation: softmax instead of sigmoid",
        of_first(functools.partial(torch.softmax, dim=-1)),
    )


def _gated(call: Called) -> Changes:
    axis = argument(call.args, call.kwargs, 1, "dim", -1)

    def by(activation: Callable[[Any], Any], turned: bool) -> Change:
        def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
            value, gate = args[0].chunk(2, axis)[:: -1 if turned else 1]
            return value * activation(gate)

        return change

    yield "operand: the gate and the value exchanged", by(torch.sigmoid, True)
    for name, function in ACTIVATIONS.items():
        yield f"activation: gated by {name}", by(function, False)
        yield f"activation: gated by {name}, the gate first", by(function, True)


def _top(call: Called) -> Changes:
    k = argument(call.args, call.kwargs, 1, "k")
    for other in (k - 1, k + 1):
        yield f"count: the {other} largest instead of {k}", with_argument(1, "k", other)
    yield "operand: the smallest instead of the largest", with_settings(largest=False)
    yield (
        "order: the largest last",
        lambda function, args, kwargs, seen: [t.flip(-1) for t in function(*args, **kwargs)],
    )


def _pools(call: Called) -> Changes:
    counts = not call.kwargs.get("count_include_pad", True)
    text = f"count: count_include_pad = {counts}"
    yield text, with_argument(5, "count_include_pad", counts)
    for other in (F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d):
        name = other.__name__
        if name != call.name and name[-2:] == call.name[-2:]:
            yield f"operand: {name} instead of {call.name}", _pooled(other)


def _pooled(other: Any) -> Change:
    return lambda function, args, kwargs, seen: other(*args[:4], **kwargs)


def _losses(call: Called) -> Changes:
    several: tuple[tuple[str, dict[str, Any]], ...] = (
        ("count", {"label_smoothing": 0.0}),
        ("padding", {"ignore_index": -100}),
        ("count", {"reduction": "sum"}),
        ("count", {"reduction": "mean"}),
        ("count", {"weight": None}),
    )
    for what, settings in several:
        yield f"{what}: {call.name} with {settings}", with_settings(**settings)


def _interpolations(call: Called) -> Changes:
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "linear"):
        for corners in (None, False, True) if mode.startswith("b") else (None,):
            settings = {"mode": mode, "align_corners": corners}
            if any(call.kwargs.get(n) != v for n, v in settings.items()):
                yield f"approximate: interpolate with {settings}", with_settings(**settings)


def _dropouts(call: Called) -> Changes:
    yield f"mode: without {call.name}", with_settings(training=False)
    for p in (0.0, 0.1, 0.2, 0.3, 0.5):
        yield f"mode: {call.name} with p = {p}", with_argument(1, "p", p)


def _variances(call: Called) -> Changes:
    for correction in (0, 1):
        yield f"variance: {call.name} with correction {correction}", _corrected(correction)


def _corrected(correction: int) -> Change:
    """A variance over the same axes."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        axes = args[1] if len(args) > 1 and not isinstance(args[1], bool) else None
        kept = kwargs.get("keepdim", False)
        return function(args[0], dim=kwargs.get("dim", axes), correction=correction, keepdim=kept)

    return change


OTHERS: dict[str, Callable[[Called], Changes]] = {
    **dict.fromkeys(
        (
            *("gelu", "relu", "silu", "tanh", "leaky_relu", "elu", "selu", "softplus", "mish"),
            *("hardswish", "hardsigmoid", "hardtanh", "softsign", "relu6"),
        ),
        _activations,
    ),
    "sigmoid": _sigmoids,
    "prelu": _slopes,
    "softmax": _softmaxes,
    "log_softmax": _softmaxes,
    "glu": _gated,
    "topk": _top,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d"), _pools),
    **dict.fromkeys(("cross_entropy", "nll_loss", "mse_loss"), _losses),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variances),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d"), _dropouts),
    "interpolate": _interpolations,
}
