"""Recurrent networks, and their cells."""

import torch
import torch.nn.functional as F

from .adapters import drawing, leaves, refusing, rule, seeded

rnn_tanh_cell = rule(torch.rnn_tanh_cell, within="nn.RNNCell")
rnn_relu_cell = rule(torch.rnn_relu_cell, within="nn.RNNCell")
gru_cell = rule(torch.gru_cell, within="nn.GRUCell")
lstm_cell = rule(torch.lstm_cell, within="nn.LSTMCell")


def _unfit(x, hx, *_, batch_first=False, batch_sizes=None, **__):
    """What torch.nn's modules look at before they call the function."""
    states = [h for h in leaves(hx) if isinstance(h, torch.Tensor)]
    if batch_sizes is None:
        N = x.shape[0 if batch_first else 1] if x.ndim == 3 else None
    else:
        N = int(batch_sizes[0]) if batch_sizes.ndim == 1 and len(batch_sizes) else None
        falls = N is not None and bool((batch_sizes.diff() <= 0).all())
        N = (
            N
            if x.ndim == 2 and falls and batch_sizes[-1] > 0 and batch_sizes.sum() == len(x)
            else None
        )
    return any(h.ndim != 3 or h.shape[:2] != (len(states[0]), N) for h in states)


def _by_keyword(function):
    """The function, packed where it is given batch_sizes: one signature for the two that it has."""

    def both(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
             batch_first=False, *, batch_sizes=None):  # fmt: skip
        settings = params, has_biases, num_layers, dropout, train, bidirectional
        if batch_sizes is None:
            return function(x, hx, *settings, batch_first)
        return function(x, batch_sizes, hx, *settings)

    both.__name__ = function.__name__
    why = "torch.nn looks at the shapes before, and without that torch crashes"
    return refusing(both, _unfit, why)


def _mask(network, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
          batch_first=False, *, batch_sizes=None):  # fmt: skip
    """The draws are made for one layer after another, and for nothing else."""
    if not train or not dropout or num_layers == 1:
        return None
    steps = x.transpose(0, 1) if batch_first and batch_sizes is None else x
    width = leaves(hx)[0].shape[-1] * (1 + bidirectional)
    ones = x.new_ones(*steps.shape[:-1], width)

    @seeded
    def kept():
        return torch.stack([F.dropout(ones, dropout) != 0 for _ in range(num_layers - 1)])

    return kept()


def _network(function, module):
    packed = "x batch_sizes hx params has_biases num_layers dropout train bidirectional"
    return drawing(_by_keyword(function), "mask", _mask, within=module, overload=packed)


rnn_tanh = _network(torch.rnn_tanh, "nn.RNN")
rnn_relu = _network(torch.rnn_relu, "nn.RNN")
gru = _network(torch.gru, "nn.GRU")
lstm = _network(torch.lstm, "nn.LSTM")
