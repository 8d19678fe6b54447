"""What is right is said by `assert_gradient`, what has changed by `gradient_baseline`."""

import torch
from layer import Layer, RMSNorm


def reference(x, weight, eps):
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)


def test_the_backward_pass_is_right(assert_gradient):
    x, weight = torch.linspace(-1, 2, 12).reshape(3, 4), torch.linspace(1, 2, 4)
    assert_gradient(RMSNorm, reference, [x, weight], {"eps": 1e-6}, quick=True)


def test_the_gradients_are_those_of_last_time(gradient_baseline):
    layer, x = Layer(4), torch.linspace(-1, 2, 12, requires_grad=True)
    layer(x.reshape(3, 4)).square().sum().backward()
    gradient_baseline.check("gradients", {"x": x.grad, "weight": layer.weight.grad})
