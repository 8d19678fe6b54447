"""Models as plain torch: forward only, so that the whole backward is autograd's."""

from .dense import linear_regression, logistic_regression, loss_gradient, mlp

__all__ = ["linear_regression", "logistic_regression", "loss_gradient", "mlp"]
