"""What depends on more than its arguments: on chance, on an earlier call, or on a later one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..arguments import exchanged, floating
from ..probes import CALLS, ORDINARY, OWN
from .case import Case, Cause, at
from .closeness import better


def differs_from_itself(case: Case) -> Iterator[Cause]:
    if case.done.random:
        yield Cause("state", "the subject differs from itself when it is called again")


def of_other_calls(case: Case) -> Iterator[Cause]:
    if case.has(CALLS) and not case.has(OWN):
        yield Cause("state", "right at first, wrong when there are other calls around it")


def of_an_earlier_call(case: Case) -> Iterator[Cause]:
    """Whether a gradient is right for an array of the first call in the place of one of its own."""
    if case.done.base is None or case.has(OWN):
        return
    earlier = floating(case.done.base.inputs)
    for f in case.findings:
        if f.dtype != "float64" or f.ours is None or f.truth is None:
            continue
        if ORDINARY not in f.probe.traits or not np.isfinite(f.ours).all():
            continue
        for i, (mine, first) in enumerate(zip(floating(f.inputs), earlier, strict=True)):
            if mine.shape != first.shape:
                continue
            before = at(case.truth, exchanged(f.inputs, i, first), f.name)
            if before is not None and better(f.ours, before, f.truth):
                yield Cause("state", f"{f.name} is that of an earlier call ({f.probe.name})")
