"""The schedule-parity table."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    table="Comparison compare rows curves",
)
