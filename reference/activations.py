"""Activation functions."""

import torch
import torch.nn.functional as F

from .adapters import drawing, rule

sigmoid = rule(torch.sigmoid)
tanh = rule(torch.tanh)
relu = rule(F.relu)
relu6 = rule(F.relu6)
hardtanh = rule(F.hardtanh)
leaky_relu = rule(F.leaky_relu)
prelu = rule(F.prelu)


def _slopes(rrelu, x, *args, **kwargs):
    """The slopes that are drawn, which is done only where x ≤ 0: minus what becomes of −1."""
    ones = torch.ones_like(x)
    below = x <= 0
    return torch.where(below, -rrelu(torch.where(below, -ones, ones), *args, **kwargs), ones)


rrelu = drawing(F.rrelu, "noise", _slopes)
threshold = rule(F.threshold)
hardshrink = rule(F.hardshrink)
softshrink = rule(F.softshrink)
tanhshrink = rule(F.tanhshrink)
elu = rule(F.elu)
selu = rule(F.selu)
celu = rule(F.celu)
gelu = rule(F.gelu, fused="gelu")
silu = rule(F.silu)
mish = rule(F.mish)
softplus = rule(F.softplus, cut="threshold")
logsigmoid = rule(F.logsigmoid)
softsign = rule(F.softsign)
hardsigmoid = rule(F.hardsigmoid)
hardswish = rule(F.hardswish)
glu = rule(F.glu)
softmax = rule(F.softmax, fused="_softmax")
log_softmax = rule(F.log_softmax, fused="_log_softmax")
softmin = rule(F.softmin)


def _gumbel(gumbel_softmax, logits, tau=1, hard=False, dim=-1):
    """The noise that is added to the logits, up to one number along dim."""
    return gumbel_softmax(torch.zeros_like(logits), dim=dim).log()


gumbel_softmax = drawing(F.gumbel_softmax, "noise", _gumbel)
