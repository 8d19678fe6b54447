"""Padding."""

import torch
import torch.nn.functional as F

from .adapters import refusing, rule


def _reads_what_nobody_wrote(x, pad, mode="constant", value=None):
    """A circular width may be more than is left of an axis whose other end was taken away; torch
    compares it to what there was."""
    if mode != "circular":
        return False
    widths = zip(reversed(x.shape), pad[::2], pad[1::2], strict=False)
    return any(max(a, b) > n + min(a, 0) + min(b, 0) for n, a, b in widths)


pad = rule(
    refusing(
        F.pad, _reads_what_nobody_wrote, "expected at most as much as is left, got more to wrap"
    )
)
constant_pad_nd = rule(torch.constant_pad_nd)
