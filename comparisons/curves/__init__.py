"""The loss-curve divergence table."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    divergence="Comparison compare growth_rate",
    grid="GRID",
)
