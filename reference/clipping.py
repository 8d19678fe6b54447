"""Clipping of gradients."""

from torch.nn import utils

from .adapters import in_place

clip_grad_norm_ = in_place(utils.clip_grad_norm_)
clip_grad_value_ = in_place(utils.clip_grad_value_)
