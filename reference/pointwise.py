"""Arithmetic and functions of single elements."""

import functools

import torch

from .adapters import rule


def _spread(clamp):
    """The function of tensors that are broadcast before: its backward refuses two bounds of which
    one is larger than the other."""

    @functools.wraps(clamp)
    def clamped(input, min=None, max=None):
        bounds = [bound for bound in (min, max) if isinstance(bound, torch.Tensor)]
        if len(bounds) == 2:
            input, min, max = torch.broadcast_tensors(input, *bounds)
        return clamp(input, min, max)

    return clamped


add = rule(torch.add, reflected="radd")
sub = rule(torch.sub, also="subtract", reflected="rsub")
mul = rule(torch.mul, also="multiply", reflected="rmul")
div = rule(torch.div, also="divide true_divide truediv", reflected="rtruediv")
neg = rule(torch.neg, also="negative")
abs = rule(torch.abs)
pow = rule(torch.pow, reflected="rpow")
exp = rule(torch.exp)
log = rule(torch.log)
sqrt = rule(torch.sqrt)
rsqrt = rule(torch.rsqrt)
maximum = rule(torch.maximum)
minimum = rule(torch.minimum)
clamp = rule(_spread(torch.clamp), also="clip")
clamp_min = rule(torch.clamp_min)
clamp_max = rule(torch.clamp_max)
