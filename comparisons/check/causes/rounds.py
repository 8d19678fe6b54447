"""What a mistake does in every round of a loop: to all operations of the pullback that stand in the
same relation to one another."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from ..traced import AS_IT_IS, BothWays, operation
from . import naming
from .naming import PRODUCTS, SUMS

ROUNDS = 64  # the most of a loop
TWICE = 2  # as many operations of a kind may take an initial state in its own round
NEAR = 9  # the most operations between what is taken and what should be
CROWDED = 8  # what so many take, or what takes as many as JOINED, is of no round
JOINED = 4
NEIGHBOURS = 10  # the most values that are tried in the place of another

FILLED = {"full", "full_like", "zeros", "zeros_like", "new_zeros", "scalar_tensor"}
PLACED = {"select_scatter", "slice_scatter", "sum"}

Made = Callable[[Mapping[str, Any]], Any]
Found = tuple[str, str, dict[str, Made]]  # cause, text, what the operations make
Way = Sequence[tuple[str, str, int]]  # from a value to another, through the graph

# Slopes as they are written by the output, of which one may stand for another.
BY_OUTPUT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "y (1 − y)": lambda y: y * (1 - y),
    "1 − y²": lambda y: 1 - y * y,
    "1 − y": lambda y: 1 - y,
    "y²": lambda y: y * y,
}


def each_round(both: BothWays) -> Iterator[Found]:
    """(cause, text, what the operations make): terms left out, factors, other operands."""
    groups = list(_groups(both))
    for search in (_left_out, _without_factors, _taken_later, _parts_exchanged):
        for group in groups:
            yield from search(both, group)
    others = [found for group in groups for found in _others(both, group)]
    for rank in range(NEIGHBOURS):  # of all operations the likeliest first
        for found in others:
            yield from itertools.islice(found, 1 if rank < NEIGHBOURS - 1 else None)


def _groups(both: BothWays) -> Iterator[list[Any]]:
    """Operations of a kind: by what they take, seen less and less far, and by what takes them, for
    the first round takes an initial state, and the last one nothing from a later round."""
    known = set()
    firsts = {  # the first round is the last one of the pullback
        (_role(both, n, 0), _use(both, n, 2)): n
        for n in both.backward
        if n.name in both.of_dy and any(map(_is_initial, n.args))
    }
    taken, used = functools.partial(_role, both), functools.partial(_use, both)
    for seen, depth in ((taken, 2), (used, 2), (taken, 1), (used, 1), (taken, 0)):
        groups: dict[Any, list[Any]] = {}
        for node in both.backward:
            if operation(node) not in AS_IT_IS - {"alias", "permute"}:
                groups.setdefault(seen(node, depth), []).append(node)
        for group in groups.values():
            more = _last_of(both, group) if seen is used else _first_of(both, firsts, group)
            for every in (group, [*group, *more]):
                key = frozenset(n.name for n in every)
                if 1 < len(every) <= ROUNDS and key not in known:
                    known.add(key)
                    yield every


def _last_of(both: BothWays, group: Sequence[Any]) -> list[Any]:
    """A result that takes what the operations of a group take: what they hand on to the next round,
    it gives back in the last one."""
    kinds = {_role(both, n, 1) for n in group}
    if any(n.name in both.results for n in group):
        return []
    results = (both.nodes[name] for name in both.results[1:])
    return [
        n for n in dict.fromkeys(results) if n.name in both.of_dy and _role(both, n, 1) in kinds
    ]


def _first_of(both: BothWays, firsts: Mapping[Any, Any], group: Sequence[Any]) -> list[Any]:
    """The operation in the place of those of a group in the round that takes the initial state."""
    if len(group) < 2 or not all(n.name in both.of_dy for n in group):
        return []
    kinds = dict.fromkeys((_role(both, n, 0), _use(both, n, 2)) for n in group)
    return [firsts[kind] for kind in kinds if kind in firsts and firsts[kind] not in group]


def _is_initial(arg: Any) -> bool:
    """Whether no round made it."""
    source = _source(arg) if isinstance(arg, Node) else arg
    if not isinstance(source, Node):
        return isinstance(source, (int, float))
    return _is_argument(source) or operation(source) in FILLED


def _role(both: BothWays, node: Any, depth: int) -> Any:
    value = both.values.get(node.name)
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    own = operation(node), shape, node.name in both.of_dy
    if depth == 0 or node.op != "call_function":
        return own
    return own, tuple(_role(both, n, depth - 1) for n in node.all_input_nodes)


def _use(both: BothWays, node: Any, depth: int) -> Any:
    """The same by what takes it, and at which place, once for each kind; the terms of a sum are
    alike."""
    own = _role(both, node, 0)
    if depth == 0 or node.op != "call_function":
        return own
    users = set()
    for user in (u for u in node.users if u.op == "call_function"):
        place = 0 if operation(user) in SUMS else user.all_input_nodes.index(node)
        users.add((place, _use(both, user, depth - 1)))
    return own, frozenset(users)


def _places(both: BothWays, group: Sequence[Any], but: int = 0) -> Iterator[int]:
    """The places at which all of them, but for so many, hold floating tensors."""
    for k in range(len(group[0].args)):
        if sum(_is_floating(both, n.args[k]) for n in group if k < len(n.args)) >= len(group) - but:
            yield k


def _is_floating(both: BothWays, arg: Any) -> bool:
    value = both.values.get(getattr(arg, "name", ""))
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _left_out(both: BothWays, group: list[Any]) -> Iterator[Found]:
    """A term in every round. Of what is added up over all of them only the last, or the first, is
    left then: each overwrites the one before."""
    if operation(group[0]) not in SUMS:
        if all(n.name in both.of_dy and _is_added(n) for n in group):
            made = {n.name: _without(n) for n in group}
            yield (
                "missing term",
                f"without its part through {both.plain(group[0].name)}, each time",
                made,
            )
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


def _is_added(node: Any) -> bool:
    """Whether it becomes a term of a sum, if only in its own place of a larger array."""
    users = [u for u in node.users if u.op == "call_function"]
    return len(users) == 1 and (
        operation(users[0]) in SUMS
        or (operation(users[0]) in AS_IT_IS | PLACED and _is_added(users[0]))
    )


def _taken_later(both: BothWays, group: list[Any]) -> Iterator[Found]:
    """A value that others take after it was multiplied, not before, in every round."""
    if operation(group[0]) not in PRODUCTS or not all(n.name in both.of_dy for n in group):
        return
    made: dict[str, Made] = {}
    for node in group:
        j, own = next((j, n) for j, n in enumerate(node.args) if n.name in both.of_dy)
        for user in own.users:
            if user is not node and own in user.args:
                k = user.args.index(own)
                made[user.name] = _with(both, user, k, _times(both, node, j))
    if made and not made.keys() & {n.name for n in group}:
        mine = " → ".join(both.plain(n.name) for n in (own, group[0]))
        yield (
            "elementwise factor",
            f"that with {mine} before it is taken elsewhere, each time",
            made,
        )


def _parts_exchanged(both: BothWays, group: list[Any]) -> Iterator[Found]:
    """Two parts of what is put in a row, each in the place of the other."""
    if operation(group[0]) != "cat" or not all(n.name in both.of_dy for n in group):
        return
    counts = {len(n.args[0]) for n in group}
    for i, j in itertools.combinations(range(counts.pop()), 2) if len(counts) == 1 else ():
        parts = [(n.args[0][i], n.args[0][j]) for n in group]
        if all(_shape(both, a) == _shape(both, b) for a, b in parts):
            made = {n.name: _with_parts(both, n, i, j) for n in group}
            yield "misplaced", f"that with parts {i} and {j} of cat exchanged, each time", made


def _with_parts(both: BothWays, node: Any, i: int, j: int) -> Made:
    def made(values: Mapping[str, Any]) -> Any:
        parts = [values[n.name] for n in node.args[0]]
        parts[i], parts[j] = parts[j], parts[i]
        return both.applied(node, values, {0: lambda _: parts})

    return made


def _times(both: BothWays, node: Any, j: int) -> Callable[[Any], Any]:
    return lambda a: both.applied(node, both.values, {j: lambda _: a})


def _without_factors(both: BothWays, group: list[Any]) -> Iterator[Found]:
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


def _others(both: BothWays, group: list[Any]) -> Iterator[Iterator[Found]]:
    """Another operand in every round, for each place of an operand."""
    if operation(group[0]) in SUMS:  # a term in the place of another is another term
        return
    middle = group[(len(group) - 1) // 2]  # the pullback ends in the first round
    for k in _places(both, group, but=1 if len(group) > 2 else 0):
        if _is_floating(both, middle.args[k]):
            yield _of_another(both, group, k, middle.args[k])


def _of_another(both: BothWays, group: list[Any], k: int, own: Any) -> Iterator[Found]:
    """What stands to the operand as in one round."""
    source = _source(own)
    if _is_turned(both, own, source):
        made = {n.name: _with(both, n, k, torch.t) for n in group}
        yield "transpose", f"that with {both.plain(own.name)} transposed, each time", made
    of_dy = own.name in both.of_dy
    ways = [(o, w) for o, w in _near(both, source) if (o.name in both.of_dy) == of_dy]
    ways.sort(key=lambda found: operation(found[0]) != operation(source))  # its like first
    for other, way in ways[:NEIGHBOURS]:
        cause, text = _named(both, source, other, group)
        for made in _in_all(both, group, k, way):
            yield cause, f"that {text}, each time", made


def _is_turned(both: BothWays, own: Any, source: Any) -> bool:
    value, base = both.values[own.name], both.values[source.name]
    square = value.ndim == 2 and value.shape == base.shape
    return square and torch.equal(value, base.mT) and not torch.equal(value, base)


def _named(both: BothWays, own: Any, other: Any, group: list[Any]) -> tuple[str, str]:
    """What it is to take one value for another: one of the terms of a sum for it is a term less,
    unless the other terms are numbers."""
    less = operation(own) in SUMS and other in map(_source, own.all_input_nodes)
    instead = f"with {both.plain(other.name)} in the place of {both.plain(own.name)}"
    if own.name in both.of_dy:
        return "missing term" if less else "operand", instead
    if operation(own) == operation(other) == "select" and own.args[0] is other.args[0]:
        return "misplaced", instead  # of the same array, at another index
    cause = naming.of_the_forward(both.values, own, other, group)
    return "missing term" if less and cause == "operand" else cause, instead


def _in_all(both: BothWays, group: Sequence[Any], k: int, way: Way) -> Iterator[dict[str, Made]]:
    """The operations at what the way leads to from the operand of each. Where that is the operand
    of a neighbouring round, the neighbour tells it where no way leads; what is before the first
    round, or after the last, may be nothing."""
    owns = [_source(n.args[k]) if _is_floating(both, n.args[k]) else None for n in group]
    usual = next(n.args[k] for n, own in zip(group, owns, strict=True) if own is not None)
    ends = [None if own is None else _followed(own, way) for own in owns]
    for shift in (1, -1):
        pairs = [(i, i + shift) for i in range(len(group)) if 0 <= i + shift < len(group)]
        if any(ends[i] is not None and ends[i] is owns[j] for i, j in pairs):
            for i, j in pairs:
                ends[i] = owns[j] if ends[i] is None else ends[i]
    found = {}
    for node, own, end in zip(group, owns, ends, strict=True):
        base = own or _source(usual)
        if end is not None and _shape(both, end) == _shape(both, base):
            found[node.name] = _taking(both, node, k, end, node.args[k] if own else usual)
    if len(found) > 1:
        yield found
        if len(found) == len(group) - 1:
            yield {n.name: _with(both, n, k, _nothing) for n in group} | found


def _shape(both: BothWays, node: Any) -> Any:
    return getattr(both.values.get(node.name), "shape", None)


def _nothing(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else 0.0


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
        if _is_argument(node) and len(users) > TWICE:  # every round takes it: no round is the next
            continue
        for k, user in enumerate(users):
            yield ("in", kind, k), user


def _is_argument(node: Any) -> bool:
    return node.op != "call_function" or any(n.op == "placeholder" for n in node.all_input_nodes)


def _followed(node: Any, way: Way) -> Any:
    """Where a way leads from another node; None where it leads nowhere."""
    for step in way:
        node = dict(_steps(node)).get(step)
        if node is None:
            return None
    return node


def _source(node: Any) -> Any:
    """What a value is a view of: of an argument, what stands for it in the graph."""
    while node.op == "call_function" and operation(node) in AS_IT_IS:
        source = node.all_input_nodes[0]
        if source.op != "call_function" and operation(node) == "alias":
            break
        node = source
    return node


def _with(both: BothWays, node: Any, k: int, other: Callable[[Any], Any]) -> Made:
    return lambda values: both.applied(node, values, {k: other})


def _of(other: Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor) -> Callable[[Any], Any]:
    return lambda _: other(y)


def _without(node: Any) -> Made:
    return lambda values: torch.zeros_like(values[node.name])


def _taking(both: BothWays, node: Any, k: int, end: Any, own: Any) -> Made:
    """An operation at another value, seen as its own is."""

    def seen(values: Mapping[str, Any], view: Any) -> Any:
        if view is _source(view):
            return values[end.name]
        return both.applied(view, values, {0: lambda _: seen(values, view.args[0])})

    return lambda values: both.applied(node, values, {k: lambda _: seen(values, own)})
