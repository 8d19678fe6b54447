from . import activations
from .linear import linear


def linear_regression(parameters, x):
    return linear(x, parameters["weight"], parameters["bias"])


def logistic_regression(parameters, x):
    return activations.sigmoid(linear_regression(parameters, x))


def mlp(parameters, x, activation="relu"):
    names = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    for name in names:
        x = linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        if name != names[-1]:
            x = getattr(activations, activation)(x)
    return x
