"""Recurrent networks, and their cells."""

import torch
import torch.nn.functional as F

from .adapters import drawing, leaves, refusing, rule, seeded

rnn_tanh_cell = rule(torch.rnn_tanh_cell, within="nn.RNNCell")
rnn_relu_cell = rule(torch.rnn_relu_cell, within="nn.RNNCell")
gru_cell = rule(torch.gru_cell, within="nn.GRUCell")
lstm_cell = rule(torch.lstm_cell, within="nn.LSTMCell")


def _in_one_signature(function):
    """The function, packed where it is given batch_sizes."""

    def either(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
               batch_first=False, *, batch_sizes=None):  # fmt: skip
        settings = params, has_biases, num_layers, dropout, train, bidirectional
        if batch_sizes is None:
            return function(x, hx, *settings, batch_first)
        return function(x, batch_sizes, hx, *settings)

    either.__name__ = function.__name__
    return either


def _is_unfit(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
              batch_first=False, *, batch_sizes=None):  # fmt: skip
    """Whether shapes are not those that torch.nn's modules see to."""
    if batch_sizes is None:
        N = x.shape[0 if batch_first else 1] if x.ndim == 3 else None
    else:
        sizes = batch_sizes.tolist() if batch_sizes.ndim == 1 else []
        falls = sizes == sorted(sizes, reverse=True) and sum(sizes) == len(x)
        N = sizes[0] if falls and sizes and sizes[-1] > 0 and x.ndim == 2 else None
    count = num_layers * (1 + bidirectional)
    return any(h.ndim != 3 or h.shape[:2] != (count, N) for h in leaves(hx))


def _mask(network, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
          batch_first=False, *, batch_sizes=None):  # fmt: skip
    """Nothing else is drawn, so that draws for one layer after another are those of the network."""
    if not train or not dropout or num_layers == 1:
        return None
    steps = x.transpose(0, 1) if batch_first and batch_sizes is None else x
    width = leaves(hx)[0].shape[-1] * (1 + bidirectional)
    ones = steps.new_ones(*steps.shape[:-1], width)

    @seeded
    def kept():
        return torch.stack([F.dropout(ones, dropout) != 0 for _ in range(num_layers - 1)])

    return kept()


def _network(function, module):
    looked_at = refusing(
        _in_one_signature(function),
        _is_unfit,
        "torch.nn looks at the shapes before, and without that it may crash",
    )
    packed = "x batch_sizes hx params has_biases num_layers dropout train bidirectional"
    return drawing(looked_at, "mask", _mask, within=module, overload=packed)


rnn_tanh = _network(torch.rnn_tanh, "nn.RNN")
rnn_relu = _network(torch.rnn_relu, "nn.RNN")
gru = _network(torch.gru, "nn.GRU")
lstm = _network(torch.lstm, "nn.LSTM")
