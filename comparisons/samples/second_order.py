import math

import numpy as np

from . import array, call, classes, log_probabilities, signs, uniform, values

_PAIRS = [
    call(array(3, 4), array(3, 4)),
    call(array(3, 4), array(4)),
    call(array(7), array(7, scale=3)),
    call(array(2, 3), array(1, 3, scale=0.01)),
    call(array(), array()),
]
_RESULTS = [
    call(array(3, 4), uniform(3, 4)),
    call(array(3, 4), uniform(4)),
    call(array(2, 1), uniform(3)),
    call(array(7), uniform(7)),
    call(array(), uniform()),
]
_FAR = [
    call(array(6), values([0.0, -0.0, 30.0, -30.0, 100.0, -100.0])),
    call(array(0, 3), array(0, 3)),
]


def _with(*settings):
    return [call(*row.args, *settings) for row in _PAIRS]


def _attention(L, S, E, front=(), size=1.0, **settings):
    """The gradient of a result, and a query, keys and values of E features each."""
    g, q, k, v = ((*front, n, E) for n in (L, L, S, S))
    return call(array(*g), array(*q, scale=size), array(*k, scale=size), array(*v), **settings)


def _convolution(
    g, x, w, stride=1, padding=0, dilation=1, transposed=False, more=0, groups=1, mask=(1, 1, 1)
):
    """The shapes of a gradient of a result, of an input and of a weight."""
    n = len(w) - 2
    each = [a if isinstance(a, tuple) else (a,) * n for a in (stride, padding, dilation, more)]
    asked = tuple(map(bool, mask))
    channels = (w[1] * groups if transposed else w[0],)
    settings = (*each[:3], transposed, each[3], groups, asked)
    return call(array(*g), array(*x), array(*w), channels, *settings)


def _at(numbers, *settings):
    return [call(array(len(numbers)), values(numbers), *settings)]


def _losses(target, *settings):
    """Every reduction of a loss: element by element, and to one number."""
    return [
        call(array(4, 3), array(4, 3), target(4, 3), 0, *settings),
        call(array(), array(4, 3), target(4, 3), 1, *settings),
        call(array(), array(7), target(7), 2, *settings),
        call(array(), array(), target(), 1, *settings),
    ]


