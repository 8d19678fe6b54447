"""Resampling."""

import torch
import torch.nn.functional as F

from .adapters import refusing, rule


def _has_no_place(x, grid, *args, **kwargs):
    """Its backward then writes somewhere in memory."""
    return not torch.isfinite(grid).all()


def _keeps_its_shape(x, factor=1, **factors):
    """Where there are no elements, pixels stay where they are, and so does dy of channels."""
    return not x.numel() and max([factor, *factors.values()]) > 1


interpolate = rule(F.interpolate, lengths="scale_factor")
upsample = rule(F.upsample, lengths="scale_factor")
upsample_nearest = rule(F.upsample_nearest, lengths="scale_factor")
upsample_bilinear = rule(F.upsample_bilinear, lengths="scale_factor")
grid_sample = rule(
    refusing(F.grid_sample, _has_no_place, "grid: expected finite places"), forward=False
)
affine_grid = rule(F.affine_grid)
pixel_shuffle = rule(refusing(torch.pixel_shuffle, _keeps_its_shape, "x: expected elements"))
pixel_unshuffle = rule(refusing(torch.pixel_unshuffle, _keeps_its_shape, "x: expected elements"))
channel_shuffle = rule(torch.channel_shuffle, also="native_channel_shuffle")
