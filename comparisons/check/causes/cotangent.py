"""A pullback that is not linear in dy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ....reference.adapters import leaves, tree_map
from ...verdict.noise import is_floating
from ..probes import ORDINARY
from .case import Case, Cause
from .closeness import alike
from .operations import written_over

ROUNDED = 2.0**-5  # of the largest, what a sum of products in bfloat16 may lose


def not_linear(case: Case) -> Iterator[Cause]:
    for f in [f for f in case.gradients if ORDINARY in f.probe.traits][:1]:
        args, kwargs, dy = f.inputs
        other = redrawn(dy)

        def of(dy: Any, args: Any = args, kwargs: Any = kwargs, name: str = f.name) -> np.ndarray:
            return np.array(case.ours((args, kwargs, dy))[name], float)

        once, twice, minus = of(dy), of(_scaled(dy, 2.0)), of(_scaled(dy, -1.0))
        if alike(once, of(other)) and once.any():
            yield Cause("cotangent", f"the gradient of {f.name} does not depend on dy")
        if alike(twice, 4 * once) and once.any():
            yield from _written_over(case, f.name)
            yield Cause("cotangent", f"the gradient of {f.name} has dy in it twice")
        linear = alike(twice, 2 * once) and alike(minus, -once)
        # What rounds is linear up to its digits; that it rounds is another cause.
        within = ROUNDED if np.array_equal(twice, 2 * once) else 1e-4
        if not linear or not alike(of(_sum(dy, other)), once + of(other), within):
            yield Cause("cotangent", f"the gradient of {f.name} is not linear in dy")


def _written_over(case: Case, name: str) -> Iterator[Cause]:
    """A saved value in whose place something that is made from dy was written."""
    for first, *others in case.wrong:
        for found in written_over(case, first) if first.name == name else ():
            alike_ones = (
                any(c.text == found.text and w.is_made(c.values) for c in written_over(case, w))
                for w in others
            )
            if first.is_made(found.values) and all(alike_ones):
                yield Cause(found.cause, f"the gradient of {name} is {found.text}")


def redrawn(dy: Any) -> Any:
    """Another dy of the same shapes."""
    rng = np.random.default_rng(0)
    return tree_map(
        lambda d: np.asarray(rng.standard_normal(d.shape), d.dtype) if is_floating(d) else d, dy
    )


def _scaled(dy: Any, factor: float) -> Any:
    return tree_map(lambda d: d * d.dtype.type(factor) if is_floating(d) else d, dy)


def _sum(a: Any, b: Any) -> Any:
    """a + b, array by array."""
    others = iter(leaves(b))

    def added(x: Any) -> Any:
        y = next(others)
        return x + y if is_floating(x) else x

    return tree_map(added, a)
