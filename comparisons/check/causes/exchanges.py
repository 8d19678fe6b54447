"""What a mistake would do at one step of the backward pass, or at all steps of a kind.

Each function takes what is seen of a backward pass, and yields exchanges: shares that are others
than the right ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..backward import Backward, Place, Share, Step
from . import naming
from .case import Wrong
from .closed import Form, recognised
from .factor import is_known, named_factor, of_a_part

ALIKE = 24  # the most values of one shape that are tried in the place of one of them
TIMES = 32  # the most steps of a loop
TURNS = 4  # axes, of which all orders are tried
SEEN = 1e-6  # of what is compared along a direction, when it agrees


class Exchange(NamedTuple):
    """Shares that are others, and what kind of mistake makes them."""

    cause: str
    text: str
    shares: Mapping[Place, Share]


class View:
    """What is seen of a backward pass: how every value moves where the argument moves along a
    direction, the shares that its gradient hangs on, and what the nodes are called."""

    def __init__(self, backward: Backward, argument: str, along: torch.Tensor) -> None:
        self.backward = backward
        self.argument = backward.arguments[argument]
        self.tangents = backward.tangents(argument, along)
        self.names = {name: backward.trace.plain(name) for name in backward.values}
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

    def places(self) -> Iterator[tuple[Step, int, torch.Tensor, torch.Tensor]]:
        """Each share that the argument's gradient hangs on: its step, its place, the cotangent of
        the step, and what it is."""
        for (name, k), share in self.shares.items():
            yield self.backward.steps[name], k, self.backward.cotangents[name], share

    def where(self, step: Step, k: int) -> str:
        return f"{self.names[step.inputs[step.moving[k]]]} → {self.names[step.name]}"

    def named(self, own: str, other: str, takers: Iterable[str]) -> str:
        """What it is that steps take one value for another."""
        nodes = self.backward.trace.nodes
        values = self.backward.values
        return naming.of_the_forward(values, nodes[own], nodes[other], [nodes[n] for n in takers])

    def alike(
        self, own_name: str, own: torch.Tensor
    ) -> Iterator[tuple[str, torch.Tensor, bool, str]]:
        """Other values of a shape, as they are or turned round, whether it is its own, and of which
        node."""
        shape = own.shape
        flat = own.ndim > 1 and (*shape[:-2], shape[-1], shape[-2])
        if flat == shape:
            yield f"{self.names[own_name]}ᵀ", own.detach().mT.contiguous(), True, own_name
        others = [(n, v) for n, v in self.tensors.items() if n != own_name]
        same = [(self.names[n], v, False, n) for n, v in others if v.shape == shape]
        turned = [
            (f"{self.names[n]}ᵀ", made, own.ndim > 1 and torch.equal(made, own.detach().mT), n)
            for n, v in others
            if v.shape == flat
            for made in (v.mT.contiguous(),)
        ]
        yield from same[:ALIKE]
        yield from turned[:ALIKE]

    def compounds(self) -> Iterator[tuple[str, str, Form, int]]:
        """Values that are a compound function of one from which they are made, and which."""
        later = self.later()
        for x, before in self.tensors.items():
            if x not in self.tangents:
                continue
            for y in (n for n in later[x] if n in self.backward.cotangents and n in self.tensors):
                for form, axis in recognised(before, self.tensors[y]):
                    yield x, y, form, axis

    def later(self) -> dict[str, set[str]]:
        """For each step, those that it is handed on to."""
        later: dict[str, set[str]] = {name: set() for name in self.backward.values}
        for name, step in reversed(self.backward.steps.items()):
            for k in step.moving:
                later[step.inputs[k]] |= {name} | later[name]
        return later

    def loops(self) -> list[list[Step]]:
        groups: dict[Any, list[Step]] = {}
        for step in self.backward.steps.values():
            if step.name in self.backward.cotangents and step.moving:
                groups.setdefault(self.role(step.name), []).append(step)
        return [group for group in groups.values() if 1 < len(group) <= TIMES]

    def role(self, name: str) -> Any:
        """What an operation is in its loop: it, and those it takes from."""
        step = self.backward.steps.get(name)
        if step is None:
            return name
        return self.names[name], step.value.shape, tuple(self.names[i] for i in step.inputs)


def times_a_number(
    view: View, aim: float, wrong: Wrong, settings: Sequence[float]
) -> Iterator[Exchange]:
    for step, k, _, share in view.places():
        moved = float((view.tangents[step.inputs[step.moving[k]]] * share).sum())
        if not moved:
            continue
        factor = 1 + aim / moved
        where = view.where(step, k)
        for cause, value, text in (
            ("missing term", 0.0, f"without its part through {where}"),
            ("sign", -1.0, f"of the wrong sign in its part through {where}"),
            ("extra term", 2.0, f"with its part through {where} twice"),
        ):
            if abs(factor - value) < SEEN:
                yield _one(step, k, cause, text, value * share)
                break
        else:
            named = named_factor(factor, wrong.inputs, settings)
            text = f"{named} times what it should be in its part through {where}"
            if is_known(named):
                yield _one(step, k, of_a_part(named), text, factor * share)


def exchanged(view: View) -> Iterator[Exchange]:
    """Two shares of one step exchanged, or those of two steps of a kind."""
    for step in view.backward.steps.values():
        cotangent = view.backward.cotangents.get(step.name)
        if cotangent is None or len(step.moving) < 2:
            continue
        own = step.shares(cotangent)
        for i, j in itertools.combinations(range(len(own)), 2):
            a, b = own[i], own[j]
            if a is not None and b is not None and a.shape == b.shape:
                text = f"that with both shares of {view.names[step.name]} exchanged"
                both = {(step.name, i): _always(b), (step.name, j): _always(a)}
                yield Exchange("swapped", text, both)
    groups: dict[tuple[str, str, torch.Size], list[Step]] = {}
    for step in view.backward.steps.values():
        if len(step.moving) == 1 and step.name in view.backward.cotangents:
            key = str(step.target), step.inputs[step.moving[0]], step.value.shape
            groups.setdefault(key, []).append(step)
    for group in groups.values():
        for one, two in itertools.combinations(group[:8], 2):
            mine, theirs = (view.backward.cotangents[s.name] for s in (one, two))
            shares = {
                (one.name, 0): _always(one.shares(theirs)[0]),
                (two.name, 0): _always(two.shares(mine)[0]),
            }
            names = f"{view.names[one.name]} of {view.names[one.inputs[one.moving[0]]]}"
            yield Exchange("swapped", f"that with two parts exchanged: {names}", shares)


def operands(view: View) -> Iterator[Exchange]:
    """A step at another value than its own."""
    for step, k, cotangent, _ in view.places():
        for place, own in enumerate(step.own):
            if not own.is_floating_point() or own.ndim == 0:
                continue
            for name, other, turned, node in view.alike(step.inputs[place], own):
                share = _at(step, k, (place, other), cotangent)
                if share is None:
                    continue
                mine = view.names[step.inputs[place]]
                text = f"with {name} in the place of {mine} in {view.where(step, k)}"
                taken = step.inputs[place], node
                cause = "transpose" if turned else view.named(*taken, [step.name])
                yield _one(step, k, cause, f"that {text}", share)


def slopes(view: View) -> Iterator[Exchange]:
    """The slope of a step left out, or taken twice; a factor left out."""
    for step, k, cotangent, share in view.places():
        where = view.where(step, k)
        if (without := _fitted(cotangent, share.shape)) is not None:
            text = f"that without the slope of {where}"
            yield _one(step, k, "elementwise factor", text, without)
        if share.shape == cotangent.shape:
            twice = step.shares(share)[k]
            if twice is not None:
                text = f"that with the slope of {where} twice"
                yield _one(step, k, "elementwise factor", text, twice)


def cotangents(view: View) -> Iterator[Exchange]:
    """A step that is handed what belongs to another; of a later one, or one before it, the slopes
    between them are left out or taken once more."""
    later = view.later()
    for step, k, cotangent, _ in view.places():
        for name, other in view.backward.cotangents.items():
            if name == step.name or other.shape != cotangent.shape:
                continue
            share = step.shares(other)[k]
            if share is None:
                continue
            on_the_way = name in later[step.name] or step.name in later.get(name, ())
            cause = "elementwise factor" if on_the_way else "operand"
            what = f"what comes to {view.names.get(name, name)}"
            text = f"that with {what} in {view.where(step, k)}"
            yield _one(step, k, cause, text, share)
        if cotangent.ndim > 1 and cotangent.shape[-1] == cotangent.shape[-2]:
            share = step.shares(cotangent.mT.contiguous())[k]
            if share is not None:
                text = f"that with what comes to {view.names[step.name]} transposed"
                yield _one(step, k, "transpose", text, share)


def turned(view: View) -> Iterator[Exchange]:
    """A share with its axes in another order."""
    for step, k, _, share in view.places():
        where = view.where(step, k)
        if not 1 < share.ndim <= TURNS or share.numel() < 2:
            continue
        for axes in list(itertools.permutations(range(share.ndim)))[1:]:
            made = share.permute(axes).reshape(share.shape)
            cause = "transpose" if share.permute(axes).shape == share.shape else "misplaced"
            yield _one(step, k, cause, f"that with its axes as {axes} in {where}", made)
            back = share.reshape([share.shape[a] for a in axes]).permute(list(np.argsort(axes)))
            text = f"that read with its axes as {axes} in {where}"
            yield _one(step, k, "misplaced", text, back.reshape(share.shape))


def everywhere(view: View) -> Iterator[Exchange]:
    """A value that all steps which take it see as 1, or as another: what was saved is not what
    was computed."""
    users: dict[str, list[tuple[Step, int]]] = {}
    for step in view.backward.steps.values():
        for place, name in enumerate(step.inputs):
            users.setdefault(name, []).append((step, place))
    for name, taking in users.items():
        own = view.tensors.get(name)
        if own is None:
            continue
        others = [("elementwise factor", "without the factor {0}", torch.ones_like(own))]
        if len(taking) > 1 and own.ndim:
            others += [
                (
                    "transpose" if turned else view.named(name, node, [s.name for s, _ in taking]),
                    f"with {other} in the place of {{0}}",
                    value,
                )
                for other, value, turned, node in view.alike(name, own)
            ]
        for cause, text, value in others:
            shares: dict[Place, Share] = {}
            for step, place in taking:
                for k, at in enumerate(step.moving):
                    if at != place and (step.name, k) in view.shares:
                        shares[step.name, k] = _seeing(k, {step.name: (place, value)})
            if shares:
                yield Exchange(cause, f"that {text.format(view.names[name])}", shares)


def each_time(view: View) -> Iterator[Exchange]:
    """The same at all steps of a kind, as of a loop: what one of them makes goes through the
    others, so that this is not told along the direction."""
    for group in view.loops():
        for k in range(len(group[0].moving)):
            where = f"{view.where(group[0], k)}, each time"
            kinds = [
                ("missing term", f"without its part through {where}", _times(0.0, k)),
                ("sign", f"of the wrong sign in its part through {where}", _times(-1.0, k)),
                ("elementwise factor", f"that without the slope of {where}", _without_slope(k)),
            ]
            kinds += [
                (cause, f"that with {text} in {where}", _seeing(k, others))
                for cause, text, others in _others(view, group)
            ]
            for cause, text, share in kinds:
                yield Exchange(cause, text, {(step.name, k): share for step in group})


def _others(
    view: View, group: list[Step]
) -> Iterator[tuple[str, str, dict[str, tuple[int, torch.Tensor]]]]:
    """Other tensors for one place of every step of a group: its own turned round, and those
    that stand to it as in the first step."""
    first = group[0]
    by_role: dict[Any, list[str]] = {}
    for name in view.backward.steps:
        by_role.setdefault(view.role(name), []).append(name)
    for place, own in enumerate(first.own):
        if not own.is_floating_point() or not own.ndim:
            continue
        mine = view.names[first.inputs[place]]
        if own.ndim > 1 and own.shape[-1] == own.shape[-2]:
            turned = {s.name: (place, s.own[place].detach().mT.contiguous()) for s in group}
            yield "transpose", f"{mine}ᵀ in the place of {mine}", turned
        for names in by_role.values():
            for shift in range(len(names) - len(group) + 1):
                chosen = names[shift : shift + len(group)]
                values = [view.backward.values[name] for name in chosen]
                if values[0].shape != own.shape or not values[0].is_floating_point():
                    continue
                if chosen == [s.inputs[place] for s in group]:
                    continue
                others = {s.name: (place, v) for s, v in zip(group, values, strict=True)}
                text = f"{view.names[chosen[0]]} in the place of {mine}"
                yield "operand", text, others


def _one(step: Step, k: int, cause: str, text: str, share: torch.Tensor) -> Exchange:
    return Exchange(cause, text, {(step.name, k): _always(share)})


def _times(factor: float, k: int) -> Share:
    def share(step: Step, cotangent: torch.Tensor) -> torch.Tensor | None:
        own = step.shares(cotangent)[k]
        return None if own is None else factor * own

    return share


def _without_slope(k: int) -> Share:
    return lambda step, cotangent: _fitted(cotangent, step.own[step.moving[k]].shape)


def _seeing(k: int, others: Mapping[str, tuple[int, torch.Tensor]]) -> Share:
    """Each step at another value of one of its inputs."""
    return lambda step, cotangent: _at(step, k, others[step.name], cotangent)


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
