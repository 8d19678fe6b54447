import numpy as np

from . import array, call, values

_DOUBLE = np.dtype(float)
_SUMS = [
    call(array(3, 4)),
    call(array(2, 3, 4), 1),
    call(array(2, 3, 4), (0, -1), True),
    call(array(3, 4), dim=0, keepdim=True),
    call(array(3, 4), 1, dtype=_DOUBLE),
]
_NOTHING = [call(array()), call(array(0, 3)), call(array(0, 3), 0), call(array(2, 3), ())]
_INF, _NAN = float("inf"), float("nan")
_TIES = values([[1.0, 3.0, 3.0], [0.0, -0.0, -1.0], [2.0, 2.0, 2.0]])
_NANS = values([[1.0, _NAN, 3.0], [_NAN, _NAN, -1.0], [_INF, -_INF, _INF]])
_ODD = values([[1.0, _NAN], [2.0, _NAN]])

_BEST = [
    call(array(3, 4)),
    call(array(2, 3, 4), 1),
    call(array(3, 4), -1, True),
    call(array(3, 4), array(4)),
]
_BEST_AT_CORNERS = [
    *(call(points, *dim) for points in (_TIES, _NANS) for dim in ((), (0,), (1,))),
    call(_ODD),
    call(array()),
    call(array(), 0, True),
    call(array(0, 3), 1),
]
_EXTREMES = [
    call(array(3, 4)),
    call(array(2, 3, 4), 1),
    call(array(2, 3, 4), (0, -1), True),
    call(array(3, 4), dim=[0]),
]
_EXTREMES_AT_CORNERS = [
    *(call(points, *dim) for points in (_TIES, _NANS) for dim in ((), (0,), (1,))),
    call(array()),
    call(array(), 0),
    call(array(0, 3), 1, True),
    call(array(2, 3), ()),
]
_DEVIATIONS = [
    call(array(3, 4)),
    call(array(2, 3, 4), 1),
    call(array(2, 3, 4), (0, -1), False, True),
    call(array(4, 3), 0, keepdim=True, correction=0.5),
    call(array(3, 4), True),
    call(array(3, 4), False),
    call(array(5), correction=-2),
]


def _offset(*shape):
    """Far from 0, and close together."""
    spread = array(*shape)
    return type(spread)(f"1e4 + {spread}", lambda rng, dtype: 10000 + spread.draw(rng, dtype))


_DEVIATIONS_AT_CORNERS = [
    call(_offset(3, 16), 1),
    call(values([[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]]), 1),  # no variance in the first row
    call(values([[1.0, 2.0, _NAN], [1.0, 2.0, 4.0]]), 1),
    *(call(array(3, 2), 1, correction=c) for c in (2, 3)),  # no degree of freedom
    call(array(3, 1), 1),
    call(array(3, 1), 1, False),
    call(array()),
    call(array(0, 3)),
    call(array(0, 3), 0),
    call(array(0, 3), 1),
    call(array(2, 3), (), False),
    call(array(4), correction=5),
]
_TALL = values([[1e25, 2e25, -3e25, 5e25], [1e-25, 2e-25, -3e-25, 5e-25]])

SAMPLES = {
    "sum": _SUMS,
    "mean": _SUMS,
    "cumsum": [
        call(array(4), 0),
        call(array(2, 3, 4), 1),
        call(array(3, 4), dim=-1),
        call(array(3, 4), 1, dtype=_DOUBLE),
    ],
    "max": _BEST,
    "min": _BEST,
    "amax": _EXTREMES,
    "amin": _EXTREMES,
    "var": _DEVIATIONS,
    "std": _DEVIATIONS,
    "norm": [
        call(array(3, 4)),
        call(array(2, 3, 4), dim=(0, -1), keepdim=True),
        *(call(array(3, 4), p, 1) for p in (1, 3.5, 0.5, -1.5, _INF, -_INF)),
        call(array(2, 3, 4), 3, (0, 1, 2)),
        call(array(3, 4), "nuc"),
        call(array(2, 3, 2), "nuc", (2, 0), True),
        call(array(3, 4), 2, dtype=_DOUBLE),
        call(array(5), None, 0),
    ],
    "logsumexp": [
        call(array(3, 4), 1),
        call(array(2, 3, 4), (0, -1), True),
        call(array(5), dim=[0]),
    ],
}

CORNERS = {
    "sum": _NOTHING,
    "mean": _NOTHING,
    "cumsum": [
        call(array(), 0),
        call(array(0, 3), 0),
        call(values([1e4, 1e-4, -1e4, 1.0]), 0),
        call(values([1.0, _INF, 2.0, _NAN]), 0),
        call(array(300), 0),
        call(array(2, 12300), 0),  # many lines
    ],
    "max": _BEST_AT_CORNERS,
    "min": _BEST_AT_CORNERS,
    "amax": _EXTREMES_AT_CORNERS,
    "amin": _EXTREMES_AT_CORNERS,
    "var": _DEVIATIONS_AT_CORNERS,
    "std": [*_DEVIATIONS_AT_CORNERS, call(_TALL, 1)],
    "norm": [
        *(
            call(values([[0.0, 0.0], [3.0, -0.0], [-2.0, 2.0]]), p, 1)
            for p in (2, 0, 1, 3, 0.5, -1, _INF, -_INF)
        ),
        call(_TALL, 2, 1),
        call(array()),
        call(array(), 3, 0, True),
        *(call(array(0, 3), p, 0) for p in (2, 0, 3)),
        call(array(3, 0), _INF, 0),
        call(array(2, 3), dim=()),
    ],
    "logsumexp": [
        call(values([[1e4, 1e4], [-1e4, 0.0], [-1e-3, -8.0], [0.0, -40.0]]), 1),
        call(values([[-_INF, -_INF], [-_INF, 1.0], [_INF, 1e4], [_INF, _INF], [_INF, -_INF]]), 1),
        call(values([[_NAN, 1.0], [2.0, 1.0]]), 1),
        call(array(), 0),
        call(array(), ()),
        call(array(2, 3), (), True),
        call(array(0, 3), 0),
        call(array(3, 0), [0], True),
    ],
}
