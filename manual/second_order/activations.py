"""Backward passes of activations.

They raise TypeError, ValueError or IndexError, as the package says.
"""

import numpy as np

from .. import activations
from ..arguments import (
    Constant,
    alike,
    as_dtype,
    axis_of,
    flag,
    floated,
    floating,
    one_of,
    real,
    same_shape,
)
from ..arrays import sum_to, where
from ..normal import normal
from .promoted import fitting, or_false, promoted, slope_of


def sigmoid_backward(grad_output, output):
    """f′ = σ (1 − σ) of the output σ; in the output the slope is 1 − 2 σ."""
    g, y = fitting(grad_output=grad_output, output=output)
    return promoted(g, y * (1 - y), (y, 1 - 2 * y))


def tanh_backward(grad_output, output):
    """f′ = 1 − t² of the output t; in the output the slope is −2 t."""
    g, y = fitting(grad_output=grad_output, output=output)
    return promoted(g, 1 - y * y, (y, -2 * y))


def threshold_backward(grad_output, self, threshold):
    """That of relu and threshold: f′ = 1 above the threshold; f″ = 0."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(threshold=threshold)
    return promoted(g, x > threshold, (x, np.zeros_like(x)))


def hardtanh_backward(grad_output, self, min_val, max_val):
    """f′ = 1 between min_val and max_val; f″ = 0."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(min_val=min_val, max_val=max_val)
    return promoted(g, (x > min_val) & (x < max_val), (x, np.zeros_like(x)))


def leaky_relu_backward(grad_output, self, negative_slope, self_is_result):
    """f′ = 1 above 0 and negative_slope below, whether self is x or, with self_is_result, the
    result of a slope that is not negative; f″ = 0. Raises ValueError for a result of a negative
    slope."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(negative_slope=negative_slope)
    flag(self_is_result=or_false(self_is_result))
    if self_is_result and negative_slope < 0:
        raise ValueError(f"negative_slope: expected at least 0 of a result, got {negative_slope}")
    slope = where(x > 0, 1, negative_slope).astype(x.dtype)
    return promoted(g, slope, (x, np.zeros_like(x)))


def gelu_backward(grad_output, self, *, approximate="none"):
    """f″ = φ(x) (2 − x²); of the tanh approximation, with σ = σ(v) and the slopes v′, v″ of v, it
    is σ (1 − σ) (2 v′ + x ((1 − 2 σ) v′² + v″)). Both arrays have one shape."""
    g, x = fitting(grad_output=grad_output, self=self)
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
        bend = normal(near)[1] * (2 - square)
    return promoted(g, slope_of(activations.gelu, x, approximate), (x, bend))


def silu_backward(grad_output, self):
    """f″ = σ (1 − σ) (2 + x (1 − 2 σ)), where 1 − 2 σ(x) = −tanh(x / 2)."""
    g, x = fitting(grad_output=grad_output, self=self)
    near = np.clip(x, -1e3, 1e3)
    bend = activations.sigmoid(near)[1](2 - near * np.tanh(near / 2))
    return promoted(g, slope_of(activations.silu, x), (x, bend))


def mish_backward(grad_output, self):
    """With t = tanh(log(1 + eˣ)) and σ = σ(x), f″ = σ (1 − t²) (2 + x (1 − σ − 2 σ t))."""
    g, x = fitting(grad_output=grad_output, self=self)
    z = np.exp(-abs(x))
    n, two = where(x > 0, 1 + 2 * z, z * (z + 2)), where(x > 0, 2 * z * z, 2)
    t, rest = n / (n + two), two / (n + two)  # and 1 − t, which does not cancel
    near, s = np.clip(x, -1e3, 1e3), activations.sigmoid(x)[0]
    bend = s * rest * (1 + t) * (2 + near * (1 - s - 2 * s * t))
    return promoted(g, slope_of(activations.mish, x), (x, bend))


def softplus_backward(grad_output, self, beta, threshold):
    """f″ = β σ(β x) σ(−β x), and 0 beyond the threshold of β x."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(beta=beta, threshold=threshold)
    bend = activations.sigmoid(x * beta)[1](np.full_like(x, beta))
    bend = where(x * beta > threshold, 0, bend)
    return promoted(g, slope_of(activations.softplus, x, beta, threshold), (x, bend))


def hardswish_backward(grad_output, self):
    """f″ = 1/3 between −3 and 3, 0 outside."""
    g, x = fitting(grad_output=grad_output, self=self)
    bend = where((x > -3) & (x < 3), 1 / 3, 0).astype(x.dtype)
    return promoted(g, slope_of(activations.hardswish, x), (x, bend))


def elu_backward(grad_output, alpha, scale, input_scale, is_result, self_or_result):
    """That of elu, celu and selu: f′ = scale above 0 and α scale input_scale e^(input_scale x)
    below, where f″ = input_scale f′. With is_result it takes the result r, and f′ below is
    input_scale (r + α scale). Raises ValueError for a result of a negative α."""
    g, x = fitting(grad_output=grad_output, self_or_result=self_or_result)
    real(alpha=alpha, scale=scale, input_scale=input_scale)
    flag(is_result=or_false(is_result))
    if is_result and alpha < 0:
        raise ValueError(f"alpha: expected at least 0 of a result, got {alpha}")
    below = where(x > 0, 0, x)
    if is_result:
        slope = input_scale * (below + alpha * scale)
        bend = np.full_like(x, input_scale)
    else:
        slope = alpha * scale * input_scale * np.exp(input_scale * below)
        bend = input_scale * slope
    bend = where(x < 0, bend, 0)
    return promoted(g, where(x > 0, scale, slope).astype(x.dtype), (x, bend))


