"""What a subject did that no rule does, and how such things are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SHOWN = 4  # parts of a container that are described


class Misuse(Exception):
    """What a subject did that no rule does; the text says what came and what was expected."""


def described(thing: Any) -> str:
    """A thing in words, by its type; of a container, what lies in it."""
    if isinstance(thing, (tuple, list)):
        parts = [described(part) for part in thing[:SHOWN]]
        more = ["…"] if len(thing) > SHOWN else []
        return f"{type(thing).__name__} of {len(thing)} ({', '.join(parts + more)})"
    if isinstance(thing, Mapping):
        return f"a {type(thing).__name__} of {', '.join(map(str, thing)) or 'nothing'}"
    if isinstance(thing, np.ndarray):
        return f"an array of shape {thing.shape} and dtype {thing.dtype}"
    return "None" if thing is None else f"a {type(thing).__module__}.{type(thing).__name__}"
