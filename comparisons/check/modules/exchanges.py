"""The original with one of the functions that it calls exchanged, as ports do by mistake."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ....reference.adapters import is_differentiable, leaves

EPS = tuple(10.0**-k for k in range(3, 13))
MOST = 800  # changes that are tried


class Called(NamedTuple):
    """A call of a function of torch's."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any
    whole: bool = False  # whether it is a submodule's


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

    def _before(self, module: torch.nn.Module, args: Any) -> Any:
        """What it is given instead, if its operands are to be changed: a change is asked what it
        would give to a function that gives back its arguments."""
        self._within += 1
        if self._within == 1 and self.change and self.at == len(self.seen):
            return self.change(lambda *args: args, args, {}, self.seen)
        return args

    def _after(self, module: torch.nn.Module, args: Any, y: Any) -> Any:
        self._within -= 1
        if not self._within:
            self.seen.append(Called(type(module).__name__, args, {}, y, True))
        return y

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


def changes(seen: Sequence[Called], backward_alone: bool) -> Iterator[tuple[str, Where, Change]]:
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
                    where: Where = (call.name, number) if number else call.name
                    yield text, where, change
        for k, call in enumerate(seen):
            yield from ((text, k, change) for text, change in _lengths(call, seen))
            yield from ((text, k, change) for text, change in _others(call))
            yield from ((text, k, change) for text, change in _left_out(call))
    for k, call in enumerate(seen):
        if any(map(_asked, leaves(call.y))):
            yield f"detached: the result of {call.name}", k, _detached
    for k, call in enumerate(seen):
        for i, operand in enumerate(call.args):
            if _asked(operand):
                yield f"detached: what {call.name} is given", k, _detached_operand(i)
    for k, call in enumerate(seen):
        yield from ((text, k, change) for text, change in _other_norms(call))
    if not backward_alone:
        for k, call in enumerate(seen):
            if call.name in ("add", "mul", "matmul", "linear", "sub", "cat") or call.whole:
                elsewhere = _taken_elsewhere(call.args, seen[:k])
                yield from ((text, k, change) for text, change in elsewhere)


# What stands in the place of a call ----------------------------------------------------------


