"""What is derived from a torch callable, as a torch callable of its own: its backward, whose
gradient is the second derivative, and its forward mode."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from ...reference.adapters import is_differentiable, listed
from ..ops.torch_samples import Sample
from .arguments import double, floating
from .misuse import Misuse, described
from .targets import Target
from .trees import items, mapped
from .trials import Trial, Trials

FURTHER = {"backward": "dy", "forward mode": "tangents"}  # the argument that each has beside


class Derived(torch.nn.Module, abc.ABC):
    """A function of the same arguments, and of one more by keyword, named by `further`."""

    kind = ""

    def __init__(
        self,
        function: Callable[..., Any],
        signature: inspect.Signature | None,
        name: str,
        further: str,
    ) -> None:
        super().__init__()
        self.function, self.further = function, further
        self.__name__ = f"{self.kind} of {name}"
        if signature:
            last = inspect.Parameter(further, inspect.Parameter.KEYWORD_ONLY)
            before = list(signature.parameters.values())
            keywords = [p for p in before if p.kind is p.VAR_KEYWORD]
            self.__signature__ = signature.replace(
                parameters=[*(p for p in before if p not in keywords), last, *keywords],
                return_annotation=inspect.Signature.empty,
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.derived(kwargs.pop(self.further), args, kwargs)

    @abc.abstractmethod
    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What it gives, where `along` is the argument that it has beside the function's."""

    def outputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The floating results in order."""
        y = self.function(*args, **kwargs)
        found = [t for _, t in items(y) if is_differentiable(t)]
        if not found:
            raise Misuse(f"y: expected a floating tensor, got {described(y)}")
        return found


class Backward(Derived):
    """dy → a gradient of each argument that has one, in a graph."""

    kind = "backward"

    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        sources = [t for _, t in items((args, kwargs)) if is_differentiable(t) and t.requires_grad]
        dys = list(along) if isinstance(along, (list, tuple)) else [along]
        pairs = zip(self.outputs(args, kwargs), dys, strict=True)
        attached = [(y, d) for y, d in pairs if d is not None and y.requires_grad]
        if not attached:
            return [torch.zeros_like(t) for t in sources]
        outputs, cotangents = zip(*attached, strict=True)
        found = torch.autograd.grad(
            outputs, sources, cotangents, create_graph=True, allow_unused=True
        )
        return [
            torch.zeros_like(t) if g is None else g for t, g in zip(sources, found, strict=True)
        ]


class ForwardMode(Derived):
    """Tangents of the floating arguments, None for what is constant → those of y."""

    kind = "forward mode"

    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        tangents = iter(along)
        with forward_ad.dual_level():

            def dual(leaf: Any) -> Any:
                tangent = next(tangents) if is_differentiable(leaf) else None
                return leaf if tangent is None else forward_ad.make_dual(leaf, tangent)

            outputs = self.outputs(*mapped(dual, (tuple(args), dict(kwargs))))
            found = [forward_ad.unpack_dual(y).tangent for y in outputs]
            return [t.clone() for t in _filled(found, outputs)]


class Pushed(ForwardMode):
    """The same by a backward that can be differentiated: dy ↦ its gradients is linear, and its
    transpose gives the tangents of y (Townsend, "A new trick for calculating Jacobian vector
    products", 2017)."""

    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            return self._pushed(along, args, kwargs)
        except RuntimeError:  # torch cannot differentiate the backward
            return super().derived(along, args, kwargs)

    def _pushed(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        sources, tangents, tree = _sources(along, args, kwargs)
        outputs = self.outputs(*tree)
        dys = [torch.zeros_like(y, requires_grad=True) for y in outputs]
        found = torch.autograd.grad(outputs, sources, dys, create_graph=True, allow_unused=True)
        pairs = [(g, t) for g, t in zip(found, tangents, strict=True) if g is not None]
        gradients, moves = zip(*pairs, strict=True)
        pushed = torch.autograd.grad(gradients, dys, moves, allow_unused=True)
        return [
            torch.zeros_like(y) if t is None else t for y, t in zip(outputs, pushed, strict=True)
        ]


class Projected(ForwardMode):
    """Σ dy · tangent of y, where dy stands behind the tangents."""

    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        moves = iter(along)
        found = super().derived(moves, args, kwargs)
        return _product(found, [d for d in moves if d is not None])


class Adjoint(ForwardMode):
    """The same as Σ gradient · tangent, from one backward: forward mode and it are adjoint."""

    def derived(self, along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        moves = iter(along)
        sources, tangents, tree = _sources(moves, args, kwargs)
        pairs = zip(self.outputs(*tree), (d for d in moves if d is not None), strict=True)
        outputs, dys = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, sources, dys, allow_unused=True)
        return _product(found, tangents)


def _filled(found: Sequence[Any], like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Zeros where torch says nothing."""
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, like, strict=True)]


def _product(found: Sequence[Any], others: Sequence[Any]) -> torch.Tensor:
    terms = [(a * b).sum() for a, b in zip(found, others, strict=True) if a is not None]
    return torch.stack(terms).sum()


def _sources(
    along: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[torch.Tensor], list[torch.Tensor], Any]:
    """What moves, by how much, and all arguments, with those in the place of what came."""
    moves = iter(along)
    sources: list[torch.Tensor] = []
    tangents: list[torch.Tensor] = []

    def source(leaf: Any) -> Any:
        tangent = next(moves) if is_differentiable(leaf) else None
        if tangent is None:
            return leaf
        sources.append(leaf.detach().clone().requires_grad_())
        tangents.append(tangent)
        return sources[-1].clone()  # no leaf, into which one may not write

    tree = mapped(source, (tuple(args), dict(kwargs)))
    return sources, tangents, tree


def derived_from(
    kind: type[Derived], tried: Sequence[Trials], target: Target
) -> tuple[Derived, Target, list[Sample]]:
    """What `tried` needs to judge what is derived from a subject, on the same calls. Raises
    ValueError for a subject that has none."""
    first = tried[0].subject
    if not first.in_torch:
        raise ValueError(
            f"subject: expected one of torch's, whose {kind.kind} torch derives, got a {first.kind}"
        )
    if target.draw:
        raise ValueError(f"against: expected a function that draws nothing, got {target.name}")
    bases = [(t, t.base) for t in tried if t.base]
    taken = {*(first.signature.parameters if first.signature else ())}
    taken.update(*(t.sample.kwargs for t, _ in bases))
    further = FURTHER[kind.kind]
    while further in taken:
        further += "_"
    meant = target.gradient or target.function

    def of(function: Any, name: str, forward: type[Derived]) -> Derived:
        made = kind if kind is Backward else forward
        return made(function, first.signature, name, further)

    ours = of(first.in_torch, first.name, ForwardMode if meant else Projected)
    held = Target(target.name)
    if meant or kind is not Backward:
        theirs = of(meant or first.in_torch, target.name, Pushed if meant else Adjoint)
        held = Target(theirs.__name__, theirs)
    calls = []
    for t, base in bases:
        along, constant = double(base.inputs)[2], t.sample.constant
        if kind is not Backward:
            along = (*_tangents(t, base), *([] if meant else listed(along)))
            constant = constant.union(t.order, (f"{further}.{i}" for i in range(len(along))))
        kwargs = {**t.sample.kwargs, further: along}
        calls.append(replace(t.sample, kwargs=kwargs, constant=constant))
    return ours, held, calls


def _tangents(t: Trials, base: Trial) -> list[np.ndarray | None]:
    """A random one of each floating argument that has a gradient."""
    rng = np.random.default_rng([t.seed, 11])
    return [
        None if name in t.sample.constant else np.asarray(rng.standard_normal(a.shape))
        for name, a in zip(t.order, floating(base.inputs), strict=True)
    ]
