"""The gradient of another argument, which has this one's."""

from __future__ import annotations

from collections.abc import Iterator

from .case import Candidate, Case, Wrong
from .closeness import better


def of_another_argument(case: Case, wrong: Wrong) -> Iterator[Candidate]:
    truths = case.truth(wrong.inputs)
    for name in case.done.order:
        theirs, truth = wrong.all_ours.get(name), truths.get(name)
        if name == wrong.name or truth is None or truth.shape != wrong.truth.shape:
            continue
        for sign, text in ((1, ""), (-1, ", with the wrong sign")):
            if theirs is not None and better(sign * theirs, wrong.truth, truth):
                yield Candidate("swapped", f"that of {name}{text}", sign * truth)
