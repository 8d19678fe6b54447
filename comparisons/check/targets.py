"""What a subject is held to."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...reference.adapters import tensor
from .. import exact, ops
from ..exact import SOON
from ..ops import Op
from ..ops.torch_samples import in_torch
from ..verdict.classes import Exact, Sides
from .adapt import Subject, of_torch
from .compositions import WAYS, Way


@dataclass(frozen=True)
class Target:
    """What a subject is held to: a torch callable, or nothing.

    op        its name among our rules
    draw      (call) → what it draws at random, by keyword
    gradient  whose gradient is meant, where that is another's
    alone     whether it gives its value alone, where our rule also gives what it writes in place
    """

    name: str
    function: Callable[..., Any] | None = None
    op: str = ""
    constant: frozenset[str] = frozenset()
    draw: Any = None
    gradient: Callable[..., Any] | None = None
    alone: bool = False

    @property
    def documented(self) -> bool:
        """Whether torch says which slope it has at a kink."""
        return bool(self.op) or (self.function is not None and in_torch(self.function))

    @property
    def ways(self) -> Mapping[str, Way]:
        """The other ways in which torch computes it."""
        return {} if self.function is None or self.gradient else WAYS

    def reference(self, subject: Subject, constant: frozenset[str]) -> Subject | None:
        """The other side of the comparison: a subject that is right; None for differences. Where a
        gradient is meant and nothing else is there to be held to, the subject's own value is."""

        def made(function: Callable[..., Any]) -> Subject:
            return of_torch(function, subject.signature, constant, tensor)

        value = made(self.function) if self.function else None
        if self.gradient is None:
            return value
        meant = made(self.gradient)
        whose = value or subject

        def rule(*args: Any, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
            return whose.run(args, kwargs)[0], meant.run(args, kwargs)[1]

        return replace(meant, rule=rule)

    def drawn(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords, with what torch draws."""
        return {**kwargs, **(self.draw(*args, **kwargs) if self.draw else {})}

    def exact(self, inputs: Any) -> Exact | None:
        """The exact results of one call, of one of our rules; NaN where they cannot be had soon."""
        if not self.op:
            return None
        args, kwargs, dy = inputs
        call = (args, self.drawn(args, kwargs), dy)
        op = ops.named(self.op)
        if self.alone and op.exact:
            oracle = exact.oracle(_first(op.exact), call, kinks=False, work=SOON)
        else:
            oracle = op.oracle(call, kinks=False, work=SOON)

        def known(name: str, index: tuple[int, ...]) -> float:
            try:
                return oracle(name, index)
            except Exception:  # a probe that the definition does not take
                return math.nan

        return known

    def sides(self, inputs: Any) -> Sides | None:
        """The exact slopes to both sides of a kink, of one of our rules where torch's releases
        differ there."""
        if not self.op:
            return None
        args, kwargs, dy = inputs
        return ops.named(self.op).sides((args, self.drawn(args, kwargs), dy))


def target_of(against: Any, gradient: Any = None) -> Target:
    """What these arguments of `check` are. Raises TypeError for what cannot be held to."""
    found = _target(against)
    if gradient is None:
        return found
    meant = _target(gradient, "gradient")
    name = f"{found.name} with the gradient of {meant.name}" if against else meant.name
    return replace(found, name=name, op="", gradient=meant.function)


def _target(against: Any, argument: str = "against") -> Target:
    if against is None:
        return Target("differences")
    if isinstance(against, str):
        return _mirror(against, ops.named(against))
    if not callable(against):
        raise TypeError(
            f"{argument}: expected a torch callable, the name of a rule, or None, got a "
            f"{type(against).__name__}"
        )
    name = getattr(against, "__name__", None) or type(against).__name__
    module = str(getattr(against, "__module__", None) or "torch")
    module = module.replace("torch._C._nn", "torch.nn.functional")
    for op in map(ops.named, ops.names()):
        if op.mirror is None or inspect.unwrap(op.mirror) is not against:
            continue
        if getattr(op.mirror.__wrapped__, "alone", None) is against:
            return replace(_mirror(f"{module}.{name}", op), function=against, alone=True)
        return _mirror(f"{module}.{name}", op)
    return Target(f"{module}.{name}", against)


def _first(definition: Callable[..., Any]) -> Callable[..., Any]:
    """A definition, cut to the first of its outputs."""

    @functools.wraps(definition)
    def first(*args: Any, **kwargs: Any) -> Any:
        y = definition(*args, **kwargs)
        return y[0] if isinstance(y, tuple) else y

    return first


def _mirror(name: str, op: Op) -> Target:
    twin = op.mirror
    constant, draw = frozenset(op.facts.constant), getattr(twin, "draw", None)
    return Target(name, twin.__wrapped__, op.name, constant, draw)
