"""The value itself is wrong, whatever its gradients are."""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case, Cause, example


def of_the_value(case: Case) -> Iterator[Cause]:
    if case.values and not case.gradients:
        yield Cause("forward", "the value itself is wrong, the gradients are right")
    elif case.values:
        alone = [vote.alone for vote in case.done.votes]
        fits = " (its gradients fit it)" if "reference" in alone else ""
        yield Cause("forward", f"the value itself is wrong{fits}: {example(case.values[0])}")
