"""Elements in order. Of equal ones torch does not say which comes first, but in a stable sort."""

import functools

import torch

from .adapters import refusing, rule


@functools.wraps(torch.sort)
def _sort(x, dim=-1, descending=False, *, stable=False):
    """torch.sort, which takes an axis by its name alone beside `stable`."""
    return torch.sort(x, dim=dim, descending=descending, stable=stable)


def _equal_neighbours(x, dim, descending):
    """Whether each two that are next to each other in order are equal, along the last axis."""
    values = torch.sort(torch.atleast_1d(x), dim, descending).values.movedim(dim, -1)
    a, b = values[..., :-1], values[..., 1:]
    return (a == b) | (a.isnan() & b.isnan())


def _sort_is_open(x, dim=-1, descending=False, *, stable=False):
    return not stable and bool(_equal_neighbours(x.detach(), dim, descending).any())


def _topk_is_open(x, k, dim=-1, largest=True, sorted=True):
    if not sorted and k > 1:
        return True
    return bool(_equal_neighbours(x.detach(), dim, largest)[..., :k].any())


_OPEN = "torch leaves open which of equal elements it takes, and the order of what is not sorted"
sort = rule(refusing(_sort, _sort_is_open, _OPEN), algorithm="stable", batched=False)
topk = rule(refusing(torch.topk, _topk_is_open, _OPEN), algorithm="sorted", batched=False)
