"""Backward passes as functions of their own, to be differentiated again. The names are ATen's.

For those that work element by element, y is grad_output · f′(x), where x is short for self, and
both broadcast. The slope in grad_output is f′, as ever; the docstrings give the one in x, divided
by grad_output: f″. The reduction of a loss is 0, "none", 1, "mean", or 2, "sum".

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range, IndexError for a dim that is not there; the message names the argument.

`loss_gradient` composes them: what its pullback makes of a direction is the Hessian's product with
it. Torch has no such pass for hardsigmoid and the margin losses of classes, and differentiates
others through the functions that they are made of, like l1_loss.
"""

from .activations import (
    elu_backward,
    gelu_backward,
    glu_backward,
    hardshrink_backward,
    hardswish_backward,
    hardtanh_backward,
    leaky_relu_backward,
    log_sigmoid_backward,
    log_softmax_backward_data,
    mish_backward,
    prelu_kernel_backward,
    rrelu_with_noise_backward,
    sigmoid_backward,
    silu_backward,
    softmax_backward_data,
    softplus_backward,
    softshrink_backward,
    tanh_backward,
    threshold_backward,
)
from .attention import (
    scaled_dot_product_attention_backward,
)
from .convolution import (
    convolution_backward,
)
from .losses import (
    binary_cross_entropy_backward,
    huber_loss_backward,
    mse_loss_backward,
    nll_loss2d_backward,
    nll_loss_backward,
    smooth_l1_loss_backward,
    soft_margin_loss_backward,
)
from .normalization import (
    native_batch_norm_backward,
    native_group_norm_backward,
    native_layer_norm_backward,
)
from .pooling import (
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool3d_backward,
    adaptive_max_pool2d_backward,
    adaptive_max_pool3d_backward,
    avg_pool2d_backward,
    avg_pool3d_backward,
    max_pool3d_with_indices_backward,
)

__all__ = [
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d_backward",
    "avg_pool2d_backward",
    "avg_pool3d_backward",
    "binary_cross_entropy_backward",
    "convolution_backward",
    "elu_backward",
    "gelu_backward",
    "glu_backward",
    "hardshrink_backward",
    "hardswish_backward",
    "hardtanh_backward",
    "huber_loss_backward",
    "leaky_relu_backward",
    "log_sigmoid_backward",
    "log_softmax_backward_data",
    "max_pool3d_with_indices_backward",
    "mish_backward",
    "mse_loss_backward",
    "native_batch_norm_backward",
    "native_group_norm_backward",
    "native_layer_norm_backward",
    "nll_loss2d_backward",
    "nll_loss_backward",
    "prelu_kernel_backward",
    "rrelu_with_noise_backward",
    "scaled_dot_product_attention_backward",
    "sigmoid_backward",
    "silu_backward",
    "smooth_l1_loss_backward",
    "soft_margin_loss_backward",
    "softmax_backward_data",
    "softplus_backward",
    "softshrink_backward",
    "tanh_backward",
    "threshold_backward",
]
