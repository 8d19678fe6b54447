"""Axes: what is parted, joined, turned or repeated along them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..calls import Called, Change, Trace
from .make import argument, of_first, of_result

Changes = Iterator[tuple[str, Change]]
PARTED = ("view", "reshape", "unflatten", "flatten")
TURNED = ("transpose", "permute", "swapaxes", "movedim", "mT", "T", "t")
MATRICES = ("linear", "conv1d", "conv2d", "matmul")


def exchanged(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    for names, kind in KINDS.items():
        if call.name in names:
            yield from kind(trace, k)


# Parted and joined -----------------------------------------------------------------------------


def _parted(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if not isinstance(call.y, torch.Tensor) or abs(call.y.ndim - call.args[0].ndim) != 1:
        return
    x, y = call.args[0], call.y
    wide, narrow = (y, x) if y.ndim > x.ndim else (x, y)
    axis = _first_other(wide, narrow)
    if wide.ndim < axis + 2:
        return
    a, b = wide.shape[axis : axis + 2]
    if y is wide and x.shape[-2:] == (y.shape[-2], y.shape[-3] * y.shape[-1]):
        yield "heads: parted, then transposed", _then_transposed
    if 1 in (a, b) or a * b != narrow.shape[axis]:
        return
    copies = y is narrow and (0 in (x.stride(axis), x.stride(axis + 1)) or _stacked(trace, k))
    taken = {c.name for c in trace.taken_by(k)}
    if copies:
        yield "repeat: the copies in the other order", _other_way
    elif y is wide and taken & {"unbind", "chunk", "split"}:
        yield "order: the parts in the other order", _other_way
    elif a == b and not _from_product(trace, k):
        yield "transposed: two axes of one length exchanged", _other_way
    elif _from_sum(trace, k):
        yield "order: the axes joined the other way round", _other_way
    else:
        yield "heads: parted or joined the other way round", _other_way


def _first_other(wide: torch.Tensor, narrow: torch.Tensor) -> int:
    fits = (i for i in range(narrow.ndim) if wide.shape[i] != narrow.shape[i])
    return next(fits, narrow.ndim)


def _stacked(trace: Trace, k: int) -> bool:
    """Whether it joins what several copies of one tensor were stacked to."""
    j = trace.maker(trace.seen[k].args[0], k)
    if j is None or trace.seen[j].name != "stack":
        return False
    first, *others = trace.seen[j].args[0]
    return all(other is first for other in others)


def _from_product(trace: Trace, k: int) -> bool:
    """Whether a linear map or a product has made what is parted or joined, maybe turned since."""
    j = trace.maker(trace.seen[k].args[0], k)
    while j is not None and trace.seen[j].name in (*TURNED, "contiguous"):
        j = trace.maker(trace.seen[j].args[0], j)
    names = ("linear", "Linear", "matmul", "einsum", "scaled_dot_product_attention", "bmm")
    return j is not None and trace.seen[j].name in names


def _from_sum(trace: Trace, k: int) -> bool:
    """Whether what is joined was stacked of different tensors."""
    j = trace.maker(trace.seen[k].args[0], k)
    return j is not None and trace.seen[j].name == "stack"


def _other_way(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Where an axis is parted in two, or two become one, the first as the one that varies
    fastest."""
    x, y = args[0], function(*args, **kwargs)
    wide, narrow = (y, x) if y.ndim > x.ndim else (x, y)
    axis = _first_other(wide, narrow)
    if y is narrow:
        return x.transpose(axis, axis + 1).reshape(y.shape)
    h, d = y.shape[axis : axis + 2]
    other = x.reshape(*y.shape[:axis], d, h, *y.shape[axis + 2 :])
    return other.transpose(axis, axis + 1)


def _then_transposed(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Heads in front of the places, not by a view: (…, t, n d) → (…, n, t, d)."""
    x, y = args[0], function(*args, **kwargs)
    *_, n, _, d = y.shape
    return x.reshape(*x.shape[:-1], n, d).transpose(-3, -2)


# Turned ----------------------------------------------------------------------------------------


def _turned(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if not isinstance(call.y, torch.Tensor):
        return
    yield f"{_moved(trace, k)}: viewed where it should be transposed", _viewed
    if call.args[0].shape == call.y.shape:
        yield f"transposed: without {call.name}", of_first(lambda x: x + 0)
    elif call.name in ("permute", "movedim") and call.y.ndim == 4:
        same = [
            (i, j)
            for i, j in itertools.combinations(range(1, 4), 2)
            if call.y.shape[i] == call.y.shape[j]
        ]
        for i, j in same:
            text = f"transposed: axes {i} and {j} exchanged as well"
            yield text, of_result(functools.partial(torch.transpose, dim0=i, dim1=j))
    joined = {c.name for c in trace.taken_by(k)} & {"reshape", "view", "flatten", "contiguous"}
    if joined and call.name == "transpose":
        yield "heads: joined without moving them back", of_first(lambda x: x + 0)


def _moved(trace: Trace, k: int) -> str:
    """What moving axes is about: heads, where an axis was parted before or two become one after;
    the order of what is flattened; else no more than that."""
    call = trace.seen[k]
    j = trace.maker(call.args[0], k)
    grown = j is not None and trace.seen[j].name in PARTED and _grows(trace.seen[j]) == 1
    joined = [_grows(c) for c in trace.taken_by(k) if c.name in PARTED]
    if grown or -1 in joined:
        return "heads"
    return "order" if joined else "transposed"


def _grows(call: Called) -> int:
    """By how many axes."""
    return int(call.y.ndim - call.args[0].ndim) if isinstance(call.y, torch.Tensor) else 0


def _viewed(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """The shape that transposing gives, without moving an element."""
    return args[0].reshape(function(*args, **kwargs).shape)


def _matrices(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    weight = call.args[1] if len(call.args) > 1 else None
    if not isinstance(weight, torch.Tensor) or weight.ndim < 2:
        return
    if weight.shape[-1] == weight.shape[-2]:
        yield "transposed: the second factor", _other_weight(lambda w: w.mT)
    if call.name.startswith("conv"):
        for axes in ([-1], [-2], [-1, -2])[: 1 if call.name == "conv1d" else 3]:
            text = f"order: the kernel turned round along {axes}"
            yield text, _other_weight(lambda w, axes=axes: w.flip(axes))


def _other_weight(other: Callable[[Any], Any]) -> Change:
    return lambda function, args, kwargs, seen: function(
        args[0], other(args[1]), *args[2:], **kwargs
    )


# Repeated --------------------------------------------------------------------------------------


def _repeated(trace: Trace, k: int) -> Changes:
    call = trace.seen[k]
    if call.name == "repeat_interleave":
        yield "repeat: as a whole, not each by itself", _as_a_whole
    else:
        yield "repeat: each by itself, not as a whole", _each_by_itself


def _as_a_whole(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Repeated one after the other, and not each element by itself."""
    times = argument(args, kwargs, 1, "repeats")
    axis = argument(args, kwargs, 2, "dim")
    return torch.cat([args[0]] * times, dim=axis)


def _each_by_itself(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
    """Repeated each element by itself along the one axis that is repeated."""
    x, y = args[0], function(*args, **kwargs)
    (axis,) = (i for i in range(x.ndim) if x.shape[i] != y.shape[i])
    return x.repeat_interleave(y.shape[axis] // x.shape[axis], axis)


KINDS: dict[tuple[str, ...], Callable[[Trace, int], Changes]] = {
    PARTED: _parted,
    TURNED: _turned,
    MATRICES: _matrices,
    ("repeat", "repeat_interleave", "tile"): _repeated,
}
