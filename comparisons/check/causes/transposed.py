"""The gradient, the arguments or dy with their axes exchanged, or flipped along one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from ..arguments import exchanged, floating
from .case import Candidate, Case, Wrong, at


def rearranged(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    t = wrong.truth
    for axes in _permutations(t.ndim, 4):
        turned = t.transpose(axes)
        text = f"that with its axes as {axes}"
        if turned.shape == t.shape:
            yield Candidate("transpose", text, turned)
        # Of matrices that is a transpose in a wrong shape; of more axes, heads in wrong places.
        cause = "transpose" if t.ndim < 4 else "misplaced"
        yield Candidate(cause, f"{text}, read in order", turned.reshape(t.shape))
        back = t.reshape(turned.shape).transpose(np.argsort(axes)).reshape(t.shape)
        yield Candidate(cause, f"that read with its axes as {axes}", back)
    for axis in range(t.ndim):
        yield Candidate("misplaced", f"that flipped along axis {axis}", np.flip(t, axis))
    yield Candidate("misplaced", "that flipped along all axes", np.flip(t))


def at_a_turned_argument(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    """The right pullback at an argument that was flipped or transposed, or with y in its place."""
    for position, (name, a) in enumerate(zip(case.done.order, floating(wrong.inputs), strict=True)):
        ways: list[tuple[int, ...]] = [(axis,) for axis in range(a.ndim)]
        ways += [axes for axes in ((-2, -1), tuple(range(a.ndim))) if a.ndim > 1]
        turned = [("misplaced", "flipped", np.flip(a, axes)) for axes in ways]
        turned += [
            ("transpose", f"with its axes as {axes}", t)
            for axes in _permutations(a.ndim, 4)
            if (t := a.transpose(axes)).shape == a.shape
        ]
        for cause, how, changed in turned:
            found = at(case.truth, exchanged(wrong.inputs, position, changed), wrong.name)
            if found is not None:
                yield Candidate(cause, f"that at {name} {how}", found)
        if wrong.y is not None and wrong.y.shape == a.shape:
            found = at(case.truth, exchanged(wrong.inputs, position, wrong.y), wrong.name)
            if found is not None:
                yield Candidate("missing term", f"that at y in place of {name}", found)


def of_a_turned_dy(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    dy = wrong.inputs[2]
    if not is_floating(dy):
        return
    for axis in range(dy.ndim):
        found = case.pulled(wrong, np.flip(dy, axis))
        yield Candidate("misplaced", f"that of dy flipped along axis {axis}", found)
    for axes in _permutations(dy.ndim, 3):
        found = case.pulled(wrong, dy.transpose(axes).reshape(dy.shape))
        yield Candidate("transpose", f"that of dy with its axes as {axes}", found)


def _permutations(ndim: int, most: int) -> Iterator[tuple[int, ...]]:
    """Every other order of the axes, where they are few."""
    if ndim <= most:
        yield from list(itertools.permutations(range(ndim)))[1:]
