"""Normalization."""

import functools
import inspect

import torch
import torch.nn.functional as F

from .adapters import rule


def _with_statistics(norm, updating):
    """The function, which where `updating` is set also returns the running statistics that it was
    given, as it has moved them; those of the caller stay."""
    signature = inspect.signature(norm)

    @functools.wraps(norm)
    def moved(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        for name in ("running_mean", "running_var"):
            a[name] = None if a[name] is None else a[name].clone()
        y = norm(**a)
        found = [a[n] for n in ("running_mean", "running_var") if a[n] is not None]
        return (y, *found) if a[updating] and found else y

    moved.alone = norm
    return moved


def _with_weight(norm):
    """The function, with a weight of ones where it is given a bias alone: its backward refuses
    that."""

    @functools.wraps(norm)
    def weighted(x, num_groups, weight=None, bias=None, eps=1e-5):
        if weight is None and bias is not None:
            weight = torch.ones_like(bias)
        return norm(x, num_groups, weight, bias, eps)

    return weighted


_STATISTICS = "running_mean running_var"
layer_norm = rule(F.layer_norm, fused="native_layer_norm")
rms_norm = rule(F.rms_norm)
batch_norm = rule(_with_statistics(F.batch_norm, "training"), constant=_STATISTICS)
instance_norm = rule(_with_statistics(F.instance_norm, "use_input_stats"), constant=_STATISTICS)
group_norm = rule(_with_weight(F.group_norm), fused="native_group_norm")
local_response_norm = rule(F.local_response_norm)
normalize = rule(F.normalize, without="out")
