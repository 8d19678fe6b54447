"""Which optimizer, dialect and settings a trajectory was made by."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    trajectory="read",
    search="Match",
)
