"""Elements picked by their place or by a condition."""

import torch

from .adapters import rule

where = rule(torch.where, order="x condition other")
getitem = rule(torch.Tensor.__getitem__)
gather = rule(torch.gather, algorithm="sparse_grad")
index_select = rule(torch.index_select)
