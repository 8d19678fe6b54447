"""The right pullback of what stands in the place of dy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...verdict.noise import is_floating
from .case import Candidate, Case, Wrong


def of_another_dy(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    dy, y = wrong.inputs[2], wrong.y
    if not is_floating(dy):
        return
    for text, changed in (
        ("of dy = 1", np.ones_like(dy)),
        ("of |dy|", abs(dy)),
        ("of dy's sign", np.sign(dy)),
        ("of dy²", dy * dy),
        ("of dy's mean", np.full_like(dy, dy.mean() if dy.size else 0)),
        ("of dy's sum", np.full_like(dy, dy.sum())),
        ("of dy's first element", np.full_like(dy, dy.flat[0] if dy.size else 0)),
        ("of dy times y", dy * y if y is not None else dy),
    ):
        yield Candidate("cotangent", f"that {text}", case.pulled(wrong, changed))
    for axis in range(dy.ndim):
        mean = np.broadcast_to(dy.mean(axis, keepdims=True), dy.shape)
        found = case.pulled(wrong, mean)
        yield Candidate("cotangent", f"that of dy's mean along axis {axis}", found)
