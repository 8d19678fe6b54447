"""The same elements in another shape, in parts, together with others, or in another order."""

import torch

from .adapters import rule

reshape = rule(torch.reshape, also="view", spread=True)
flatten = rule(torch.flatten, also="ravel")
squeeze = rule(torch.squeeze)
unsqueeze = rule(torch.unsqueeze)
transpose = rule(torch.transpose, also="swapaxes swapdims")
permute = rule(torch.permute, spread=True)
broadcast_to = rule(torch.broadcast_to)
expand = rule(torch.Tensor.expand, spread=True, without="implicit")
repeat = rule(torch.Tensor.repeat, spread=True)
narrow = rule(torch.narrow)
split = rule(torch.split)
chunk = rule(torch.chunk)
unbind = rule(torch.unbind)
cat = rule(torch.cat, also="concat concatenate", without="out")
stack = rule(torch.stack, without="out")
flip = rule(torch.flip, spread=True)
roll = rule(torch.roll)
