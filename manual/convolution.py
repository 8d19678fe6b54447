"""Convolutions, and the windows that they see.

All of them take arrays in float16, float32 or float64 of one dtype: x (N, C, *space) or (C, *space)
of one to three axes of space. A setting is one number for all axes of space, or one for each. They
raise TypeError for anything else, ValueError for shapes that do not fit and for a setting out of
range, MemoryError for a padding that does not fit into the machine; the message names the argument.

A convolution, the transposed one and the gradients of both are the three slopes of one form,
`correlation.Correlation`: Σ y w x. What one of them takes, another gives:

    convolution    y = ∂/∂y (w, x)        dx = ∂/∂x (dy, w)        dw = ∂/∂w (dy, x)
    transposed     y = ∂/∂x (x, w)        dx = ∂/∂y (w, dy)        dw = ∂/∂w (x, dy)
"""

import math

from .arguments import floating
from .correlation import channel_sums, correlation
from .windows import fitted, images, per_axis


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """y[o, p] = b[o] + Σ w[o, c, k] x[c, p · stride + k · dilation − padding], and 0 outside of x:
    (N, C, L) → (N, O, P), weight (O, C / groups, K) and bias (O). The padding may be "valid", which
    is 0, or "same", for which P = L. The slopes stand above.

    Raises ValueError for shapes that do not fit.

    Waibel et al., 1989, doi:10.1109/29.21701
    """
    return _convolution(1, x, weight, bias, (stride, padding, dilation, groups))


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """As conv1d, over two axes of space.

    LeCun et al., 1989, doi:10.1162/neco.1989.1.4.541
    """
    return _convolution(2, x, weight, bias, (stride, padding, dilation, groups))


def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """As conv1d, over three axes of space.

    Ji, Xu, Yang & Yu, 2013, doi:10.1109/TPAMI.2012.59
    """
    return _convolution(3, x, weight, bias, (stride, padding, dilation, groups))


def conv_transpose1d(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """The gradient of conv1d to its input, as a function of what was the gradient of its output:
    each x[c, p] adds w[c, o, k] x[c, p] to y[o, p · stride + k · dilation − padding], and b[o] is
    added everywhere. (N, C, P) → (N, O, L), weight (C, O / groups, K) and bias (O); at its end L is
    longer by the output_padding.

    Raises ValueError for shapes that do not fit.

    Zeiler, Krishnan, Taylor & Fergus, 2010, doi:10.1109/CVPR.2010.5539957
    """
    settings = (stride, padding, dilation, groups, True, output_padding)
    return _convolution(1, x, weight, bias, settings)


def conv_transpose2d(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """As conv_transpose1d, over two axes of space."""
    settings = (stride, padding, dilation, groups, True, output_padding)
    return _convolution(2, x, weight, bias, settings)


def conv_transpose3d(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """As conv_transpose1d, over three axes of space."""
    settings = (stride, padding, dilation, groups, True, output_padding)
    return _convolution(3, x, weight, bias, settings)


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """The windows that conv2d sees, each as a column: (N, C, H, W) → (N, C · K, P) with K elements
    of a window and P places. Its gradient is the fold of dy.

    Raises ValueError for a window that does not fit into x.
    """
    x = floating(x=x)
    given = images(2, x=x)
    kernel, stride, before, dilation = _settings(kernel_size, stride, padding, dilation)
    seen = fitted(given.shape[2:], kernel, stride, before, before, dilation)
    windows, shape = seen.gathered(seen.padded(_planes(given))), x.shape
    y = windows.reshape(*shape[:-3], shape[-3] * math.prod(kernel), math.prod(seen.places))

    def pullback(dy):
        return _summed(seen, dy.reshape(windows.shape)).reshape(shape)

    return y, pullback


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The sum of windows, each of which is a column, over the elements that they share: (N, C · K,
    P) → (N, C, H, W), the adjoint of unfold. So its gradient is the unfold of dy.

    Raises ValueError unless x has the columns of an unfold of that output_size.
    """
    x = floating(x=x)
    given = images(1, x=x)
    space = per_axis(2, 1, alone=False, output_size=output_size)
    kernel, stride, before, dilation = _settings(kernel_size, stride, padding, dilation)
    seen = fitted(space, kernel, stride, before, before, dilation)
    N, width, P = given.shape
    K = math.prod(kernel)
    if width % K or math.prod(seen.places) != P:
        raise ValueError(
            f"x: expected a multiple of {K} rows and {math.prod(seen.places)} columns, got shape "
            f"{x.shape}"
        )
    y = _summed(seen, given.reshape(N * width // K, K, 1, *seen.places))
    y, shape = y.reshape(*x.shape[:-2], width // K, *space), x.shape

    def pullback(dy):
        return seen.gathered(seen.padded(_planes(dy))).reshape(shape)

    return y, pullback


def _planes(x):
    """Every plane of x by itself."""
    return x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])


def _summed(windows, columns):
    """What windows have seen, added up over the whole of space."""
    buffer = windows.around(len(columns), 1, columns.dtype)
    buffer[(..., *map(slice, windows.extent))] = windows.scattered(columns)
    return buffer[windows.inside]


def _settings(kernel_size, stride, padding, dilation):
    return (
        per_axis(2, 1, alone=False, kernel_size=kernel_size),
        per_axis(2, 1, alone=False, stride=stride),
        per_axis(2, 0, alone=False, padding=padding),
        per_axis(2, 1, alone=False, dilation=dilation),
    )


def _convolution(n, x, weight, bias, settings):
    """A convolution of x over n axes, or a transposed one; the settings are those of
    `correlation`."""
    x, weight, bias = floating(x=x, weight=weight, bias=bias, optional="bias")
    given = images(n, x=x)
    form = correlation(given, weight, bias, *settings)
    value, to_x, to_w = form.roles()
    y = value(given, weight)
    if bias is not None:
        y += bias.reshape(-1, *(1 for _ in range(n)))

    def pullback(dy):
        d = dy.reshape(y.shape)
        found = to_x(d, weight).reshape(x.shape), to_w(given, d)
        return found if bias is None else (*found, channel_sums(d))

    return y.reshape(*x.shape[: -n - 1], *y.shape[1:]), pullback
