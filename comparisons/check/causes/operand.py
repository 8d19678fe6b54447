"""The right pullback at a call in which another array stands in the place of one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..arguments import exchanged, floating
from .case import Candidate, Case, Wrong, at


def without_an_argument(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """As if another argument were 1 everywhere: a weight, a scale, a mask that was forgotten."""
    for position, (name, a) in enumerate(zip(case.done.order, floating(wrong.inputs), strict=True)):
        if name != wrong.name:
            found = at(case.truth, exchanged(wrong.inputs, position, np.ones_like(a)), wrong.name)
            if found is not None:
                yield Candidate("elementwise factor", f"that without the factor {name}", found)


def of_another_operand(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """Another array of the call, or y, in the place of an argument."""
    arrays = dict(zip(case.done.order, floating(wrong.inputs), strict=True))
    others = arrays | ({"y": wrong.y} if wrong.y is not None else {})
    for position, (name, a) in enumerate(arrays.items()):
        for other, b in others.items():
            if other != name and b.shape == a.shape:
                call = exchanged(wrong.inputs, position, b.astype(a.dtype))
                if (found := at(case.truth, call, wrong.name)) is not None:
                    yield Candidate("operand", f"that with {other} in the place of {name}", found)
