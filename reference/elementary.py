"""Arithmetic, matrix products, sums, and moving elements about."""

import torch

from .adapters import rule

add = rule(torch.add)
sub = rule(torch.sub)
mul = rule(torch.mul)
div = rule(torch.div)
neg = rule(torch.neg)
abs = rule(torch.abs)
pow = rule(torch.pow)
exp = rule(torch.exp)
log = rule(torch.log)
sqrt = rule(torch.sqrt)
matmul = rule(torch.matmul)
sum = rule(torch.sum)
mean = rule(torch.mean)
reshape = rule(torch.reshape)
transpose = rule(torch.transpose)
permute = rule(torch.permute)
broadcast_to = rule(torch.broadcast_to)
where = rule(torch.where)
getitem = rule(torch.Tensor.__getitem__)
