"""A layer of one's own: RMS norm, whose backward pass is written by hand."""

import torch


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x * r, r, weight)
        return x * r * weight

    @staticmethod
    def backward(ctx, dy):
        x_hat, r, weight = ctx.saved_tensors
        dx_hat = dy * weight
        dx = r * (dx_hat - x_hat * (dx_hat * x_hat).mean(-1, keepdim=True))
        return dx, (dy * x_hat).flatten(0, -2).sum(0), None


class Layer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return RMSNorm.apply(x, self.weight, 1e-6)
