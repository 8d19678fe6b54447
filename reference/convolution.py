"""Convolutions, and the windows that they see."""

import torch.nn.functional as F

from .adapters import refusing, rule


def _of_channels(convolution):
    """The function; from no channels torch makes none, however many the weight has."""
    return refusing(convolution, lambda x, weight, *_, **__: not weight.numel(), "no channels")


conv1d = rule(_of_channels(F.conv1d))
conv2d = rule(_of_channels(F.conv2d))
conv3d = rule(_of_channels(F.conv3d))
conv_transpose1d = rule(F.conv_transpose1d)
conv_transpose2d = rule(F.conv_transpose2d)
conv_transpose3d = rule(F.conv_transpose3d)
unfold = rule(F.unfold, entry="nn.functional.unfold")
fold = rule(F.fold)
