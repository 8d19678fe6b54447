import numpy as np


def where(condition, x, other):
    return np.where(condition, x, other)


def getitem(x, index):
    return x[index]
