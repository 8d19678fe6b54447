"""Backward passes of pools.

They raise TypeError, ValueError or MemoryError, as the package says.
"""

import math

import numpy as np

from .. import pooling
from ..arguments import floating
from ..pooling.maxima import collected, placed
from .promoted import or_false


def avg_pool2d_backward(
    grad_output,
    self,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    count_include_pad,
    divisor_override,
):
    """That of avg_pool2d, which is linear: so the slope in grad_output is avg_pool2d, and in self
    there is none. Raises ValueError for a grad_output of another shape than the means."""
    flags = or_false(ceil_mode), or_false(count_include_pad)
    settings = kernel_size, stride, padding, *flags, divisor_override
    return _of_linear(grad_output, self, 2, pooling.avg_pool2d, *settings)


def avg_pool3d_backward(
    grad_output,
    self,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    count_include_pad,
    divisor_override,
):
    """That of avg_pool3d. Raises ValueError as avg_pool2d_backward does."""
    flags = or_false(ceil_mode), or_false(count_include_pad)
    settings = kernel_size, stride, padding, *flags, divisor_override
    return _of_linear(grad_output, self, 3, pooling.avg_pool3d, *settings)


def adaptive_avg_pool2d_backward(grad_output, self):
    """That of adaptive_avg_pool2d to the size of grad_output; as that is linear, the slope in
    grad_output is it, and in self there is none. Raises ValueError for shapes that do not fit."""
    return _of_linear(grad_output, self, 2, pooling.adaptive_avg_pool2d)


def adaptive_avg_pool3d_backward(grad_output, self):
    """That of adaptive_avg_pool3d. Raises ValueError as adaptive_avg_pool2d_backward does."""
    return _of_linear(grad_output, self, 3, pooling.adaptive_avg_pool3d)


def max_pool3d_with_indices_backward(
    grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices
):
    """That of max_pool3d: each grad_output goes where its maximum was. So the slope in it is to be
    taken from there, and in self there is none. Raises TypeError unless the indices are int64,
    ValueError for one out of range and for shapes that are not those of the maxima."""
    settings = kernel_size, stride, padding, dilation, or_false(ceil_mode)
    return _of_taken(grad_output, self, indices, 3, pooling.max_pool3d, *settings)


def adaptive_max_pool2d_backward(grad_output, self, indices):
    """That of adaptive_max_pool2d to the size of grad_output, as max_pool3d_with_indices_backward
    has it. Raises TypeError and ValueError as that does."""
    return _of_taken(grad_output, self, indices, 2, pooling.adaptive_max_pool2d)


def adaptive_max_pool3d_backward(grad_output, self, indices):
    """That of adaptive_max_pool3d. Raises TypeError and ValueError as
    max_pool3d_with_indices_backward does."""
    return _of_taken(grad_output, self, indices, 3, pooling.adaptive_max_pool3d)


def _of_linear(grad_output, self, rank, rule, *settings):
    """The pullback of a linear rule, whose adjoint is the rule."""
    g, x, settings, back = _of_pool(grad_output, self, rank, rule, settings)

    def pullback(dy):
        return rule(dy, *settings)[0], np.zeros_like(x)

    return back(g), pullback


def _of_taken(grad_output, self, indices, rank, rule, *settings):
    """What is done with the gradient of elements of self that were taken by their indices."""
    g, x, *_ = _of_pool(grad_output, self, rank, rule, settings)
    places = placed(g, indices, x.shape[-rank:])

    def pullback(dy):
        return dy.reshape(-1).take(places), np.zeros_like(x)

    return collected(g, places, x.shape), pullback


def _of_pool(grad_output, self, rank, rule, settings):
    """Both arrays, the settings, which without any are the size of grad_output, and the pullback of
    the pooling. Raises ValueError for shapes that do not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    if x.ndim not in (rank + 1, rank + 2) or not math.prod(x.shape[1:]):
        raise ValueError(f"self: expected (C, …) or (N, C, …), not empty, got shape {x.shape}")
    if g.ndim != x.ndim:
        raise ValueError(f"grad_output: expected {x.ndim} axes, got shape {g.shape}")
    settings = settings or (g.shape[-rank:],)
    y, back = rule(x, *settings)
    if g.shape != y.shape:
        raise ValueError(f"grad_output: expected shape {y.shape}, got {g.shape}")
    return g, x, settings, back
