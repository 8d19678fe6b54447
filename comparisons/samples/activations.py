from . import array, call, values

_SMOOTH = [call(array(3, 4)), call(array(7, scale=5.0)), call(array(2, 3, 5, scale=0.01))]
_EDGES = [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 1e3, -1e3]

SAMPLES = {
    "sigmoid": _SMOOTH,
    "tanh": _SMOOTH,
    "relu": _SMOOTH,
}

CORNERS = {
    "sigmoid": [
        call(values(_EDGES)),
        call(values([17.0, -17.0, 37.0, -37.0])),  # y (1 − y) is 0 from here on
        call(array()),
        call(array(0, 3)),
    ],
    "tanh": [
        call(values(_EDGES)),
        call(values([9.1, -9.1, 19.1, -19.1])),  # 1 − y² is 0 from here on
        call(array()),
        call(array(0, 3)),
    ],
    "relu": [
        call(values(_EDGES)),  # the slope at 0 is 0
        call(values([float("inf"), float("-inf"), float("nan")])),  # the slope at NaN is 1
        call(array()),
        call(array(0, 3)),
    ],
}
