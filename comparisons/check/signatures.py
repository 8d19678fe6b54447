"""The signature of a layer as a function of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..ops.arguments import signature_of

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signed(
    function: Callable[..., Any], name: str, forward: Any, parameters: Iterable[str]
) -> Callable[..., Any]:
    """The function with a name and a signature: what the forward must be given, the parameters, and
    by keyword what the forward takes beyond. Of any number of inputs it has none."""
    function.__name__ = name
    signature = signature_of(forward)
    taken = list(signature.parameters.values()) if signature else []
    if not signature or any(p.kind is p.VAR_POSITIONAL for p in taken):
        return function
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inputs = [p.name for p in taken if p.default is p.empty and p.kind in POSITIONAL]
    behind = [p for p in taken if p.name not in inputs]
    names = [*inputs, *(re.sub(r"\W", "_", p) for p in parameters)]
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(inspect.Parameter(n, place) for n in names),
            *(p.replace(kind=p.KEYWORD_ONLY) if p.kind in POSITIONAL else p for p in behind),
        ]
    )
    return function


def chosen(known: Iterable[str], names: Sequence[str] | None) -> list[str]:
    """The names of the parameters that are wanted, all where none are named. ValueError."""
    known = list(known)
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(
            f"parameters: expected some of {', '.join(known) or 'none'}, got {', '.join(unknown)}"
        )
    return known if names is None else list(names)
