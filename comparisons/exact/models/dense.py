import mpmath
import numpy as np

from .. import activations, losses
from ..linear import linear
from ..second_order import DIGITS, STEP


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


def loss_gradient(parameters, x, target, model, loss, activation="relu"):
    """Each slope as a difference, the parameter being moved and put back."""
    settings = {"activation": activation} if model == "mlp" else {}

    def measured():
        y = globals()[model](parameters, x, **settings)
        return np.sum(getattr(losses, loss)(y, target))

    gradient = {name: np.zeros(a.shape, object) for name, a in parameters.items()}
    with mpmath.workdps(DIGITS):
        for name, a in parameters.items():
            for index in np.ndindex(a.shape):
                still = a[index]
                a[index] = still + STEP
                ahead = measured()
                a[index] = still - STEP
                gradient[name][index] = (ahead - measured()) / (2 * STEP)
                a[index] = still
    return tuple(gradient.values())
