"""Convolutions, and the windows that they see."""

import torch.nn.functional as F

from .adapters import refusing, rule


def _of_channels(convolution):
    """The function; of an x without channels torch gives a y without any, whatever the weight."""
    return refusing(convolution, lambda x, *_, **__: not x.numel() and len(x), "x has no channels")


conv1d = rule(F.conv1d)
conv2d = rule(F.conv2d)
conv3d = rule(F.conv3d)
conv_transpose1d = rule(F.conv_transpose1d)
conv_transpose2d = rule(F.conv_transpose2d)
conv_transpose3d = rule(F.conv_transpose3d)
unfold = rule(F.unfold, entry="nn.functional.unfold")
fold = rule(F.fold)
