from . import array, call, values

_INF = float("inf")

SAMPLES = {
    "where": [
        call(values([[True, False], [False, True]]), array(2, 2), array(2)),
        call(values([True, False, True]), array(2, 3), 1.5),
        call(values([[True], [False]]), -1.0, array(3)),
    ],
    "getitem": [
        call(array(3, 4), 1),
        call(array(5, 4), (slice(1, None, 2), -1)),
        call(array(5, 4), (Ellipsis, None, 2)),
        call(array(5, 4), values([0, 3, 0])),
        call(array(5, 4), (values([[0], [3]]), values([1, 1]))),
        call(array(3), values([True, False, True])),
    ],
}

CORNERS = {
    "where": [call(values([True, False]), values([_INF, 1.0]), values([2.0, -_INF]))],
    "getitem": [call(array(3, 4), slice(0, 0)), call(array(), ()), call(array(2, 3), (None, 0))],
}
