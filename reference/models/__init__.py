"""Models as plain torch: forward only, so that the whole backward is autograd's."""

from .dense import linear_regression, logistic_regression, loss_gradient, mlp
from .vision import autoencoder, convnet, resnet, vit

__all__ = [
    "autoencoder",
    "convnet",
    "linear_regression",
    "logistic_regression",
    "loss_gradient",
    "mlp",
    "resnet",
    "vit",
]
