"""bias + GELU (tanh) in one kernel, forward and backward as a pair of functions: right.

gradtwin check examples/fused_kernel.py:forward,backward \
    --against examples/fused_kernel.py:twin --shape 6,4 --shape 4
"""

import math

import numpy as np
import torch

C = math.sqrt(2 / math.pi)


def forward(x, bias):
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"bias: expected shape {x.shape[-1:]}, got {bias.shape}")
    u = x + bias
    t = np.tanh(C * (u + 0.044715 * u**3))
    return 0.5 * u * (1 + t), (u, t)


def backward(saved, dy):
    u, t = saved
    slope = 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * C * (1 + 3 * 0.044715 * u**2)
    du = dy * slope
    return du, du.sum(axis=tuple(range(du.ndim - 1)))


def twin(x, bias):
    return torch.nn.functional.gelu(x + bias, approximate="tanh")
