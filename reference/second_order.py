"""Backward passes as functions of their own."""

import functools

import torch
import torch.nn.functional as F

from .adapters import refusing, rule

aten = torch.ops.aten


def _of(function):
    """The backward pass of a function, where ATen's own cannot be differentiated."""

    @functools.wraps(function)
    def backward(grad_output, self):
        grad_output, x = torch.broadcast_tensors(grad_output, self)
        x = x if x.requires_grad else x.clone().requires_grad_()
        return torch.autograd.grad(function(x), x, grad_output, create_graph=True)[0]

    del backward.__wrapped__  # whose signature is another one
    return backward


sigmoid_backward = rule(aten.sigmoid_backward)
tanh_backward = rule(aten.tanh_backward)
threshold_backward = rule(aten.threshold_backward)
hardtanh_backward = rule(aten.hardtanh_backward)
leaky_relu_backward = rule(aten.leaky_relu_backward)
gelu_backward = rule(
    refusing(
        aten.gelu_backward,
        lambda grad_output, self, **_: grad_output.shape != self.shape,
        "oneDNN, which torch uses in float32, does not broadcast",
    )
)
silu_backward = rule(_of(F.silu))
mish_backward = rule(_of(F.mish))
softplus_backward = rule(aten.softplus_backward)
hardswish_backward = rule(aten.hardswish_backward)
