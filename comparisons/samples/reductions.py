import numpy as np

from . import array, call

_DOUBLE = np.dtype(float)
_SUMS = [
    call(array(3, 4)),
    call(array(2, 3, 4), 1),
    call(array(2, 3, 4), (0, -1), True),
    call(array(3, 4), dim=0, keepdim=True),
    call(array(3, 4), 1, dtype=_DOUBLE),
]
_NOTHING = [call(array()), call(array(0, 3)), call(array(0, 3), 0), call(array(2, 3), ())]

SAMPLES = {"sum": _SUMS, "mean": _SUMS}

CORNERS = {"sum": _NOTHING, "mean": _NOTHING}
