"""Each backward pass as what it is: grad_output times a difference of the function itself."""

import mpmath
import numpy as np

from . import activations, attention, convolution, losses, normalization, pooling
from .numbers import exp, still

# The step of the inner difference is smaller than that of the outer one, so that a kink stays one,
# and there are digits for both.
STEP = mpmath.mpf(10) ** -90
DIGITS = 400


def _derivative(function, x):
    with mpmath.workdps(DIGITS):
        return (function(x + STEP) - function(x - STEP)) / (2 * STEP)


def _slope(function):
    def backward(grad_output, self, *settings, **named):
        return grad_output * _derivative(lambda x: function(x, *settings, **named), self)

    return backward


def _loss(function, self, target, reduction, **settings):
    """The slope of a loss, element by element, over what it is divided by."""
    slope = _derivative(lambda x: function(x, target, reduction="none", **settings), self)
    return slope / _count(self, reduction)


def _count(self, reduction):
    return self.size if reduction == 1 else 1


gelu_backward = _slope(activations.gelu)
silu_backward = _slope(activations.silu)
mish_backward = _slope(activations.mish)
softplus_backward = _slope(activations.softplus)
hardswish_backward = _slope(activations.hardswish)
log_sigmoid_backward = _slope(activations.logsigmoid)


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


def elu_backward(grad_output, alpha, scale, input_scale, is_result, self_or_result):
    x, (alpha, scale, width) = self_or_result, map(mpmath.mpf, (alpha, scale, input_scale))
    below = x + alpha * scale if is_result else alpha * scale * exp(width * x)
    return grad_output * np.where(x > 0, scale, width * below)


def hardshrink_backward(grad_out, self, lambd):
    return grad_out * np.where(abs(still(self)) > lambd, 1, 0)


def softshrink_backward(grad_output, self, lambd):
    return hardshrink_backward(grad_output, self, lambd)


def rrelu_with_noise_backward(grad_output, self, noise, lower, upper, training, self_is_result):
    if training:
        return grad_output * noise + 0 * self
    return leaky_relu_backward(grad_output, self, (lower + upper) / 2, self_is_result)


def prelu_kernel_backward(grad_output, self, weight):
    dx = grad_output * np.where(still(self) > 0, 1, weight)
    dweight = grad_output * np.where(self > 0, 0, self)
    return dx + 0 * dweight, dweight + 0 * dx


def glu_backward(grad_output, self, dim):
    a, b = np.split(self, 2, dim)
    gate = _derivative(activations.sigmoid, b)
    return np.concatenate([grad_output * activations.sigmoid(b), grad_output * a * gate], dim)


def softmax_backward_data(grad_output, output, dim, input_dtype):
    return output * (grad_output - _total(output * grad_output, dim))


def log_softmax_backward_data(grad_output, output, dim, input_dtype):
    return grad_output - exp(output) * _total(grad_output, dim)


def _total(a, dim):
    a = np.asarray(a)
    return a.sum(axis=dim, keepdims=True) if a.ndim else a


def mse_loss_backward(grad_output, self, target, reduction):
    return grad_output * _loss(losses.mse_loss, self, target, reduction)


def huber_loss_backward(grad_output, self, target, reduction, delta):
    return grad_output * _loss(losses.huber_loss, self, target, reduction, delta=delta)


def smooth_l1_loss_backward(grad_output, self, target, reduction, beta):
    if beta == 0:  # torch's convention at 0
        slope = np.where(still(self - target) > 0, 1, -1) / _count(self, reduction)
        return grad_output * slope
    return grad_output * _loss(losses.smooth_l1_loss, self, target, reduction, beta=beta)


def soft_margin_loss_backward(grad_output, self, target, reduction):
    return grad_output * _loss(losses.soft_margin_loss, self, target, reduction)


def binary_cross_entropy_backward(grad_output, self, target, weight=None, reduction=1):
    return grad_output * _loss(losses.binary_cross_entropy, self, target, reduction, weight=weight)


def nll_loss_backward(grad_output, self, target, weight, reduction, ignore_index, total_weight):
    rows = np.moveaxis(np.zeros(self.shape, object), 1, -1) if self.ndim > 1 else 0 * self
    each = np.broadcast_to(grad_output, target.shape)
    for i in np.ndindex(target.shape):
        if target[i] != ignore_index:
            share = (1 if weight is None else weight[target[i]]) * each[i]
            rows[i][target[i]] = -share / (total_weight[()] if reduction == 1 else 1)
    return np.moveaxis(rows, -1, 1) if self.ndim > 1 else rows


nll_loss2d_backward = nll_loss_backward


def native_layer_norm_backward(grad_out, input, normalized_shape, weight=None, eps=1e-5):
    def norm(x, w=None, b=None):
        return normalization.layer_norm(x, normalized_shape, w, b, eps)

    return _gradients(norm, grad_out, input, weight)


