"""Models as plain torch: forward only, so that the whole backward is autograd's."""

import torch.nn.functional as F

from . import activations
from .adapters import rule


@rule
def linear_regression(parameters, x):
    return F.linear(x, parameters["weight"], parameters["bias"])


@rule
def logistic_regression(parameters, x):
    return F.linear(x, parameters["weight"], parameters["bias"]).sigmoid()


@rule
def mlp(parameters, x, activation="relu"):
    first, *others = [
        name.removesuffix(".weight") for name in parameters if name.endswith(".weight")
    ]
    x = F.linear(x, parameters[f"{first}.weight"], parameters[f"{first}.bias"])
    for layer in others:
        x = getattr(activations, activation).__wrapped__(x)
        x = F.linear(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
    return x
