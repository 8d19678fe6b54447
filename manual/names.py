"""Which name may have been meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

NEAREST = 3  # names offered if there are many
FEW = 8  # up to this many names are all listed


def unknown(what: str, name: Any, allowed: Iterable[str]) -> str:
    """The text of an error: `name` is no known `what`, and these of the names allowed are the
    nearest, or all of them where there are few. Names with a leading underscore are never offered.
    """
    public = [other for other in allowed if not other.startswith("_")]
    near = difflib.get_close_matches(str(name), public, NEAREST)
    if near:
        return f"unknown {what} {name!r}: did you mean {' or '.join(near)}?"
    if len(public) <= FEW:
        return f"unknown {what} {name!r}: expected one of {', '.join(public) or 'none'}"
    near = difflib.get_close_matches(str(name), public, NEAREST, cutoff=0)
    return (
        f"unknown {what} {name!r}: expected one of {len(public)}; the nearest are {', '.join(near)}"
    )
