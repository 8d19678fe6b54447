"""The backward pass of a traced function, step by step, of which some can be made otherwise.

A traced function is a graph of simple operations. Each takes what comes from above, its cotangent,
to a share for each of its inputs; the shares of a value add up to its own cotangent. With one share
made otherwise, a gradient changes by what the difference becomes further down.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from ...reference.adapters import leaves, tensor, tree_map
from ..verdict.noise import is_floating
from .traced import Trace, differentiable

Place = tuple[str, int]  # a step by name, and which of its moving inputs
Share = Callable[["Step", torch.Tensor], "torch.Tensor | None"]  # of the cotangent


@dataclass(frozen=True, eq=False)
class Step:
    """One operation. Of the tensors that it takes, `inputs` are the nodes, `own` its own copies;
    `moving` are the places among them of those that depend on an argument."""

    name: str
    target: Any
    inputs: Sequence[str]
    moving: Sequence[int]
    own: Sequence[torch.Tensor]
    run: Callable[[Sequence[torch.Tensor]], Any]
    value: torch.Tensor

    def shares(self, cotangent: torch.Tensor) -> list[torch.Tensor | None]:
        """What each moving input gets of a cotangent."""
        return _shares(self.value, [self.own[k] for k in self.moving], cotangent)

    def shares_at(
        self, place: int, other: torch.Tensor, cotangent: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """The same, with another tensor in the place of one of the inputs."""
        own = [a.detach() for a in self.own]
        own[place] = other.detach().clone()
        for k in self.moving:
            own[k] = own[k].clone().requires_grad_()
        return _shares(self.run(own), [own[k] for k in self.moving], cotangent)


def _shares(
    value: torch.Tensor, inputs: Sequence[torch.Tensor], cotangent: torch.Tensor
) -> list[torch.Tensor | None]:
    if not value.requires_grad:
        return [None] * len(inputs)
    options = {"retain_graph": True, "allow_unused": True}
    return list(torch.autograd.grad(value, list(inputs), cotangent, **options))


class Backward:
    """All that the backward pass of a trace sees: values and cotangents by node. Raises whatever
    torch does for a graph that cannot be gone through so: one that writes in place."""

    def __init__(self, trace: Trace, dy: Any) -> None:
        self.trace = trace
        self.steps: dict[str, Step] = {}
        self.values: dict[str, Any] = {}
        self.arguments = {name: node for node, name in trace.arguments.items()}
        self._many: dict[str, tuple[Any, Any]] = {}  # nodes with several results, and their calls
        spots = iter(trace.spots)
        outputs: Any = None
        for node in trace.graph.nodes:
            if node.op == "placeholder":
                self.values[node.name] = tensor(next(spots))
            elif node.op == "get_attr":
                self.values[node.name] = getattr(trace.graph.owning_module, node.target)
            elif node.op == "call_function":
                self._forward(node)
            else:
                outputs = node.args[0]
        self.seeds: dict[str, torch.Tensor] = {}
        for node, seed in zip(leaves(outputs), leaves(dy), strict=True):
            if hasattr(node, "name") and is_floating(seed):
                _add(self.seeds, node.name, tensor(seed))
        self.cotangents = self.reversed({})

    def _forward(self, node: Any) -> None:
        target, call, select = differentiable(node.target), node, None
        if node.target is operator.getitem:
            source, select = node.args
            target, call = self._many[source.name]
        inputs: list[str] = []

        def seen(leaf: Any) -> None:
            if isinstance(self._value(leaf), torch.Tensor):
                inputs.append(leaf.name)

        tree = tuple(call.args), dict(call.kwargs)
        tree_map(seen, tree)

        def run(own: Sequence[torch.Tensor]) -> Any:
            given = iter(own)

            def each(leaf: Any) -> Any:
                value = self._value(leaf)
                return next(given) if isinstance(value, torch.Tensor) else value

            args, kwargs = tree_map(each, tree)
            made = target(*args, **kwargs)
            return made if select is None else made[select]

        own = [self.values[name].detach() for name in inputs]
        moving = [
            k
            for k, name in enumerate(inputs)
            if name in self.trace.moving and own[k].is_floating_point()
        ]
        for k in moving:
            own[k] = own[k].clone().requires_grad_()
        value = run(own)
        if isinstance(value, (tuple, list)):
            self._many[node.name] = target, node
            self.values[node.name] = None
            return
        self.values[node.name] = value.detach() if isinstance(value, torch.Tensor) else value
        if isinstance(value, torch.Tensor):
            self.steps[node.name] = Step(node.name, node.target, inputs, moving, own, run, value)

    def _value(self, leaf: Any) -> Any:
        """What stands for a leaf of a call."""
        of_node = hasattr(leaf, "users") and getattr(leaf, "name", None) in self.values
        return self.values[leaf.name] if of_node else leaf

    def between(self, x: str, y: str, dy: torch.Tensor) -> torch.Tensor:
        """What the cotangent of a value is to one that it is made of, by all ways between them."""
        found = self._down({y: dy}, {}, {}, until=x)
        return found.get(x, torch.zeros_like(self.values[x]))

    def reversed(
        self,
        otherwise: Mapping[Place, Share],
        more: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The cotangents of all nodes, where some shares are others, or there is more of them."""
        return self._down(self.seeds, otherwise, more or {})

    def _down(
        self,
        seeds: Mapping[str, torch.Tensor],
        otherwise: Mapping[Place, Share],
        more: Mapping[str, torch.Tensor],
        until: str = "",
    ) -> dict[str, torch.Tensor]:
        found = dict(seeds)
        for name, extra in more.items():
            _add(found, name, extra)
        for name, step in reversed(self.steps.items()):
            cotangent = found.get(name)
            if name == until:
                break
            if cotangent is None or not step.moving:
                continue
            for k, share in enumerate(step.shares(cotangent)):
                other = otherwise.get((name, k))
                taken = other(step, cotangent) if other else share
                if taken is not None:
                    _add(found, step.inputs[step.moving[k]], taken)
        return found

    def tangents(self, argument: str, along: torch.Tensor) -> dict[str, torch.Tensor]:
        """How every value moves where an argument moves along a direction."""
        found = {self.arguments[argument]: along}
        with forward_ad.dual_level():
            for name, step in self.steps.items():
                places = [k for k in step.moving if step.inputs[k] in found]
                if not places:
                    continue
                own = [a.detach() for a in step.own]
                for k in places:
                    own[k] = forward_ad.make_dual(own[k], found[step.inputs[k]])
                tangent = forward_ad.unpack_dual(step.run(own)).tangent
                if tangent is not None:
                    found[name] = tangent.detach().clone()
        return found


def _add(found: dict[str, torch.Tensor], name: str, more: torch.Tensor) -> None:
    found[name] = found[name] + more if name in found else more
