"""The numbers that stand in calls: factors, addends, powers, fill values, settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from .....reference.adapters import leaves
from ..calls import Called, Change, Trace, Where, is_number, with_at
from ..recording import is_asked
from .functions import ACTIVATIONS
from .make import with_argument
from .masks import FILLED

Changes = Iterator[tuple[str, Change]]
PRODUCTS = ("mul", "rmul", "div", "rdiv")
SUMS = ("add", "radd", "sub", "rsub")
MADE = ("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "empty", "arange")
MADE += ("new_zeros", "new_ones", "new_full", "new_empty", "empty_like")
ARITHMETIC = (*PRODUCTS, *SUMS, "pow", "rpow", "masked_fill", "full", "full_like", "new_full")
SMALL = 1e-2  # what is added below that keeps a quotient or a root from its pole
# What the settings of these functions are about.
ABOUT = {"eps": "eps", "momentum": "momentum", "negative_slope": "activation", "p": "mode"}


class Number(NamedTuple):
    """A number among the arguments of a call.

    about   what it is, of the words that causes have
    """

    about: str
    name: str
    path: Where | str
    value: float

    def changed(self, value: float) -> Change:
        """The call with another one."""

        def change(function: Any, args: Any, kwargs: Any, seen: Any) -> Any:
            if isinstance(self.path, str):
                return function(*args, **{**kwargs, self.path: value})
            return function(*with_at(args, self.path, value), **kwargs)

        return change

    def text(self, value: float) -> str:
        word = self.about
        if word == "scale" and _is_over_one_less(self.value):
            word = "variance" if value == 1 else "count"
        return f"{word}: {value:g} instead of {self.value:g} in {self.name}"


def _is_over_one_less(value: float) -> bool:
    """Whether it is n / (n − 1)."""
    n = value / (value - 1) if value > 1 else 0.0
    return bool(n > 2) and math.isclose(n, round(n), rel_tol=1e-9)


def all_of(trace: Trace, k: int) -> Iterator[Number]:
    """The numbers of a call that another one can take the place of a little further on."""
    call = trace.seen[k]
    if call.module is not None:
        return
    for i, argument in enumerate(call.args):
        taken = isinstance(argument, float) or call.name in ARITHMETIC
        if is_number(argument) and taken and math.isfinite(argument):
            yield Number(about(trace, k), call.name, (i,), float(argument))
    for name, argument in call.kwargs.items():
        if isinstance(argument, float) and math.isfinite(argument):
            word = ABOUT.get(name) or about(trace, k)
            if name == "alpha":
                word = "scale" if any(map(is_asked, leaves(call.y))) else "momentum"
            yield Number(word, call.name, name, argument)


def about(trace: Trace, k: int) -> str:
    """What a number in a call is: in a division by a whole one, a count; beside a root or below a
    fraction, eps; in the argument of an activation, its own; before the cosine of what turns
    queries, RoPE's; on the way of what came in, the residual's."""
    call = trace.seen[k]
    tensors = [a for a in call.args if isinstance(a, torch.Tensor)]
    whole = all(isinstance(a, int) for a in call.args if is_number(a))
    users = {c.name for c in trace.taken_by(k)}
    if tensors and all(t.dtype == torch.bool for t in tensors):
        return "mask"
    if call.name.endswith("norm"):
        return "eps"
    if call.name in FILLED:
        return "mask"
    if call.name in MADE:
        return "initial"
    if call.name in ACTIVATIONS or call.name in ("clamp", "softplus", "threshold"):
        return "activation"
    if _turns(trace, k):
        return "rope"
    if call.name in SUMS:
        if tensors and not tensors[0].is_floating_point():
            return "count"
        if 0 < abs(call.number) < SMALL:
            return "eps"
        return "initial" if users & ACTIVATIONS.keys() else "missing"
    if call.name in ("div", "rdiv") and whole:
        return "variance" if _corrects(trace, k) else "count"
    if users & (ACTIVATIONS.keys() - {"the identity"}) and call.name in PRODUCTS:
        return "activation"
    if call.name in PRODUCTS and users & {"add"} and _goes_on(trace, k):
        return "residual"
    return "rope" if call.name in ("pow", "rpow") and abs(call.number) > 10 else "scale"


def _turns(trace: Trace, k: int) -> bool:
    """Whether of what a call gives angles are made, and of those factors of what learns."""
    if any(map(is_asked, leaves(trace.seen[k].y))):
        return False
    behind = list(trace.behind(k))
    return any(c.name in ("cos", "sin", "polar") for c in behind) and any(
        c.name == "mul" and any(map(is_asked, c.args)) for c in behind
    )


def _corrects(trace: Trace, k: int) -> bool:
    """Whether what it divides was multiplied before, as by n before it is divided by n − 1."""
    j = trace.maker(trace.seen[k].args[0], k)
    number = trace.seen[j].number if j is not None and trace.seen[j].name == "mul" else 0.0
    return bool(number) and abs(number - trace.seen[k].number) <= 1


def _goes_on(trace: Trace, k: int) -> bool:
    """Whether a call takes what came in, or what others took before."""
    tensors = [a for a in trace.seen[k].args if isinstance(a, torch.Tensor)]
    return all(
        is_asked(t)
        and not t.is_leaf
        and (trace.maker(t, k) is None or any(u < k for u in trace.users[id(t)]))
        for t in tensors
    )


def counts(trace: Trace, k: int) -> Changes:
    """Whole numbers that something is divided by, as others have them."""
    for number in all_of(trace, k):
        if number.about == "count":
            yield from _others(trace, trace.seen[k], number)
    yield from _counted(trace, k)


def listed(trace: Trace, k: int) -> Changes:
    """Numbers that others have there."""
    call = trace.seen[k]
    yield from _created(call)
    for number in all_of(trace, k):
        if number.about != "count":
            yield from _others(trace, call, number)


def _others(trace: Trace, call: Called, number: Number) -> Changes:
    for value in dict.fromkeys(_values(trace, call, number)):
        if value != number.value and math.isfinite(value):
            yield number.text(value), number.changed(value)


def _counted(trace: Trace, k: int) -> Changes:
    """A quotient by what was counted for each, by one number for all."""
    call = trace.seen[k]
    by = call.args[1] if call.name == "div" and len(call.args) > 1 else None
    if isinstance(by, torch.Tensor) and not by.is_floating_point():
        for n in _lengths(trace):
            text = f"count: by {n} for all instead of what was counted for each"
            yield text, with_argument(1, "other", n)


def _created(call: Called) -> Changes:
    """What is made of a number, made of another."""
    if call.name == "arange":
        for by in (-1, 1):
            text = f"initial: counted from {by:+d} on"
            yield text, lambda function, args, kwargs, seen, by=by: function(*args, **kwargs) + by
    elif call.name in MADE and isinstance(call.y, torch.Tensor):
        for value in (0, 1, 2):
            text = f"initial: {value} in {call.name}"
            yield (
                text,
                lambda function, args, kwargs, seen, v=value: torch.full_like(
                    function(*args, **kwargs), v
                ),
            )


def _values(trace: Trace, call: Called, number: Number) -> Iterator[float]:
    value = number.value
    if call.name in PRODUCTS and value:
        yield from (1.0, value**2, 1 / value, value / 2, 2 * value, abs(value) ** 0.5, -value)
        over = value if "div" in call.name else 1 / value
        if over > 1 and over == round(over):
            yield from (v if "div" in call.name else 1 / v for v in (over + 1, over - 1) if v)
        for n in _lengths(trace):
            yield from (n**0.5, float(n), n**-0.5, 1 / n)
    elif number.about == "eps":
        yield from (0.0, *(10.0**-k for k in range(3, 13)))
    elif number.about == "rope":
        yield from (1e2, 1e3, 1e4, 1e5, 5e5, 1e6, 1e7)
    elif call.name in SUMS:
        yield from (0.0, -value)


def _lengths(trace: Trace) -> list[int]:
    return sorted({n for c in trace.seen for t in leaves(c.y) if isinstance(t, torch.Tensor)
                   for n in t.shape} - {0, 1})  # fmt: skip
