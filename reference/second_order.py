"""Backward passes as functions of their own."""

import functools
import inspect

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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

    del backward.__wrapped__  # it has another signature
    return backward


def _of_loss(operator, fits=lambda x, t, **_: x.shape == t.shape, **facts):
    """The backward pass of a loss. It trusts the loss to have checked and broadcast before, and
    computes something where that would have refused: another reduction, a width below 0, or a self
    and target that do not fit."""
    named = _named(operator)
    signature = inspect.signature(named)

    def fault(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        reduction, g, x, t = (a.pop(n) for n in ("reduction", "grad_output", "self", "target"))
        return (
            reduction not in (0, 1, 2)
            or g.shape != (() if reduction else t.shape)
            or any(a.get(name, 0) < 0 for name in ("delta", "beta"))
            or not fits(x, t, **a)
        )

    return rule(refusing(named, fault, "the loss itself refuses that before"), **facts)


def _of_pool(operator, pool, **facts):
    """The backward pass of a pooling. It trusts the pooling to have made grad_output and indices,
    and reads and writes out of bounds where their shape is another."""
    named = _named(operator)
    signature = inspect.signature(named)

    def fault(*args, **kwargs):
        grad_output, x, *settings = signature.bind(*args, **kwargs).args
        indices = settings.pop() if "indices" in signature.parameters else grad_output
        rank = 3 if "3d" in operator.__name__ else 2
        try:
            made = pool(x.detach(), *(settings or [grad_output.shape[-rank:]]))
        except (RuntimeError, AttributeError):
            return True
        shape = (made[0] if isinstance(made, tuple) else made).shape
        return not grad_output.shape == shape == indices.shape

    return rule(refusing(named, fault, "the pooling itself refuses that before"), **facts)


def _are_classes(x, target, weight, ignore_index, **_):
    """Whether the target holds classes, and the weight a number for each of them; otherwise ATen
    reads and writes out of bounds."""
    axis = min(x.ndim - 1, 1)
    if axis < 0 or target.shape != (*x.shape[:axis], *x.shape[axis + 1 :]):
        return False
    classes = x.shape[axis]
    fits = target.dtype == torch.int64 and (weight is None or weight.shape == (classes,))
    return fits and bool((((target < classes) & (target >= 0)) | (target == ignore_index)).all())


def _are_probabilities(x, target, **_):
    return x.shape == target.shape and all(bool(((a >= 0) & (a <= 1)).all()) for a in (x, target))


def _gradients(norm, grad_out, x, weight):
    """The backward pass of norm(x, weight, bias): dx, and with a weight dw and db."""
    sources = [x] if weight is None else [x, weight, torch.zeros_like(weight)]
    sources = [a if a.requires_grad else a.clone().requires_grad_() for a in sources]
    y = norm(*sources, *[None] * (3 - len(sources)))
    found = torch.autograd.grad(y, sources, grad_out, create_graph=True)
    return found if len(found) > 1 else found[0]


def _layer_norm(grad_out, input, normalized_shape, weight=None, eps=1e-5):
    def norm(x, w, b):
        return F.layer_norm(x, normalized_shape, w, b, eps)

    return _gradients(norm, grad_out, input, weight)


def _group_norm(grad_out, input, group, weight=None, eps=1e-5):
    def norm(x, w, b):
        return F.group_norm(x, group, w, b, eps)

    return _gradients(norm, grad_out, input, weight)


def _batch_norm(
    grad_out, input, weight=None, running_mean=None, running_var=None, train=False, eps=1e-5
):
    mean, var = (None if a is None else a.clone() for a in (running_mean, running_var))

    def norm(x, w, b):
        return F.batch_norm(x, mean, var, w, b, train, eps=eps)

    return _gradients(norm, grad_out, input, weight)


def _front_differs(grad_out, query, key, value, attn_mask=None, *_, **__):
    arrays = (grad_out, query, key, value)
    axes = {a.ndim for a in (*arrays, attn_mask) if a is not None}
    return len({a.shape[:-2] for a in arrays}) > 1 or min(axes) < 2


def _attention(grad_out, query, key, value, attn_mask=None, is_causal=False, scale=None):
    """Of the composition: that of the fused kernel cannot be differentiated."""
    arrays = [a if a.requires_grad else a.clone().requires_grad_() for a in (query, key, value)]
    with sdpa_kernel(SDPBackend.MATH):
        y = F.scaled_dot_product_attention(
            *arrays, attn_mask=attn_mask, is_causal=is_causal, scale=scale
        )
        return torch.autograd.grad(y, arrays, grad_out, create_graph=True)


def _asked_for(backward):
    """The function; what its output_mask does not ask for is left out, and one result alone is in
    no tuple."""

    @functools.wraps(backward)
    def some(*args, **kwargs):
        found = tuple(a for a in backward(*args, **kwargs) if a is not None)
        return found if len(found) > 1 else found[0]

    return some


def _no_gradient_of_a_convolution(
    grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, *others
):
    """Or none that is asked for. Of a grad_output with fewer images ATen reads out of bounds."""
    *others, output_mask = others
    settings = stride, padding, dilation, bool(transposed), *others
    y = torch.convolution(input, weight, None, *settings)
    return y.shape != grad_output.shape or not any(output_mask)


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
log_sigmoid_backward = rule(_of(F.logsigmoid))
hardshrink_backward = rule(aten.hardshrink_backward)
softshrink_backward = rule(aten.softshrink_backward)
rrelu_with_noise_backward = rule(
    refusing(
        _named(aten.rrelu_with_noise_backward),
        lambda grad_output, self, noise, *_: self.shape != noise.shape,
        "noise is drawn in the shape of self",
    ),
    constant="noise",
)
prelu_kernel_backward = rule(aten._prelu_kernel_backward)
glu_backward = rule(
    refusing(
        aten.glu_backward,
        lambda grad_output, self, dim: (
            2 * grad_output.numel() != self.numel() or 2 * grad_output.shape[dim] != self.shape[dim]
        ),
        "grad_output has half of self",
    )
)
softmax_backward_data = rule(aten._softmax_backward_data)
log_softmax_backward_data = rule(
    refusing(
        aten._log_softmax_backward_data,
        lambda grad_output, output, *_: grad_output.shape != output.shape,
        "output has the shape of grad_output",
    )
)
mse_loss_backward = _of_loss(aten.mse_loss_backward)
huber_loss_backward = _of_loss(aten.huber_loss_backward, forward=False)
smooth_l1_loss_backward = _of_loss(aten.smooth_l1_loss_backward)
soft_margin_loss_backward = _of_loss(
    aten.soft_margin_loss_backward, constant="target", forward=False
)
binary_cross_entropy_backward = _of_loss(
    aten.binary_cross_entropy_backward, _are_probabilities, constant="weight"
)
nll_loss_backward = _of_loss(aten.nll_loss_backward, _are_classes, constant="weight total_weight")
nll_loss2d_backward = _of_loss(
    aten.nll_loss2d_backward, _are_classes, constant="weight total_weight"
)
native_layer_norm_backward = rule(_layer_norm)
native_group_norm_backward = rule(_group_norm)
native_batch_norm_backward = rule(_batch_norm, constant="running_mean running_var")
scaled_dot_product_attention_backward = rule(
    refusing(_attention, _front_differs, "expected two axes or more, those in front alike"),
    constant="attn_mask",
)
convolution_backward = rule(
    refusing(
        _asked_for(_named(aten.convolution_backward)),
        _no_gradient_of_a_convolution,
        "expected grad_output in the shape of the convolution, and something to be asked for",
    )
)
avg_pool2d_backward = _of_pool(aten.avg_pool2d_backward, aten.avg_pool2d)
avg_pool3d_backward = _of_pool(aten.avg_pool3d_backward, aten.avg_pool3d)
adaptive_avg_pool2d_backward = _of_pool(
    aten._adaptive_avg_pool2d_backward, aten._adaptive_avg_pool2d
)
adaptive_avg_pool3d_backward = _of_pool(
    aten._adaptive_avg_pool3d_backward, aten._adaptive_avg_pool3d
)
max_pool3d_with_indices_backward = _of_pool(
    aten.max_pool3d_with_indices_backward, aten.max_pool3d_with_indices, unsafe="negative large"
)
adaptive_max_pool2d_backward = _of_pool(
    aten.adaptive_max_pool2d_backward, aten.adaptive_max_pool2d, unsafe="negative large"
)
adaptive_max_pool3d_backward = _of_pool(
    aten.adaptive_max_pool3d_backward, aten.adaptive_max_pool3d, unsafe="negative large"
)
