from . import array, call, values


def _network(gates, *, x=(3, 2, 3), hidden=2, layers=1, both=False, bias=True, projected=0,
             dropout=0.0, train=False, scale=1.0, kind=list, **settings):  # fmt: skip
    """A call with x of this shape, (T, N, in), or packed, (rows, in); a cell of four gates has two
    states, of which the first may be projected."""
    directions, out, params = 1 + both, projected or hidden, []
    for layer in range(layers):
        into = directions * out if layer else x[-1]
        shapes = [(gates * hidden, into), (gates * hidden, out)]
        shapes += [(gates * hidden,)] * 2 * bias + [(projected, hidden)] * bool(projected)
        params += [array(*shape, scale=scale) for shape in shapes * directions]
    sizes = settings.pop("sizes", None)
    if sizes:
        settings["batch_sizes"] = values(sizes)
    N = sizes[0] if sizes else x[0 if settings.get("batch_first") else 1]
    hx = array(layers * directions, N, out)
    if gates == 4:
        hx = hx, array(layers * directions, N, hidden)
    return call(
        array(*x, scale=scale), hx, kind(params), bias, layers, dropout, train, both, **settings
    )


def _samples(gates):
    dropped = {"layers": 2, "dropout": 0.5, "train": True}
    return [
        _network(gates),
        _network(gates, bias=False),
        _network(gates, layers=2, hidden=3),
        _network(gates, both=True),
        _network(gates, batch_first=True),
        _network(gates, layers=2, both=True, batch_first=True),
        _network(gates, x=(1, 3, 2), kind=tuple),
        _network(gates, **dropped),
        _network(gates, **dropped | {"dropout": 0.25}, bias=False, both=True, batch_first=True),
        _network(gates, **dropped | {"train": False}),
        _network(gates, x=(6, 2), sizes=[3, 2, 1]),
        _network(gates, x=(5, 2), sizes=[2, 2, 1], layers=2, both=True, bias=False),
        _network(gates, x=(4, 2), sizes=[3, 1], **dropped),
    ]


def _corners(gates):
    zeros = values([[[0.0]], [[0.0]]])
    weights = [values([[0.0]] * gates), values([[0.0]] * gates)]
    start = values([[[0.0]]])
    return [
        call(zeros, (start, start) if gates == 4 else start, weights, False, 1, 0.0, True, False),
        _network(gates, scale=5.0),  # saturated
        _network(gates, scale=100.0, both=True),
        _network(gates, x=(9, 1, 1), hidden=1, scale=0.01),  # what is long ago fades
        _network(gates, x=(2, 0, 2)),
        _network(gates, x=(2, 2, 0)),
        _network(gates, layers=2, dropout=1.0, train=True),
        _network(gates, dropout=0.5, train=True),  # there is no second layer
    ]


def _cells(gates):
    def states(*shape, scale=1.0):
        state = array(*shape, scale=scale)
        return (state, array(*shape, scale=scale)) if gates == 4 else state

    G = gates * 2
    weights, biases = (array(G, 3), array(G, 2)), (array(G), array(G))
    samples = [
        call(array(3, 3), states(3, 2), *weights, *biases),
        call(array(3, 3), states(3, 2), *weights),
        call(array(3, 3), states(3, 2), *weights, array(G)),
        call(array(3, 3), states(3, 2), *weights, b_hh=array(G)),
        call(array(1, 3), states(1, 2), *weights, b_ih=array(G), b_hh=array(G)),
        call(array(5, 1), states(5, 4), array(gates * 4, 1), array(gates * 4, 4)),
    ]
    zeros = values([[0.0, -0.0]])
    corners = [
        call(zeros, (zeros, zeros) if gates == 4 else zeros, array(G, 2), array(G, 2)),
        call(array(3, 3, scale=10.0), states(3, 2, scale=10.0), *weights, *biases),  # saturated
        call(array(3, 3, scale=60.0), states(3, 2), *weights, *biases),
        call(array(3, 3, scale=1e-4), states(3, 2, scale=1e-4), *weights),
        call(array(3, 3), states(3, 2), *weights, array(1), array(3, G)),  # biases are stretched
        call(array(3, 3), states(3, 2), *weights, array(), array(1, 1)),
        call(array(0, 3), states(0, 2), *weights, *biases),
        call(array(2, 0), states(2, 2), array(G, 0), array(G, 2)),
    ]
    return samples, corners


_PROJECTED = [
    _network(4, hidden=3, projected=2),
    _network(4, hidden=3, projected=1, bias=False, layers=2, both=True),
    _network(4, x=(6, 2), sizes=[3, 2, 1], hidden=3, projected=2, both=True),
]
_PLAIN, _GRU, _LSTM = map(_cells, (1, 3, 4))
SAMPLES = {
    "rnn_tanh_cell": _PLAIN[0],
    "rnn_relu_cell": _PLAIN[0],
    "gru_cell": _GRU[0],
    "lstm_cell": _LSTM[0],
    "rnn_tanh": _samples(1),
    "rnn_relu": _samples(1),
    "gru": _samples(3),
    "lstm": [*_samples(4), *_PROJECTED],
}
CORNERS = {
    "rnn_tanh_cell": _PLAIN[1],
    "rnn_relu_cell": _PLAIN[1],
    "gru_cell": _GRU[1],
    "lstm_cell": _LSTM[1],
    "rnn_tanh": _corners(1),
    "rnn_relu": _corners(1),
    "gru": _corners(3),
    "lstm": [*_corners(4), _network(4, hidden=3, projected=2, scale=10.0)],
}
