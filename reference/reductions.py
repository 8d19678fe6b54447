"""Sums, means, extremes and other functions of many elements."""

import functools

import torch

from .adapters import rule


def _with_default(extreme):
    """The function with dim=None for all axes, which torch has as a call of its own."""

    @functools.wraps(extreme)
    def of_all(input, dim=None, keepdim=False):
        if isinstance(dim, torch.Tensor):
            return extreme(input, dim)
        of_one = dim is not None or keepdim is not False
        return extreme(input, dim, keepdim) if of_one else extreme(input)

    return of_all


sum = rule(torch.sum)
mean = rule(torch.mean)
cumsum = rule(torch.cumsum)
max = rule(_with_default(torch.max))
min = rule(_with_default(torch.min))
amax = rule(torch.amax)
amin = rule(torch.amin)
var = rule(torch.var)
std = rule(torch.std)
norm = rule(torch.norm, without="out")
logsumexp = rule(torch.logsumexp)
