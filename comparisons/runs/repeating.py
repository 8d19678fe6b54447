"""Whether a run repeats itself, bit for bit."""

from __future__ import annotations

from .leaving import first_difference
from .recording import AGAIN, Recorded
from .traces import Traces, windows


def unrepeated(found: Traces, name: str) -> str:
    """What of a window did not repeat first, in words; nothing where all did, or where no run was
    repeated."""
    where = first_difference(found, AGAIN) if AGAIN in found.differs else None
    if where is None:
        return ""
    step, quantity = where
    return f"{name} does not repeat itself: from step {step}, {quantity}; seed all that it draws"


def repeats(recorded: Recorded) -> str:
    """What of a recording did not repeat first, in words."""
    if str(AGAIN) not in recorded.runs:
        return ""
    name = recorded.path.name
    words = (unrepeated(found, name) for found in windows(recorded, [AGAIN], {}))
    return next(filter(None, words), "")
