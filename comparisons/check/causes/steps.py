"""One step of the backward pass made otherwise: a wrong operand, a slope that was forgotten, what
comes from another place, a share left out.

The reference is traced into simple operations, and what its backward pass does at each of them is
exchanged for what a mistake would do. Which exchanges explain a wrong gradient is told along one
random direction r of the argument: a share that differs by δ at a value changes the gradient by g
with ⟨r, g⟩ = ⟨t, δ⟩, where t is how the value moves where the argument moves along r. What agrees
there is then gone through in full.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ....reference.adapters import array, tensor
from ...verdict.noise import cast
from ..backward import Backward, Place, Share, Step
from ..traced import traced
from .case import Candidate, Case, Wrong
from .closeness import where_finite
from .factor import named_factor

STEPS = 160  # the most operations that are gone through
ALIKE = 24  # the most values of one shape that are tried in the place of one of them
SEEN = 1e-6  # of what is compared along a direction, when it agrees
TIMES = 32  # the most steps of a loop
VISITED = 12_000  # the most steps that are gone through for exchanges at several of them
VAIN = 4  # gradients that are looked into in vain
TURNS = 4  # axes, of which all orders are tried


class Exchange(NamedTuple):
    """Shares that are others, and what kind of mistake makes them."""

    cause: str
    text: str
    shares: Mapping[Place, Share]


def of_one_step(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Each candidate is looked for once, though it is asked for again for every other one."""
    key = "steps", id(wrong)
    if key not in case.known:
        tried = [k for k in case.known if k[0] == "steps"]
        if len(tried) >= VAIN and not any(case.known[k][1] for k in tried):
            return
        case.known[key] = wrong, [], _found(case, wrong)
    _, found, rest = case.known[key]
    yield from found
    for candidate in rest:
        found.append(candidate)
        yield candidate


