"""Is a gradient right, and if not, what is wrong with it?"""

from ..moved import moved

__getattr__ = moved(
    __name__,
    verify="check",
    report="Report",
)
