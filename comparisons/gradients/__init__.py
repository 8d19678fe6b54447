"""The tables of the rules: parity, coverage and accuracy."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    table="rows",
)