def log_sigmoid_backward(grad_output, self):
    """f″ = −σ(x) σ(−x). Torch's own also takes what its forward pass has saved."""
    g, x = fitting(grad_output=grad_output, self=self)
    slope, bend = activations.sigmoid(-x)
    return promoted(g, slope, (x, -bend(np.ones_like(x))))


def hardshrink_backward(grad_out, self, lambd):
    """f′ = 1 outside of ± λ; f″ = 0."""
    g, x = fitting(grad_out=grad_out, self=self)
    real(lambd=lambd)
    return promoted(g, abs(x) > lambd, (x, np.zeros_like(x)))


def softshrink_backward(grad_output, self, lambd):
    """f′ = 1 outside of ± λ; f″ = 0."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(lambd=lambd)
    return promoted(g, abs(x) > lambd, (x, np.zeros_like(x)))


def rrelu_with_noise_backward(
    grad_output, self, noise: Constant, lower, upper, training, self_is_result
):
    """f′ is the noise drawn in training, which is 1 above 0; without training, it is leaky_relu's
    with the mean of lower and upper. f″ = 0. The noise has the shape of x."""
    g, x = fitting(grad_output=grad_output, self=self)
    real(lower=lower, upper=upper)
    flag(training=or_false(training), self_is_result=or_false(self_is_result))
    if not training:
        return leaky_relu_backward(g, x, (lower + upper) / 2, self_is_result)
    x, noise = alike(self=x, noise=floated(x, noise))
    return promoted(g, noise, (x, np.zeros_like(x)))


def prelu_kernel_backward(grad_output, self, weight):
    """Both gradients of max(x, 0) + w min(x, 0), the second not yet summed: g and 0 above 0, w g
    and x g below. They are linear in each of g, w and x."""
    g, x, w = fitting(grad_output=grad_output, self=self, weight=weight)
    shape = np.broadcast_shapes(g.shape, x.shape, w.shape)
    positive = x > 0
    y = tuple(
        np.broadcast_to(part, shape)
        for part in (where(positive, g, w * g), where(positive, 0, x * g))
    )

    def pullback(dy):
        dx, dw = dy
        found = (
            (where(positive, dx, w * dx + x * dw), g),
            (where(x < 0, g * dw, 0), x),
            (where(positive, 0, g * dx), w),
        )
        return tuple(sum_to(np.broadcast_to(d, shape), a.shape) for d, a in found)

    return y, pullback


def glu_backward(grad_output, self, dim):
    """(g σ(b), g a σ′(b)) of the halves a and b of x along dim. With σ″ = σ′ (1 − 2 σ), where 1 − 2
    σ(b) = −tanh(b / 2), and dy = (p, q), the slopes are

        dg = p σ + q a σ′        da = q g σ′        db = p g σ′ + q g a σ″

    Raises ValueError unless x is twice as long as g along dim.
    """
    g, x = floating(grad_output=grad_output, self=self)
    axis = axis_of(x.ndim, dim=dim)
    twice = (*g.shape[:axis], 2 * g.shape[axis], *g.shape[axis + 1 :]) if axis < g.ndim else ()
    if x.shape != twice:
        raise ValueError(f"self: expected twice grad_output, {g.shape}, along {dim}, got {x.shape}")
    a, b = np.split(x, 2, axis)
    s, pull = activations.sigmoid(b)
    s1 = pull(np.ones_like(b))
    s2 = -s1 * np.tanh(b / 2)
    y = np.concatenate([g * s, g * a * s1], axis)

    def pullback(dy):
        p, q = np.split(dy, 2, axis)
        return p * s + q * a * s1, np.concatenate([q * g * s1, p * g * s1 + q * g * a * s2], axis)

    return y, pullback


def softmax_backward_data(grad_output, output, dim, input_dtype):
    """p (g − Σ p g) of the output p, whatever p adds up to; in p the slope is

        dp = dy (g − Σ p g) − g Σ p dy

    input_dtype is that of softmax's own input; torch looks at it on a GPU only.
    """
    g, p = alike(grad_output=grad_output, output=output)
    as_dtype(input_dtype, "input_dtype", optional=False)
    axis = axis_of(p.ndim, dim=dim)

    def total(a):
        return _total(a, axis)

    left = g - total(p * g)
    y = p * left

    def pullback(dy):
        along = total(p * dy)
        return p * (dy - along), dy * left - g * along

    return y, pullback


def log_softmax_backward_data(grad_output, output, dim, input_dtype):
    """g − e^ℓ Σ g of the output ℓ, whatever e^ℓ adds up to; in ℓ the slope is −dy e^ℓ Σ g."""
    g, log_p = alike(grad_output=grad_output, output=output)
    as_dtype(input_dtype, "input_dtype", optional=False)
    axis = axis_of(g.ndim, dim=dim)
    p, total = np.exp(log_p), _total(g, axis)
    y = g - p * total

    def pullback(dy):
        return dy - _total(p * dy, axis), -dy * p * total

    return y, pullback


def _total(a, axis):
    return np.broadcast_to(a.sum(axis=axis, keepdims=True) if a.ndim else a, a.shape)
