"""Arithmetic and functions of single elements."""

import torch

from .adapters import rule

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
