"""Models as plain torch: forward only, so that the whole backward is autograd's."""

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
