"""Sums, means, extremes and other functions of many elements."""

import functools

import torch

from .adapters import refusing, rule


def _with_default(extreme):
    """The function with dim=None for all axes, which torch has as a call of its own."""

    @functools.wraps(extreme)
    def of_all(input, dim=None, keepdim=False):
        if isinstance(dim, torch.Tensor):
            return extreme(input, dim)
        of_one = dim is not None or keepdim is not False
        return extreme(input, dim, keepdim) if of_one else extreme(input)

    return of_all


def _with_axes(moment):
    """The function with all axes by their numbers where it is given none: its backward then forgets
    signs where there is no degree of freedom, and a slope is infinite."""

    @functools.wraps(moment)
    def of_axes(input, dim=None, *args, **kwargs):
        if isinstance(dim, bool):
            dim, args = None, (dim, *args)
        axes = tuple(range(input.ndim)) or None if dim is None else dim
        return moment(input, axes, *args, **kwargs)

    return of_axes


def _is_deficient(input, p="fro", dim=None, *_, **__):
    """Whether the nuclear norm of a matrix is asked for that has not full rank."""
    if p != "nuc" or input.ndim < 2:
        return False
    matrices = input.movedim((0, 1) if dim is None else tuple(dim), (-2, -1))
    full = sorted(matrices.shape[-2:])[0]
    return bool((torch.linalg.matrix_rank(matrices) < full).any())


sum = rule(torch.sum)
mean = rule(torch.mean)
cumsum = rule(torch.cumsum)
max = rule(_with_default(torch.max))
min = rule(_with_default(torch.min))
amax = rule(torch.amax)
amin = rule(torch.amin)
var = rule(_with_axes(torch.var))
std = rule(_with_axes(torch.std))
norm = rule(
    refusing(torch.norm, _is_deficient, "there the slope of the nuclear norm is LAPACK's choice"),
    without="out",
)
logsumexp = rule(torch.logsumexp)
