"""Names of version 0.1 that stand elsewhere now; they go with version 0.3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(package: str, **places: str) -> Callable[[str], Any]:
    """A `__getattr__` for the package, where each file of it has the names that stand beside it."""
    where = {name: file for file, names in places.items() for name in names.split()}

    def found(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = f"{package}.{where[name]}"
        warnings.warn(f"{package}.{name} is now {place}.{name}", DeprecationWarning, stacklevel=2)
        return getattr(import_module(place), name)

    return found
