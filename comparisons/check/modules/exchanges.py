"""The original with one of the functions that it calls exchanged, as ports do by mistake."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ....reference.adapters import is_differentiable, leaves

EPS = tuple(10.0**-k for k in range(3, 13))
MOST = 400  # changes that are tried
Change = Callable[..., Any]  # (function, args, kwargs) → what is given in its place


class Calls(TorchFunctionMode):
    """Notes the calls of torch's functions, in order; at one of them, or at all of a name, another
    is made in its place."""

    def __init__(self, at: int | str = -1, change: Change | None = None) -> None:
        super().__init__()
        self.at, self.change = at, change
        self.seen: list[tuple[str, Any, Any, Any]] = []
        self.known: list[torch.Tensor] = []  # results so far

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").strip("_")
        name = name.removeprefix("i") if name in ("iadd", "imul", "isub", "itruediv") else name
        here = self.change and self.at in (name, len(self.seen))
        y = self.change(function, args, kwargs, self) if here else function(*args, **kwargs)
        self.seen.append((name, args, kwargs, y))
        return y


def changes(seen: list[tuple[str, Any, Any, Any]], backward_alone: bool) -> Iterator[Any]:
    """(text, at, change) of each, what is commonest first: other settings and functions, at all
    calls of a name; then at single calls what is left out, detached or taken from elsewhere."""
    made: set[tuple[str, str]] = set()
    if not backward_alone:
        for name, args, kwargs, _ in seen:
            for text, change in _others(name, args, kwargs):
                if (name, text) not in made:
                    made.add((name, text))
                    yield text, name, change
        for k, (name, args, kwargs, _) in enumerate(seen):
            for text, change in _others(name, args, kwargs):
                yield text, k, change
        for k, (name, args, _, y) in enumerate(seen):
            yield from ((text, k, change) for text, change in _left_out(name, args, y))
    for k, (name, _, _, y) in enumerate(seen):
        if any(is_differentiable(t) and t.requires_grad for t in leaves(y)):
            yield f"detached: the result of {name}", k, _detached
    if not backward_alone:
        for k, (name, args, _, _) in enumerate(seen):
            if name in ("add", "radd", "mul", "matmul", "linear", "sub"):
                yield from ((text, k, change) for text, change in _taken_elsewhere(args, seen[:k]))


def _detached(function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    y = function(*args, **kwargs)
    return y.detach() if isinstance(y, torch.Tensor) else [t.detach() for t in y]


def _instead(other: Callable[..., Any]) -> Change:
    """Another function of the same arguments."""
    return lambda function, args, kwargs, calls: other(*args, **kwargs)


def _of_first(other: Callable[..., Any]) -> Change:
    """Another function of the first argument."""
    return lambda function, args, kwargs, calls: other(args[0])


def _set(**settings: Any) -> Change:
    """With other settings by keyword."""
    return lambda function, args, kwargs, calls: function(*args, **{**kwargs, **settings})


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "gelu": F.gelu,
    "gelu(approximate='tanh')": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "quick gelu": _quick_gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "the identity": lambda x: x,
}
NORMS = {"layer_norm": 4, "group_norm": 4, "rms_norm": 3, "batch_norm": 7, "instance_norm": 7}


def _others(name: str, args: Any, kwargs: Any) -> Iterator[tuple[str, Change]]:
    """Other functions and settings that are in use where this one is."""
    if name in ("gelu", "relu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "mish"):
        own = f"{name}(approximate='tanh')" if kwargs.get("approximate") == "tanh" else name
        for other, function in ACTIVATIONS.items():
            if other != own:
                what = "approximate" if {own, other} == {"gelu", "gelu(approximate='tanh')"} else "activation"
                yield f"{what}: {other} instead of {own}", _of_first(function)
    elif name in NORMS:
        for eps in EPS:
            yield f"eps: {eps:g} in {name}", functools.partial(_at, NORMS[name], "eps", eps)
    elif name in ("var", "std", "var_mean", "std_mean"):
        for correction in (0, 1):
            yield f"variance: {name} with correction {correction}", functools.partial(_corrected, correction)
    elif name in ("tril", "triu"):
        for diagonal in (-1, 0, 1):
            yield f"mask: {name} with diagonal {diagonal}", functools.partial(_at, 1, "diagonal", diagonal)
    elif name == "scaled_dot_product_attention":
        d, h = args[0].shape[-1], args[0].shape[-3] if args[0].ndim > 2 else 1
        for scale in (1.0, 1 / d, d**0.5, (d * h) ** -0.5):
            yield f"scale: {scale:.4g} instead of {d**-0.5:.4g} in attention", _set(scale=scale)
        yield "mask: is_causal", _set(is_causal=not kwargs.get("is_causal", False))
        yield "mask: none in attention", _set(attn_mask=None, is_causal=False)
        for shift in (-1, 1):
            yield f"mask: causal, off by {shift:+d}", functools.partial(_shifted, shift)
    elif name == "softmax":
        yield "mask: none before softmax", _unmasked
        for axis in range(args[0].ndim):
            yield f"axes: softmax over axis {axis}", functools.partial(_at, 1, "dim", axis)
    elif name in ("mul", "truediv", "div", "rmul", "rtruediv") and _scalar(args):
        c = _scalar(args)
        yield f"scale: without {name} by {c:.4g}", lambda function, args, kwargs, calls: _tensor(args) + 0
        yield f"scale: {name} by {c:.4g} twice", lambda function, args, kwargs, calls: function(function(*args), args[1])
        yield f"scale: the inverse of {c:.4g}", lambda function, args, kwargs, calls: _tensor(args) * (1 / c if "mul" not in name else 1 / c)
    elif name in ("add", "sub") and _scalar(args) and 0 < abs(_scalar(args)) < 1e-2:
        for eps in (0.0, *EPS):
            yield f"eps: {eps:g} instead of {_scalar(args):g}", functools.partial(_at, 1, "other", eps)
    elif name == "repeat_interleave":
        yield "repeat: repeated as a whole", _as_a_whole
    elif name in ("view", "reshape", "unflatten"):
        yield "heads: split the other way round", _other_heads
    elif name == "mean":
        yield "count: a sum in the place of a mean", _summed
    elif name == "dropout":
        yield "mode: without dropout", _set(training=False)
    elif name == "embedding":
        yield "padding: no padding_idx", functools.partial(_at, 2, "padding_idx", None)
    elif name == "cross_entropy":
        for settings in ({"label_smoothing": 0.0}, {"ignore_index": -100}, {"weight": None}, {"reduction": "sum"}):
            yield f"count: cross_entropy with {settings}", _set(**settings)
    elif name == "interpolate":
        for settings in ({"mode": "nearest"}, {"mode": "bilinear", "align_corners": False}, {"mode": "bilinear", "align_corners": True}, {"mode": "nearest-exact"}):
            yield f"resampling: interpolate with {settings}", _set(**settings)
    elif name in ("avg_pool2d", "avg_pool1d"):
        yield "padding: count_include_pad", _set(count_include_pad=not kwargs.get("count_include_pad", True))
    elif name == "cat" and isinstance(args[0], (list, tuple)):
        yield "order: cat the other way round", lambda function, args, kwargs, calls: function(args[0][::-1], *args[1:], **kwargs)
    elif name == "chunk" or name == "split" or name == "unbind":
        yield f"order: {name} the other way round", lambda function, args, kwargs, calls: function(*args, **kwargs)[::-1]
    elif name == "neg":
        yield "sign: without neg", _of_first(lambda x: x + 0)


def _at(place: int, keyword: str, value: Any, function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    """With another value of an argument that may come by position."""
    if len(args) > place:
        args = (*args[:place], value, *args[place + 1 :])
        return function(*args, **kwargs)
    return function(*args, **{**kwargs, keyword: value})


def _corrected(correction: int, function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    axes = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], bool) else None)
    return function(args[0], dim=axes, correction=correction, keepdim=kwargs.get("keepdim", False))


def _shifted(shift: int, function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    q, k, v = args[:3]
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(shift)
    return function(q, k, v, **{**kwargs, "attn_mask": mask, "is_causal": False})


def _unmasked(function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    """Of the scores before a mask was put on them."""
    masked = [(a, y) for name, a, _, y in calls.seen if name in ("masked_fill", "where", "add")]
    for given, y in reversed(masked):
        if y is args[0]:
            tensors = [t for t in given if is_differentiable(t) and t.requires_grad]
            if tensors:
                return function(tensors[0], *args[1:], **kwargs)
    raise LookupError


def _as_a_whole(function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    x, times = args[0], args[1] if len(args) > 1 else kwargs["repeats"]
    axis = kwargs.get("dim", args[2] if len(args) > 2 else None)
    return torch.cat([x] * times, dim=axis)


def _other_heads(function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    """Where an axis is split in two, the first part as the fast one."""
    x = args[0]
    y = function(*args, **kwargs)
    if y.ndim != x.ndim + 1:
        raise LookupError
    axis = next(i for i in range(y.ndim) if i == x.ndim or y.shape[i] != x.shape[i])
    h, d = y.shape[axis : axis + 2]
    return x.reshape(*y.shape[:axis], d, h, *y.shape[axis + 2 :]).transpose(axis, axis + 1)


def _summed(function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    return torch.sum(*args, **kwargs)


def _scalar(args: Any) -> float:
    """The number that a tensor is combined with, 0 if there is none."""
    numbers = [a for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    return float(numbers[0]) if len(args) == 2 and len(numbers) == 1 else 0.0


def _tensor(args: Any) -> torch.Tensor:
    return next(a for a in args if isinstance(a, torch.Tensor))


def _left_out(name: str, args: Any, y: Any) -> Iterator[tuple[str, Change]]:
    """One of two operands of the same shape as the result."""
    if name in ("add", "sub", "mul") and len(args) == 2:
        for i in range(2):
            if isinstance(args[1 - i], torch.Tensor) and args[1 - i].shape == y.shape:
                yield f"missing: one operand of {name}", functools.partial(_one_operand, 1 - i)
    if name == "linear" and len(args) > 2 and args[2] is not None:
        yield "missing: the bias", lambda function, args, kwargs, calls: function(*args[:2])


def _one_operand(which: int, function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    return args[which] + 0


def _taken_elsewhere(args: Any, before: Any) -> Iterator[tuple[str, Change]]:
    """An operand that another tensor of the same shape took the place of: a result from before, or
    what another function was given."""
    for i, operand in enumerate(args):
        if not is_differentiable(operand) or not operand.requires_grad:
            continue
        for k, (name, given, _, y) in enumerate(before):
            if is_differentiable(y) and y.shape == operand.shape and y is not operand:
                yield f"operand: the result of {name} in another's place", functools.partial(_earlier, i, k, None)
            for j, other in enumerate(given):
                if is_differentiable(other) and other.shape == operand.shape and other is not operand:
                    yield f"operand: what {name} is given in another's place", functools.partial(_earlier, i, k, j)


def _earlier(i: int, k: int, j: int | None, function: Any, args: Any, kwargs: Any, calls: Calls) -> Any:
    name, given, _, y = calls.seen[k]
    new = y if j is None else given[j]
    return function(*args[:i], new, *args[i + 1 :], **kwargs)
