"""Whether a run repeats itself, bit for bit."""

from __future__ import annotations

import numpy as np

from .recording import AGAIN, INPUT, Recorded
from .traces import Traces, traces


def unrepeated(found: Traces, name: str) -> str:
    """What did not repeat first, in words; nothing where all did, or where no run was repeated."""
    if AGAIN not in found.differs:
        return ""
    differs = found.differs[AGAIN] & ~found.kind(INPUT)
    if not differs.any():
        return ""
    at, what = (int(i[0]) for i in np.nonzero(differs))
    step, quantity = found.steps[at], found.names[what]
    return f"{name} does not repeat itself: from step {step}, {quantity}; seed all that it draws"


def repeats(recorded: Recorded) -> str:
    """What of a recording did not repeat first, in words."""
    if str(AGAIN) not in recorded.runs:
        return ""
    return unrepeated(traces(recorded, [AGAIN], {}), recorded.path.name)
