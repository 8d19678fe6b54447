"""Each backward pass as what it is: grad_output times a difference of the function itself."""

import mpmath
import numpy as np

from . import activations
from .numbers import still

STEP = mpmath.mpf(10) ** -40  # of the inner difference, whose error is its square


def _slope(function):
    def backward(grad_output, self, *settings, **named):
        ahead, behind = (function(self + s, *settings, **named) for s in (STEP, -STEP))
        return grad_output * (ahead - behind) / (2 * STEP)

    return backward


gelu_backward = _slope(activations.gelu)
silu_backward = _slope(activations.silu)
mish_backward = _slope(activations.mish)
softplus_backward = _slope(activations.softplus)
hardswish_backward = _slope(activations.hardswish)


def sigmoid_backward(grad_output, output):
    return grad_output * output * (1 - output)


def tanh_backward(grad_output, output):
    return grad_output * (1 - output * output)


def threshold_backward(grad_output, self, threshold):
    return grad_output * np.where(still(self) > threshold, 1, 0)


def hardtanh_backward(grad_output, self, min_val, max_val):
    x = still(self)
    return grad_output * np.where((x > min_val) & (x < max_val), 1, 0)


def leaky_relu_backward(grad_output, self, negative_slope, self_is_result):
    return grad_output * np.where(still(self) > 0, 1, mpmath.mpf(negative_slope))
