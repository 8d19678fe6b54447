from . import array, call, values

_INF, _NAN = float("inf"), float("nan")

SAMPLES = {
    "reshape": [call(array(2, 6), (3, 4)), call(array(2, 6), (-1, 2, 2)), call(array(1), ())],
    "flatten": [
        call(array(2, 3, 2)),
        call(array(2, 3, 2), 1),
        call(array(2, 3, 2), end_dim=1),
        call(array(2, 1, 2, 2), -3, -2),
    ],
    "squeeze": [
        call(array(2, 1, 3, 1)),
        call(array(2, 1, 3, 1), 1),
        call(array(2, 1, 3, 1), -2),
        call(array(2, 1, 3, 1), (3, 1)),
        call(array(1, 1, 2), ()),
    ],
    "unsqueeze": [call(array(2, 3), 0), call(array(2, 3), 1), call(array(2, 3), -1)],
    "transpose": [call(array(2, 3, 4), 0, 2), call(array(2, 3), -1, -2)],
    "permute": [call(array(2, 3, 4), (2, 0, 1)), call(array(2, 3), (-1, 0))],
    "broadcast_to": [
        call(array(3, 1), (3, 4)),
        call(array(4), (2, 3, 4)),
        call(array(2, 1, 3), (5, -1, 4, -1)),
        call(array(), (2, 2)),
    ],
    "expand": [
        call(array(3, 1), (3, 4)),
        call(array(4), (2, 3, 4)),
        call(array(2, 1, 3), (3, -1, 4, -1)),
        call(array(1), 5),
    ],
    "repeat": [
        call(array(2, 3), (2, 3)),
        call(array(3), (2, 1, 3)),
        call(array(2, 3), (1, 2, 1)),
        call(array(3), 2),
    ],
    "narrow": [
        call(array(5, 3), 0, 1, 2),
        call(array(3, 5), -1, 2, 3),
        call(array(3, 5), 1, -4, 2),
        call(array(3, 5), 1, values(2), 2),
    ],
    "split": [
        call(array(5, 3), 2),
        call(array(3, 4), 2, 1),
        call(array(5, 3), (1, 3, 1)),
        call(array(2, 3), [2, 0, 1], -1),
    ],
    "chunk": [call(array(5, 3), 2), call(array(3, 4), 2, 1), call(array(5, 3), 4, dim=-2)],
    "unbind": [call(array(3, 2)), call(array(2, 3), 1), call(array(2, 1, 3), -1)],
    "cat": [
        call([array(2, 3), array(1, 3)]),
        call([array(2, 3), array(2, 1), array(2, 2)], 1),
        call((array(2, 1, 3), array(2, 2, 3)), -2),
    ],
    "stack": [
        call([array(2, 3), array(2, 3)]),
        call([array(2, 3), array(2, 3), array(2, 3)], 1),
        call((array(2, 3), array(2, 3)), -1),
    ],
    "flip": [call(array(3, 2), (0,)), call(array(3, 2), [-1]), call(array(2, 3, 2), (0, 2))],
    "roll": [
        call(array(3, 4), 1),
        call(array(3, 4), 1, 0),
        call(array(3, 4), -2, -1),
        call(array(3, 4), (1, 2), (0, 1)),
        call(array(5), (7,), [0]),
    ],
}

_SPECIAL = values([_INF, -_INF, _NAN, 0.0, -0.0, 1.0])
CORNERS = {
    "reshape": [call(array(0, 3), (3, 0)), call(array(), (1, 1))],
    "flatten": [
        call(array()),
        call(array(0, 3, 2), 1),
        call(array(2, 3), 1, 1),
        call(array(2, 0), 0, 0),
    ],
    "squeeze": [
        call(array()),
        call(array(), -1),
        call(array(1, 1)),
        call(array(2, 3), 0),
        call(array(0, 1), 1),
    ],
    "unsqueeze": [call(array(), 0), call(array(), -1), call(array(0, 2), 1)],
    "transpose": [call(array(), 0, -1)],
    "permute": [call(array(), ())],
    "broadcast_to": [call(array(1, 3), (0, 3))],
    "expand": [
        call(array(1, 3), (0, 3)),
        call(array(), ()),
        call(array(), (1, 2)),
        call(array(0, 1), (-1, 4)),
        call(values([_INF, -_INF, -0.0]), (2, 3)),
    ],
    "repeat": [
        call(array(), ()),
        call(array(), 3),
        call(array(2, 3), (2, 0)),
        call(array(0, 3), (2, 1)),
        call(_SPECIAL, (2,)),
    ],
    "narrow": [
        call(array(3, 4), 0, 3, 0),
        call(array(3, 4), 1, -4, 4),
        call(array(0, 2), 0, 0, 0),
        call(_SPECIAL, 0, 1, 3),
    ],
    "split": [
        call(array(3, 2), 7),
        call(array(0, 3), 0),
        call(array(0, 3), 2),
        call(_SPECIAL, (0, 6)),
    ],
    "chunk": [call(array(3, 2), 7), call(array(0, 2), 3), call(array(3, 0), 3), call(array(4), 1)],
    "unbind": [call(array(1, 3)), call(array(2, 0)), call(_SPECIAL)],
    "cat": [
        call([array(2, 3)]),
        call([array(0), array(2, 3), array(0, 3)]),
        call([array(0), array(0)]),
        call([array(2, 0), array(2, 3)], 1),
        call([_SPECIAL, array(2)]),
    ],
    "stack": [
        call([array(3)], 1),
        call([array(), array()]),
        call([array(0), array(0)], -1),
        call([_SPECIAL, _SPECIAL]),
    ],
    "flip": [
        call(array(3, 2), ()),
        call(array(), (0,)),
        call(array(0, 2), (0, 1)),
        call(_SPECIAL, (0,)),
    ],
    "roll": [
        call(array(), 1),
        call(array(0, 2), 1, 0),
        call(array(3, 2), (1, 1), (0, 0)),
        call(array(3, 2), 10_000, 1),
        call(_SPECIAL, -1),
    ],
}