def native_group_norm_backward(grad_out, input, group, weight=None, eps=1e-5):
    def norm(x, w=None, b=None):
        return normalization.group_norm(x, group, w, b, eps)

    return _gradients(norm, grad_out, input, weight)


def native_batch_norm_backward(
    grad_out, input, weight=None, running_mean=None, running_var=None, train=False, eps=1e-5
):
    mean, var = (None, None) if train else (running_mean, running_var)

    def norm(x, w=None, b=None):
        return normalization.batch_norm(x, mean, var, w, b, train, eps=eps)

    return _gradients(norm, grad_out, input, weight, input if train else 0 * input)


def scaled_dot_product_attention_backward(
    grad_out, query, key, value, attn_mask=None, is_causal=False, scale=None
):
    def weighed(q, k, v):
        y = attention.scaled_dot_product_attention(q, k, v, attn_mask, 0.0, is_causal, scale)
        return np.sum(grad_out * y)

    return (
        _slopes(lambda q: weighed(q, key, value), query),
        _slopes(lambda k: weighed(query, k, value), key),
        _slopes(lambda v: weighed(query, key, v), value),
    )


def convolution_backward(
    grad_output,
    input,
    weight,
    bias_sizes,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
    output_mask,
):
    # windows over the larger of the two, whose channels stand second in the weight
    seen, sums = (grad_output, input) if transposed else (input, grad_output)
    dseen, dsums, dw = (np.full_like(a, mpmath.mpf(0)) for a in (seen, sums, weight))
    space, places, kernel = seen.shape[2:], sums.shape[2:], weight.shape[2:]
    for p, k, i in convolution._pairs(space, places, kernel, stride, padding, dilation):
        for rows, columns in convolution._groups(weight, groups):
            w, a, b = weight[rows, :, *k], sums[:, rows, *p], seen[:, columns, *i]
            dseen[:, columns, *i] += a @ w
            dsums[:, rows, *p] += b @ w.T
            dw[rows, :, *k] += a.T @ b
    db = grad_output.sum(axis=(0, *range(2, grad_output.ndim)))
    every = dsums if transposed else dseen, dw, db
    found = tuple(a for a, asked in zip(every, output_mask, strict=True) if asked)
    return found if len(found) > 1 else found[0]


def avg_pool2d_backward(grad_output, self, *settings):
    return _slopes(lambda x: np.sum(grad_output * pooling.avg_pool2d(x, *settings)), 0 * self)


def avg_pool3d_backward(grad_output, self, *settings):
    return _slopes(lambda x: np.sum(grad_output * pooling.avg_pool3d(x, *settings)), 0 * self)


def adaptive_avg_pool2d_backward(grad_output, self):
    out = grad_output.shape[-2:]
    return _slopes(lambda x: np.sum(grad_output * pooling.adaptive_avg_pool2d(x, out)), 0 * self)


def adaptive_avg_pool3d_backward(grad_output, self):
    out = grad_output.shape[-3:]
    return _slopes(lambda x: np.sum(grad_output * pooling.adaptive_avg_pool3d(x, out)), 0 * self)


def max_pool3d_with_indices_backward(
    grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices
):
    return _collected(grad_output, self, indices, 3)


def adaptive_max_pool2d_backward(grad_output, self, indices):
    return _collected(grad_output, self, indices, 2)


def adaptive_max_pool3d_backward(grad_output, self, indices):
    return _collected(grad_output, self, indices, 3)


def _collected(grad_output, self, indices, rank):
    y = np.full(self.shape, mpmath.mpf(0))
    for i in np.ndindex(indices.shape):
        place = i[:-rank] + np.unravel_index(indices[i], self.shape[-rank:])
        y[place] = y[place] + grad_output[i]
    return y


def _gradients(norm, grad_out, x, weight, at=None):
    """The slopes of ⟨grad_out, norm(x, weight, bias)⟩ along each number; that along x at another
    place, if it is the same everywhere."""
    at = x if at is None else at
    if weight is None:
        return _slopes(lambda x: np.sum(grad_out * norm(x)), at)
    bias = 0 * weight
    return (
        _slopes(lambda x: np.sum(grad_out * norm(x, weight, bias)), at),
        _slopes(lambda w: np.sum(grad_out * norm(x, w, bias)), weight),
        _slopes(lambda b: np.sum(grad_out * norm(x, weight, b)), bias),
    )


def _slopes(function, x):
    found = np.full_like(x, mpmath.mpf(0))
    with mpmath.workdps(DIGITS):
        for i in np.ndindex(x.shape):
            step = np.full_like(x, mpmath.mpf(0))
            step[i] = STEP
            found[i] = (function(x + step) - function(x - step)) / (2 * STEP)
    return +found  # rounded to the digits outside
