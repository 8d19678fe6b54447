"""Every gradient twice: by hand in NumPy, by PyTorch, and compared."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["check"]


def __getattr__(name: str) -> Any:  # torch is imported when it is needed, not before
    if name == "check":
        from .comparisons.check import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
