from . import array, call, positive, values

_INF = float("inf")
_NAN = float("nan")
_ARRAYS = [
    call(array(3, 4), array(3, 4)),
    call(array(2, 1, 4), array(3, 1)),
    call(array(4), array()),
]
_EXTREME = [
    call(values([1.0, 0.0, -0.0, _INF, _INF, -_INF]), values([1.0, -0.0, 0.0, _INF, 1.0, 1.0])),
    call(values([_NAN, 1.0, 1.0, _NAN]), values([1.0, _NAN, 1.0, _NAN])),
    call(values([1.0, 2.0]), values([[1.0], [2.0], [3.0]])),
    call(array(0, 3), array(3)),
    call(array(), array()),
]
_POINTS = values([-2.0, 0.0, -0.0, 1.0, 0.5, 3.0, _INF, -_INF, _NAN])
_PAIRS = [
    call(array(3, 4), array(3, 4)),
    call(array(2, 1, 4), array(3, 1)),
    call(array(4), array()),
    call(array(3, 4), 2.5),
]

SAMPLES = {
    "add": [*_PAIRS, call(array(3), array(2, 3), alpha=-1.5)],
    "sub": [*_PAIRS, call(array(3), array(2, 3), alpha=0.5), call(2.5, array(3))],
    "mul": _PAIRS,
    "div": [*_PAIRS, call(2.5, array(3, 2))],
    "neg": [call(array(3, 4)), call(array())],
    "abs": [call(array(3, 4)), call(array())],
    "pow": [
        call(positive(3, 4), array(3, 4)),
        call(positive(2, 1), array(3)),
        *(call(array(3, 4), a) for a in (2, 3.0, -1)),
        call(positive(5), 0.3),
        call(1.7, array(3, 4)),
    ],
    "exp": [call(array(3, 4)), call(array())],
    "log": [call(positive(3, 4)), call(positive())],
    "sqrt": [call(positive(3, 4)), call(positive())],
    "rsqrt": [call(positive(3, 4)), call(positive())],
    "maximum": _ARRAYS,
    "minimum": _ARRAYS,
    "clamp": [
        call(array(3, 4), -0.5, 0.5),
        call(array(3, 4), min=-0.3),
        call(array(3, 4), max=0.3),
        call(array(3, 4), 1, 0),
        call(array(3, 4), array(3, 4), array(3, 4)),
        call(array(4), array(3, 1), array(2, 1, 1)),
        call(array(3, 4), array(4)),
        call(array(3, 4), None, array(3, 1)),
        call(array(3), values([-1, 0, 1]), array(3)),
    ],
    "clamp_min": [call(array(3, 4), -0.3), call(array(3, 4), array(4)), call(array(), 0)],
    "clamp_max": [call(array(3, 4), 0.3), call(array(3, 4), array(4)), call(array(), 0)],
}

CORNERS = {
    "add": [call(array(0, 3), array(3))],
    "sub": [call(array(0, 3), array(3))],
    "mul": [call(values([_INF, 0.0, -0.0]), values([2.0, 3.0, -1.0])), call(array(0), array())],
    "div": [
        call(values([1.0, -1.0, 0.0, 2.0]), values([0.0, -0.0, 0.0, _INF])),
        *(call(array(3, 4), array(4), rounding_mode=r) for r in ("trunc", "floor")),
    ],
    "abs": [call(values([0.0, -0.0, _INF]))],
    "pow": [
        call(values([0.0, 0.0, -2.0, -2.0, 0.0, -0.0]), values([0.0, 2.0, 2.0, 0.5, -1.0, -1.0])),
        call(values([0.0, -1.0, 3.0]), 0),
        call(values([0.0, 4.0]), 0.5),
        call(0.0, values([0.0, 1.0, 2.0])),
    ],
    "exp": [call(values([0.0, -1e3, 1e3, -_INF]))],
    "log": [call(values([1.0, 0.0, -1.0, _INF]))],
    "sqrt": [call(values([0.0, -0.0, 1.0, -1.0, _INF]))],
    "rsqrt": [
        call(values([0.0, -0.0, 1.0, -1.0, _INF, _NAN, 1e-30, 1e30])),
        call(array(0, 3)),
    ],
    "maximum": _EXTREME,
    "minimum": _EXTREME,
    "clamp": [
        *(call(_POINTS, *ends) for ends in ((0, 1), (1, 0), (_NAN, 1), (0, _NAN), (-_INF, _INF))),
        call(_POINTS, 0),
        call(_POINTS, None, 1),
        call(_POINTS, values([0.0] * 9), values([1.0] * 9)),
        call(_POINTS, values(1.0), values(0.0)),
        call(values([0.0, 1.0, 2.0, 1.0]), values([1.0] * 4), values([1.0, 1.0, 1.0, _NAN])),
        call(values([1.0, 2.0]), values([_NAN, 1.0]), values([3.0, 4.0])),
        call(array(0, 3), -1.0),
    ],
    "clamp_min": [call(_POINTS, 0.0), call(_POINTS, values(1.0)), call(array(0), array(1))],
    "clamp_max": [call(_POINTS, 0.0), call(_POINTS, values(1.0)), call(array(0), array(1))],
}
