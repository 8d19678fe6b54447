"""The line that finds one wrong element again."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from .targets import target_of

# What says how much is tried, and no more than that.
EFFORT = {"probes", "dtypes", "seed", "quick", "thorough", "budget", "progress"}


def line(check: Callable[..., Any], given: Mapping[str, Any], probe: str, dtype: str) -> str:
    """The call of `check` with these arguments, at one probe and in one dtype alone.

    What Python has no text for goes by the name of its parameter, and arrays by `args`.
    """
    parts, in_place = [], True
    for name, parameter in inspect.signature(check).parameters.items():
        value = given[name]
        left_out = name in EFFORT or value is None or value == parameter.default
        in_place &= parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if left_out and parameter.default is not parameter.empty:
            in_place = False
        else:
            text = "args" if name == "arrays" else _text(value, name)
            parts.append(text if in_place else f"{name}={text}")
    chosen = {"dtypes": [dtype], "seed": given["seed"], "probes": [probe]}
    return f"check({', '.join([*parts, *(f'{k}={v!r}' for k, v in chosen.items())])})"


def _text(value: Any, name: str) -> str:
    if isinstance(value, tuple) and value and all(map(callable, value)):
        return f"({', '.join(_text(v, name) for v in value)})"
    if callable(value):
        return _path(value) or name
    try:
        known = ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        known = False
    return repr(value) if known else name


def _path(value: Any) -> str:
    """How a function or class is called from where it stands: torch's in full, others as they would
    be imported."""
    full = target_of(value).name
    if full.partition(".")[0] == "torch" and _is_at(value, sys.modules.get("torch"), full[6:]):
        return full
    own = getattr(value, "__qualname__", "")
    if _is_at(value, sys.modules.get(str(getattr(value, "__module__", ""))), own):
        return str(own)
    made = isinstance(value, (type, types.FunctionType)) and value.__name__.isidentifier()
    return value.__name__ if made else ""


def _is_at(value: Any, module: Any, path: str) -> bool:
    try:
        return attrgetter(path)(module) is value
    except (AttributeError, ValueError):
        return False
