"""Models, of what their layers are."""

from .dense import linear_regression, logistic_regression, loss_gradient, mlp
from .recurrent import char_gru, char_lstm, char_rnn
from .transformers import gpt, llama

__all__ = [
    "char_gru",
    "char_lstm",
    "char_rnn",
    "gpt",
    "linear_regression",
    "llama",
    "logistic_regression",
    "loss_gradient",
    "mlp",
]
