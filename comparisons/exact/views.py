import numpy as np


def reshape(x, shape):
    return x.reshape(shape)


def transpose(x, dim0, dim1):
    return x.swapaxes(dim0, dim1) if x.ndim else x


def permute(x, dims):
    return x.transpose(dims)


def broadcast_to(x, shape):
    given = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, [g if n == -1 else n for n, g in zip(shape, given, strict=True)])
