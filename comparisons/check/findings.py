"""What comes out of a trial: for each result a row, and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..report.text import raised, said
from ..verdict.classes import Verdict
from .adapt import Misuse
from .probes import Probe

RAISED, MUTATED, NO_GRADIENT = "raised", "mutated", "no gradient"
WRONG_SHAPE, WRONG_DTYPE = "wrong shape", "wrong dtype"
NOT_FINITE, OUTSIDE = "not finite", "outside the floor"

# Classes of a row beside those of a verdict.
NOT_APPLICABLE = "n/a"  # it could not be judged
UNSUPPORTED = "unsupported"  # wrong for what the caller's call does not show to be meant

# Why something could not be judged.
REFUSED_BY_REFERENCE = "refused by the reference"
REFUSED_BY_SUBJECT = "refused by the subject"
FINITE_NOWHERE = "finite nowhere"
LAYOUT_REFUSED = "torch refuses the layout"
LAYOUT_MATTERS = "torch depends on the layout"
NO_DIFFERENCES = "differences cannot tell"
LEFT_NEARBY = "raises nearby"
OUTSIDE_DOMAIN = "outside the domain"
CRASHED = "ends the process"
NOT_TRIED = "not tried"
OUT_OF_BUDGET = "out of budget"

# What a judged result may be noted with.
DIGITS_LOST, OVERFLOWS = "digits lost", "overflows"
TORCH_ALONE = "torch stands alone"
AS_COMPOSED, AS_ITSELF = "as torch's composition", "as torch itself"


@dataclass(frozen=True)
class Error:
    """What was raised, as a value: an exception need not survive its way from another process.

    misuse  whether the subject answered like no rule
    """

    text: str
    misuse: bool = False


def error_of(error: Exception) -> Error:
    misuse = isinstance(error, Misuse)
    return Error(said(error) if misuse else raised(error), misuse)


@dataclass(frozen=True)
class Reason:
    """Why a row is what it is, where nothing is wrong; `detail` is a text or a number."""

    kind: str
    detail: Any = None


@dataclass(frozen=True)
class Finding:
    """Something wrong, with all that is needed to look for its cause; its English is the report's.

    kind      raised, mutated, no gradient, wrong shape, wrong dtype, not finite or outside the
              floor
    name      of the result; of the argument that was written to; "" where it is about the call
    inputs    (args, kwargs, dy)
    error     what was raised
    argument  the array whose gradient it is
    ours      what came
    truth     the reference in float64; None where there is none, but differences
    outside   the wrong elements, of what is not finite or outside the floor
    """

    kind: str
    probe: Probe
    name: str
    dtype: str
    inputs: Any
    error: Error | None = None
    argument: np.ndarray | None = None
    ours: np.ndarray | None = None
    truth: np.ndarray | None = None
    outside: np.ndarray | None = None


@dataclass(frozen=True)
class Outcome:
    """One row: a result at a probe, its class, and why; `accepted` is what would fail, and may be
    so."""

    probe: Probe
    name: str
    dtype: str
    kind: str
    verdict: Verdict | None = None
    why: Finding | Reason | None = None
    accepted: bool = False


@dataclass(frozen=True)
class Smallest:
    """Where a result is still wrong.

    shapes    of the arrays of the call, in order
    inputs    the arrays by name, dy behind them; none where they are too large to be shown
    ours      what came
    truth     what should have come; None where there are but differences
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    inputs: dict[str, np.ndarray]
    ours: np.ndarray | None = None
    truth: np.ndarray | None = None
