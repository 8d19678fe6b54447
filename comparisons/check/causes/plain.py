"""Causes that need no search, for the subject did something that no rule does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..findings import (
    MUTATED,
    NO_GRADIENT,
    NOT_FINITE,
    RAISED,
    WRONG_DTYPE,
    WRONG_SHAPE,
    Finding,
)
from ..probes import LAYOUT, ORDINARY
from .case import Cause
from .closeness import broadcasts

Findings = Sequence[Finding]


def comes_first(f: Finding) -> bool:
    """Whether it goes before all that has to be searched for: another dtype may be but what a wrong
    formula did, and what happens at odd points alone may follow from what is wrong elsewhere."""
    at_once = RAISED, NO_GRADIENT, WRONG_SHAPE
    return f.kind == MUTATED or (f.kind in at_once and ORDINARY in f.probe.traits)


def mutated(findings: Findings) -> Iterator[Cause]:
    for f in _of(findings, MUTATED):
        yield Cause("mutation", f"{f.name} was changed in place")


def of_another(findings: Findings) -> Iterator[Cause]:
    """The gradients of two arguments, each in the shape of the other."""
    for f, came, wanted in _misshapen(findings):
        for o, _, others in _misshapen(findings):
            alike = o.probe is f.probe and o.dtype == f.dtype
            if o is not f and alike and came == others != wanted:
                yield Cause("swapped", f"the gradient of {f.name} has the shape of {o.name}")


def not_summed(findings: Findings) -> Iterator[Cause]:
    for f, came, wanted in _misshapen(findings):
        more = math.prod(came) > math.prod(wanted)
        if more and (broadcasts(wanted, came) or len(came) > len(wanted)):
            text = f"the gradient of {f.name} has shape {came}: not summed to {wanted}"
            yield Cause("broadcast", text)


def turned(findings: Findings) -> Iterator[Cause]:
    for f, came, wanted in _misshapen(findings):
        if sorted(came) == sorted(wanted) and came != wanted:
            yield Cause("transpose", f"the gradient of {f.name} has shape {came}, not {wanted}")


def misshapen(findings: Findings) -> Iterator[Cause]:
    for f in _of(findings, WRONG_SHAPE):
        wanted = f.truth if f.truth is not None else f.argument
        came = f" {f.ours.shape}" if f.ours is not None else ""
        instead = f" instead of {wanted.shape}" if wanted is not None else ""
        where = f.probe.name
        yield Cause("shape", f"{f.name or 'a result'}: shape{came}{instead} ({where})")


def of_another_dtype(findings: Findings) -> Iterator[Cause]:
    for f in _of(findings, WRONG_DTYPE):
        came = f" {f.ours.dtype}" if f.ours is not None else ""
        yield Cause("dtype", f"{f.name}: dtype{came} instead of {f.dtype}")


def raised(findings: Findings) -> Iterator[Cause]:
    raising = [f for f in _of(findings, RAISED) if f.error and not f.error.misuse]
    of_layouts = all(LAYOUT in f.probe.traits for f in raising)
    for f in raising:
        if f.error and of_layouts:
            text = f"the subject raises {f.error.text} only for {f.probe.name}"
            yield Cause("layout", text)
        elif f.error:
            yield Cause("raises", f"the subject raises {f.error.text} ({f.probe.name})")


def no_gradient(findings: Findings) -> Iterator[Cause]:
    for f in _of(findings, NO_GRADIENT):
        meant = f'if that is meant, say constant="{f.name}"'
        yield Cause("missing gradient", f"{f.name}: None instead of a gradient; {meant}")


def not_finite(findings: Findings) -> Iterator[Cause]:
    """Not of a subject whose finite numbers are wrong as well: those it would not explain."""
    if any(f.outside is not None and ORDINARY in f.probe.traits for f in findings):
        return
    for f in _of(findings, NOT_FINITE):
        yield Cause("range", f"{f.name} is not finite in {f.dtype} ({f.probe.name})")


def misused(findings: Findings) -> Iterator[Cause]:
    for f in _of(findings, RAISED):
        if f.error and f.error.misuse:
            yield Cause("contract", f.error.text)


def _of(findings: Findings, kind: str) -> list[Finding]:
    return [f for f in findings if f.kind == kind]


Shape = tuple[int, ...]


def _misshapen(findings: Findings) -> Iterator[tuple[Finding, Shape, Shape]]:
    """Gradients of a wrong shape, with the shape that came and that of the argument."""
    for f in _of(findings, WRONG_SHAPE):
        if isinstance(f.ours, np.ndarray) and f.argument is not None:
            yield f, f.ours.shape, f.argument.shape
