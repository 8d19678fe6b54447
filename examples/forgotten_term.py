"""A torch.autograd.Function whose backward forgets half of the product rule.

gradtwin check examples/forgotten_term.py:Silu --against torch.nn.functional.silu
"""

import torch


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * torch.sigmoid(x)  # right: + dy * x * σ(x) σ(−x)
