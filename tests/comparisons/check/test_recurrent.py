"""Right-looking recurrent networks, each with one mistake; and the right ones beside them."""

import inspect

import numpy as np
import pytest
from gradtwin.comparisons.samples.recurrent import SAMPLES
from gradtwin.manual import recurrent

from gradtwin import check

QUICK = {"probes": ["permuted"], "dtypes": ["float64"]}

# The op, which of its samples shows it, the text of the right rules, and that of the mistake.
MISTAKES = [
    # Truncated backpropagation: to one step, and to what lies near the end.
    ("lstm", 0, "np.matmul(db[rows], w_hh, out=dh[:n])", "dh[:n] = 0"),
    ("rnn_tanh", 0, "np.matmul(db[rows], w_hh, out=dh[:n])",
     "dh[:n] = db[rows] @ w_hh * (rows.start > 2)"),
    ("lstm", 0, "dc *= f[rows]", "dc[...] = 0"),
    ("gru", 0, "return dh * z[rows]", "return 0"),
    # The loop back.
    ("rnn_relu", 2, "in reversed(steps)", "in steps"),
    ("gru", 0, "np.add(dh[:n], dy[rows], out=dys[rows])", "dys[rows] = dy[rows]"),
    ("lstm", 1, "dh, *dothers = map(np.array, dstates)",
     "dh, *dothers = map(np.zeros_like, dstates)"),
    ("rnn_tanh", 0, "db.T @ before", "db.T @ y"),
    # The reset gate stands behind the product.
    ("gru_cell", 0, "            db[rows, 2] *= r[rows]\n", ""),
    ("gru", 0, "            db[rows, 2] *= r[rows]\n", ""),
    ("gru_cell", 0, "sum_to(db, b_hh.shape)", "sum_to(da, b_hh.shape)"),
    ("gru_cell", 0, "slope[:, :H] *= slope[:, 2 * H :] * b_n",
     "slope[:, :H] *= slope[:, 2 * H :] * n"),
    # Slopes of gates.
    ("lstm_cell", 0, "through = o * _sech2(after)", "through = o"),
    ("lstm_cell", 0, "through = o * _sech2(after)", "through = o * _sech2(before)"),
    ("lstm", 0, "enumerate((g, before, i, tanh_c))", "enumerate((g, after, i, tanh_c))"),
    ("lstm_cell", 0, "4 * _slope(e[:, 2", "_slope(e[:, 2"),
    # Layers and directions.
    ("gru", 3, "d = sum(dx[1:], dx[0])", "d = dx[0]"),
    ("lstm", 7, "d if pull_mask is None else pull_mask(d)", "d"),
    ("lstm", 3, "steps[:: -1 if k % D else 1]", "steps"),
    ("rnn_tanh", 3, "ends += ended", "ends += ended[::-1]"),
    ("lstm", 13, "dweights.append(dys.T @ hidden)", "dweights.append(dy.T @ hidden)"),
    ("rnn_relu", 4, "x = x.swapaxes(0, 1) if batch_first else x",
     "x = x.reshape(x.shape[1], x.shape[0], -1) if batch_first else x"),
]  # fmt: skip


def planted(op, old, new):
    """The rule from a module in which the text, which stands there once, is another."""
    source = inspect.getsource(recurrent)
    assert source.count(old) == 1
    scope = {"__name__": recurrent.__name__, "__package__": recurrent.__package__}
    exec(source.replace(old, new), scope)
    return scope[op]


def called(op, row):
    """The arguments and settings of one of its samples."""
    return SAMPLES[op][row].draw(0, np.dtype(float))


@pytest.mark.thinned(8)
@pytest.mark.parametrize(("op", "row", "old", "new"), MISTAKES)
@pytest.mark.usefixtures("no_cause")
def test_a_mistake_is_found(op, row, old, new):
    report = check(planted(op, old, new), op, *called(op, row), **QUICK)
    print(report.table)
    assert not report.passed


@pytest.mark.parametrize(("op", "row"), sorted({mistake[:2] for mistake in MISTAKES}))
def test_the_right_rule_passes(op, row):
    report = check(getattr(recurrent, op), op, *called(op, row), **QUICK)
    print(report)
    assert report.passed


def with_gates_in_another_order(cell, order):
    """A cell whose weights have its gates in another order, with the gradients in that order."""

    def rows(weight):
        return np.concatenate([np.split(weight, len(order))[k] for k in order])

    def reordered(x, hx, w_ih, w_hh, b_ih, b_hh):
        y, pull = cell(x, hx, *map(rows, (w_ih, w_hh, b_ih, b_hh)))

        def pullback(dy):
            dx, dhx, *dweights = pull(dy)
            back = np.argsort(order)
            parts = [np.split(d, len(order)) for d in dweights]
            return dx, dhx, *(np.concatenate([part[k] for k in back]) for part in parts)

        return y, pullback

    return reordered


def draw(gates):
    rng = np.random.default_rng(0)
    G = gates * 2
    state = rng.standard_normal((3, 2))
    hx = (state, rng.standard_normal((3, 2))) if gates == 4 else state
    weights = [rng.standard_normal(shape) for shape in ((G, 3), (G, 2), (G,), (G,))]
    return [rng.standard_normal((3, 3)), hx, *weights]


@pytest.mark.parametrize(
    ("op", "order"),
    [
        ("lstm_cell", (0, 1, 3, 2)),
        ("gru_cell", (1, 0, 2)),
    ],
)
def test_gates_in_another_order_are_found(op, order):
    right, arrays = getattr(recurrent, op), draw(len(order))
    kept = with_gates_in_another_order(right, range(len(order)))
    assert check(kept, op, arrays, **QUICK).passed
    report = check(with_gates_in_another_order(right, order), op, arrays, **QUICK)
    print(report)
    assert not report.passed


def gru_cell_that_resets_first(x, hx, w_ih, w_hh, b_ih, b_hh):
    """n = tanh(aₙ + W (r h) + b), the reset gate before the product, as in the paper."""
    H = hx.shape[1]
    W, V, b, c = (np.split(w, [2 * H]) for w in (w_ih, w_hh, b_ih, b_hh))
    gates = 1 / (1 + np.exp(-(x @ W[0].T + b[0] + hx @ V[0].T + c[0])))
    r, z = np.split(gates, 2, axis=1)
    n = np.tanh(x @ W[1].T + b[1] + (r * hx) @ V[1].T + c[1])
    y = n + z * (hx - n)

    def pullback(dy):
        dn = dy * (1 - z) * (1 - n * n)
        drh = dn @ V[1]
        dgates = np.hstack([drh * hx, dy * (hx - n)]) * gates * (1 - gates)
        dhx = dy * z + drh * r + dgates @ V[0]
        da = np.hstack([dgates, dn])
        dw_hh = np.vstack([dgates.T @ hx, dn.T @ (r * hx)])
        return da @ w_ih, dhx, da.T @ x, dw_hh, da.sum(axis=0), da.sum(axis=0)

    return y, pullback


def test_the_reset_gate_before_the_product_is_found():
    report = check(gru_cell_that_resets_first, "gru_cell", draw(3), **QUICK)
    print(report)
    assert not report.passed
    assert check(gru_cell_that_resets_first, None, draw(3), **QUICK).passed  # it is right by itself
