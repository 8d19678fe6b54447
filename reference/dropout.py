"""Dropout."""

import torch
import torch.nn.functional as F

from .adapters import drawing


def _mask(dropout, x, *args, **kwargs):
    """What is kept depends on x, and what is dropped does not."""
    return dropout(torch.ones_like(x), *args, **kwargs) != dropout(
        torch.zeros_like(x), *args, **kwargs
    )


dropout = drawing(F.dropout, "mask", _mask)
dropout1d = drawing(F.dropout1d, "mask", _mask)
dropout2d = drawing(F.dropout2d, "mask", _mask)
dropout3d = drawing(F.dropout3d, "mask", _mask)
alpha_dropout = drawing(F.alpha_dropout, "mask", _mask)
feature_alpha_dropout = drawing(F.feature_alpha_dropout, "mask", _mask)
