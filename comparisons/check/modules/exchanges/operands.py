"""Operands: left out, taken from elsewhere, exchanged; and two functions one after the other in
the other order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .....reference.adapters import is_differentiable, leaves
from ..calls import Called, Change, Trace, at, operands, with_at
from ..recording import is_asked
from .functions import ACTIVATIONS
from .make import left, with_argument

Changes = Iterator[tuple[str, Change]]
SUMS = ("add", "radd", "sub")
JOINED = (*SUMS, "mul", "div", "matmul", "where", "lerp", "minimum", "maximum")
TAKING = (*JOINED, "linear", "cat", "stack", "getitem", "einsum", "embedding", "softmax")
TAKING += ("scaled_dot_product_attention", "conv1d", "conv2d", "mean", "sum", "copy_")
MOVES = ("view", "reshape", "contiguous", "clone", "flatten", "unflatten", "transpose", "permute")
MOVES += ("getitem", "unsqueeze", "squeeze", "expand", "to", "float", "detach", "data", "type_as")
MOST = 24  # tensors that are tried in the place of one, the last before it first


# Left out --------------------------------------------------------------------------------------


def left_out(trace: Trace, k: int) -> Changes:
    """A call in the place of which one of its operands is given, or a bias."""
    call = trace.seen[k]
    if call.name == "setitem" and len(call.args) == 3:
        yield "missing: what is written", lambda function, args, kwargs, seen: None
    shape = getattr(call.y, "shape", None)
    if call.name not in MOVES and call.name != "dropout":
        for path, operand in operands(call):
            if operand.shape == shape and operand.dtype == call.y.dtype:
                yield _named(trace, k, path), left(path, call.in_place)
    biased = call.name in ("linear", "conv1d", "conv2d") and len(call.args) > 2
    if biased and call.args[2] is not None:
        yield f"missing: the bias of {call.name}", with_argument(2, "bias", None)


def _named(trace: Trace, k: int, path: tuple[Any, ...]) -> str:
    call = trace.seen[k]
    if isinstance(call.module, torch.nn.modules.dropout._DropoutNd):
        return f"mode: {call.name} asleep"
    if call.name in ACTIVATIONS:
        return f"activation: the identity instead of {call.name}"
    if call.name in ("neg", "negative"):
        return "rope: without the sign" if _turns(trace, k) else "missing: the sign"
    others = [t for i, t in operands(call) if i != path]
    if call.name in ("mul", "masked_fill", "where") and any(map(_is_mask, others)):
        return f"mask: without that of {call.name}"
    if call.name in SUMS and len(others) == 1:
        return f"residual: an operand of {call.name} left out"
    if call.name in ("flip", "roll"):
        return f"order: without {call.name}"
    return f"missing: {call.name} left out"


def _turns(trace: Trace, k: int) -> bool:
    return any(c.name in ("cos", "sin") for c in trace.seen)


def _is_mask(t: torch.Tensor) -> bool:
    return not is_asked(t) and bool(((t == 0) | (t == 1)).all())


# In the other order ----------------------------------------------------------------------------


def commuted(trace: Trace, k: int) -> Changes:
    """f(a + b) as f(a) + b, and f(a) + b as f(a + b), of whatever f and of products as well."""
    call = trace.seen[k]
    for path, operand in operands(call):
        j = trace.maker(operand, k)
        if j is None or not is_asked(operand):
            continue
        made = trace.seen[j]
        if _alike(call, path) and not made.in_place:
            for inner, t in operands(made):
                fits = is_differentiable(t) and t.shape == operand.shape
                if fits and (made.name in JOINED or is_asked(t)):
                    text = f"{_moved(call)}: {call.name} before {made.name}"
                    yield text, _before(path, j, inner)
        if call.name in JOINED and not call.in_place:
            for inner, t in operands(made):
                if is_differentiable(t) and t.shape == operand.shape and _alike(made, inner):
                    text = f"{_moved(made)}: {made.name} behind {call.name}"
                    yield text, _behind(path, j, inner)


def _alike(call: Called, path: tuple[Any, ...]) -> bool:
    """Whether it gives as many elements as the operand has, in the same places, and takes nothing
    else that was made on the way."""
    shape = getattr(call.y, "shape", None)
    return bool(shape == at(call.args, path).shape and call.name not in ("detach", "contiguous"))


def _moved(call: Called) -> str:
    return "scale" if call.name in ("mul", "div", "rmul") and call.number else "order"


def _before(path: tuple[Any, ...], j: int, inner: tuple[Any, ...]) -> Change:
    """f(g(a, b)) → g(f(a), b)"""

    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        made = seen[j]
        own = function(*with_at(args, path, at(made.args, inner)), **kwargs)
        return made.function(*with_at(made.args, inner, own), **made.kwargs)

    return change


def _behind(path: tuple[Any, ...], j: int, inner: tuple[Any, ...]) -> Change:
    """g(f(a), b) → f(g(a, b))"""

    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        made = seen[j]
        joined = function(*with_at(args, path, at(made.args, inner)), **kwargs)
        return made.function(*with_at(made.args, inner, joined), **made.kwargs)

    return change


# Exchanged -------------------------------------------------------------------------------------


def swapped(trace: Trace, k: int) -> Changes:
    """Two operands, each in the place of the other: of one call, of one and of what made another,
    and of what made two of them."""
    call = trace.seen[k]
    given = [(path, t) for path, t in operands(call) if is_differentiable(t)]
    for (p, a), (q, b) in itertools.combinations(given, 2):
        if call.name not in ("add", "mul", "cat", "stack", "radd") and a.shape == b.shape:
            text = f"operand: of {call.name}, {_place(p)} and {_place(q)} exchanged"
            yield text, _exchanged([p], [q], {})
        made = {path: j for path, t in ((p, a), (q, b)) if (j := trace.maker(t, k)) is not None}
        for inner, outer in itertools.product(_inner(trace, made, p), _inner(trace, made, q)):
            if len(inner) + len(outer) > 2 and _swap(trace, call, made, inner, outer):
                text = f"operand: on the two sides of {call.name} exchanged"
                yield text, _exchanged(inner, outer, made)


def _place(path: tuple[Any, ...]) -> str:
    return "number " + "/".join(str(i + 1) for i in path)


def _inner(trace: Trace, made: dict[Any, int], path: tuple[Any, ...]) -> list[list[Any]]:
    """An operand itself, and those of what made it."""
    found: list[list[Any]] = [[path]]
    if path in made and not trace.seen[made[path]].in_place:
        found += [[path, inner] for inner, _ in operands(trace.seen[made[path]])]
    return found


def _swap(
    trace: Trace, call: Called, made: dict[Any, int], first: list[Any], second: list[Any]
) -> bool:
    """Whether two operands may stand in each other's place: of one shape, and different."""
    a, b = (_found(call.args, made, where, trace.seen) for where in (first, second))
    fits = is_differentiable(a) and is_differentiable(b) and a.shape == b.shape and a is not b
    return fits and (a.requires_grad or b.requires_grad)


