"""The value itself is wrong, whatever its gradients are."""

from __future__ import annotations

from collections.abc import Iterator

from ..probes import ORDINARY
from .case import Case, Cause, example


def of_the_value(case: Case) -> Iterator[Cause]:
    if case.values and not case.gradients:
        yield Cause("forward", "the value itself is wrong, the gradients are right")
    elif case.values and _as_ordinary(case):
        alone = [vote.alone for vote in case.done.votes]
        fits = " (its gradients fit it)" if "reference" in alone else ""
        yield Cause("forward", f"the value itself is wrong{fits}: {example(case.values[0])}")


def _as_ordinary(case: Case) -> bool:
    """Whether the value is wrong at ordinary points, or the gradients are not there either: else
    it is none that they would be wrong by."""
    ordinary = [any(ORDINARY in f.probe.traits for f in fs) for fs in (case.values, case.gradients)]
    return ordinary[0] or not ordinary[1]
