import numpy as np


def linear(x, weight, bias=None):
    y = x @ weight.T
    return y if bias is None else y + bias


def bilinear(input1, input2, weight, bias=None):
    pairs = input1[..., np.newaxis, :, np.newaxis] * weight * input2[..., np.newaxis, np.newaxis, :]
    y = pairs.sum(axis=(-2, -1))
    return y if bias is None else y + bias
