"""Models: rules of rules. Parameters are a dict with the names of torch's `state_dict`; so is their
gradient.

All of them take floating arrays of one dtype. They raise TypeError for anything else, ValueError
for entries, shapes and settings that do not fit; the message names the argument.
"""

from .dense import linear_regression, logistic_regression, loss_gradient, mlp
from .recurrent import char_gru, char_lstm, char_rnn
from .transformers import gpt, llama
from .vision import autoencoder, convnet, resnet, vit

__all__ = [
    "autoencoder",
    "char_gru",
    "char_lstm",
    "char_rnn",
    "convnet",
    "gpt",
    "linear_regression",
    "llama",
    "logistic_regression",
    "loss_gradient",
    "mlp",
    "resnet",
    "vit",
]
