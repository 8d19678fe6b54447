import numpy as np

from . import Array, array, call, values

_INF = float("inf")


def _int32(numbers):
    return Array(f"int32 {numbers}", lambda rng, dtype: np.asarray(numbers, np.int32))


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
    "gather": [
        call(array(3, 4), 0, values([[0, 2, 1, 1], [2, 2, 0, 1]])),
        call(array(3, 4), -1, values([[3, 0, 0], [1, 1, 1]])),
        call(array(3, 4), 1, _int32([[3], [0], [1]])),
        call(array(2, 3, 2), 1, values([[[0, 2]], [[1, 1]]]), sparse_grad=False),
        call(array(4), 0, values([3, 0, 3, 3, 1])),
    ],
    "index_select": [
        call(array(3, 4), 0, values([2, 0, 2, 2])),
        call(array(3, 4), -1, _int32([1, 3])),
        call(array(2, 3, 2), 1, values([2, 2])),
        call(array(4), 0, values([3, 0, 3, 3, 1])),
    ],
}

CORNERS = {
    "where": [call(values([True, False]), values([_INF, 1.0]), values([2.0, -_INF]))],
    "getitem": [call(array(3, 4), slice(0, 0)), call(array(), ()), call(array(2, 3), (None, 0))],
    "gather": [
        call(values([_INF, 1.0, -0.0, float("nan")]), 0, values([0, 2, 2, 0])),
        call(array(3, 4), 0, values(np.zeros((2, 0), int))),
        call(array(3, 4), 1, values(np.zeros(0, bool))),  # of no elements it may be anything
        call(array(), 0, values([0, 0])),
        call(array(), -1, values(0)),
        call(array(3), 0, values(2)),
        call(array(0, 4), 1, values(np.zeros((0, 2), int))),
    ],
    "index_select": [
        call(values([_INF, 1.0, -0.0, float("nan")]), 0, values([0, 2, 2, 0])),
        call(array(3, 4), 1, values(2)),
        call(array(3, 4), 0, values(np.zeros(0, int))),
        call(array(), 0, values([0])),
        call(array(0, 4), 1, values([1, 1])),
    ],
}
