"""The original with one of the functions that it calls exchanged, as ports do by mistake."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ....reference.adapters import is_differentiable, leaves

EPS = tuple(10.0**-k for k in range(3, 13))
MOST = 400  # changes that are tried


class Called(NamedTuple):
    """A call of a function of torch's."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any


Change = Callable[..., Any]  # (function, args, kwargs, calls before) → what is given in its place
Changes = Iterator[tuple[str, Change]]
Where = int | str | tuple[str, float]  # the number of a call, its name, or that and its number


class Calls(TorchFunctionMode):
    """Notes the calls of torch's functions, in order, and those of some submodules, each as one; in
    the place of those `at` which it is asked for, others are made."""

    def __init__(
        self,
        whole: Sequence[torch.nn.Module] = (),
        at: Where = -1,
        change: Change | None = None,
    ) -> None:
        super().__init__()
        self.whole, self.at, self.change = whole, at, change
        self.seen: list[Called] = []
        self._within = 0  # how many of those submodules

    def __enter__(self) -> Calls:
        self._hooks = [module.register_forward_pre_hook(self._before) for module in self.whole]
        self._hooks += [module.register_forward_hook(self._after) for module in self.whole]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: torch.nn.Module, args: Any) -> None:
        self._within += 1

    def _after(self, module: torch.nn.Module, args: Any, y: Any) -> Any:
        self._within -= 1
        if self._within:
            return y
        return self._noted(type(module).__name__, lambda *args, **kwargs: y, args, {})

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self._within:
            return function(*args, **(kwargs or {}))
        return self._noted(_name(function), function, args, kwargs or {})

    def _noted(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        call = Called(name, args, kwargs, None)
        if self.change and self.at in (len(self.seen), name, (name, _number(call))):
            y = self.change(function, args, kwargs, self.seen)
        else:
            y = function(*args, **kwargs)
        self.seen.append(call._replace(y=y))
        return y


def _name(function: Any) -> str:
    name = str(getattr(function, "__name__", "")).strip("_")
    return {"iadd": "add", "imul": "mul", "isub": "sub", "itruediv": "div", "truediv": "div"}.get(
        name, name
    )


def changes(
    seen: Sequence[Called], backward_alone: bool
) -> Iterator[tuple[str, int | str, Change]]:
    """(text, where, change) of each, what is commonest first: other settings and functions, at all
    calls of a name; then at single ones; what is left out, detached, or taken from elsewhere. Where
    the forward is right, only what is detached."""
    if not backward_alone:
        made = set()
        for call in seen:
            for text, change in _others(call):
                if (call.name, text) not in made:
                    made.add((call.name, text))
                    number = _number(call)
                    yield text, (call.name, number) if number else call.name, change
        for k, call in enumerate(seen):
            yield from ((text, k, change) for text, change in _others(call))
            yield from ((text, k, change) for text, change in _left_out(call))
    for k, call in enumerate(seen):
        if any(is_differentiable(t) and t.requires_grad for t in leaves(call.y)):
            yield f"detached: the result of {call.name}", k, _detached
    if not backward_alone:
        for k, call in enumerate(seen):
            if call.name in ("add", "mul", "matmul", "linear", "sub"):
                elsewhere = _taken_elsewhere(call.args, seen[:k])
                yield from ((text, k, change) for text, change in elsewhere)


# What stands in the place of a call ----------------------------------------------------------


def _detached(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    y = function(*args, **kwargs)
    return y.detach() if isinstance(y, torch.Tensor) else type(y)(t.detach() for t in y)


def _of_first(other: Callable[[Any], Any]) -> Change:
    """Another function of the first argument."""
    return lambda function, args, kwargs, seen: other(args[0])


def _with(**settings: Any) -> Change:
    """The same with other settings."""
    return lambda function, args, kwargs, seen: function(*args, **{**kwargs, **settings})


def _at(place: int, keyword: str, value: Any) -> Change:
    """The same with another value of an argument that may come by position."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        if len(args) > place:
            return function(*args[:place], value, *args[place + 1 :], **kwargs)
        return function(*args, **{**kwargs, keyword: value})

    return change


def _corrected(correction: int) -> Change:
    """A variance over the same axes."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        axes = args[1] if len(args) > 1 and not isinstance(args[1], bool) else None
        kept = kwargs.get("keepdim", False)
        return function(args[0], dim=kwargs.get("dim", axes), correction=correction, keepdim=kept)

    return change


def _shifted(diagonal: int) -> Change:
    """Attention with the diagonal of a causal mask elsewhere."""

    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        shape = args[0].shape[-2], args[1].shape[-2]
        mask = torch.ones(shape, dtype=torch.bool).tril(diagonal)
        return function(*args[:3], **{**kwargs, "attn_mask": mask, "is_causal": False})

    return change


def _unmasked(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
    """Of the scores as they were before a mask was put on them."""
    for call in reversed(seen):
        if call.y is args[0] and call.name in ("masked_fill", "masked_fill_", "where", "add"):
            scores = [t for t in call.args if is_differentiable(t) and t.requires_grad]
            return function(scores[0], *args[1:], **kwargs)
    raise LookupError


def _as_a_whole(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Repeated one after the other, and not each element by itself."""
    times = args[1] if len(args) > 1 else kwargs["repeats"]
    axis = kwargs.get("dim", args[2] if len(args) > 2 else None)
    return torch.cat([args[0]] * times, dim=axis)


def _other_heads(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Where an axis is parted in two, the first part as the one that varies fastest."""
    x, y = args[0], function(*args, **kwargs)
    if y.ndim != x.ndim + 1:
        raise LookupError
    axis = next(i for i in range(y.ndim) if i == x.ndim or y.shape[i] != x.shape[i])
    h, d = y.shape[axis : axis + 2]
    other = x.reshape(*y.shape[:axis], d, h, *y.shape[axis + 2 :])
    return other.transpose(axis, axis + 1)


def _turned(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Parts in the other order."""
    return function(*args, **kwargs)[::-1]


def _joined_otherwise(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    return function(args[0][::-1], *args[1:], **kwargs)


# What others may stand for --------------------------------------------------------------------


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


GELUS = ("gelu", "gelu(approximate='tanh')")
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    GELUS[0]: F.gelu,
    GELUS[1]: functools.partial(F.gelu, approximate="tanh"),
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


def _activations(call: Called) -> Changes:
    own = GELUS[1] if call.kwargs.get("approximate") == "tanh" else call.name
    for other, function in ACTIVATIONS.items():
        if other != own:
            what = "approximate" if {own, other} == set(GELUS) else "activation"
            yield f"{what}: {other} instead of {own}", _of_first(function)


def _norms(call: Called) -> Changes:
    place = {"rms_norm": 3, "layer_norm": 4, "group_norm": 4}.get(call.name, 7)
    for eps in EPS:
        yield f"eps: {eps:g} in {call.name}", _at(place, "eps", eps)


def _variances(call: Called) -> Changes:
    for correction in (0, 1):
        yield f"variance: {call.name} with correction {correction}", _corrected(correction)


def _triangles(call: Called) -> Changes:
    for diagonal in (-1, 0, 1):
        yield f"mask: {call.name} from diagonal {diagonal} on", _at(1, "diagonal", diagonal)


def _attention(call: Called) -> Changes:
    d = call.args[0].shape[-1]
    heads = call.args[0].shape[-3] if call.args[0].ndim > 2 else 1
    for scale in (1.0, 1 / d, d**0.5, (d * heads) ** -0.5):
        yield f"scale: {scale:.4g} instead of {d**-0.5:.4g}", _with(scale=scale)
    causal = not call.kwargs.get("is_causal", False)
    yield f"mask: is_causal={causal}", _with(is_causal=causal, attn_mask=None)
    yield "mask: none", _with(attn_mask=None, is_causal=False)
    for shift in (-1, 1):
        yield f"mask: causal, off by {shift:+d}", _shifted(shift)


def _softmaxes(call: Called) -> Changes:
    yield "mask: none before the softmax", _unmasked
    for axis in range(call.args[0].ndim):
        yield f"order: softmax over axis {axis}", _at(1, "dim", axis)


def _factors(call: Called) -> Changes:
    """A product with, or a quotient by, a number."""
    if number := _number(call):
        times = number if "mul" in call.name else 1 / number
        scaled = {"without": 1.0, "squared": times**2, "inverted": 1 / times, "halved": times / 2}
        for how, factor in scaled.items():
            yield f"scale: the factor {times:.4g} {how}", _times(factor)


def _times(factor: float) -> Change:
    return lambda function, args, kwargs, seen: factor * _tensor(args)


def _sums(call: Called) -> Changes:
    """With a small number."""
    number = _number(call)
    if 0 < abs(number) < 1e-2:
        for eps in (0.0, *EPS):
            yield f"eps: {eps:g} instead of {number:g}", _plus(eps)


def _plus(number: float) -> Change:
    return lambda function, args, kwargs, seen: _tensor(args) + number


def _losses(call: Called) -> Changes:
    several = ({"label_smoothing": 0.0}, {"ignore_index": -100}, {"reduction": "sum"})
    for settings in several:
        yield f"count: {call.name} with {settings}", _with(**settings)


def _interpolations(call: Called) -> Changes:
    for mode in ("nearest", "nearest-exact", "bilinear"):
        for corners in (None, True) if mode == "bilinear" else (None,):
            settings = {"mode": mode, "align_corners": corners}
            yield f"operand: interpolate with {settings}", _with(**settings)


OTHERS: dict[str, Callable[[Called], Changes]] = {
    **dict.fromkeys(
        ("gelu", "relu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "mish"),
        _activations,
    ),
    **dict.fromkeys(
        ("layer_norm", "group_norm", "rms_norm", "batch_norm", "instance_norm"), _norms
    ),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variances),
    **dict.fromkeys(("tril", "triu"), _triangles),
    **dict.fromkeys(("mul", "rmul", "div"), _factors),
    **dict.fromkeys(("add", "radd"), _sums),
    **dict.fromkeys(("cross_entropy", "nll_loss", "mse_loss"), _losses),
    "scaled_dot_product_attention": _attention,
    "softmax": _softmaxes,
    "interpolate": _interpolations,
}
# One each.
SINGLE: dict[str, tuple[str, Change]] = {
    "repeat_interleave": ("repeat: as a whole, not each by itself", _as_a_whole),
    "view": ("heads: parted the other way round", _other_heads),
    "reshape": ("heads: parted the other way round", _other_heads),
    "unflatten": ("heads: parted the other way round", _other_heads),
    "mean": ("count: a sum in the place of a mean", _of_first(torch.sum)),
    "dropout": ("mode: without dropout", _with(training=False)),
    "embedding": ("padding: no padding_idx", _at(2, "padding_idx", None)),
    "cat": ("order: joined the other way round", _joined_otherwise),
    "chunk": ("order: the parts the other way round", _turned),
    "split": ("order: the parts the other way round", _turned),
    "unbind": ("order: the parts the other way round", _turned),
    "neg": ("rope: without the sign", _of_first(lambda x: x + 0)),
}


def _others(call: Called) -> Changes:
    """Other functions and settings that are in use where this one is."""
    if call.name in OTHERS:
        yield from OTHERS[call.name](call)
    if call.name in SINGLE:
        yield SINGLE[call.name]


def _number(call: Called) -> float:
    """The number that a tensor is combined with, 0 if there is none."""
    numbers = [a for a in call.args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    return float(numbers[0]) if len(call.args) == 2 and len(numbers) == 1 else 0.0


def _tensor(args: Any) -> torch.Tensor:
    return next(a for a in args if isinstance(a, torch.Tensor))


def _left_out(call: Called) -> Changes:
    """One of two operands of the shape of the result; a bias."""
    if call.name in ("add", "sub", "mul") and len(call.args) == 2:
        for i, left in enumerate(call.args):
            if isinstance(left, torch.Tensor) and left.shape == call.y.shape:
                what = "residual" if call.name == "add" else "missing"
                yield f"{what}: an operand of {call.name} left out", _one_of(i)
    if call.name == "linear" and len(call.args) > 2 and call.args[2] is not None:
        yield "missing: the bias", lambda function, args, kwargs, seen: function(*args[:2])


def _one_of(which: int) -> Change:
    return lambda function, args, kwargs, seen: args[which] + 0


def _taken_elsewhere(args: Any, before: Sequence[Called]) -> Changes:
    """An operand in the place of which another tensor of its shape is taken: a result from before,
    or what another function was given."""
    for i, operand in enumerate(args):
        if not is_differentiable(operand) or not operand.requires_grad:
            continue
        for k, call in enumerate(before):
            if _fits(call.y, operand):
                yield f"operand: the result of {call.name}", _earlier(i, k, None)
            for j, other in enumerate(call.args):
                if _fits(other, operand):
                    yield f"operand: what {call.name} is given", _earlier(i, k, j)


def _fits(other: Any, operand: torch.Tensor) -> bool:
    return is_differentiable(other) and other.shape == operand.shape and other is not operand


def _earlier(i: int, k: int, j: int | None) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        new = seen[k].y if j is None else seen[k].args[j]
        return function(*args[:i], new, *args[i + 1 :], **kwargs)

    return change
