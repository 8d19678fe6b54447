"""Which of many other dy may have been taken, told by one number: each would cost an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ...verdict.noise import is_floating
from ..arguments import exchanged
from .case import Case, Wrong

MOST = 4  # that are evaluated of those that may have been taken


def pulled_of(
    case: Case, wrong: Wrong, changed: Iterable[tuple[str, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray]]:
    """The right gradients, with their texts, for those dy that can have led to the wrong one.

    Along any direction v of the argument, gradient · v is dy · (the slope of y along v), and two
    evaluations give that slope for every dy.
    """
    if not case.done.reference or not is_floating(wrong.inputs[2]):
        return
    v = np.random.default_rng(0).standard_normal(wrong.x.shape)
    position = list(case.done.order).index(wrong.name)
    x = wrong.x.astype(float)
    step = 1e-5 * float(np.mean(abs(x)) or 1.0)
    beyond, before = (
        case.truth(exchanged(wrong.inputs, position, x + sign * step * v))["value"]
        for sign in (1, -1)
    )
    slope = (beyond - before) / (2 * step)
    if slope.shape != wrong.inputs[2].shape or not np.isfinite(wrong.ours).all():
        return
    came = float(np.sum(wrong.ours * v))
    within = (1e-3 if wrong.single else 1e-5) * float(np.sum(abs(wrong.ours * v)))
    taken = 0
    for text, dy in changed:
        if abs(came - float(np.sum(dy * slope))) <= within:
            yield text, case.pulled(wrong, dy)
            taken += 1
            if taken == MOST:
                return
