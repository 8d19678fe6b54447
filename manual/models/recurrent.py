"""Recurrent models of text: an embedding, layers of a recurrent network, a linear head.

    tokens (N, T) → logits (N, T, V), of what comes after each

The parameters are those of a torch.nn.Module with an `embedding`, a network called `rnn`, `lstm` or
`gru`, batch_first, and `linear`. Every sequence begins with states of 0. The models raise TypeError
for tokens that are no whole numbers and for parameters of other dtypes, IndexError for a token
outside the table, ValueError for other entries and shapes; the message names the argument.
"""

import numpy as np

from ..embedding import embedding
from ..linear import linear
from ..recurrent import gru, lstm, rnn_tanh
from .parts import expect, first_shape, sequences

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def char_rnn(parameters, tokens):
    """Layers of rnn_tanh.

    Elman, 1990, "Finding Structure in Time"
    """
    return _char(rnn_tanh, "rnn", 1, parameters, tokens)


def char_lstm(parameters, tokens):
    """Layers of lstm.

    Hochreiter & Schmidhuber, 1997; of characters: Graves, 2013, arXiv:1308.0850
    """
    return _char(lstm, "lstm", 4, parameters, tokens)


def char_gru(parameters, tokens):
    """Layers of gru.

    Cho, van Merriënboer, Gülçehre, Bahdanau, Bougares, Schwenk & Bengio, 2014, arXiv:1406.1078
    """
    return _char(gru, "gru", 3, parameters, tokens)


def _char(network, prefix, gates, parameters, tokens):
    tokens = sequences(tokens)
    names, H = _network_names(prefix, gates, parameters)
    params = [parameters[name] for name in names]
    x, pull_embedding = embedding(tokens, parameters["embedding.weight"])
    start = np.zeros((len(names) // len(_PARTS), len(tokens), H), x.dtype)
    hx = (start, start) if network is lstm else start
    (h, *ends), pull_network = network(x, hx, params, True, len(start), 0.0, False, False, True)
    logits, pull_linear = linear(h, parameters["linear.weight"], parameters["linear.bias"])

    def pullback(dlogits):
        dh, dweight, dbias = pull_linear(dlogits)
        dx, _, dparams = pull_network((dh, *map(np.zeros_like, ends)))
        found = dict(zip(names, dparams, strict=True))
        found |= {"linear.weight": dweight, "linear.bias": dbias}
        found["embedding.weight"] = pull_embedding(dx)
        return {name: found[name] for name in parameters}

    return logits, pullback


def _network_names(prefix, gates, parameters):
    """The names of the network's parameters, layer by layer, and the width of its states; all
    parameters are checked."""
    V, D = first_shape(parameters, "embedding.weight")
    _, H = first_shape(parameters, f"{prefix}.weight_hh_l0")
    layers = sum(name.startswith(f"{prefix}.weight_hh_l") for name in parameters)
    shapes = {"embedding.weight": (V, D)}
    for layer in range(layers):
        each = (gates * H, H if layer else D), (gates * H, H), (gates * H,), (gates * H,)
        names = (f"{prefix}.{name}_l{layer}" for name in _PARTS)
        shapes |= dict(zip(names, each, strict=True))
    names = list(shapes)[1:]
    expect(parameters, shapes | {"linear.weight": (None, H), "linear.bias": (None,)})
    return names, H
