"""Backward passes as functions of their own."""

import functools
import inspect

import torch
import torch.nn.functional as F

from .adapters import refusing, rule

aten = torch.ops.aten


def _named(operator):
    """An operator of ATen with the names of its arguments, which only its schema knows."""

    @functools.wraps(operator)
    def backward(*args, **kwargs):
        return operator(*args, **kwargs)

    backward.__signature__ = inspect.Signature(
        inspect.Parameter(
            argument.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else inspect._empty,
        )
        for argument in operator.default._schema.arguments
    )
    return backward


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
elu_backward = rule(aten.elu_backward)
log_sigmoid_backward = rule(_named(aten.log_sigmoid_backward), constant="buffer")
hardshrink_backward = rule(aten.hardshrink_backward)
softshrink_backward = rule(aten.softshrink_backward)
rrelu_with_noise_backward = rule(_named(aten.rrelu_with_noise_backward), constant="noise")
prelu_kernel_backward = rule(aten._prelu_kernel_backward)
glu_backward = rule(aten.glu_backward)
softmax_backward_data = rule(aten._softmax_backward_data)
log_softmax_backward_data = rule(aten._log_softmax_backward_data)
mse_loss_backward = rule(aten.mse_loss_backward)
huber_loss_backward = rule(aten.huber_loss_backward)
smooth_l1_loss_backward = rule(aten.smooth_l1_loss_backward)
soft_margin_loss_backward = rule(_named(aten.soft_margin_loss_backward), constant="target")
binary_cross_entropy_backward = rule(_named(aten.binary_cross_entropy_backward), constant="weight")
nll_loss_backward = rule(_named(aten.nll_loss_backward), constant="weight total_weight")
nll_loss2d_backward = rule(_named(aten.nll_loss2d_backward), constant="weight total_weight")
