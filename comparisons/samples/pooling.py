import math

import numpy as np

from . import array, call, uniform, values

_TIES = values([[[1.0, 1.0, 0.0, 2.0, 2.0, 2.0, -1.0]]])
_SIGNS = values([[[0.0, -0.0, 0.0, -0.0, -1.0, 0.0]]])
_NAN = math.nan
_INFINITE = values([[[-math.inf, -math.inf, 1.0, math.inf, math.inf, -math.inf]]])
_ABSENT = values([[[1.0, _NAN, 2.0, 5.0, _NAN, _NAN, 0.0, 3.0]]])
_TALL = values([[[1e25, 2e25, -3e25, 5e25, 1e-25, 2e-25]]])


def _maxima(rank, kernel):
    """Every setting of a maximum with that many axes."""
    space, back = (5, 4, 3)[:rank], (3, 4, 5)[-rank:]
    every = [
        call(array(2, 2, *space), 2),
        call(array(3, *space), kernel, 1),
        call(array(1, 2, *space), 3, 2, 1, return_indices=True),
        call(array(2, *back), 2, (2,) * rank, 0, 1, True),
        call(array(1, 2, *(n + 1 for n in back)), 2, 1, 1, 2),
    ]
    return every[:3] + every[4:] if rank == 3 else every


def _averages(rank, kernel):
    space, back = (5, 4, 3)[:rank], (3, 4, 5)[-rank:]
    return [
        call(array(2, 2, *space), 2),
        call(array(3, *space), kernel, 1),
        call(array(1, 2, *space), 3, 2, 1),
        call(array(1, 1, *(n + 1 for n in space)), 3, 2, 1, True),
        call(array(2, *back), 2, None, 1, True, False),
    ]


def _adapted(rank, out):
    space = (5, 6, 4)[:rank]
    return [
        call(array(2, 2, *space), 1),
        call(array(3, *space), out),
        call(array(1, 2, *space), space[0] + 1),
        call(array(1, 1, *(2 * n for n in out)), out),
    ]


def _norms(rank):
    space = (5, 4, 3)[:rank]
    return [
        call(array(2, 2, *space), 2, 2),
        call(uniform(2, *space), 2.5, 2, 1),
        call(array(1, 1, *(n + 1 for n in space)), 4.0, 3, 2, True),
        call(uniform(2, *space), -1.5, 2, 1),
        call(array(1, 2, *space), math.inf, 2),
        call(array(1, 2, *space), -math.inf, 2, 1),
    ]


