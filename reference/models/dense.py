"""Models of linear layers."""

import torch
import torch.nn.functional as F

from .. import activations, losses
from ..adapters import rule


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


@rule
def loss_gradient(parameters, x, target, model, loss, activation="relu"):
    settings = {"activation": activation} if model == "mlp" else {}
    parameters = {
        name: a if a.requires_grad else a.clone().requires_grad_() for name, a in parameters.items()
    }
    y = globals()[model].__wrapped__(parameters, x, **settings)
    value = getattr(losses, loss).__wrapped__(y, target)
    return torch.autograd.grad(value, list(parameters.values()), create_graph=True)
