"""What must not change a result: the layout of memory, other calls, the size of dy; and other
cotangents at the caller's own point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...reference.adapters import tree_map
from ..verdict.classes import Function, Results
from ..verdict.noise import is_floating
from ..verdict.ulps import same_bits
from .arguments import once_each, private, times
from .probes import (
    CALLS,
    LAYOUT,
    MUST_ANSWER,
    ORDINARY,
    QUICK,
    SPARSE,
    THOROUGH,
    Probe,
    Wanted,
    layouts,
)
from .trials import Trial, Trials

# What is laid out in memory so: arguments, and dy.
LAYOUTS = {
    "non-contiguous": (LAYOUT, LAYOUT),
    "read-only": (THOROUGH, THOROUGH),
    "negative strides": (THOROUGH, LAYOUT),
    "Fortran order": (QUICK, QUICK),
}
Law = tuple[Probe, Function, Callable[[Any], Any] | None]  # with the way of calling, and of laying


def with_other_cotangents(t: Trials, base: Trial, first: bool, wanted: Wanted) -> Iterator[Trial]:
    """The gradient is linear in dy in every dtype, so that one more is enough beside those in the
    first."""
    for probe, change in _cotangents(t):
        if wanted(probe) and (first or MUST_ANSWER in probe.traits):
            dy = tree_map(
                lambda d, f=change: np.asarray(f(d)) if is_floating(d) else d, base.inputs[2]
            )
            if trial := t.at(probe, base.dtype, dy):
                yield trial


def _cotangents(t: Trials) -> Iterator[tuple[Probe, Callable[[np.ndarray], Any]]]:
    def probe(name: str, *traits: str) -> Probe:
        return replace(t.point, name=name, traits=frozenset(traits))

    def one_hot(d: np.ndarray) -> np.ndarray:
        found = np.zeros(d.shape)
        if d.size:
            found.flat[int(places.integers(d.size))] = 1.0
        return found

    another = probe("another dy", ORDINARY, MUST_ANSWER, QUICK)
    hot = probe("one-hot dy", ORDINARY, SPARSE, THOROUGH)
    numbers, places = map(t.random_numbers, (another, hot))
    yield another, lambda d: numbers.standard_normal(d.shape)
    yield hot, one_hot
    yield probe("dy of zeros", THOROUGH), np.zeros_like
    yield probe("dy × 2⁻³⁰", THOROUGH), lambda d: d * 2.0**-30
    yield (
        probe("broadcast dy", LAYOUT),
        lambda d: np.broadcast_to(d.flat[0] if d.size else 0.0, d.shape),
    )


def under_laws(t: Trials, base: Trial, wanted: Wanted) -> Iterator[Trial]:
    """What the base gives in other layouts, and with other calls around it."""
    for probe, call, lay in (*_layouts(t), *_calls(t)):
        if not wanted(probe):
            continue
        results = t.answer(probe, base.dtype, base.inputs, call, lay)
        if results is None:
            continue
        for name, g in base.results.items():  # most do not change, and are kept once
            if (other := results.get(name)) is not None and same_bits(g, other):
                results[name] = g
        yield t.trial(probe, base.dtype, base.inputs, base.truth, results, call, lay)


def _layouts(t: Trials) -> Iterator[Law]:
    for kind, (first, second) in LAYOUTS.items():

        def laid(tree: Any, kind: str = kind) -> Any:
            return once_each(lambda a: layouts(a, kind), tree)

        def arguments(inputs: Any, laid: Any = laid) -> Any:
            return (*laid(inputs[:2]), private(inputs[2]))

        def cotangent(inputs: Any, laid: Any = laid) -> Any:
            return (*private(inputs[:2]), laid(inputs[2]))

        for what, how, trait in (("arguments", arguments, first), ("dy", cotangent, second)):
            traits = frozenset((LAYOUT, trait))
            yield replace(t.point, name=f"{kind} {what}", traits=traits), t.call, how


def _calls(t: Trials) -> Iterator[Law]:
    run, results = t.subject.run, t.subject.results

    def again(inputs: Any) -> Results:
        """The second call of one pullback, after one with another dy, and one of another rule."""
        args, kwargs, dy = inputs
        y, pullback = run(args, kwargs)
        pullback(times(-3.0, dy))
        other = tree_map(lambda a: a[::-1] / 2 if is_floating(a) and a.ndim else a, args)
        with contextlib.suppress(Exception):  # it may lie beyond the domain
            run(private(other), private(kwargs))[1](dy)
        return results(y, pullback(dy), t.order)

    def kept(inputs: Any) -> Results:
        """The result of one call after others, which may have been written over."""
        args, kwargs, dy = inputs
        y, pullback = run(args, kwargs)
        gradients = pullback(dy)
        pullback(times(-3.0, dy))
        run(*private(inputs[:2]))[1](times(2.0, dy))
        return results(y, gradients, t.order)

    def scaled(factor: float) -> Function:
        def unscaled(inputs: Any) -> Results:
            args, kwargs, dy = inputs
            y, pullback = run(args, kwargs)
            found = results(y, pullback(times(factor, dy)), t.order)
            return {
                n: g if g is None or n.startswith("value") else np.asarray(g / factor, g.dtype)
                for n, g in found.items()
            }

        return unscaled

    calls = frozenset((CALLS, QUICK))
    yield replace(t.point, name="called again", traits=calls), again, None
    yield replace(t.point, name="after later calls", traits=calls), kept, None
    more = frozenset((THOROUGH,))
    yield replace(t.point, name="dy × −1", traits=more), scaled(-1.0), None
    yield replace(t.point, name="dy × 2¹⁰", traits=more), scaled(1024.0), None
