from . import array, call, values

_INF, _NAN = float("inf"), float("nan")

SAMPLES = {
    "sort": [
        call(array(3, 4)),
        call(array(3, 4), 0),
        call(array(3, 4), -1, True),
        call(array(2, 3, 2), dim=1, stable=True),
        call(array(5), descending=True, stable=True),
    ],
    "topk": [
        call(array(3, 4), 2),
        call(array(4, 3), 2, 0),
        call(array(3, 4), 3, largest=False),
        call(array(2, 5, 2), 1, -2, True, False),
        call(array(5), 5),
        call(array(17, 2), 2, 0),
        call(array(2, 9), 1, largest=False),
    ],
}

_TIES = values([[1.0, 2.0, 1.0, 2.0, 1.0], [0.0, -0.0, 0.0, -0.0, 3.0]])
_NANS = values([1.0, _NAN, -_INF, _NAN, _INF, 0.0])
CORNERS = {
    "sort": [  # ties are settled where it is stable
        call(_TIES, stable=True),
        call(_TIES, descending=True, stable=True),
        call(_TIES, dim=0, stable=True),
        call(_NANS, stable=True),
        call(_NANS, descending=True, stable=True),
        call(values([2.0, _INF, -0.0, -_INF, _NAN]), stable=None),
        call(array()),
        call(array(), 0, True),
        call(array(3, 1)),
        call(array(0, 3), 0),
        call(array(3, 0)),
    ],
    "topk": [  # ties among those that are left out
        call(values([1.0, 3.0, 1.0, 2.0, 1.0]), 2),
        call(values([1.0, 0.0, 1.0, -1.0, 1.0]), 2, largest=False),
        call(values([1.0, _NAN, -_INF, _INF, 0.0]), 3),
        call(values([1.0, _NAN, -_INF, _INF, 0.0]), 4, largest=False),
        call(values([0.0, 1.0, *[-1.0] * 15, _NAN]), 2),
        call(values([0.0, 1.0, *[2.0] * 15, _NAN]), 2, largest=False),
        call(array(3, 4), 0),
        call(array(), 1),
        call(array(), 1, 0, False),
        call(array(0, 3), 2),
        call(array(2, 0), 0),
    ],
}
