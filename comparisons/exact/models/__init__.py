"""Models, of what their layers are."""

from .dense import linear_regression, logistic_regression, loss_gradient, mlp

__all__ = ["linear_regression", "logistic_regression", "loss_gradient", "mlp"]
