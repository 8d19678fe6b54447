"""Recurrent models of text. torch.func.vmap has no rule for the networks."""

from functools import partial

import torch
import torch.nn.functional as F

from ..adapters import rule


def _char(network, prefix, parameters, tokens):
    x = F.embedding(tokens, parameters["embedding.weight"])
    params = [a for name, a in parameters.items() if name.startswith(f"{prefix}.")]
    layers = sum(".weight_hh_l" in name for name in parameters)
    start = x.new_zeros(layers, len(x), parameters[f"{prefix}.weight_hh_l0"].shape[1])
    hx = (start, start) if network is torch.lstm else start
    h, *_ = network(x, hx, params, True, layers, 0.0, False, False, True)
    return F.linear(h, parameters["linear.weight"], parameters["linear.bias"])


@partial(rule, batched=False)
def char_rnn(parameters, tokens):
    return _char(torch.rnn_tanh, "rnn", parameters, tokens)


@partial(rule, batched=False)
def char_lstm(parameters, tokens):
    return _char(torch.lstm, "lstm", parameters, tokens)


@partial(rule, batched=False)
def char_gru(parameters, tokens):
    return _char(torch.gru, "gru", parameters, tokens)
