from . import array, call, positive, values

_INF = float("inf")
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
}
