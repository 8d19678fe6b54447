import numpy as np

from . import array, call, values

_SMOOTH = [call(array(3, 4)), call(array(7, scale=5.0)), call(array(2, 3, 5, scale=0.01))]
_WIDE = [call(array(3, 4)), call(array(7, scale=5.0))]
_EDGES = [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 1e3, -1e3]
_KINKS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, 1e30, -1e30]
_SMALL = [call(array()), call(array(0, 3))]
# Corners of smooth functions, and of those with kinks.
_SHARP = [call(values(_EDGES)), *_SMALL]
_BENT = [call(values(_KINKS)), call(values([float("nan")])), *_SMALL]
_SATURATED = [[0.0, 1e3, -1e3, 20.0], [40.0, 0.0, 40.0, 1.0], [1e30, -1e30, 0.0, 1e30]]
_SOFTMAX = [
    call(array(3, 4), 1),
    call(array(2, 3, 4, scale=3.0), 0),
    call(array(2, 3, 4, scale=3.0), -2),
    call(array(5)),
    call(array(4, 3)),
    call(array(3, 2, 2)),
]
_SOFTMAX_DTYPE = call(array(3, 4), 0, dtype=np.dtype(float))
_SOFTMAX_CORNERS = [
    call(values(_SATURATED), 1),
    call(values(_SATURATED), 0),
    call(array(), 0),
    call(array(0, 3), 1),
    call(array(3, 0), 1),
]
SAMPLES = {
    "sigmoid": _SMOOTH,
    "tanh": _SMOOTH,
    "relu": _SMOOTH,
    "relu6": [call(array(3, 4)), call(array(12, scale=5.0))],
    "hardtanh": [call(array(3, 4)), call(array(7, scale=5.0), -2.0, 3.5), call(array(9), 0, 2)],
    "leaky_relu": [call(array(3, 4)), call(array(7, scale=5.0), 0.3), call(array(5), -1.5)],
    "prelu": [
        call(array(3, 4), array()),
        call(array(3, 4), array(1)),
        call(array(3, 4), array(4)),
        call(array(2, 3, 5), array(3)),
        call(array(6), array(1)),
    ],
    "rrelu": [
        call(array(3, 4), training=True),
        call(array(9, scale=5.0), 0.2, 0.9, True),
        call(array(3, 4)),
        call(array(3, 4), 0.1, 0.7),
    ],
    "threshold": [call(array(3, 4), 0.5, -2.0), call(array(7, scale=5.0), -1, 3)],
    "hardshrink": [call(array(3, 4)), call(array(7, scale=5.0), 1.5)],
    "softshrink": [call(array(3, 4)), call(array(7, scale=5.0), 1.5), call(array(6), 0.0)],
    "tanhshrink": _SMOOTH,
    "elu": [*_WIDE, call(array(3, 4), 0.3)],
    "selu": _WIDE,
    "celu": [*_WIDE, call(array(3, 4), 0.3), call(array(5), -2.0)],
    "gelu": [*_WIDE, *(call(array(n, scale=3.0), approximate="tanh") for n in (4, 9))],
    "silu": _WIDE,
    "mish": _WIDE,
    "softplus": [*_WIDE, call(array(8, scale=5.0), 0.5), call(array(12, scale=3.0), 2, 3.0)],
    "logsigmoid": _WIDE,
    "softsign": _WIDE,
    "hardsigmoid": [call(array(3, 4)), call(array(12, scale=3.0))],
    "hardswish": [call(array(3, 4)), call(array(12, scale=3.0))],
    "glu": [call(array(3, 4)), call(array(6, 3, scale=4.0), 0), call(array(2, 4, 6), -2)],
    "softmax": [*_SOFTMAX, _SOFTMAX_DTYPE],
    "log_softmax": [*_SOFTMAX, _SOFTMAX_DTYPE],
    "softmin": [*_SOFTMAX, _SOFTMAX_DTYPE],
    "gumbel_softmax": [
        *(call(array(3, 4), tau) for tau in (1, 0.3, 5.0)),
        call(array(2, 3, 4), dim=0),
        call(array(2, 3, 4), 2.0, dim=1),
        call(array(5)),
    ],
}
CORNERS = {
    "sigmoid": [
        *_SHARP,
        call(values([17.0, -17.0, 37.0, -37.0])),  # y (1 − y) is 0 from here on
    ],
    "tanh": [
        *_SHARP,
        call(values([9.1, -9.1, 19.1, -19.1])),  # 1 − y² is 0 from here on
    ],
    "relu": [
        call(values(_EDGES)),  # the slope at 0 is 0
        call(values([float("inf"), float("-inf"), float("nan")])),  # the slope at NaN is 1
        *_SMALL,
    ],
    **dict.fromkeys(("relu6", "hardtanh", "hardshrink", "hardsigmoid", "hardswish"), _BENT),
    **dict.fromkeys(("leaky_relu", "softshrink", "elu", "selu", "celu"), _BENT),
    "prelu": [
        call(values(_KINKS), array(1)),
        call(array(), array()),
        call(array(2, 0), array(1)),
        call(array(0, 3), array(3)),
    ],
    "rrelu": [
        call(values(_KINKS), training=True),
        call(array(), 0.1, 0.2, True),
    ],
    "threshold": [call(values(_KINKS), 0.5, 7.0), call(array(), 0.0, 1.0)],
    **dict.fromkeys(("tanhshrink", "silu", "mish", "logsigmoid", "softsign"), _SHARP),
    "gelu": [
        *_SHARP,
        call(values(_EDGES), approximate="tanh"),
        call(values([-3.9, -5.5, -8.4, -20.0])),  # 1 + erf has lost its digits
        call(values([-3.9, -5.5, -8.4]), approximate="tanh"),
    ],
    "softplus": [*_SHARP, call(values([10.0, 20.0, 20.5]), 2.0)],
    "glu": [call(values([1e3, -1e3, 0.0, 1e3, -1e3, 40.0])), call(array(0, 2)), call(array(2, 0))],
    "softmax": _SOFTMAX_CORNERS,
    "log_softmax": _SOFTMAX_CORNERS,
    "softmin": _SOFTMAX_CORNERS,
    "gumbel_softmax": [
        call(array(3, 4), 0.3, True),  # hard: the slope is not that of the value
        call(array(2, 3, 4), hard=True, dim=-2),
        call(array(), dim=0),
        call(array(0, 3)),
    ],
}