def _found(args: Any, made: dict[Any, int], where: list[Any], seen: Sequence[Called]) -> Any:
    path, *inner = where
    return at(seen[made[path]].args, inner[0]) if inner else at(args, path)


def _exchanged(first: list[Any], second: list[Any], made: dict[Any, int]) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        a, b = (_found(args, made, where, seen) for where in (first, second))
        for where, new in ((first, b), (second, a)):
            path, *inner = where
            if inner:
                maker = seen[made[path]]
                new = maker.function(*with_at(maker.args, inner[0], new), **maker.kwargs)
            args = with_at(args, path, new)
        return function(*args, **kwargs)

    return change


# Taken from elsewhere --------------------------------------------------------------------------


def taken_elsewhere(trace: Trace, k: int) -> Changes:
    """An operand in the place of which another tensor of its shape is taken: a result from before,
    or what another function was given, the last first."""
    call = trace.seen[k]
    if call.name not in TAKING and call.module is None:
        return
    for path, operand in operands(call):
        number = is_asked(operand) or not any(map(is_asked, leaves(call.y)))
        if not (operand.ndim and (number or not operand.is_floating_point())):
            continue
        what = "residual" if call.name in SUMS and _is_residual(trace, k, operand) else "operand"
        tried: set[int] = {id(operand)}
        for text, where, other in itertools.islice(_earlier(trace, k), 40 * MOST):
            fits = other.shape == operand.shape and other.dtype == operand.dtype
            if fits and id(other) not in tried and len(tried) <= MOST:
                tried.add(id(other))
                yield f"{what}: {text} in {call.name}", _taken(path, where)


def _is_residual(trace: Trace, k: int, operand: torch.Tensor) -> bool:
    """Whether it is an operand of a sum that other calls took before."""
    return any(u < k for u in trace.users.get(id(operand), ()))


def _earlier(trace: Trace, k: int) -> Iterator[tuple[str, tuple[Any, ...], torch.Tensor]]:
    for j in range(k - 1, -1, -1):
        call = trace.seen[j]
        for i, t in enumerate(leaves(call.y)):
            if isinstance(t, torch.Tensor):
                yield f"the result of {call.name}", (j, None, i), t
        for path, t in operands(call):
            yield f"what {call.name} is given", (j, path, 0), t


def _taken(path: tuple[Any, ...], where: tuple[Any, ...]) -> Change:
    j, inner, i = where

    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        new = leaves(seen[j].y)[i] if inner is None else at(seen[j].args, inner)
        return function(*with_at(args, path, new), **kwargs)

    return change


def inserted(trace: Trace, k: int) -> Changes:
    """A function of an operand, where the other has one and this has none."""
    call = trace.seen[k]
    if call.name not in (*JOINED, "linear", "cat", "stack") and call.module is None:
        return
    for path, operand in operands(call):
        if is_asked(operand) and not operand.is_leaf:
            for name in ("tanh", "sigmoid", "relu", "silu", "gelu"):
                text = f"activation: {name} of what {call.name} is given"
                yield text, _of(path, name)


def _of(path: tuple[Any, ...], name: str) -> Change:
    def change(function: Any, args: Any, kwargs: Any, seen: Sequence[Called]) -> Any:
        return function(*with_at(args, path, ACTIVATIONS[name](at(args, path))), **kwargs)

    return change
