"""What it is to take one value of a pullback for another: a factor or a term that is left out, a
setting of another value, another operand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..traced import operation

SUMS, PRODUCTS = ("add", "sub", "rsub"), ("mul", "div")
SELECTIONS = ("where", "masked_fill", "threshold_backward")
BOUNDS = ("clamp", "clamp_min", "clamp_max")
Values = Mapping[str, Any]  # by the names of their nodes
HANDED_ON = {"alias", "view", "expand", "clone", "unsqueeze", "squeeze", "reshape", "neg"}
# What multiplies elements: what it takes is a factor.
ELEMENTWISE = {*PRODUCTS, *SELECTIONS, "neg", "pow", "sqrt", "reciprocal"}


def of_dy(values: Values, own: Any, other: Any) -> str:
    """Of values that are made from dy: a factor or a term less or more, if one is made of the other
    by products or sums alone; else another operand."""
    factors = (own, other, (*PRODUCTS, *SELECTIONS)), (other, own, PRODUCTS)
    if any(made_by(values, *way) for way in factors) or _share_factors(values, own, other):
        return of_factors(values, own, other)
    if made_by(values, own, other, SUMS):
        return "missing term"
    return "extra term" if made_by(values, other, own, SUMS) else "operand"


def of_the_forward(values: Values, own: Any, other: Any, takers: Iterable[Any] = ()) -> str:
    """Of values of the forward, that operations take: an eps that is added, or a bound, is a
    setting; what is multiplied by others is a factor where elements are multiplied."""
    pairs = (own, other), (other, own)
    if any(_by_numbers(values, *pair) for pair in pairs):
        return "variant"
    if not any(made_by(values, *pair, (*PRODUCTS, "pow")) for pair in pairs):
        return "operand"
    cause = of_factors(values, own, other)
    elementwise = all(operation(n) in ELEMENTWISE for n in takers)
    return cause if elementwise or cause == "factor" else "operand"


def of_factors(values: Values, own: Any, other: Any) -> str:
    """Of what is another times something: a number, or an array."""
    a, b = values[own.name], values[other.name]
    ratio = (a / b).flatten() if a.shape == b.shape else a.new_empty(0)
    one = len(ratio) and torch.allclose(ratio, ratio[:1].expand_as(ratio), 1e-9, 0)
    return "factor" if one else "elementwise factor"


def _share_factors(values: Values, own: Any, other: Any) -> bool:
    """Whether one product has all the factors of another, and some more."""
    more, fewer = sorted((_factors(own), _factors(other)), key=len, reverse=True)
    for over, factor in fewer:
        like = [f for f in more if f[0] == over and _same(values, f[1], factor)]
        if not like:
            return False
        more.remove(like[0])
    return True


def _factors(node: Any) -> list[tuple[bool, Any]]:
    """What a product is made of, each with whether it is divided by that."""
    name = operation(node) if node.op == "call_function" else ""
    nodes = [a for a in node.args if hasattr(a, "op")]
    if name == "mul" or name in HANDED_ON:
        return [factor for n in nodes for factor in _factors(n)]
    if name == "div" and node.args[0] in nodes:
        return [*_factors(node.args[0]), *((True, n) for n in nodes[1:])]
    return [(False, node)]


def made_by(values: Values, node: Any, source: Any, kind: Sequence[str]) -> bool:
    """Whether a value is made of another by operations of a kind alone; a quotient is made of what
    is divided."""
    open_, known = [node], {node}
    while open_:
        one = open_.pop()
        if _same(values, one, source):
            return True
        if one.op == "call_function" and (operation(one) in kind or operation(one) in HANDED_ON):
            taken = one.args[:1] if operation(one) == "div" else one.all_input_nodes
            more = [n for n in taken if hasattr(n, "op") and n not in known]
            known.update(more)
            open_ += more
    return False


def _by_numbers(values: Values, node: Any, source: Any) -> bool:
    """Whether a value is another with a number added to it, or within bounds."""
    changed = False
    while not _same(values, node, source):
        if node.op != "call_function" or len(node.all_input_nodes) != 1:
            return False
        name = operation(node)
        if name not in (*BOUNDS, *HANDED_ON - {"neg"}) and (name != "add" or node.kwargs):
            return False
        changed |= name == "add" or name in BOUNDS
        (node,) = node.all_input_nodes
    return changed


def _same(values: Values, node: Any, other: Any) -> bool:
    """Whether they are one, or one is a copy of the other."""
    a, b = values.get(node.name), values[other.name]
    return node is other or (isinstance(a, torch.Tensor) and torch.equal(a, b))
