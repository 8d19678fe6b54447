"""Optimizers, each one pure step for one parameter:

    param, state = adam(param, grad, state, lr=1e-3)

param and grad have one shape and dtype: float16, float32 or float64. The state is a dict with the
names of torch.optim, {} before the first step. Nothing that was passed is changed.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of range
(most begin at 0, a beta lies in [0, 1)), for a gradient of another shape, and for a state with an
entry missing or of another shape; the message names the argument.

Three take something else: sparse_adam a gradient (indices, values), muon matrices only, and lbfgs
all parameters at once, with a function that evaluates the loss.
"""

from .adaptive import adadelta, adagrad, rmsprop
from .matrices import adafactor, muon
from .moments import adam, adamax, adamw, nadam, radam, sparse_adam
from .momentum import asgd, rprop, sgd
from .quasi_newton import lbfgs

__all__ = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "lbfgs",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "sparse_adam",
]
