"""What a mistake does in every round of a loop: to all operations of the pullback that stand in the
same relation to one another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..traced import AS_IT_IS, BothWays, operation
from . import naming
from .naming import PRODUCTS, SUMS

ROUNDS = 64  # the most of a loop
NEAR = 9  # the most operations between what is taken and what should be
CROWDED = 8  # what so many take, or what takes as many as JOINED, is of no round
JOINED = 4
NEIGHBOURS = 10  # the most values that are tried in the place of another

Made = Callable[[Mapping[str, Any]], Any]
Way = Sequence[tuple[str, str, int]]  # from a value to another, through the graph

# Slopes as they are written by the output, of which one may stand for another.
BY_OUTPUT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "y (1 − y)": lambda y: y * (1 - y),
    "1 − y²": lambda y: 1 - y * y,
    "1 − y": lambda y: 1 - y,
    "y²": lambda y: y * y,
}


def each_round(both: BothWays) -> Iterator[tuple[str, str, dict[str, Made]]]:
    """(cause, text, what the operations make): terms left out, factors, other operands."""
    groups = list(_groups(both))
    for search in (_left_out, _without_factors, _others):
        for group in groups:
            yield from search(both, group)


def _groups(both: BothWays) -> Iterator[list[Any]]:
    """Operations of a kind: by what they take, seen less and less far."""
    known = set()
    for depth in (2, 1, 0):
        groups: dict[Any, list[Any]] = {}
        for node in both.backward:
            if operation(node) not in AS_IT_IS - {"alias", "permute"}:
                groups.setdefault(_role(both, node, depth), []).append(node)
        for group in groups.values():
            key = frozenset(n.name for n in group)
            if 1 < len(group) <= ROUNDS and key not in known:
                known.add(key)
                yield group


def _role(both: BothWays, node: Any, depth: int) -> Any:
    value = both.values.get(node.name)
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    own = operation(node), shape, node.name in both.of_dy
    if depth == 0 or node.op != "call_function":
        return own
    return own, tuple(_role(both, n, depth - 1) for n in node.all_input_nodes)


def _places(both: BothWays, group: Sequence[Any]) -> Iterator[int]:
    """The places at which all of them hold floating tensors."""
    for k in range(len(group[0].args)):
        values = [both.values.get(getattr(n.args[k], "name", "")) for n in group if k < len(n.args)]
        tensors = [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]
        if len(tensors) == len(group):
            yield k


def _left_out(both: BothWays, group: list[Any]) -> Iterator[tuple[str, str, dict[str, Made]]]:
    """A term in every round. Of what is added up over all of them only the last, or the first, is
    left then: each overwrites the one before."""
    if operation(group[0]) not in SUMS:
        return
    own = {n.name for n in group}
    for k in _places(both, group):
        if not all(n.args[k].name in both.of_dy for n in group):
            continue
        where = f"{both.plain(group[0].args[k].name)} → {operation(group[0])}"
        made = {n.name: _with(both, n, k, torch.zeros_like) for n in group}
        added_up = sum(_source(n.args[j]).name in own for n in group for j in (0, 1))
        if added_up >= len(group) - 1:
            text = f"that of one round alone, which overwrites the others in {where}"
            yield "overwritten", text, made
        else:
            yield "missing term", f"without its part through {where}, each time", made


def _without_factors(
    both: BothWays, group: list[Any]
) -> Iterator[tuple[str, str, dict[str, Made]]]:
    name = operation(group[0])
    if name not in PRODUCTS:
        return
    places = list(_places(both, group))
    for k in places:
        if len(places) == 2 and not (name == "div" and k == 0):
            made = {n.name: _with(both, n, k, torch.ones_like) for n in group}
            text = f"that without the factor {both.plain(group[0].args[k].name)}, each time"
            yield "elementwise factor", text, made
    if all(n.name in both.of_dy for n in group):
        for k in places:
            if any(n.args[k].name in both.of_dy for n in group):
                continue
            for text, other in BY_OUTPUT.items():
                sources = [_output(both, n.args[k]) for n in group]
                if all(sources):
                    made = {
                        n.name: _with(both, n, k, _of(other, both.values[s.name]))
                        for n, s in zip(group, sources, strict=True)
                    }
                    yield "elementwise factor", f"that with the slope {text}, each time", made


def _output(both: BothWays, slope: Any) -> Any:
    """The value of the forward that a slope is made of, if it is made of one."""
    found, open_ = set(), [slope]
    while open_:
        node = open_.pop()
        if node.name in both.forward:
            found.add(node)
        else:
            open_ += node.all_input_nodes
    return found.pop() if len(found) == 1 else None


def _others(both: BothWays, group: list[Any]) -> Iterator[tuple[str, str, dict[str, Made]]]:
    """Another operand in every round: what stands to it as in the middle one."""
    if operation(group[0]) in SUMS:  # a term in the place of another is another term
        return
    middle = group[(len(group) - 1) // 2]  # the pullback ends in the first round
    for k in _places(both, group):
        own = middle.args[k]
        of_dy = own.name in both.of_dy
        mine, value = both.plain(own.name), both.values[own.name]
        shape = value.shape
        ways = [(o, w) for o, w in _near(both, own) if (o.name in both.of_dy) == of_dy]
        ways.sort(key=lambda found: operation(found[0]) != operation(own))  # its like first
        for other, way in ways[:NEIGHBOURS]:
            made: dict[str, Made] = {}
            for node in group:
                end = _followed(node.args[k], way)
                if end is not None and getattr(both.values[end.name], "shape", None) == shape:
                    made[node.name] = _taking(both, node, k, end)
            if len(made) > 1:
                if value.ndim > 1 and torch.equal(value, both.values[other.name].mT):
                    yield "transpose", f"that with {mine} transposed, each time", made
                    continue
                text = f"that with {both.plain(other.name)} in the place of {mine}, each time"
                named = naming.of_the_forward(both.values, own, other, group)
                yield "operand" if of_dy else named, text, made


def _near(both: BothWays, own: Any) -> Iterator[tuple[Any, Way]]:
    """Other values of the same shape, with the way there, the nearest first."""
    shape, value = both.values[own.name].shape, both.values[own.name]
    known = {own}
    open_: deque[tuple[Any, list[tuple[str, str, int]]]] = deque([(own, [])])
    while open_:
        node, way = open_.popleft()
        for step, other in _steps(node):
            if other in known or len(other.all_input_nodes) >= JOINED:
                continue
            known.add(other)
            there = [*way, step]
            found = both.values.get(other.name)
            if not isinstance(found, torch.Tensor) or not found.is_floating_point():
                found = value
            if found.shape == shape and not torch.equal(found, value):
                yield other, there
            if len(there) < NEAR and len(other.users) < CROWDED:
                open_.append((other, there))


def _steps(node: Any) -> Iterator[tuple[tuple[str, str, int], Any]]:
    """The ways from a node: to what it takes, and to those that take it, if but one of a kind."""
    for k, source in enumerate(node.all_input_nodes):
        yield ("of", operation(node), k), source
    kinds: dict[str, list[Any]] = {}
    for user in node.users:
        if user.op == "call_function":
            kinds.setdefault(operation(user), []).append(user)
    for kind, users in kinds.items():
        for k, user in enumerate(users):
            yield ("in", kind, k), user


def _followed(node: Any, way: Way) -> Any:
    """Where a way leads from another node; None where it leads nowhere."""
    for step in way:
        node = dict(_steps(node)).get(step)
        if node is None:
            return None
    return node


def _source(node: Any) -> Any:
    while node.op == "call_function" and operation(node) in AS_IT_IS:
        node = node.all_input_nodes[0]
    return node


def _with(both: BothWays, node: Any, k: int, other: Callable[[Any], Any]) -> Made:
    return lambda values: both.applied(node, values, {k: other})


def _of(other: Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor) -> Callable[[Any], Any]:
    return lambda _: other(y)


def _taking(both: BothWays, node: Any, k: int, end: Any) -> Made:
    return lambda values: both.applied(node, values, {k: lambda _: values[end.name]})
