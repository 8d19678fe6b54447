from . import array, call, values

_INF, _NAN = float("inf"), float("nan")
_MASK = values([[True, False, False], [False, True, False]])

SAMPLES = {
    "masked_fill": [
        call(array(2, 3), _MASK, 2.5),
        call(array(2, 3), _MASK, array()),
        call(array(2, 3), values([True, False, True]), -1),
        call(array(3), _MASK, array()),
        call(array(2, 1, 3), _MASK, 0.0),
    ],
    "tril": [
        call(array(3, 3)),
        call(array(3, 4), 1),
        call(array(4, 3), diagonal=-1),
        call(array(2, 3, 3), 2),
    ],
    "triu": [
        call(array(3, 3)),
        call(array(3, 4), 1),
        call(array(4, 3), diagonal=-1),
        call(array(2, 3, 3), 2),
    ],
}

_SPECIAL = values([[_INF, -_INF, _NAN], [_NAN, -0.0, _INF], [1.0, 0.0, -_INF]])
CORNERS = {
    "masked_fill": [
        call(array(3), values([False, True, False]), -_INF),
        call(values([_INF, _NAN, -0.0]), values([True, True, False]), array()),
        call(array(3), values([False, False, False]), array()),
        call(array(3), values(True), _NAN),
        call(array(), values(True), array()),
        call(array(0, 3), values([True, False, True]), 1.0),
    ],
    "tril": [
        call(_SPECIAL),
        call(_SPECIAL, -1),
        call(array(3, 2), 7),
        call(array(3, 2), -7),
        call(array(2, 2), 2**63 - 1),
        call(array(2, 0)),
        call(array(0, 2, 2)),
    ],
    "triu": [
        call(_SPECIAL),
        call(_SPECIAL, 1),
        call(array(3, 2), 7),
        call(array(3, 2), -7),
        call(array(2, 2), -(2**63)),
        call(array(2, 0)),
        call(array(0, 2, 2)),
    ],
}
