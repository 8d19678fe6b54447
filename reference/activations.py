"""Activation functions."""

import torch
import torch.nn.functional as F

from .adapters import rule

sigmoid = rule(torch.sigmoid)
tanh = rule(torch.tanh)
relu = rule(F.relu)