def _found(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    function = case.done.reference.in_torch if case.done.reference else None
    if function is None:
        return
    inputs = cast(wrong.inputs, np.float64)
    trace = traced(function, inputs, case.done.order)
    if len(trace.graph.nodes) <= STEPS:
        yield from _Search(case, wrong, Backward(trace, inputs[2])).found()


class _Search:
    def __init__(self, case: Case, wrong: Wrong, backward: Backward) -> None:
        self.case, self.wrong, self.backward = case, wrong, backward
        ours, truth = where_finite(wrong.ours, wrong.truth)
        self.gap = tensor(ours - truth)
        self.along = torch.from_numpy(np.random.default_rng(11).standard_normal(truth.shape))
        self.tangents = backward.tangents(wrong.name, self.along)
        self.aim = float((self.along * self.gap).sum())
        self.node = backward.arguments[wrong.name]
        plain = backward.trace.plain
        self.names = {name: plain(name) for name in backward.values}
        self.tensors = {
            name: value
            for name, value in backward.values.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()
        }
        self.shares = {
            (name, k): share
            for name, step in backward.steps.items()
            if name in backward.cotangents
            for k, share in enumerate(step.shares(backward.cotangents[name]))
            if share is not None and step.inputs[step.moving[k]] in self.tangents
        }

    def found(self) -> Iterator[Candidate]:
        for exchange in itertools.chain(*(kind(self) for kind in KINDS)):
            if self._seen(exchange) and (values := self._made(exchange)) is not None:
                yield Candidate(exchange.cause, exchange.text, values)
        most = VISITED // max(len(self.backward.steps), 1)
        for exchange in itertools.islice(
            itertools.chain(self.everywhere(), self.each_time()), most
        ):
            if (values := self._made(exchange)) is not None:
                yield Candidate(exchange.cause, exchange.text, values)

    # What is tried -------------------------------------------------------------------------------

    def _places(self) -> Iterator[tuple[Step, int, torch.Tensor, torch.Tensor]]:
        """Each share that the argument's gradient hangs on: its step, its place, the cotangent of
        the step, and what it is."""
        for (name, k), share in self.shares.items():
            yield self.backward.steps[name], k, self.backward.cotangents[name], share

    def _where(self, step: Step, k: int) -> str:
        return f"{self.names[step.inputs[step.moving[k]]]} → {self.names[step.name]}"

    def times_a_number(self) -> Iterator[Exchange]:
        for step, k, _, share in self._places():
            moved = self._along(step, k, share)
            if not moved:
                continue
            factor = 1 + self.aim / moved
            where = self._where(step, k)
            for cause, value, text in (
                ("missing term", 0.0, f"without its part through {where}"),
                ("sign", -1.0, f"of the wrong sign in its part through {where}"),
                ("extra term", 2.0, f"with its part through {where} twice"),
            ):
                if abs(factor - value) < SEEN:
                    yield self._one(step, k, cause, text, value * share)
                    break
            else:
                named = named_factor(factor, self.wrong.inputs, self.case.done.settings)
                text = f"{named} times what it should be in its part through {where}"
                if not named[-1:].isdigit() or "." not in named:
                    yield self._one(step, k, "factor", text, factor * share)

    def slopes(self) -> Iterator[Exchange]:
        """The slope of a step left out, or taken twice; a factor left out."""
        for step, k, cotangent, share in self._places():
            where = self._where(step, k)
            if (without := _fitted(cotangent, share.shape)) is not None:
                text = f"that without the slope of {where}"
                yield self._one(step, k, "elementwise factor", text, without)
            if share.shape == cotangent.shape:
                twice = step.shares(share)[k]
                if twice is not None:
                    text = f"that with the slope of {where} twice"
                    yield self._one(step, k, "elementwise factor", text, twice)

    def operands(self) -> Iterator[Exchange]:
        """A step at another value than its own."""
        for step, k, cotangent, _ in self._places():
            for place, own in enumerate(step.own):
                if not own.is_floating_point() or own.ndim == 0:
                    continue
                for name, other, turned in self._alike(step.inputs[place], own):
                    share = _at(step, k, (place, other), cotangent)
                    if share is None:
                        continue
                    mine = self.names[step.inputs[place]]
                    text = f"with {name} in the place of {mine} in {self._where(step, k)}"
                    cause = "transpose" if turned else "operand"
                    yield self._one(step, k, cause, f"that {text}", share)

    def cotangents(self) -> Iterator[Exchange]:
        """A step that is handed what belongs to another, or to a later one: then the slopes between
        them are left out."""
        later = self._later()
        for step, k, cotangent, _ in self._places():
            for name, other in self.backward.cotangents.items():
                if name == step.name or other.shape != cotangent.shape:
                    continue
                share = step.shares(other)[k]
                if share is None:
                    continue
                behind = name in later[step.name]
                cause = "elementwise factor" if behind else "operand"
                what = f"what comes to {self.names.get(name, name)}"
                text = f"that with {what} in {self._where(step, k)}"
                yield self._one(step, k, cause, text, share)
            if cotangent.ndim > 1 and cotangent.shape[-1] == cotangent.shape[-2]:
                share = step.shares(cotangent.mT.contiguous())[k]
                if share is not None:
                    text = f"that with what comes to {self.names[step.name]} transposed"
                    yield self._one(step, k, "transpose", text, share)

    def exchanged(self) -> Iterator[Exchange]:
        """Two shares of one step exchanged, or those of two steps of a kind."""
        for step in self.backward.steps.values():
            cotangent = self.backward.cotangents.get(step.name)
            if cotangent is None or len(step.moving) < 2:
                continue
            shares = step.shares(cotangent)
            for i, j in itertools.combinations(range(len(shares)), 2):
                a, b = shares[i], shares[j]
                if a is not None and b is not None and a.shape == b.shape:
                    text = f"that with both shares of {self.names[step.name]} exchanged"
                    both = {(step.name, i): _always(b), (step.name, j): _always(a)}
                    yield Exchange("swapped", text, both)
        groups: dict[tuple[str, str, torch.Size], list[Step]] = {}
        for step in self.backward.steps.values():
            if len(step.moving) == 1 and step.name in self.backward.cotangents:
                key = str(step.target), step.inputs[step.moving[0]], step.value.shape
                groups.setdefault(key, []).append(step)
        for group in groups.values():
            for one, two in itertools.combinations(group[:8], 2):
                mine, theirs = (self.backward.cotangents[s.name] for s in (one, two))
                shares = {
                    (one.name, 0): _always(one.shares(theirs)[0]),
                    (two.name, 0): _always(two.shares(mine)[0]),
                }
                names = f"{self.names[one.name]} of {self.names[one.inputs[one.moving[0]]]}"
                yield Exchange("swapped", f"that with two parts exchanged: {names}", shares)

    def everywhere(self) -> Iterator[Exchange]:
        """A value that all steps which take it see as 1, or as another: what was saved is not what
        was computed."""
        users: dict[str, list[tuple[Step, int]]] = {}
        for step in self.backward.steps.values():
            for place, name in enumerate(step.inputs):
                users.setdefault(name, []).append((step, place))
        for name, taking in users.items():
            own = self.tensors.get(name)
            if own is None:
                continue
            others = [("elementwise factor", "without its factor {0}", torch.ones_like(own))]
            if len(taking) > 1 and own.ndim:
                others += [
                    ("operand", f"with {other} in the place of {{0}}", value)
                    for other, value, _ in self._alike(name, own)
                ]
            for cause, text, value in others:
                shares: dict[Place, Share] = {}
                for step, place in taking:
                    for k, at in enumerate(step.moving):
                        if at != place and (step.name, k) in self.shares:
                            shares[step.name, k] = lambda s, c, k=k, o=(place, value): _at(
                                s, k, o, c
                            )
                if shares:
                    yield Exchange(cause, f"that {text.format(self.names[name])}", shares)

    def each_time(self) -> Iterator[Exchange]:
        """The same at all steps of a kind, as of a loop: what one of them makes goes through the
        others, so that this is not told along the direction."""
        for group in self._loops():
            for k in range(len(group[0].moving)):
                where = f"{self._where(group[0], k)}, each time"

                def everywhere(
                    share: Share, group: list[Step] = group, k: int = k
                ) -> dict[Place, Share]:
                    return {(step.name, k): share for step in group}

                for cause, factor, text in (
                    ("missing term", 0.0, "without its part"),
                    ("sign", -1.0, "of the wrong sign in its part"),
                ):
                    share = everywhere(lambda s, c, k=k, f=factor: _times(f, s.shares(c)[k]))
                    yield Exchange(cause, f"{text} through {where}", share)
                share = everywhere(lambda s, c, k=k: _fitted(c, s.own[s.moving[k]].shape))
                yield Exchange("elementwise factor", f"that without the slope of {where}", share)
                for cause, text, others in self._others(group):
                    share = everywhere(lambda s, c, k=k, o=others: _at(s, k, o[s.name], c))
                    yield Exchange(cause, f"that with {text} in {where}", share)

    def _loops(self) -> list[list[Step]]:
        groups: dict[Any, list[Step]] = {}
        for step in self.backward.steps.values():
            if step.name in self.backward.cotangents and step.moving:
                groups.setdefault(self._role(step.name), []).append(step)
        return [group for group in groups.values() if 1 < len(group) <= TIMES]

    def _role(self, name: str) -> Any:
        """What an operation is in its loop: it, and those it takes from."""
        step = self.backward.steps.get(name)
        if step is None:
            return name
        return self.names[name], step.value.shape, tuple(self.names[i] for i in step.inputs)

    def _others(
        self, group: list[Step]
    ) -> Iterator[tuple[str, str, dict[str, tuple[int, torch.Tensor]]]]:
        """Other tensors for one place of every step of a group: its own turned round, and those
        that stand to it as in the first step."""
        first = group[0]
        by_role: dict[Any, list[str]] = {}
        for name in self.backward.steps:
            by_role.setdefault(self._role(name), []).append(name)
        for place, own in enumerate(first.own):
            if not own.is_floating_point() or not own.ndim:
                continue
            mine = self.names[first.inputs[place]]
            if own.ndim > 1 and own.shape[-1] == own.shape[-2]:
                turned = {s.name: (place, s.own[place].detach().mT.contiguous()) for s in group}
                yield "transpose", f"{mine}ᵀ in the place of {mine}", turned
            for names in by_role.values():
                for shift in range(len(names) - len(group) + 1):
                    chosen = names[shift : shift + len(group)]
                    values = [self.backward.values[name] for name in chosen]
                    if values[0].shape != own.shape or not values[0].is_floating_point():
                        continue
                    if chosen == [s.inputs[place] for s in group]:
                        continue
                    others = {s.name: (place, v) for s, v in zip(group, values, strict=True)}
                    text = f"{self.names[chosen[0]]} in the place of {mine}"
                    yield "operand", text, others

    def turned(self) -> Iterator[Exchange]:
        """A share with its axes in another order."""
        for step, k, _, share in self._places():
            where = self._where(step, k)
            if not 1 < share.ndim <= TURNS or share.numel() < 2:
                continue
            for axes in list(itertools.permutations(range(share.ndim)))[1:]:
                made = share.permute(axes).reshape(share.shape)
                cause = "transpose" if share.permute(axes).shape == share.shape else "misplaced"
                yield self._one(step, k, cause, f"that with its axes as {axes} in {where}", made)
                back = share.reshape([share.shape[a] for a in axes]).permute(list(np.argsort(axes)))
                text = f"that read with its axes as {axes} in {where}"
                yield self._one(step, k, "misplaced", text, back.reshape(share.shape))

    # How it is told ------------------------------------------------------------------------------

    def _one(self, step: Step, k: int, cause: str, text: str, share: torch.Tensor) -> Exchange:
        return Exchange(cause, text, {(step.name, k): _always(share)})

    def _along(self, step: Step, k: int, share: torch.Tensor) -> float:
        return float((self.tangents[step.inputs[step.moving[k]]] * share).sum())

    def _seen(self, exchange: Exchange) -> bool:
        """Whether the exchange explains the gradient along the direction."""
        moved = size = 0.0
        for (name, k), other in exchange.shares.items():
            step = self.backward.steps[name]
            share, made = self.shares.get((name, k)), other(step, self.backward.cotangents[name])
            if share is None or made is None:
                continue
            terms = self.tangents[step.inputs[step.moving[k]]] * (made - share)
            moved += float(terms.sum())
            size += float(terms.abs().sum())
        return abs(moved - self.aim) <= SEEN * max(abs(self.aim), 1e-6 * size)

    def _made(self, exchange: Exchange) -> np.ndarray | None:
        found = self.backward.reversed(exchange.shares).get(self.node)
        return None if found is None else array(found)

    def _alike(self, own_name: str, own: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Other values of a shape, and its own turned round."""
        if own.ndim > 1 and own.shape[-1] == own.shape[-2]:
            yield f"{self.names[own_name]}ᵀ", own.detach().mT.contiguous(), True
        found = 0
        for name, value in self.tensors.items():
            if name != own_name and value.shape == own.shape and found < ALIKE:
                found += 1
                yield self.names[name], value, False

    def _later(self) -> dict[str, set[str]]:
        """For each step, those that it is handed on to."""
        later: dict[str, set[str]] = {name: set() for name in self.backward.values}
        for name, step in reversed(self.backward.steps.items()):
            for k in step.moving:
                later[step.inputs[k]] |= {name} | later[name]
        return later


KINDS: tuple[Callable[[_Search], Iterator[Exchange]], ...] = (
    _Search.times_a_number,
    _Search.exchanged,
    _Search.operands,
    _Search.slopes,
    _Search.cotangents,
    _Search.turned,
)


def _times(factor: float, share: torch.Tensor | None) -> torch.Tensor | None:
    return None if share is None else factor * share


def _at(
    step: Step, k: int, other: tuple[int, torch.Tensor], cotangent: torch.Tensor
) -> torch.Tensor | None:
    """The share at another value of an input; None where the step does not take it."""
    try:
        return step.shares_at(*other, cotangent)[k]
    except RuntimeError:
        return None


def _always(share: torch.Tensor | None) -> Share:
    return lambda step, cotangent: share


def _fitted(cotangent: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """The cotangent summed to the shape of an input that was repeated; None where none fits."""
    if cotangent.shape == shape:
        return cotangent
    try:
        if torch.broadcast_shapes(cotangent.shape, shape) != cotangent.shape:
            return None
    except RuntimeError:
        return None
    return cotangent.sum_to_size(shape)
