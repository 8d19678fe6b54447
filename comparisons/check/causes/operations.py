"""One operation of the pullback made otherwise: what a mistake does to the closed forms in which a
backward pass is written.

The pullback is traced as torch's own formulas write it: p (dy − Σ dy p) of a softmax, y (1 − y) dy
of a sigmoid, both means of a norm. What an operation computes is exchanged for what a mistake would
compute: a term left out, another operand, a factor forgotten. All that is made from dy is linear in
it, so that one pass of autograd through the pullback tells how far a gradient moves along a random
direction for whatever changes at an operation; what agrees there is gone through in full.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ....reference.adapters import tensor
from ..traced import AS_IT_IS, BothWays, operation
from . import naming
from .case import Candidate, Case, Wrong
from .closeness import broadcasts, where_finite
from .factor import is_known, named_factor, of_a_part
from .graphs import LARGE, Gradients, both_ways_of, once
from .naming import PRODUCTS, SELECTIONS, SUMS
from .rounds import each_round
from .sums import parts_left
from .unfolded import unfolded

ALIKE = 48  # the most values of one shape that are tried in the place of one of them
WORK = 40_000  # the most operations that are computed where nothing tells beforehand
ROUNDS = 150_000  # the same for what is exchanged in every round, once for all arguments
OPERATIONS = 1_500  # the most in a graph that is gone through
SEEN = 1e-6  # of what is compared along a direction, when it agrees

Made = Callable[[Mapping[str, Any]], Any]  # a value, of those of all nodes


class Exchange(NamedTuple):
    """Operations that compute something else, and what kind of mistake that is, or what tells it of
    an exchange that explains something: of most, nobody asks."""

    cause: str | Callable[[], str]
    text: str
    made: Mapping[str, Made]

    @property
    def kind(self) -> str:
        return self.cause if isinstance(self.cause, str) else self.cause()


def of_one_operation(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    yield from once(case, wrong, _found)


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    both = both_ways_of(case, wrong)
    if both is None or len(both.nodes) > OPERATIONS or wrong.truth.size > LARGE:
        return
    seen, aim = _seen(both, wrong)
    yield from _explained(case, wrong, seen, aim)
    position = list(case.done.order).index(wrong.name)
    for exchange, gradients in _of_rounds(case, wrong, seen):
        yield Candidate(exchange.kind, exchange.text, gradients[position])
    for further in (_saved(seen), _slopes(seen)):
        for exchange in _within(WORK, seen, further):
            with contextlib.suppress(RuntimeError):  # an operation that does not take it
                yield _candidate(case, wrong, seen, exchange)
    if (more := unfolded(both)) is not None:
        apart, aim = _seen(more[0], wrong)
        apart.linear = [node for node in apart.linear if _goes_one_way(node, more[1])]
        yield from _explained(case, wrong, apart, aim)


def _explained(case: Case, wrong: Wrong, seen: Seen, aim: float) -> Iterator[Candidate]:
    for exchange in itertools.chain(
        _times_a_number(seen, aim, wrong, case.done.settings),
        _factors(seen),
        _operands(seen),
        _of_factors(seen, aim),
        _more(seen),
        _parts(seen),
    ):
        with contextlib.suppress(RuntimeError):  # an operation that does not take it
            if seen.explains(exchange, aim):
                yield _candidate(case, wrong, seen, exchange)


def _candidate(case: Case, wrong: Wrong, seen: Seen, exchange: Exchange) -> Candidate:
    gradient = seen.both.gradients(exchange.made)[list(case.done.order).index(wrong.name)]
    return Candidate(exchange.kind, exchange.text, gradient)


def _goes_one_way(node: Any, apart: set[str]) -> bool:
    """Whether a value, or one that it takes, is of those that went several ways."""
    return node.name in apart or any(n.name in apart for n in node.all_input_nodes)


def written_over(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """A value of the forward in whose place a later operation takes what is made from dy: it was
    written into the same array."""
    both = both_ways_of(case, wrong)
    if both is None or len(both.nodes) > OPERATIONS or wrong.truth.size > LARGE:
        return
    seen, aim = _seen(both, wrong)
    for node in seen.linear:
        for k, arg in tensors(seen, node):
            for other, taken in seen.like(arg) if arg.name in seen.still else ():
                if other.name not in seen.moving or not _may_be_in_place(seen, other, arg):
                    continue
                where = f"{_instead(seen, arg, other)} in {seen.where(node, k)}"
                exchange = Exchange(
                    "overwritten", f"that {where}", {node.name: _taking(seen, node, k, taken)}
                )
                if seen.explains(exchange, aim):
                    yield _candidate(case, wrong, seen, exchange)


def _may_be_in_place(seen: Seen, made: Any, of: Any) -> bool:
    """Whether a value is made of a saved one, in whose place it may have been written."""
    while of.op == "call_function" and operation(of) in AS_IT_IS:
        of = of.all_input_nodes[0]
    saved = of.name in seen.both.forward
    return saved and naming.made_by(seen.values, made, of, (*PRODUCTS, *SUMS))


def _seen(both: BothWays, wrong: Wrong) -> tuple[Seen, float]:
    """What is seen along a direction, and by how much the gradient is wrong along it."""
    ours, truth = where_finite(wrong.ours, wrong.truth)
    along = torch.from_numpy(np.random.default_rng(13).standard_normal(truth.shape))
    return Seen(both, wrong.name, along), float((along * tensor(ours - truth)).sum())


def _of_rounds(case: Case, wrong: Wrong, seen: Seen) -> Iterator[tuple[Exchange, Gradients]]:
    """What is exchanged in every round, once for all arguments of a call."""
    key = _of_rounds, id(wrong.inputs)
    if key not in case.known:
        case.known[key] = [], _computed(seen, itertools.starmap(Exchange, each_round(seen.both)))
    known, rest = case.known[key]
    yield from known
    for found in rest:
        known.append(found)
        yield found


def _computed(seen: Seen, exchanges: Iterator[Exchange]) -> Iterator[tuple[Exchange, Gradients]]:
    for exchange in _within(ROUNDS, seen, exchanges):
        with contextlib.suppress(Exception):  # an operation that does not take it
            yield exchange, seen.both.gradients(exchange.made)


def _within(work: int, seen: Seen, exchanges: Iterator[Exchange]) -> Iterator[Exchange]:
    """As many of them as so many operations compute."""
    for exchange in exchanges:
        work -= seen.work(exchange)
        if work < 0:
            return
        yield exchange


class Seen:
    """What is seen of a pullback: which values are made from dy, how far each of them moves the
    gradient along a direction, and what is like what."""

    def __init__(self, both: BothWays, argument: str, along: torch.Tensor) -> None:
        self.both, self.values = both, both.values
        slopes = next(both.slopes(argument, [along]), {})
        self.slopes = {name: slope for name, slope in slopes.items() if name in both.of_dy}
        self.linear = [both.nodes[n] for n in both.nodes if n in self.slopes]
        self.moving = both.of_dy
        self.plain = {name: both.plain(name) for name in both.nodes}
        self.still = both.nodes.keys() - both.of_dy
        self.by_shape: dict[tuple[int, ...], list[Any]] = {}
        self.by_rows: dict[tuple[int, int], list[Any]] = {}
        self._told(both)

    def _told(self, both: BothWays) -> None:
        """One node for each value, by shapes."""
        known = set()
        for name, node in both.nodes.items():
            value = self.values.get(name)
            if not isinstance(value, torch.Tensor) or value.dtype in (torch.bool, torch.complex128):
                continue
            key = (tuple(value.shape), value.contiguous().numpy().tobytes())
            if value.numel() and key not in known:
                known.add(key)
                self.by_shape.setdefault(tuple(value.shape), []).append(node)
                self.by_rows.setdefault(_rows(value), []).append(node)

    def like(self, node: Any) -> Iterator[tuple[Any, Made]]:
        """Other values that may stand in the place of this one, the nearest in the graph first:
        those of its shape, or of as many rows of its length; where it is another turned round,
        what may stand in the place of that one."""
        value, source, turned = self.values[node.name], node, False
        if operation(node) in ("permute", "t", "transpose") and value.ndim > 1:
            source = node.args[0]
            turned = torch.equal(self.values[source.name].mT, value)
            source = source if turned else node
        base, own = self.values[source.name], self.both.place[node.name]
        others = sorted(
            (n for n in self.by_rows.get(_rows(base), ()) if _as_rows(self.values[n.name], base)),
            key=lambda n: abs(self.both.place[n.name] - own),
        )
        for other in others[:ALIKE]:
            made = _shaped(other.name, base, turned)
            if other is not node and not torch.equal(made(self.values), value):
                yield other, made

    def explains(self, exchange: Exchange, aim: float) -> bool:
        """Whether the gradient moves along the direction as the wrong one does."""
        moved = size = 0.0
        for name, made in exchange.made.items():
            value = made(self.values)
            if not isinstance(value, torch.Tensor) or value.shape != self.values[name].shape:
                return False
            terms = self.slopes[name] * (value - self.values[name])
            moved += float(terms.sum())
            size += float(terms.abs().sum())
        return abs(moved - aim) <= SEEN * max(abs(aim), 1e-6 * size)

    def work(self, exchange: Exchange) -> int:
        first = min(self.both.place[name] for name in exchange.made)
        return len(self.both.nodes) - first

    def where(self, node: Any, k: int) -> str:
        return f"{self.plain[node.args[k].name]} → {operation(node)}"


def tensors(seen: Seen, node: Any) -> Iterator[tuple[int, Any]]:
    """The places of an operation that hold floating values, with their nodes."""
    for k, arg in enumerate(node.args):
        value = seen.values.get(getattr(arg, "name", ""))
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield k, arg


def _times_a_number(
    seen: Seen, aim: float, wrong: Wrong, settings: Sequence[float]
) -> Iterator[Exchange]:
    """A term of a sum, or what an operation hands on to one of several others, times a number."""
    for node in seen.linear:
        for k, arg in tensors(seen, node):
            if arg.name not in seen.moving:
                continue
            if operation(node) not in SUMS and len(arg.users) < 2:
                continue
            nothing = _with(seen, node, k, lambda a: torch.zeros_like(a))
            own = seen.values[node.name]
            term = own - nothing(seen.values)
            moved = float((seen.slopes[node.name] * term).sum())
            if not moved:
                continue
            factor = 1 + aim / moved
            cause, text = _named_term(factor, wrong, settings)
            if cause == "missing term" and _in_rounds(node, arg):
                cause, text = "overwritten", "that of one round alone, which overwrites those of {}"
            if cause:
                where = seen.where(node, k)
                times = _with(seen, node, k, _scaled(factor))
                yield Exchange(cause, text.format(where), {node.name: times})


def _in_rounds(node: Any, left_out: Any) -> bool:
    """Whether what is left out of a sum, and what is left, are alike, as the rounds of a loop add
    up."""
    (kept,) = [n for n in node.all_input_nodes if n is not left_out] or [left_out]
    terms, open_ = [], [left_out]
    while open_:
        one = open_.pop()
        if one.op == "call_function" and operation(one) == "add" and len(one.users) == 1:
            open_ += one.all_input_nodes
        else:
            terms.append(one)
    kinds = {(n.op, operation(n) if n.op == "call_function" else "") for n in (kept, *terms)}
    return operation(node) == "add" and len(terms) > 1 and len(kinds) == 1


def _named_term(factor: float, wrong: Wrong, settings: Sequence[float]) -> tuple[str, str]:
    for cause, value, text in (
        ("missing term", 0.0, "without its part through {}"),
        ("sign", -1.0, "of the wrong sign in its part through {}"),
        ("extra term", 2.0, "with its part through {} twice"),
    ):
        if abs(factor - value) < SEEN:
            return cause, text
    named = named_factor(factor, wrong.inputs, settings)
    if not is_known(named):
        return "", ""
    return of_a_part(named), f"{named} times what it should be in its part through {{}}"


def _factors(seen: Seen) -> Iterator[Exchange]:
    """A factor left out of a product, or taken twice; a selection left out."""
    for node in seen.linear:
        yield from _without_factors(seen, node)


def _without_factors(seen: Seen, node: Any) -> Iterator[Exchange]:
    name = operation(node)
    places = list(tensors(seen, node))
    if name in PRODUCTS and len(places) == 2:
        for k, arg in places:
            if name == "div" and k == 0:
                continue
            cause = "elementwise factor" if seen.values[arg.name].numel() > 1 else "factor"
            ones = _with(seen, node, k, lambda a: torch.ones_like(a))
            text = f"that without the factor {seen.plain[arg.name]} in {seen.where(node, 1 - k)}"
            yield Exchange(cause, text, {node.name: ones})
            twice = _with(seen, node, k, lambda a: a * a)
            text = f"that with the factor {seen.plain[arg.name]} twice in {seen.where(node, 1 - k)}"
            yield Exchange(cause, text, {node.name: twice})
    if name in SELECTIONS:
        for _, arg in places:
            shape = seen.values[node.name].shape
            if arg.name in seen.moving and broadcasts(seen.values[arg.name].shape, shape):
                text = f"that without the selection {seen.plain[arg.name]} → {name}"
                yield Exchange("elementwise factor", text, {node.name: _as(arg, shape)})


def _operands(seen: Seen) -> Iterator[Exchange]:
    """An operation of the pullback at another value than its own."""
    for node in seen.linear:
        yield from _others(seen, node)


def _others(seen: Seen, node: Any) -> Iterator[Exchange]:
    for k, arg in tensors(seen, node):
        for other, taken in seen.like(arg):
            if arg.name in seen.moving and other.name not in seen.moving:
                continue  # then it would not depend on dy
            if arg.name not in seen.moving and other.name in seen.moving:
                continue
            made = _taking(seen, node, k, taken)
            cause = functools.partial(_cause, seen, arg, other, taken, [node])
            text = f"that {_instead(seen, arg, other)} in {seen.where(node, k)}"
            yield Exchange(cause, text, {node.name: made})


def _cause(seen: Seen, own: Any, other: Any, taken: Made, takers: Sequence[Any]) -> str:
    """What it is to take one value for another."""
    if _turned(taken(seen.values), seen.values[own.name]):
        return "transpose"
    if own.name in seen.moving:
        return naming.of_dy(seen.values, own, other)
    return naming.of_the_forward(seen.values, own, other, takers)


def _instead(seen: Seen, own: Any, other: Any) -> str:
    return f"with {seen.plain[other.name]} in the place of {seen.plain[own.name]}"


def _turned(value: torch.Tensor, own: torch.Tensor) -> bool:
    return value.ndim > 1 and value.shape == own.mT.shape and torch.equal(value, own.mT)


def _more(seen: Seen) -> Iterator[Exchange]:
    """A term too many in a sum: a value that is made from dy, or its mean along an axis."""
    for node in seen.linear:
        value = seen.values[node.name]
        if operation(node) not in (*SUMS, *PRODUCTS) or not value.ndim:
            continue
        for other, taken in seen.like(node):
            if other.name not in seen.moving:
                continue
            what = seen.plain[other.name]
            for sign, word in ((1, "+"), (-1, "−")):
                text = f"that {word} {what} in {seen.plain[node.name]}"
                yield Exchange("extra term", text, {node.name: _plus(node, taken, sign, None)})
                for axis in range(value.ndim):
                    text = f"that {word} the mean of {what} along axis {axis}"
                    made = {node.name: _plus(node, taken, sign, axis)}
                    yield Exchange("extra term", text, made)


def _of_factors(seen: Seen, aim: float) -> Iterator[Exchange]:
    """A factor of what an operation gives exchanged for another, however it came in: divided by one
    value of the forward and times another, of which either may be 1."""
    for shape, nodes in seen.by_shape.items():
        saved = [n for n in nodes if n.name in seen.still][:ALIKE]
        made = [n for n in seen.linear if tuple(seen.values[n.name].shape) == shape]
        if not saved or not made:
            continue
        known = torch.stack([seen.values[n.name].double().flatten() for n in saved])
        factors = torch.cat([torch.ones_like(known[:1]), known])
        terms = torch.stack([(seen.slopes[n.name] * seen.values[n.name]).flatten() for n in made])
        for j, divided in enumerate([None, *saved]):
            ratios = factors / factors[j]
            if not torch.isfinite(ratios).all():
                continue
            moved = ratios @ terms.T - terms.sum(1)
            found = (moved - aim).abs() <= SEEN * abs(aim)
            for i, m in found.nonzero().tolist():
                if i != j:
                    other = None if i == 0 else saved[i - 1]
                    yield _factor(seen, made[m], divided, other)


def _factor(seen: Seen, node: Any, divided: Any, other: Any) -> Exchange:
    values, there = seen.values, f"in {seen.plain[node.name]}"
    value = values[node.name]
    if divided is not None:
        value = value / values[divided.name]
    if other is not None:
        value = value * values[other.name]
    if divided is None:
        text = f"what it should be times {seen.plain[other.name]} once more {there}"
    elif other is None:
        text = f"what it should be without the factor {seen.plain[divided.name]} {there}"
    else:
        cause = naming.of_the_forward(seen.values, divided, other)
        names = f"{seen.plain[other.name]} in the place of the factor {seen.plain[divided.name]}"
        return Exchange(cause, f"that with {names} {there}", {node.name: lambda _: value})
    return Exchange("elementwise factor", text, {node.name: lambda _: value})


def _parts(seen: Seen) -> Iterator[Exchange]:
    """A part of what is summed: blocks that overwrite one another."""
    for node in seen.linear:
        for cause, text, k, mask in parts_left(node, seen.values):
            made = _with(seen, node, k, _masked(mask))
            yield Exchange(cause, text, {node.name: made})


def _saved(seen: Seen) -> Iterator[Exchange]:
    """A value of the forward that the pullback takes for another, or for 1."""
    used = {n.name for node in seen.both.backward for n in node.all_input_nodes}
    for name in (n for n in seen.both.nodes if n in used and n in seen.both.forward):
        node, value = seen.both.nodes[name], seen.values.get(name)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.ndim:
            continue
        mine = seen.plain[name]
        takers = [n for n in seen.both.backward if node in n.all_input_nodes]
        for other, taken in seen.like(node):
            if other.name in seen.both.forward:
                cause = functools.partial(_cause, seen, node, other, taken, takers)
                yield Exchange(cause, f"that {_instead(seen, node, other)}", {name: taken})
        text = f"that without the factor {mine}"
        yield Exchange("elementwise factor", text, {name: _ones(name)})


def _slopes(seen: Seen) -> Iterator[Exchange]:
    """An operation among those of the pullback that are made of the forward alone."""
    for node in seen.both.backward:
        value = seen.values.get(node.name)
        if node.name in seen.moving or not isinstance(value, torch.Tensor):
            continue
        if operation(node) in SUMS:
            for k, _ in tensors(seen, node):
                made = _with(seen, node, k, lambda a: torch.zeros_like(a))
                text = f"without its part through {seen.where(node, k)}"
                yield Exchange("missing term", text, {node.name: made})
        yield from _without_factors(seen, node)
        yield from _others(seen, node)


def _with(seen: Seen, node: Any, k: int, other: Callable[[Any], Any]) -> Made:
    """An operation of another value at one of its places."""
    return lambda values: seen.both.applied(node, values, {k: other})


def _taking(seen: Seen, node: Any, k: int, other: Made) -> Made:
    """An operation of another of the values at one of its places."""
    return lambda values: seen.both.applied(node, values, {k: lambda _: other(values)})


def _rows(value: torch.Tensor) -> tuple[int, int]:
    return value.numel(), value.shape[-1] if value.ndim else 0


def _as_rows(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two of as many rows are of one shape, or one of them is their rows alone."""
    return value.shape == other.shape or 2 in (value.ndim, other.ndim)


def _shaped(name: str, own: torch.Tensor, turned: bool) -> Made:
    def made(values: Mapping[str, Any]) -> torch.Tensor:
        value = values[name].reshape(own.shape).to(own.dtype)
        return value.mT if turned else value

    return made


def _as(other: Any, shape: torch.Size) -> Made:
    return lambda values: values[other.name].expand(shape)


def _ones(name: str) -> Made:
    return lambda values: torch.ones_like(values[name])


def _masked(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda a: a * mask


def _scaled(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda a: factor * a


def _plus(node: Any, other: Made, sign: int, axis: int | None) -> Made:
    def made(values: Mapping[str, Any]) -> torch.Tensor:
        more = other(values)
        more = more if axis is None else more.mean(axis, keepdim=True)
        return values[node.name] + sign * more

    return made
