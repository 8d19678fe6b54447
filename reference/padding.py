"""Padding."""

import torch
import torch.nn.functional as F

from .adapters import refusing, rule


def _reads_what_nobody_wrote(x, pad, mode="constant", value=None):
    """A circular width may be more than is left of an axis whose other end was taken away, for it
    is compared to what there was; and the gradient of a reflection is made, and not filled, where
    nothing is left."""
    widths = list(zip(reversed(x.shape), pad[::2], pad[1::2], strict=False))
    if mode == "circular":
        return any(max(a, b) > n + min(a, 0) + min(b, 0) for n, a, b in widths)
    return mode == "reflect" and any(n + a + b == 0 for n, a, b in widths)


pad = rule(refusing(F.pad, _reads_what_nobody_wrote, "expected fewer to be taken away"))
constant_pad_nd = rule(torch.constant_pad_nd)
