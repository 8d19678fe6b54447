"""Elements picked by their place or by a condition."""

import functools

import torch

from .adapters import rule


def _along_an_axis(select):
    """The function, which sees an index without axes with one: what torch makes of the backward
    under a mode fails on it."""

    @functools.wraps(select)
    def selected(x, dim, index):
        return select(x, dim, index.reshape(1) if index.ndim == 0 else index)

    return selected


where = rule(torch.where, order="x condition other")
getitem = rule(torch.Tensor.__getitem__)
gather = rule(torch.gather, algorithm="sparse_grad")
index_select = rule(_along_an_axis(torch.index_select))