_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")
_SHARES = values([0.5, 1.5, 0.25])  # a weight for each class
_LATE = values([[[[4, 7]]]])
_FOUR = values([[[[4, 7], [8, 7]]]])
SAMPLES = {
    "sigmoid_backward": _RESULTS,
    "tanh_backward": _RESULTS,
    "threshold_backward": [*_with(0.0), call(array(5), array(5), 0.4)],
    "hardtanh_backward": [*_with(-1.0, 1.0), call(array(5), array(5), -0.2, 2)],
    "leaky_relu_backward": [*_with(0.01, False), call(array(5), array(5), 0.2, True)],
    "gelu_backward": [  # oneDNN, in float32, does not broadcast
        *(call(array(*shape), array(*shape)) for shape in ((3, 4), (7,), (2, 1, 3))),
        call(array(3, 4), array(3, 4), approximate="tanh"),
        call(array(9), array(9, scale=3), approximate="tanh"),
    ],
    "silu_backward": _PAIRS,
    "mish_backward": _PAIRS,
    "softplus_backward": [*_with(1.0, 20.0), call(array(5), array(5), 2.5, 1.0)],
    "hardswish_backward": _PAIRS,
    "elu_backward": [
        *(call(g, 1.0, 1, 1, False, x) for g, x in (row.args for row in _PAIRS)),
        call(array(5), 0.7, 1, 1 / 0.7, False, array(5)),
        call(array(5), 1.7, 1.05, 1, False, array(5, scale=3)),
        call(array(2, 3), 1.3, 2.0, 0.5, True, array(3)),
    ],
    "log_sigmoid_backward": _PAIRS,
    "hardshrink_backward": [*_with(0.5), call(array(5), array(5), 1.1)],
    "softshrink_backward": [*_with(0.5), call(array(5), array(5), 1.1)],
    "rrelu_with_noise_backward": [
        call(array(3, 4), array(3, 4), uniform(3, 4), 0.1, 0.4, True, False),
        call(array(3, 4), array(3, 4), uniform(3, 4), 0.1, 0.4, False, False),
        call(array(3, 4), array(3, 4), uniform(3, 4), 0.4, 0.4, True, True),
        call(array(), array(), uniform(), 0.1, 0.3, True, False),
    ],
    "prelu_kernel_backward": [
        call(array(3, 4), array(3, 4), array(3, 4)),
        call(array(2, 3, 4), array(2, 3, 4), array(3, 1)),
        call(array(7), array(7), array()),
        call(array(), array(), array()),
    ],
    "glu_backward": [
        call(array(3, 2), array(3, 4), 1),
        call(array(2, 3), array(4, 3), -2),
        call(array(2, 1, 4), array(2, 1, 8, scale=3), 2),
    ],
    "softmax_backward_data": [
        call(array(3, 4), uniform(3, 4), 1, _SINGLE),
        call(array(2, 3, 4), uniform(2, 3, 4), 0, _DOUBLE),
        call(array(5), uniform(5), -1, _DOUBLE),
        call(array(), uniform(), 0, _DOUBLE),
    ],
    "log_softmax_backward_data": [
        call(array(3, 4), log_probabilities(3, 4), 1, _SINGLE),
        call(array(2, 3, 4), array(2, 3, 4), 0, _DOUBLE),
        call(array(5), array(5), -1, _DOUBLE),
        call(array(), array(), 0, _DOUBLE),
    ],
    "mse_loss_backward": _losses(array),
    "huber_loss_backward": [*_losses(array, 1.0), call(array(), array(5), array(5), 1, 0.3)],
    "smooth_l1_loss_backward": [
        *_losses(array, 1.0),
        call(array(), array(5), array(5), 1, 0.3),
        call(array(), array(5), array(5), 2, 0.0),
    ],
    "soft_margin_loss_backward": _losses(signs),
    "binary_cross_entropy_backward": [
        call(array(2, 2), uniform(2, 2), uniform(2, 2), None, 0),
        call(array(), uniform(2), uniform(2)),
        call(array(), uniform(3), uniform(3), uniform(3), 2),
        call(array(), uniform(2, 2), uniform(2, 2), uniform(2), 1),
        call(array(), uniform(), uniform()),
    ],
    "nll_loss_backward": [  # the total weight is that of the targets
        call(array(4), array(4, 3), classes(4, below=3), None, 0, -100, values(4.0)),
        call(array(), array(4, 3), classes(4, below=3), None, 1, -100, values(4.0)),
        call(array(), array(4, 3), values([0, 2, 0, 1]), _SHARES, 1, -100, values(2.75)),
        call(array(), array(4, 3), values([0, 2, 0, 1]), _SHARES, 1, 0, values(1.75)),
        call(array(), array(4, 3), classes(4, below=3), uniform(3), 2, 1, values(1.0)),
        call(array(), array(3), classes(below=3), None, 1, -100, values(1.0)),
    ],
    "nll_loss2d_backward": [
        call(
            array(2, 1, 2), array(2, 4, 1, 2), classes(2, 1, 2, below=4), None, 0, -100, values(4.0)
        ),
        call(array(), array(1, 3, 2, 2), values([[[0, 2], [0, 1]]]), _SHARES, 1, 0, values(1.75)),
        call(array(), array(1, 3, 2, 2), values([[[0, 2], [0, 1]]]), _SHARES, 2, 1, values(1.0)),
        call(array(), array(1, 2, 1, 3), classes(1, 1, 3, below=2), None, 1, -100, values(3.0)),
        call(
            array(1, 1, 1),
            array(1, 2, 1, 1),
            classes(1, 1, 1, below=2),
            uniform(2),
            0,
            7,
            values(1.0),
        ),
    ],
    "native_layer_norm_backward": [
        call(array(3, 4), array(3, 4), (4,)),
        call(array(3, 4), array(3, 4), [4], array(4)),
        call(array(3, 4), array(3, 4), (4,), array(4), 0.5),
        call(array(2, 3, 2), array(2, 3, 2), (3, 2), array(3, 2)),
        call(array(5), array(5), (5,), eps=0.1),
    ],
    "native_group_norm_backward": [
        call(array(2, 4), array(2, 4), 2),
        call(array(2, 4, 3), array(2, 4, 3), 2, array(4)),
        call(array(2, 4, 3), array(2, 4, 3), 4, array(4), 0.5),
        call(array(1, 2, 2, 2), array(1, 2, 2, 2), 1, array(2)),
        call(array(2, 3, 2), array(2, 3, 2), 3, eps=0.1),
    ],
    "native_batch_norm_backward": [
        call(array(4, 3), array(4, 3), train=True),
        call(array(4, 3), array(4, 3), array(3), train=True, eps=0.1),
        call(array(2, 3, 2), array(2, 3, 2), array(3), train=True),
        call(array(2, 2, 1, 2), array(2, 2, 1, 2), array(2), array(2), uniform(2), True),
        call(array(4, 3), array(4, 3), None, array(3), uniform(3)),
        call(array(2, 3, 2), array(2, 3, 2), array(3), array(3), uniform(3), eps=0.5),
    ],
    "scaled_dot_product_attention_backward": [
        _attention(2, 3, 2),
        _attention(3, 3, 2, front=(2,), is_causal=True),
        _attention(2, 3, 2, scale=1.5),
        _attention(2, 3, 2, attn_mask=values([[True, False, True], [False, True, True]])),
        _attention(2, 3, 1, front=(2, 1), attn_mask=array(2, 3)),
    ],
    "convolution_backward": [
        _convolution((2, 3, 3), (2, 2, 5), (3, 2, 3)),
        _convolution((1, 2, 3), (1, 4, 5), (2, 2, 2), 2, 1, 2, groups=2),
        _convolution((1, 2, 2, 3), (1, 1, 3, 4), (2, 1, 2, 2), mask=(False, True, True)),
        _convolution((1, 1, 4, 2), (1, 1, 2, 3), (1, 1, 3, 2), padding=(2, 0), mask=(1, 0, 0)),
        _convolution((1, 1, 1, 1, 2), (1, 1, 2, 1, 2), (1, 1, 2, 1, 1)),
        _convolution((1, 2, 6), (1, 2, 3), (2, 1, 3), 2, 1, 1, True, 1, 2),
        _convolution((1, 1, 3, 5), (1, 2, 2, 2), (2, 1, 2, 2), (1, 3), transposed=True),
        _convolution((1, 1, 3), (1, 1, 2), (1, 1, 2), transposed=True, mask=(False, True, False)),
    ],
    "avg_pool2d_backward": [
        call(array(1, 2, 2, 1), array(1, 2, 4, 3), 2, [], 0, False, True, None),
        call(array(1, 2, 3), array(1, 3, 4), [3, 2], [2, 2], [1, 1], False, True, None),
        call(array(1, 2, 3), array(1, 3, 4), [3, 2], [2, 2], [1, 1], False, False, None),
        call(array(1, 3, 3), array(1, 4, 4), 2, 2, 1, True, True, 3),
    ],
    "avg_pool3d_backward": [
        call(array(1, 1, 2, 1, 2), array(1, 1, 4, 3, 4), 2, [], 0, False, True, None),
        call(array(1, 2, 2, 3), array(1, 3, 3, 4), [3, 3, 2], 2, 1, False, True, None),
        call(array(1, 2, 2, 3), array(1, 3, 3, 4), [3, 3, 2], 2, 1, False, False, None),
        call(array(1, 3, 2, 2), array(1, 4, 2, 2), 2, 2, 1, True, True, 3),
    ],
    "adaptive_avg_pool2d_backward": [
        call(array(1, 2, 2, 3), array(1, 2, 5, 4)),
        call(array(2, 1, 1), array(2, 3, 2)),
        call(array(1, 4, 2), array(1, 3, 4)),
    ],
    "adaptive_avg_pool3d_backward": [
        call(array(1, 1, 2, 3, 1), array(1, 1, 3, 4, 2)),
        call(array(2, 1, 1, 1), array(2, 2, 2, 1)),
        call(array(1, 3, 2, 1), array(1, 2, 4, 2)),
    ],
    "max_pool3d_with_indices_backward": [
        call(array(1, 1, 1, 2, 2), array(1, 1, 2, 3, 3), 2, 1, 0, 1, False, at)
        for at in (values([[[[[1, 2], [12, 14]]]]]), values([[[[[4, 4], [4, 17]]]]]))
    ],
    "adaptive_max_pool2d_backward": [
        call(array(1, 1, 2, 2), array(1, 1, 3, 4), values([[[[1, 2], [10, 11]]]])),
        call(array(1, 2, 2), array(1, 3, 3), values([[[4, 4], [4, 8]]])),
    ],
    "adaptive_max_pool3d_backward": [
        call(array(1, 1, 1, 2, 2), array(1, 1, 2, 3, 4), values([[[[[1, 2], [20, 23]]]]])),
        call(array(1, 2, 1, 2), array(1, 3, 1, 3), values([[[[4, 4]], [[4, 8]]]])),
    ],
}
CORNERS = {
    "avg_pool2d_backward": [
        call(values([[[math.inf, 1.0]]]), array(1, 2, 5), 2, 2, 0, False, True, None),
        call(array(0, 2, 2, 2), array(0, 2, 4, 4), 2, 2, 0, False, True, None),
    ],
    "avg_pool3d_backward": [
        call(values([[[[math.inf, 1.0]]]]), array(1, 1, 2, 5), [1, 2, 2], 2, 0, False, True, None),
        call(array(0, 2, 1, 1, 1), array(0, 2, 2, 2, 2), 2, 2, 0, False, True, None),
    ],
    "adaptive_avg_pool2d_backward": [
        call(values([[[math.inf, 1.0]]]), array(1, 2, 4)),
        call(array(0, 2, 2, 3), array(0, 2, 5, 4)),
    ],
    "adaptive_avg_pool3d_backward": [
        call(values([[[[math.inf, 1.0]]]]), array(1, 1, 2, 4)),
        call(array(0, 2, 1, 2, 1), array(0, 2, 2, 5, 4)),
    ],
    "max_pool3d_with_indices_backward": [
        call(values([[[[math.inf, 1.0]]]]), array(1, 1, 2, 4), [1, 2, 2], 2, 0, 1, False, _LATE),
        call(array(1, 1, 1, 2), array(1, 1, 2, 4), [1, 2, 2], [], 0, 1, True, _LATE),
        call(array(1, 1, 2, 2), array(1, 1, 3, 4), [1, 2, 2], [1, 1, 2], 0, 1, False, _FOUR),
    ],
    "adaptive_max_pool2d_backward": [
        call(values([[[math.inf, 1.0]]]), array(1, 2, 4), values([[[4, 7]]])),
        call(array(1, 1, 2), array(1, 2, 4), values([[[5, 5]]])),
        call(array(1, 2, 3), array(1, 1, 2), values([[[0, 0, 1], [0, 0, 1]]])),
    ],
    "adaptive_max_pool3d_backward": [
        call(values([[[[math.inf, 1.0]]]]), array(1, 1, 2, 4), _LATE),
        call(array(1, 1, 1, 2), array(1, 1, 2, 4), values([[[[5, 5]]]])),
        call(array(1, 1, 2, 3), array(1, 1, 1, 2), values([[[[0, 0, 1], [0, 0, 1]]]])),
    ],
    "sigmoid_backward": _at([0.0, 1.0, 0.5]),
    "tanh_backward": _at([0.0, 1.0, -1.0]),
    "threshold_backward": [*_at([0.0, -0.0, 1.0], 0.0), *_at([0.0, 0.5, 1.0], 0.5)],
    "hardtanh_backward": _at([-1.0, 1.0, 0.0], -1.0, 1.0),
    "leaky_relu_backward": _at([0.0, -0.0, 1.0, -1.0], 0.1, False),
    "gelu_backward": [*_FAR, call(*_FAR[0].args, approximate="tanh")],
    "silu_backward": _FAR,
    "mish_backward": _FAR,
    "softplus_backward": [call(*row.args, 1.0, 20.0) for row in _FAR],
    "hardswish_backward": [*_at([-3.0, 3.0, 0.0]), *_FAR],
    "elu_backward": [
        call(array(4), 1.0, 1, 1, result, values([0.0, -0.0, 1.0, -1.0]))
        for result in (True, False)
    ]
    + [call(row.args[0], 1.0, 1, 1, False, row.args[1]) for row in _FAR],
    "log_sigmoid_backward": _FAR,
    "hardshrink_backward": _at([0.5, -0.5, 0.0, 1.0], 0.5),
    "softshrink_backward": _at([0.5, -0.5, 0.0, 1.0], 0.5),
    "rrelu_with_noise_backward": [
        call(array(3), values([0.0, -0.0, 1.0]), uniform(3), 0.1, 0.4, False, False)
    ],
    "prelu_kernel_backward": [call(array(3), values([0.0, -0.0, 1.0]), array(3))],
    "glu_backward": [
        call(array(4), values([1.0, 0.0, -2.0, 3.0, 100.0, -100.0, 30.0, -30.0]), 0),
        call(array(0, 2), array(0, 4), 1),
    ],
    "softmax_backward_data": [
        call(array(3), values([0.0, 1.0, 0.0]), 0, _DOUBLE),
        call(array(0, 3), array(0, 3), 1, _DOUBLE),
    ],
    "log_softmax_backward_data": [
        call(array(3), values([-100.0, 0.0, -30.0]), 0, _DOUBLE),
        call(array(0, 3), array(0, 3), 1, _DOUBLE),
    ],
    "mse_loss_backward": [call(array(2), values([1.0, 0.0]), values([1.0, -0.0]), 0)],
    "huber_loss_backward": [
        call(array(3), values([1.0, -1.0, 0.0]), values([0.0, 0.0, 0.0]), 0, 1.0)
    ],
    "smooth_l1_loss_backward": [
        call(array(3), values([1.0, -1.0, 0.0]), values([0.0, 0.0, 0.0]), 0, beta)
        for beta in (1.0, 0.0)
    ],
    "soft_margin_loss_backward": [
        call(array(4), values([100.0, -100.0, 0.0, 30.0]), values([1.0, 1.0, -1.0, 1.0]), 0)
    ],
    "binary_cross_entropy_backward": [
        call(array(4), values([1.0, 0.0, 1.0, 0.0]), values([1.0, 0.0, 0.0, 1.0]), None, 0),
        call(array(2), values([1e-20, 1e-5]), values([1.0, 0.5]), None, 0),
    ],
    "nll_loss_backward": [
        call(array(), array(2, 3), values([1, 1]), None, 1, 1, values(0.0)),
        call(array(0), array(0, 3), classes(0, below=3), None, 0, -100, values(0.0)),
    ],
    "native_layer_norm_backward": [
        call(array(2, 3), values([[0.5, 0.5, 0.5], [1.0, 2.0, 4.0]]), (3,), array(3)),
        call(array(2, 4), values([[1e4, 10001.0, 10003.0, 1e4], [1.0, 2.0, 4.0, 0.0]]), (4,)),
        call(array(3, 1), array(3, 1), (1,), array(1)),
        call(array(0, 3), array(0, 3), (3,), array(3)),
    ],
    "native_group_norm_backward": [
        call(array(1, 2, 2), values([[[0.5, 0.5], [1.0, 2.0]]]), 2, array(2)),
        call(array(0, 2, 3), array(0, 2, 3), 1),
    ],
    "native_batch_norm_backward": [
        call(array(3, 2), values([[0.5, 1.0], [0.5, 2.0], [0.5, 4.0]]), array(2), train=True),
        call(array(2, 2), array(2, 2), train=True),
    ],
    "scaled_dot_product_attention_backward": [
        _attention(2, 3, 2, size=20.0),  # one key has won
        _attention(2, 2, 2, attn_mask=values([[False, False], [True, False]])),  # one sees nothing
        _attention(2, 2, 2, size=0.0),
        _attention(1, 1, 1),
    ],
    "convolution_backward": [
        _convolution((0, 3, 3), (0, 2, 5), (3, 2, 3)),
        _convolution((1, 1, 1), (1, 1, 1), (1, 1, 1)),
        _convolution((1, 1, 2), (1, 1, 6), (1, 1, 2), 3),  # some of the input is not seen
    ],
}
