"""Models: rules of rules. Parameters are a dict with the names of torch's `state_dict`; so is their
gradient.

All of them take floating arrays of one dtype. They raise TypeError for anything else, ValueError
for entries, shapes and settings that do not fit; the message names the argument.
"""

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
