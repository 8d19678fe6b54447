"""Backward passes as functions of their own, to be differentiated again. The names are ATen's.

grad_output, and self, x for short, broadcast; y is grad_output · f′(x). The slope in grad_output is
f′, as ever; the docstrings give that in x, over grad_output: f″.
"""

import numpy as np

from . import activations
from .arrays import broadcast, flag, floating, one_of, real, same_shape, sum_to


def sigmoid_backward(grad_output, output):
    """f′ = σ (1 − σ) of the output σ; in the output the slope is 1 − 2 σ."""
    g, y = floating(grad_output=grad_output, output=output)
    return _promoted(g, y, "output", y * (1 - y), 1 - 2 * y)


def tanh_backward(grad_output, output):
    """f′ = 1 − t² of the output t; in the output the slope is −2 t."""
    g, y = floating(grad_output=grad_output, output=output)
    return _promoted(g, y, "output", 1 - y * y, -2 * y)


def threshold_backward(grad_output, self, threshold):
    """relu's and threshold's: f′ = 1 above the threshold; f″ = 0."""
    g, x = floating(grad_output=grad_output, self=self)
    real(threshold=threshold)
    return _promoted(g, x, "self", x > threshold, np.zeros_like(x))


def hardtanh_backward(grad_output, self, min_val, max_val):
    """f′ = 1 between min_val and max_val; f″ = 0."""
    g, x = floating(grad_output=grad_output, self=self)
    real(min_val=min_val, max_val=max_val)
    return _promoted(g, x, "self", (x > min_val) & (x < max_val), np.zeros_like(x))


def leaky_relu_backward(grad_output, self, negative_slope, self_is_result):
    """f′ = 1 above 0 and negative_slope below, for self as well as for the result of a positive
    slope; f″ = 0."""
    g, x = floating(grad_output=grad_output, self=self)
    real(negative_slope=negative_slope)
    flag(self_is_result=self_is_result or False)
    if self_is_result and negative_slope < 0:
        raise ValueError(f"negative_slope: expected at least 0 of a result, got {negative_slope}")
    slope = np.where(x > 0, 1, negative_slope).astype(x.dtype)
    return _promoted(g, x, "self", slope, np.zeros_like(x))


def gelu_backward(grad_output, self, *, approximate="none"):
    """f″ = φ(x) (2 − x²); of the tanh approximation, with σ = σ(v) and the slopes v′, v″ of v, it
    is σ (1 − σ) (2 v′ + x ((1 − 2 σ) v′² + v″))."""
    g, x = floating(grad_output=grad_output, self=self)
    same_shape(grad_output=g, self=x)  # oneDNN does not broadcast
    one_of(("none", "tanh"), approximate=approximate)
    near = np.clip(x, -40, 40)
    square = near * near
    if approximate == "tanh":
        c = np.sqrt(8 / np.pi).item()
        s, slope = activations.sigmoid(c * near * (1 + 0.044715 * square))
        first, second = c * (1 + 0.134145 * square), c * 0.26829 * near
        bend = slope(2 * first + near * ((1 - 2 * s) * first * first + second))
    else:
        bend = np.exp(-square / 2) / np.sqrt(2 * np.pi).item() * (2 - square)
    return _promoted(g, x, "self", _slope(activations.gelu, x, approximate), bend)


def silu_backward(grad_output, self):
    """f″ = σ (1 − σ) (2 + x (1 − 2 σ)), where 1 − 2 σ(x) = −tanh(x / 2)."""
    g, x = floating(grad_output=grad_output, self=self)
    near = np.clip(x, -1e3, 1e3)
    bend = activations.sigmoid(near)[1](2 - near * np.tanh(near / 2))
    return _promoted(g, x, "self", _slope(activations.silu, x), bend)


def mish_backward(grad_output, self):
    """With t = tanh(log(1 + eˣ)) and σ = σ(x), f″ = σ (1 − t²) (2 + x (1 − σ − 2 σ t))."""
    g, x = floating(grad_output=grad_output, self=self)
    z = np.exp(-abs(x))
    n, two = np.where(x > 0, 1 + 2 * z, z * (z + 2)), np.where(x > 0, 2 * z * z, 2)
    t, rest = n / (n + two), two / (n + two)  # and 1 − t, which does not cancel
    near, s = np.clip(x, -1e3, 1e3), activations.sigmoid(x)[0]
    bend = s * rest * (1 + t) * (2 + near * (1 - s - 2 * s * t))
    return _promoted(g, x, "self", _slope(activations.mish, x), bend)


def softplus_backward(grad_output, self, beta, threshold):
    """f″ = β σ(β x) σ(−β x), and 0 beyond the threshold of β x."""
    g, x = floating(grad_output=grad_output, self=self)
    real(beta=beta, threshold=threshold)
    bend = activations.sigmoid(x * beta)[1](np.full_like(x, beta))
    bend = np.where(x * beta > threshold, 0, bend)
    return _promoted(g, x, "self", _slope(activations.softplus, x, beta, threshold), bend)


def hardswish_backward(grad_output, self):
    """f″ = 1/3 between −3 and 3, 0 outside."""
    g, x = floating(grad_output=grad_output, self=self)
    bend = np.where((x > -3) & (x < 3), 1 / 3, 0).astype(x.dtype)
    return _promoted(g, x, "self", _slope(activations.hardswish, x), bend)


def _slope(rule, x, *settings):
    return rule(x, *settings)[1](np.ones_like(x))


def _promoted(g, x, name, slope, bend):
    """g f′ as a rule of g and x. What f′ is 0 for gives 0, whatever g is."""
    broadcast(**{"grad_output": g, name: x})
    y = np.where(slope == 0, 0, g * slope).astype(g.dtype)

    def pullback(dy):
        dg, dx = np.where(slope == 0, 0, dy * slope), np.where(bend == 0, 0, dy * g * bend)
        return sum_to(dg.astype(g.dtype), g.shape), sum_to(dx.astype(g.dtype), x.shape)

    return y, pullback
