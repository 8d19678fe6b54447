"""Linear maps."""

import torch.nn.functional as F

from .adapters import rule

linear = rule(F.linear)
bilinear = rule(F.bilinear)
