"""Each sequence by itself, step by step, as the papers write it."""

import mpmath
import numpy as np

from .activations import relu, sigmoid
from .linear import linear
from .numbers import tanh


def rnn_tanh_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return tanh(linear(x, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def rnn_relu_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return relu(linear(x, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def gru_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    a_r, a_z, a_n = np.split(linear(x, w_ih, b_ih), 3, axis=-1)
    b_r, b_z, b_n = np.split(linear(hx, w_hh, b_hh), 3, axis=-1)
    z = sigmoid(a_z + b_z)
    return (1 - z) * tanh(a_n + sigmoid(a_r + b_r) * b_n) + z * hx


def lstm_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    h, c = hx
    i, f, g, o = np.split(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh), 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _network(cell):
    """Layers of a cell, by its definition."""

    def network(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                batch_first=False, *, batch_sizes=None, mask=None):  # fmt: skip
        lasting = hx if cell is lstm_cell else (hx,)
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        x = x.swapaxes(0, 1) if batch_first and batch_sizes is None else x
        steps = _steps(x, batch_sizes)
        ends = [np.empty_like(s) for s in lasting]
        for layer in range(num_layers):
            if layer and mask is not None:
                kept = _steps(mask[layer - 1], batch_sizes)
                steps = [_dropped(s, m, dropout) for s, m in zip(steps, kept, strict=True)]
            y = [[[] for _ in step] for step in steps]
            for k in range(layer * directions, layer * directions + directions):
                weights = params[k * each : (k + 1) * each]
                for n in range(lasting[0].shape[1]):
                    state = tuple(s[k, n] for s in lasting)
                    order = [t for t, step in enumerate(steps) if n < len(step)]
                    for t in reversed(order) if k % directions else order:
                        state = _step(cell, steps[t][n], state, weights, has_biases)
                        y[t][n].append(state[0])
                    for end, s in zip(ends, state, strict=True):
                        end[k, n] = s
            steps = [[np.concatenate(parts) for parts in step] for step in y]
        rows = [row for step in steps for row in step]
        width = directions * lasting[0].shape[-1]
        y = np.array(rows, object).reshape(*x.shape[:-1], width)
        return (y.swapaxes(0, 1) if batch_first and batch_sizes is None else y, *ends)

    return network


def _steps(x, batch_sizes):
    """For each step the numbers of each sequence that still runs."""
    if batch_sizes is None:
        return [list(step) for step in x]
    ends = np.cumsum(batch_sizes)
    return [list(x[end - n : end]) for end, n in zip(ends, batch_sizes, strict=True)]


def _dropped(step, mask, p):
    share = 1 - mpmath.mpf(p)
    return [np.where(m, row / share if share else 0, 0) for row, m in zip(step, mask, strict=True)]


def _step(cell, x, state, weights, has_biases):
    """The new state of one sequence; h is projected where there is one weight more."""
    w_ih, w_hh, *others = weights
    biases = others[:2] if has_biases else (None, None)
    if cell is not lstm_cell:
        return (cell(x, state[0], w_ih, w_hh, *biases),)
    h, c = lstm_cell(x, state, w_ih, w_hh, *biases)
    projections = others[2:] if has_biases else others
    return (linear(h, projections[0]) if projections else h, c)


rnn_tanh, rnn_relu, gru, lstm = map(_network, (rnn_tanh_cell, rnn_relu_cell, gru_cell, lstm_cell))
