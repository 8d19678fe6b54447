"""Losses."""

import torch.nn.functional as F

from .adapters import rule

mse_loss = rule(F.mse_loss)
binary_cross_entropy = rule(F.binary_cross_entropy, constant="weight")
binary_cross_entropy_with_logits = rule(
    F.binary_cross_entropy_with_logits, constant="weight pos_weight"
)
cross_entropy = rule(F.cross_entropy, constant="weight")
