"""One forward and backward of a torch module, function by function."""

from ..moved import moved

__getattr__ = moved(
    __name__,
    recorder="trace",
    steps="Edge Step Trace",
)
