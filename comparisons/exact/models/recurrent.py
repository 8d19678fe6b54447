import numpy as np

from .. import recurrent
from ..linear import linear


def _char(network, prefix, parameters, tokens):
    x = parameters["embedding.weight"][tokens]
    params = [a for name, a in parameters.items() if name.startswith(f"{prefix}.")]
    layers = sum(".weight_hh_l" in name for name in parameters)
    H = parameters[f"{prefix}.weight_hh_l0"].shape[1]
    start = np.full((layers, len(x), H), 0 * x.flat[0])
    hx = (start, start) if prefix == "lstm" else start
    h, *_ = network(x, hx, params, True, layers, 0.0, False, False, True)
    return linear(h, parameters["linear.weight"], parameters["linear.bias"])


def char_rnn(parameters, tokens):
    return _char(recurrent.rnn_tanh, "rnn", parameters, tokens)


def char_lstm(parameters, tokens):
    return _char(recurrent.lstm, "lstm", parameters, tokens)


def char_gru(parameters, tokens):
    return _char(recurrent.gru, "gru", parameters, tokens)
