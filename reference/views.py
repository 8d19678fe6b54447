"""The same elements in another shape."""

import torch

from .adapters import rule

reshape = rule(torch.reshape, also="view", spread=True)
transpose = rule(torch.transpose)
permute = rule(torch.permute, spread=True)
broadcast_to = rule(torch.broadcast_to)