SAMPLES = {
    "max_pool1d": _maxima(1, (3,)),
    "max_pool2d": _maxima(2, (3, 2)),
    "max_pool3d": _maxima(3, (3, 2, 1)),
    "avg_pool1d": _averages(1, (3,)),
    "avg_pool2d": [*_averages(2, (3, 2)), call(array(1, 2, 5, 4), 3, 1, 1, divisor_override=4)],
    "avg_pool3d": [*_averages(3, (3, 2, 1)), call(array(1, 5, 4, 3), 3, 1, 1, divisor_override=4)],
    "adaptive_avg_pool1d": _adapted(1, (3,)),
    "adaptive_avg_pool2d": [*_adapted(2, (3, 2)), call(array(1, 2, 3, 4), (None, 2))],
    "adaptive_avg_pool3d": [*_adapted(3, (3, 2, 2)), call(array(2, 3, 2, 4), (None, 1, 3))],
    "adaptive_max_pool1d": [*_adapted(1, (3,)), call(array(2, 3, 7), 3, True)],
    "adaptive_max_pool2d": [*_adapted(2, (3, 2)), call(array(1, 2, 3, 4), (None, 3), True)],
    "adaptive_max_pool3d": [*_adapted(3, (3, 2, 2)), call(array(2, 3, 2, 4), (None, 1, 3), True)],
    "lp_pool1d": _norms(1),
    "lp_pool2d": [*_norms(2), call(array(1, 2, 5, 4), 2, (3, 2), (1, 2))],
    "lp_pool3d": [*_norms(3), call(array(1, 5, 4, 3), 2, (3, 2, 1), (1, 2, 1))],
    "fractional_max_pool2d": [
        call(array(2, 3, 5, 6), 2, 3, _random_samples=uniform(2, 3, 2)),
        call(array(3, 5, 6), (2, 3), (3, 2), None, True, _random_samples=uniform(1, 3, 2)),
        call(array(1, 2, 6, 5), 2, None, (0.5, 0.6), _random_samples=uniform(1, 2, 2)),
        call(array(1, 2, 4, 4), 3, 1, _random_samples=uniform(1, 2, 2)),
    ],
    "fractional_max_pool3d": [
        call(array(2, 2, 5, 6, 4), 2, 2, _random_samples=uniform(2, 2, 3)),
        call(array(2, 5, 6, 4), (2, 3, 1), (2, 2, 1), None, True, _random_samples=uniform(1, 2, 3)),
        call(array(1, 2, 5, 4, 4), 2, None, 0.5, _random_samples=uniform(1, 2, 3)),
        call(array(1, 1, 4, 4, 5), 2, None, (0.25, 0.3, 0.5), _random_samples=uniform(1, 1, 3)),
    ],
    "max_unpool1d": [
        call(array(1, 2, 3), values([[[1, 2, 4], [0, 3, 5]]]), 2),
        call(array(1, 3), values([[0, 6, 4]]), (3,), (2,)),
        call(array(1, 2, 3), values([[[1, 2, 4], [0, 3, 4]]]), 3, 2, 1),
        call(array(1, 3), values([[0, 6, 4]]), 2, None, 0, (7,)),
        call(array(1, 1, 3), values([[[4, 0, 1]]]), 2, None, 0, (1, 1, 5)),
    ],
    "max_unpool2d": [
        call(array(1, 1, 2, 2), values([[[[1, 2], [12, 11]]]]), 2),
        call(array(1, 2, 2), values([[[0, 4], [16, 24]]]), (3, 3), (2, 2)),
        call(array(1, 1, 2, 2), values([[[[0, 2], [8, 5]]]]), 3, 2, 1),
        call(array(1, 2, 2), values([[[0, 4], [10, 14]]]), 2, None, 0, (3, 5)),
        call(array(1, 1, 2, 2), values([[[[0, 4], [10, 14]]]]), 2, None, 0, (1, 1, 5, 3)),
    ],
    "max_unpool3d": [
        call(array(1, 1, 2, 1, 2), values([[[[[1, 2]], [[12, 11]]]]]), 2),
        call(array(1, 1, 2, 1), values([[[[0], [14]]]]), (1, 2, 3), (2, 3, 1)),
        call(array(1, 1, 2, 1, 2), values([[[[[0, 2]], [[7, 5]]]]]), 3, 2, 1),
        call(array(1, 2, 1, 2), values([[[[0, 4]], [[10, 14]]]]), 2, None, 0, (3, 3, 5)),
    ],
}
CORNERS = {
    "max_pool1d": [
        *(call(x, 2, 1, return_indices=True) for x in (_TIES, _SIGNS, _INFINITE)),
        call(_ABSENT, 3, 1, 1, return_indices=True),
        call(_INFINITE, 3, 1, 1, return_indices=True),
        call(array(1, 40), 33, 1, 16),
        call(array(2, 4), 5, 3, 0, 1, True),
        call(array(0, 3, 4), 2),
        call(_TALL, 2),
    ],
    "max_pool2d": [
        call(values([[[1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 0.0]]]), 2, 1),
        call(values([[[1.0, _NAN, 2.0], [_NAN, 1.0, 2.0], [2.0, 2.0, 0.0]]]), 2, 1, 1),
        call(values([[[-math.inf] * 3] * 3]), 3, 2, 1, return_indices=True),
        call(array(1, 7, 8), 6, 1, 3, return_indices=True),
        call(array(0, 2, 4, 4), 3, 2, 1),
    ],
    "max_pool3d": [
        call(values([[[[1.0, 1.0], [2.0, 2.0]], [[2.0, 2.0], [_NAN, 2.0]]]]), (2, 2, 1), 1),
        call(values([[[[-math.inf, 1.0]]]]), 3, 2, 1, return_indices=True),
        call(array(1, 2, 3, 4), 2, 2, 0, 1, True),
        call(array(0, 2, 2, 2, 2), 2),
    ],
    "avg_pool1d": [
        call(values([[[math.inf, 1.0, 2.0, _NAN, 3.0]]]), 2, 1, 1),
        call(_TALL, 3, 1, 1),
        call(array(1, 40), 33, 1, 16),
        call(array(1, 300), 260, 20, 100, True),
        call(array(2, 4), 5, 3, 0, True),
        call(array(0, 3, 4), 2),
    ],
    "avg_pool2d": [
        call(values([[[math.inf, 1.0, 2.0], [2.0, 3.0, -math.inf]]]), 2, 1, 1),
        call(array(1, 3, 3), 2, 1, divisor_override=-3),
        call(array(0, 2, 4, 4), 3, 2, 1),
    ],
    "avg_pool3d": [
        call(array(1, 2, 2, 2), 1),
        call(array(1, 3, 3, 3), 2, 2, 1, True, False, divisor_override=5),
        call(array(0, 2, 2, 2, 2), 2),
    ],
    "adaptive_avg_pool1d": [call(array(2, 3, 300), 1), call(array(0, 3, 4), 3)],
    "adaptive_avg_pool2d": [
        call(values([[[math.inf, 1.0, 2.0, 3.0], [2.0, 1.0, 0.0, -math.inf]]]), 2),
        call(array(1, 3, 20, 30), 1),
        call(array(2, 1, 2, 3, 2), 1),
        call(array(2, 0, 3), (1, 1)),
        call(array(0, 2, 3, 3), 2),
    ],
    "adaptive_avg_pool3d": [call(array(0, 2, 2, 2, 2), 1), call(array(1, 2, 2, 2), 3)],
    "adaptive_max_pool1d": [
        *(call(x, 3, True) for x in (_TIES, _SIGNS, _INFINITE, _ABSENT)),
        call(_ABSENT, 1, True),
        call(array(0, 3, 4), 3),
    ],
    "adaptive_max_pool2d": [
        call(values([[[1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 0.0]]]), 2, True),
        call(values([[[1.0, _NAN, 2.0], [_NAN, 1.0, 2.0], [2.0, 2.0, 0.0]]]), 2),
    ],
    "adaptive_max_pool3d": [call(values([[[[2.0, 2.0]], [[2.0, 1.0]]]]), 1, True)],
    "lp_pool1d": [
        call(values([[[0.0, 0.0, 3.0, 4.0]]]), 2, 2, 1),
        call(values([[[1.0, -1.0, -2.0, 1.0]]]), 3, 2, 1),
        call(values([[[1.0, -1.0, -2.0, 1.0]]]), 0.5, 2, 1),
        call(values([[[0.0, 1.0, 2.0]]]), -1.0, 2, 1),
        call(
            values([[[0.5, 1.0, 0.0], [0.05, 0.0, 0.5]]]), -1.5, 2, 1
        ),  # 0 of what is finite at other places
        call(values([[[1.0, -1.0, 2.0]]]), 1, 2, 1),
        call(values([[[1.0, -1.0, -0.0, 0.0]]]), math.inf, 2, 1),
        call(_TALL, 2, 2),
        call(array(0, 3, 4), 2, 2),
    ],
    "lp_pool2d": [
        call(values([[[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]]), 2, 2, 1),
        call(values([[[0.0, -1.0, 1.0], [3.0, 2.0, 2.0]]]), 3.0, 2, 1),
        call(array(0, 2, 4, 4), 2, 2),
    ],
    "lp_pool3d": [
        call(values([[[[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]]]]), 2, (1, 2, 2), 1),
        call(array(0, 1, 2, 2, 2), 2, 2),
    ],
    "fractional_max_pool2d": [
        call(
            values([[[[1.0, 2.0, 2.0], [2.0, 1.0, _NAN], [2.0, 2.0, 0.0]]]]),
            2,
            2,
            None,
            True,
            _random_samples=uniform(1, 1, 2),
        ),
        call(array(1, 2, 6, 6), 2, 3, _random_samples=values([[[-0.7, 4.9], [0.0, 1.0]]])),
        call(array(1, 1, 3, 3), 2, 0, _random_samples=uniform(1, 1, 2)),
    ],
    "fractional_max_pool3d": [
        call(array(1, 1, 4, 4, 4), 1, 3, _random_samples=values([[[-0.7, 4.9, 0.999]]])),
        call(array(0, 1, 4, 4, 4), 2, 1, _random_samples=uniform(0, 1, 3)),
    ],
    "max_unpool1d": [
        call(array(1, 3), values([[1, 1, 4]]), 2),
        call(array(0, 2, 3), values(np.zeros((0, 2, 3), int)), 2),
    ],
    "max_unpool2d": [call(array(1, 2, 2), values([[[3, 3], [3, 3]]]), 2, 1)],
    "max_unpool3d": [call(array(1, 1, 2, 2), values([[[[3, 3], [0, 0]]]]), 2, 1)],
}
