import mpmath
import numpy as np


def _all(n, setting):
    """A setting for each of n axes."""
    several = list(setting) if isinstance(setting, (tuple, list)) else [setting]
    return several * n if len(several) == 1 else several


def _zeros(*shape):
    return np.full(shape, mpmath.mpf(0))


def _inside(index, space):
    return all(0 <= i < n for i, n in zip(index, space, strict=True))


def _pairs(space, places, kernel, stride, before, dilation):
    """(place, element of the window there, element of space) wherever that is one."""
    for p in np.ndindex(*places):
        for k in np.ndindex(*kernel):
            i = tuple(
                a * s + b * d - z
                for a, b, s, d, z in zip(p, k, stride, dilation, before, strict=True)
            )
            if _inside(i, space):
                yield p, k, i


def _groups(weight, groups):
    """For each group, its rows of the weight, and the channels that those are weights of."""
    rows, columns = len(weight) // groups, weight.shape[1]
    for g in range(groups):
        yield slice(g * rows, (g + 1) * rows), slice(g * columns, (g + 1) * columns)


def _places(space, kernel, stride, zeros, dilation):
    axes = zip(space, kernel, stride, zeros, dilation, strict=True)
    return [(n + z - (k - 1) * d - 1) // s + 1 for n, k, s, z, d in axes]


def _conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    n = weight.ndim - 2
    if x.ndim == n + 1:
        return _conv(x[np.newaxis], weight, bias, stride, padding, dilation, groups)[0]
    space, kernel = x.shape[2:], weight.shape[2:]
    stride, dilation = _all(n, stride), _all(n, dilation)
    if padding == "same":
        zeros = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    else:
        zeros = [2 * p for p in _all(n, 0 if padding == "valid" else padding)]
    places = _places(space, kernel, stride, zeros, dilation)
    y = _zeros(len(x), len(weight), *places)
    for p, k, i in _pairs(space, places, kernel, stride, [z // 2 for z in zeros], dilation):
        for rows, columns in _groups(weight, groups):
            y[:, rows, *p] += x[:, columns, *i] @ weight[rows, :, *k].T
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in space))


def _conv_transpose(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    n = weight.ndim - 2
    if x.ndim == n + 1:
        settings = (stride, padding, output_padding, groups, dilation)
        return _conv_transpose(x[np.newaxis], weight, bias, *settings)[0]
    places, kernel = x.shape[2:], weight.shape[2:]
    settings = (_all(n, setting) for setting in (stride, padding, output_padding, dilation))
    stride, padding, more, dilation = settings
    axes = zip(places, kernel, stride, padding, more, dilation, strict=True)
    space = [(p - 1) * s + (k - 1) * d + 1 - 2 * z + o for p, k, s, z, o, d in axes]
    y = _zeros(len(x), weight.shape[1] * groups, *space)
    for p, k, i in _pairs(space, places, kernel, stride, padding, dilation):
        for rows, columns in _groups(weight, groups):
            y[:, columns, *i] += x[:, rows, *p] @ weight[rows, :, *k]
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in space))


conv1d = conv2d = conv3d = _conv
conv_transpose1d = conv_transpose2d = conv_transpose3d = _conv_transpose


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    if x.ndim == 3:
        return unfold(x[np.newaxis], kernel_size, dilation, padding, stride)[0]
    N, C, *space = x.shape
    settings = (_all(2, a) for a in (kernel_size, dilation, padding, stride))
    kernel, dilation, padding, stride = settings
    places = _places(space, kernel, stride, [2 * z for z in padding], dilation)
    y = _zeros(N, C, *kernel, *places)
    for p, k, i in _pairs(space, places, kernel, stride, padding, dilation):
        y[:, :, *k, *p] = x[:, :, *i]
    return y.reshape(N, C * kernel[0] * kernel[1], places[0] * places[1])


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    if x.ndim == 2:
        return fold(x[np.newaxis], output_size, kernel_size, dilation, padding, stride)[0]
    settings = (_all(2, a) for a in (output_size, kernel_size, dilation, padding, stride))
    space, kernel, dilation, padding, stride = settings
    places = _places(space, kernel, stride, [2 * z for z in padding], dilation)
    N, C = len(x), x.shape[1] // (kernel[0] * kernel[1])
    columns, y = x.reshape(N, C, *kernel, *places), _zeros(N, C, *space)
    for p, k, i in _pairs(space, places, kernel, stride, padding, dilation):
        y[:, :, *i] += columns[:, :, *k, *p]
    return y
