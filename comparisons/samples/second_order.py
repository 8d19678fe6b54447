from . import array, call, uniform, values

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


def _at(numbers, *settings):
    return [call(array(len(numbers)), values(numbers), *settings)]


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
}

CORNERS = {
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
}
