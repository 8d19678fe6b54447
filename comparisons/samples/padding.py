from . import array, call, values

_INF, _NAN = float("inf"), float("nan")
_COPYING = ("reflect", "replicate", "circular")

SAMPLES = {
    "pad": [
        call(array(2, 3), (1, 2)),
        call(array(2, 3), (1, 2), value=1.5),
        call(array(2, 3), [1, 0, 0, 2], "constant", -0.5),
        call(array(2, 3, 2), (0, 1, -1, 2, 1, -1), value=2),
        *(call(array(2, 4), (2, 1), mode) for mode in _COPYING),
        *(call(array(1, 2, 3, 4), (1, 3, 2, 0), mode) for mode in _COPYING),
        *(call(array(1, 1, 2, 3, 2), (1, 0, 2, 1, 1, 1), mode) for mode in _COPYING),
        *(call(array(1, 2, 4), (-1, 1), mode) for mode in _COPYING),
    ],
    "constant_pad_nd": [call(array(2, 3), (1, 2)), call(array(2, 3), (-1, 1, 0, 2), 0.5)],
}

CORNERS = {
    "pad": [
        call(array(3), ()),
        call(array(), ()),
        call(array(2, 3), (-3, 0)),
        call(array(2, 3), (-1, -2)),
        call(array(0, 3), (1, 1, 1, 1), value=_INF),
        call(array(2, 0), (1, 1), value=_NAN),
        *(call(values([[0.0, -0.0, _INF, -_INF, _NAN]]), (2, 2), mode) for mode in _COPYING),
        *(call(array(2, 4), (0, 0), mode) for mode in _COPYING),
        *(call(array(0, 2, 4), (1, 2), mode) for mode in _COPYING),
        call(array(2, 0, 4), (1, 2), "circular"),
        call(array(1, 4), (3, 3), "reflect"),
        call(array(1, 4), (-3, 3), "reflect"),
        call(array(1, 4), (4, 4), "circular"),
        call(array(1, 4), (2, -1), "circular"),
        call(array(1, 1), (3, 50), "replicate"),
        call(array(2, 4, 4), (5, -4, -4, 3), "replicate"),
        call(array(2, 4, 3), (1, -4, 0, 1), "replicate"),
        call(array(2, 3), (-1, -2), "circular"),
    ],
    "constant_pad_nd": [call(array(0, 2), (1, 1)), call(array(), ()), call(array(4), (-2, -2))],
}
