"""An op: one name for a rule, its mirror, its exact definition and its samples.

They stand in the file of one family in four trees: manual/, reference/, comparisons/exact/ and
comparisons/samples/. Which family that is, the samples say, so that nothing of torch is imported
before a mirror is asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from ...manual.names import unknown
from ...manual.trees import leaves, tree_map
from .. import exact
from ..exact import Oracle
from ..samples import Call
from ..verdict.classes import Fixed, Sides

if TYPE_CHECKING:
    from ...reference.adapters import Facts

FAMILIES = (
    *("pointwise", "products", "reductions", "views", "indexing", "masked", "sorting"),
    *("activations", "linear", "distances", "embedding", "dropout", "losses"),
    *("normalization", "attention", "recurrent"),
    *("convolution", "pooling", "resampling", "padding"),
    *("models", "second_order"),
)


@dataclass(frozen=True)
class Op:
    """All that is known of one op. What stands in another tree is looked up whenever it is asked
    for, so that one may be exchanged for another."""

    name: str
    family: str

    @property
    def rule(self) -> Callable[..., Any]:
        """By hand: (y, pullback) of arrays."""
        found: Callable[..., Any] = getattr(_file("manual", self.family), self.name)
        return found

    @property
    def mirror(self) -> Any:
        """The same, obtained from torch; None where this torch lacks it."""
        return getattr(_file("reference", self.family), self.name)

    @property
    def pair(self) -> tuple[Callable[..., Any], Any]:
        """Rule and mirror."""
        return self.rule, self.mirror

    @property
    def facts(self) -> Facts:
        """What is peculiar about torch's function, as the line of its mirror says."""
        from ...reference.adapters import Facts

        return getattr(self.mirror, "facts", Facts())

    @property
    def exact(self) -> Callable[..., Any] | None:
        """What it is, in mpmath; None where nobody has said so."""
        return getattr(_file("comparisons.exact", self.family), self.name, None)

    def oracle(self, inputs: Any, kinks: bool = True, work: float = math.inf) -> Oracle:
        """(name of a result, index) → its exact value, as in `exact.oracle`; NaN without a
        definition."""
        if self.exact is None:
            return lambda name, index: math.nan
        return exact.oracle(self.exact, inputs, kinks, work)

    def sides(self, inputs: Any) -> Sides | None:
        """(name of a result, index) → its exact slopes to the left and to the right, where releases
        of torch differ in which of them they follow at a kink; else None."""
        if not self.facts.unsettled or self.exact is None:
            return None
        return partial(exact.sides, self.exact, inputs)

    @property
    def has_gradient(self) -> bool:
        """Whether it takes floating arrays at all."""
        calls = (row.draw(0, np.dtype(float)) for _, row in self.rows())
        found = (leaf for call in calls for leaf in leaves(call))
        return any(isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" for leaf in found)

    def bound(self, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call that torch's op_db has for it, in the order of the rule, without what the rule
        does not take."""
        args, kwargs = self._by_the_rule(args, kwargs)
        return self._ordered(args), self._taken(kwargs)

    def traced(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call that torch made of it, under one of its names, as a call of the rule; of a method
        of a tensor, whose arguments are in the order of op_db."""
        if method:
            args = self._ordered(args)
        if name in self.facts.reflected:
            args = args[::-1]
        if self.facts.spread and len(args) > 1 and isinstance(args[1], int):
            args = args[0], tuple(args[1:])
        args, kwargs = self._by_the_rule(args, kwargs)
        return args, self._taken(kwargs)

    def _ordered(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments in the order of op_db, in that of the rule."""
        given = dict(zip(self.facts.order, args, strict=False))
        ordered = [given[name] for name in signature(self.rule).parameters if name in given]
        return (*ordered, *args[len(given) :])

    def _by_the_rule(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call by torch's other signature as one by that of the rule."""
        if not self.facts.overload or getattr(args[1], "dtype", None) != np.int64:
            return args, kwargs
        bound = signature(self.rule).bind(**dict(zip(self.facts.overload, args, strict=True)))
        return bound.args, bound.kwargs | kwargs

    def _taken(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: a for name, a in kwargs.items() if name not in self.facts.without}

    def held(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call, with the settings that a length follows from held still."""

        def still(name: str, argument: Any) -> Any:
            return tree_map(_still, argument) if name in self.facts.lengths else argument

        if not self.facts.lengths:
            return args, kwargs
        names = signature(self.rule).parameters
        positional = tuple(still(n, a) for n, a in zip(names, args, strict=False))
        return positional, {name: still(name, a) for name, a in kwargs.items()}

    def rows(self) -> Iterator[tuple[str, Call]]:
        """("sample" or "corner", call) for each row of the op."""
        module = _file("comparisons.samples", self.family)
        for kind, table in (("sample", module.SAMPLES), ("corner", module.CORNERS)):
            for row in table.get(self.name, ()):
                yield kind, row


def named(name: str) -> Op:
    """The op of this name. Raises ValueError if there is none."""
    if name not in _families():
        raise ValueError(unknown("rule", name, names()))
    return Op(name, _families()[name])


def names() -> list[str]:
    """Every op that has samples, family by family."""
    return list(_families())


def called(name: str) -> Op | None:
    """The op that torch calls so, by any of its names; None if there is none."""
    return _calls().get(name)


@functools.cache
def _calls() -> dict[str, Op]:
    every = list(map(named, names()))
    others = {name: op for op in every for name in (*op.facts.also, *op.facts.reflected)}
    return others | {op.name: op for op in every}


@functools.cache
def _families() -> dict[str, str]:
    return {
        op: family for family in FAMILIES for op in _file("comparisons.samples", family).SAMPLES
    }


def _still(leaf: Any) -> Any:
    return Fixed(leaf) if isinstance(leaf, float) else leaf


def _file(tree: str, family: str) -> Any:
    return import_module(f"...{tree}.{family}", __name__)