def _detached(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    y = function(*args, **kwargs)
    return y.detach() if isinstance(y, torch.Tensor) else type(y)(t.detach() for t in y)


def _detached_operand(i: int) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
        return function(*args[:i], args[i].detach(), *args[i + 1 :], **kwargs)

    return change


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
    """Where an axis is parted in two, or two become one, the first as the one that varies
    fastest."""
    x, y = args[0], function(*args, **kwargs)
    if abs(y.ndim - x.ndim) != 1:
        return y
    wide, narrow = (y, x) if y.ndim > x.ndim else (x, y)
    fits = (i for i in range(narrow.ndim) if wide.shape[i] != narrow.shape[i])
    axis = next(fits, narrow.ndim)
    if y is narrow:
        return x.transpose(axis, axis + 1).reshape(y.shape)
    h, d = y.shape[axis : axis + 2]
    other = x.reshape(*y.shape[:axis], d, h, *y.shape[axis + 2 :])
    return other.transpose(axis, axis + 1)


def _viewed(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """The shape that transposing gives, without moving an element."""
    return args[0].reshape(function(*args, **kwargs).shape)


def _weight_turned(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    return function(args[0], args[1].mT, *args[2:], **kwargs)


def _eps_outside(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
    """The root of a sum with a small number, added behind it."""
    for call in reversed(seen):
        if call.y is args[0] and call.name in ("add", "radd") and (eps := _number(call)):
            root = _tensor(call.args).sqrt() + eps
            return 1 / root if function(torch.full((), 4.0)) < 1 else root
    raise LookupError


def _further(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    return function(*args, **kwargs) + 1


def _turned(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Parts in the other order."""
    return function(*args, **kwargs)[::-1]


def _in_pairs(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Of a rotation by halves, that of neighbours: each angle twice, and (−x₁, x₀) of a pair."""
    first, second = args[0]
    if first is second:
        return first.repeat_interleave(2, -1)
    x = torch.cat((second, -first), -1)
    return torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2)


def _each_by_itself(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Repeated each element by itself along the one axis that is repeated."""
    x, y = args[0], function(*args, **kwargs)
    (axis,) = (i for i in range(x.ndim) if x.shape[i] != y.shape[i])
    return x.repeat_interleave(y.shape[axis] // x.shape[axis], axis)


def _then_transposed(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Heads in front of the places, not by a view: (…, t, n d) → (…, n, t, d)."""
    x, y = args[0], function(*args, **kwargs)
    *_, n, t, d = y.shape
    if x.shape[-2:] != (t, n * d):
        return y
    return x.reshape(*x.shape[:-1], n, d).transpose(-3, -2)


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
    yield "activation: sigmoid instead of softmax", _of_first(torch.sigmoid)
    for axis in range(call.args[0].ndim):
        yield f"order: softmax over axis {axis}", _at(1, "dim", axis)


def _factors(call: Called) -> Changes:
    """A product with, or a quotient by, a number."""
    if number := _number(call):
        times = number if "mul" in call.name else 1 / number
        scaled = {"without": 1.0, "squared": times**2, "inverted": 1 / times, "halved": times / 2}
        for how, factor in scaled.items():
            yield f"scale: the factor {times:.4g} {how}", _times(factor)
        yield f"scale: the factor {times:.4g} doubled", _times(2 * times)
        yield f"scale: the factor {times:.4g}, its root", _times(abs(times) ** 0.5)
        if 0 < times < 1:
            yield f"count: 1 / n instead of 1 / (n − 1), {times:.4g}", _times(1 / (1 / times + 1))
            yield f"count: 1 / (n − 1) instead of 1 / n, {times:.4g}", _times(1 / (1 / times - 1))


def _lengths(call: Called, seen: Sequence[Called]) -> Changes:
    """A factor made of another length than it is."""
    if call.name in ("mul", "rmul", "div") and (number := _number(call)):
        lengths = {
            n for c in seen for t in leaves(c.y) if isinstance(t, torch.Tensor) for n in t.shape
        }
        for n in sorted(lengths - {1}):
            for power in (-1.0, -0.5, 0.5):
                yield f"scale: {n}^{power:g} in the place of {number:.4g}", _times(n**power)


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


def _powers(call: Called) -> Changes:
    """Of a number, as frequencies are."""
    if (number := _number(call)) > 10:
        for base in (1e2, 1e3, 1e4, 1e5, 5e5, 1e6, 1e7):
            yield f"rope: base {base:g} instead of {number:g}", _raised(base)


def _raised(base: float) -> Change:
    return lambda function, args, kwargs, seen: base ** _tensor(args)


def _comparisons(call: Called) -> Changes:
    for other in ("lt", "le", "gt", "ge"):
        if other != call.name:
            yield f"mask: {other} instead of {call.name}", _compared(other)


def _compared(other: str) -> Change:
    return lambda function, args, kwargs, seen: getattr(torch, other)(*args)


def _top(call: Called) -> Changes:
    k = call.args[1] if len(call.args) > 1 else call.kwargs["k"]
    for other in (k - 1, k + 1):
        yield f"count: the {other} largest instead of {k}", _at(1, "k", other)
    yield "operand: the smallest instead of the largest", _with(largest=False)


def _joined(call: Called) -> Changes:
    yield "order: joined the other way round", _joined_otherwise
    yield "rope: in pairs instead of halves", _in_pairs
    yield "rope: turned the other way round", _negative


def _negative(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    return -function(*args, **kwargs)


def _shapes(call: Called) -> Changes:
    yield "heads: parted or joined the other way round", _other_heads
    yield "heads: parted, then transposed", _then_transposed


def _pools(call: Called) -> Changes:
    counts = not call.kwargs.get("count_include_pad", True)
    yield f"count: count_include_pad={counts}", _with(count_include_pad=counts)


def _turns(call: Called) -> Changes:
    yield "heads: viewed where it should be transposed", _viewed
    if call.args[0].shape == getattr(call.y, "shape", None):
        yield f"transposed: without {call.name}", _of_first(lambda x: x + 0)


def _matrices(call: Called) -> Changes:
    weight = call.args[1] if len(call.args) > 1 else None
    if (
        isinstance(weight, torch.Tensor)
        and weight.ndim > 1
        and weight.shape[-1] == weight.shape[-2]
    ):
        yield "transposed: the weight", _weight_turned


def _other_norms(call: Called) -> Changes:
    """A norm of torch's, written by hand in another way."""
    if call.name in ("layer_norm", "rms_norm", "batch_norm") and is_differentiable(call.args[0]):
        for text, how in NORMS_BY_HAND.items():
            yield text, functools.partial(_by_hand, call.name, how)


NORMS_BY_HAND: dict[str, dict[str, Any]] = {
    "variance: over n − 1": {"correction": 1},
    "eps: added to the deviation": {"outside": True},
    "detached: the mean": {"detached": "mean"},
    "detached: the deviation": {"detached": "deviation"},
    "detached: mean and deviation": {"detached": "both"},
    "missing: not centred": {"centred": False},
}


def _by_hand(
    name: str, how: dict[str, Any], function: Any, args: Any, kwargs: Any, seen: Any
) -> Any:
    names = {
        "layer_norm": ("x", "normalized_shape", "weight", "bias", "eps"),
        "rms_norm": ("x", "normalized_shape", "weight", "eps"),
        "batch_norm": ("x", "mean", "var", "weight", "bias", "training", "momentum", "eps"),
    }[name]
    given = {"eps": 1e-5, "weight": None, "bias": None} | dict(zip(names, args, strict=False))
    given |= kwargs
    x, along = given["x"], [1, -1]
    if name == "batch_norm":
        if not given["training"]:
            raise LookupError
        axes = [i for i in range(x.ndim) if i != 1]
        along = [1, -1, *[1] * (x.ndim - 2)]
        function(*args, **kwargs)  # which keeps its statistics
    else:
        axes = list(range(x.ndim - len(given["normalized_shape"]), x.ndim))
        along = list(x.shape[axes[0] :])
    detached = how.get("detached", "")
    mean = x.mean(axes, keepdim=True)
    if name == "rms_norm" or not how.get("centred", True):
        mean = torch.zeros_like(mean)
    mean = mean.detach() if detached in ("mean", "both") else mean
    n = math.prod(x.shape[axis] for axis in axes)
    square = ((x - mean) ** 2).sum(axes, keepdim=True) / (n - how.get("correction", 0))
    eps = given["eps"] if given["eps"] is not None else torch.finfo(x.dtype).eps
    deviation = square.sqrt() + eps if how.get("outside") else (square + eps).sqrt()
    deviation = deviation.detach() if detached in ("deviation", "both") else deviation
    y = (x - mean) / deviation
    y = y if given["weight"] is None else y * given["weight"].reshape(along)
    return y if given["bias"] is None else y + given["bias"].reshape(along)


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
    **dict.fromkeys(("pow", "rpow"), _powers),
    **dict.fromkeys(("lt", "le", "gt", "ge"), _comparisons),
    **dict.fromkeys(("transpose", "permute", "swapaxes", "movedim"), _turns),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _pools),
    **dict.fromkeys(("linear", "conv1d", "conv2d"), _matrices),
    **dict.fromkeys(("view", "reshape", "unflatten", "flatten"), _shapes),
    "cat": _joined,
    "topk": _top,
    "scaled_dot_product_attention": _attention,
    "softmax": _softmaxes,
    "interpolate": _interpolations,
}
# One each.
SINGLE: dict[str, tuple[str, Change]] = {
    "repeat_interleave": ("repeat: as a whole, not each by itself", _as_a_whole),
    "repeat": ("repeat: each by itself, not as a whole", _each_by_itself),
    "mean": ("count: a sum in the place of a mean", _of_first(torch.sum)),
    "dropout": ("mode: without dropout", _with(training=False)),
    "embedding": ("padding: no padding_idx", _at(2, "padding_idx", None)),
    "chunk": ("order: the parts the other way round", _turned),
    "split": ("order: the parts the other way round", _turned),
    "unbind": ("order: the parts the other way round", _turned),
    "arange": ("initial: counted from one further on", _further),
    "rsqrt": ("eps: added to the root", _eps_outside),
    "sqrt": ("eps: added to the root", _eps_outside),
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
        if not _asked(operand):
            continue
        for k, call in enumerate(before):
            if _fits(call.y, operand):
                yield f"operand: the result of {call.name}", _earlier(i, k, None)
            for j, other in enumerate(call.args):
                if _fits(other, operand):
                    yield f"operand: what {call.name} is given", _earlier(i, k, j)


def _asked(leaf: Any) -> bool:
    """Whether a gradient is asked of it."""
    return is_differentiable(leaf) and leaf.requires_grad


def _fits(other: Any, operand: torch.Tensor) -> bool:
    return is_differentiable(other) and other.shape == operand.shape and other is not operand


def _earlier(i: int, k: int, j: int | None) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        new = seen[k].y if j is None else seen[k].args[j]
        return function(*args[:i], new, *args[i + 1 :], **kwargs)

    return change
