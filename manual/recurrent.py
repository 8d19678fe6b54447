"""Recurrent networks, and their cells: what a layer does with one step of a sequence.

    h, c, … = cell(x Wᵢₕᵀ + bᵢₕ, h Wₕₕᵀ + bₕₕ, c, …)

The weights of gates lie beneath one another, in torch's order. The slopes of a gate do not depend
on what comes back, so that backpropagation through time first makes those of all steps at once; the
loop from the last step to the first has only products left, and with them before it and after it
all products with x and all sums over steps are single ones:

    da = slope ∘ (dh, dc)        dh before = da Wₕₕ        dWₕₕ = Σ daᵀ h before

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for any
others and for a setting of the wrong type, ValueError for shapes that do not fit; the message names
the argument.
"""

from itertools import chain

import numpy as np

from . import activations
from .arguments import Constant, array, broadcastable, flag, floating, real, whole
from .arrays import sum_to, where
from .dropout import dropout as dropped
from .linear import linear


def rnn_tanh_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """tanh(x Wᵢₕᵀ + bᵢₕ + h Wₕₕᵀ + bₕₕ): x (N, in) and h (N, H) → (N, H).

    Both products get the same gradient, that of tanh. Raises TypeError and ValueError as lstm_cell
    does.

    Elman, 1990, "Finding Structure in Time"
    """
    return _of_one_state(_tanh, x, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_relu_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """max(0, x Wᵢₕᵀ + bᵢₕ + h Wₕₕᵀ + bₕₕ): x (N, in) and h (N, H) → (N, H).

    Both products get the same gradient, that of relu. Raises TypeError and ValueError as lstm_cell
    does.

    Le, Jaitly & Hinton, 2015, arXiv:1504.00941
    """
    return _of_one_state(_relu, x, hx, w_ih, w_hh, b_ih, b_hh)


def gru_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """h′ = n + z (h − n): x (N, in) and h (N, H) → (N, H), where, with a = x Wᵢₕᵀ + bᵢₕ and
    b = h Wₕₕᵀ + bₕₕ,

        r = σ(aᵣ + bᵣ)        z = σ(a_z + b_z)        n = tanh(aₙ + r bₙ)

    The reset gate r stands behind the product with h, so that aₙ gets dn and bₙ gets r dn; of all
    others both get the same. Raises TypeError and ValueError as lstm_cell does.

    Cho, van Merriënboer, Gülçehre, Bahdanau, Bougares, Schwenk & Bengio, 2014, arXiv:1406.1078
    """
    return _of_one_state(_gru, x, hx, w_ih, w_hh, b_ih, b_hh)


def lstm_cell(x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """(h′, c′) of x (N, in) and hx = (h, c), each (N, H):

        c′ = f c + i g        h′ = o tanh c′

    where i, f, o = σ and g = tanh of x Wᵢₕᵀ + bᵢₕ + h Wₕₕᵀ + bₕₕ, its four parts in the order i, f,
    g, o. c is only multiplied by f, so that dc = f dc′ lasts over many steps. Raises TypeError
    unless hx is a tuple or list of two, ValueError for shapes that do not fit.

    Hochreiter & Schmidhuber, 1997; the gate f: Gers, Schmidhuber & Cummins, 2000
    """
    y, pull = _one_step(_lstm, x, hx, w_ih, w_hh, b_ih, b_hh)

    def pullback(dy):
        dx, dhx, *dweights = pull(*dy)
        return dx, type(hx)(dhx), *dweights

    return y, pullback


def rnn_tanh(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
             batch_first=False, *, batch_sizes=None, mask: Constant = None):  # fmt: skip
    """Layers of rnn_tanh_cell: (output, h_n), as in lstm, but hx is h_0, (layers · directions, N,
    H), without a c. Raises TypeError and ValueError as lstm does.

    Elman, 1990, "Finding Structure in Time"
    """
    return _network(_tanh, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                    batch_first, batch_sizes, mask)  # fmt: skip


def rnn_relu(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
             batch_first=False, *, batch_sizes=None, mask: Constant = None):  # fmt: skip
    """Layers of rnn_relu_cell: (output, h_n), as in lstm, but hx is h_0, (layers · directions, N,
    H), without a c. Raises TypeError and ValueError as lstm does.

    Le, Jaitly & Hinton, 2015, arXiv:1504.00941
    """
    return _network(_relu, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                    batch_first, batch_sizes, mask)  # fmt: skip


def gru(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
        batch_first=False, *, batch_sizes=None, mask: Constant = None):  # fmt: skip
    """Layers of gru_cell: (output, h_n), as in lstm, but hx is h_0, (layers · directions, N, H),
    without a c. Raises TypeError and ValueError as lstm does.

    Cho, van Merriënboer, Gülçehre, Bahdanau, Bougares, Schwenk & Bengio, 2014, arXiv:1406.1078
    """
    return _network(_gru, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                    batch_first, batch_sizes, mask)  # fmt: skip


def lstm(x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
         batch_first=False, *, batch_sizes=None, mask: Constant = None):  # fmt: skip
    """Layers of lstm_cell: (output, h_n, c_n) of x (T, N, in), with `batch_first` (N, T, in), and
    hx = (h_0, c_0), each (layers · directions, N, H).

    What a layer gives at all steps, in both directions side by side, is what the next one takes,
    and the last one's is the output; h_n and c_n are what each layer and direction ends with. So a
    step gets its gradient from above and from the step behind it, and both add up.

    `params` holds for each layer and direction w_ih, w_hh, with `has_biases` b_ih, b_hh, and, where
    h is narrower than c, w_hr, which projects it: h′ = (o tanh c′) W_hrᵀ. In training the input of
    each layer but the first is dropped out; `mask`, (layers − 1, T, N, directions · H), is true
    where it is kept. With `batch_sizes` x is packed: (Σ batch_sizes, in), step beneath step, each
    with its first so many of the N sequences, which are sorted by their length; so are the output
    and the mask.

    Raises TypeError unless hx is a tuple or list of two and params of arrays, and for dropout in
    training without a boolean mask; ValueError for shapes or a number of params that do not fit.

    Hochreiter & Schmidhuber, 1997; projected: Sak, Senior & Beaufays, 2014, arXiv:1402.1128
    """
    return _network(_lstm, x, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                    batch_first, batch_sizes, mask)  # fmt: skip


# A cell is given a = x Wᵢₕᵀ + bᵢₕ of all steps, rows (N, gates · H) beneath one another, which it
# may write over. Its step takes the rows of one step, b = h Wₕₕᵀ + bₕₕ, h, where h′ is written, and
# c, which it makes new in place. `linearized()` gives a step back, which takes the rows, dh′ and
# dc, which it makes new in place, and returns what of dh does not come through b; and the two
# arrays that all da and db are written into.


def _plain(activation):
    """The cell h′ = activation(a + b), of a rule."""

    def cell(a):
        pulls = {}

        def step(rows, b, h, out):
            out[...], pulls[rows.start] = activation(a[rows] + b)

        def linearized():
            da = np.empty_like(a)

            def back(rows, dh):
                da[rows] = pulls[rows.start](dh)
                return 0

            return back, da, da

        return step, linearized

    return cell


_tanh, _relu = _plain(activations.tanh), _plain(activations.relu)


def _gru(a):
    H = a.shape[1] // 3
    e = np.empty((len(a), 2 * H), a.dtype)  # e^−|a + b| of r and z
    b_n, n, h_minus_n = (np.empty((len(a), H), a.dtype) for _ in range(3))

    def step(rows, b, h, out):
        gates = a[rows, : 2 * H]
        gates += b[:, : 2 * H]
        _sigmoid(gates, e[rows])
        b_n[rows] = b[:, 2 * H :]
        inner = a[rows, 2 * H :]
        inner += gates[:, :H] * b_n[rows]
        np.tanh(inner, out=n[rows])
        np.subtract(h, n[rows], out=h_minus_n[rows])
        np.multiply(gates[:, H:], h_minus_n[rows], out=out)
        out += n[rows]

    def linearized():
        r, z, inner = np.split(a, 3, axis=1)
        slope = np.empty_like(a)  # of what stands in r, z and n
        slope[:, : 2 * H] = _slope(e)
        slope[:, 2 * H :] = _complement(z, e[:, H:]) * _sech2(inner)
        slope[:, :H] *= slope[:, 2 * H :] * b_n
        slope[:, H : 2 * H] *= h_minus_n
        slope = slope.reshape(-1, 3, H)
        da, db = np.empty_like(slope), np.empty_like(slope)

        def back(rows, dh):
            np.multiply(dh[:, np.newaxis], slope[rows], out=da[rows])
            db[rows] = da[rows]
            db[rows, 2] *= r[rows]
            return dh * z[rows]

        return back, da.reshape(a.shape), db.reshape(a.shape)

    return step, linearized


def _lstm(a):
    H = a.shape[1] // 4
    e = np.empty_like(a)  # e^−|a + b|
    before, after, tanh_c = (np.empty((len(a), H), a.dtype) for _ in range(3))  # c, c′, tanh c′

    def step(rows, b, h, out, c):
        gates = a[rows]
        gates += b
        i, f, g, o = (gates[:, k * H : (k + 1) * H] for k in range(4))
        tanh_g = np.tanh(g)
        _sigmoid(gates, e[rows])
        g[...] = tanh_g
        before[rows] = c
        c *= f
        tanh_g *= i
        c += tanh_g
        after[rows] = c
        np.tanh(c, out=tanh_c[rows])
        np.multiply(o, tanh_c[rows], out=out)

    def linearized():
        i, f, g, o = np.split(a, 4, axis=1)
        slope = _slope(e).reshape(-1, 4, H)
        slope[:, 2] = 4 * _slope(e[:, 2 * H : 3 * H] ** 2)  # as in _sech2
        for gate, factor in enumerate((g, before, i, tanh_c)):
            slope[:, gate] *= factor
        through = o * _sech2(after)
        da = np.empty_like(slope)

        def back(rows, dh, dc):
            dc += dh * through[rows]
            np.multiply(dc[:, np.newaxis], slope[rows, :3], out=da[rows, :3])
            np.multiply(dh, slope[rows, 3], out=da[rows, 3])
            dc *= f[rows]
            return 0

        return back, da.reshape(a.shape), da.reshape(a.shape)

    return step, linearized


_GATES = {_tanh: 1, _relu: 1, _gru: 3, _lstm: 4}


def _sigmoid(x, e):
    """σ(x) in place of x, and e^−|x| in e: 1 / (1 + e) where x ≥ 0, else e / (1 + e)."""
    np.abs(x, out=e)
    np.negative(e, out=e)
    np.exp(e, out=e)
    np.maximum(e, x >= 0, out=x)
    x /= 1 + e


def _complement(y, e):
    """1 − y of y = σ(x), from e^−|x|."""
    return where(y < 0.5, 1, e) / (1 + e)


def _slope(e):
    """σ′(x) = e / (1 + e)², which keeps its digits, from e = e^−|x|."""
    slope = 1 + e
    slope *= slope
    return np.divide(e, slope, out=slope)


def _sech2(x):
    """tanh′ x = 4 σ′(2 x)."""
    return 4 * _slope(np.exp(-2 * abs(x)))


def _layer(cell, x, states, weights, steps):
    """A layer in one direction, as a rule: the output at all steps and the states at the end, of
    the rows x of all steps, each a slice of them, in the order in which they are gone through.

    A step moves the first sequences, as many as it has rows. So those that are packed stop moving
    when they end, and backwards do not move before they begin.
    """
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    a, pull_inputs = linear(x, w_ih, b_ih)
    h, *others = map(np.array, states)
    step, linearized = cell(a)
    hidden = np.empty((len(x), states[-1].shape[1]), a.dtype)
    before = np.empty((len(x), h.shape[1]), a.dtype)
    y = hidden if w_hr is None else np.empty_like(before)
    for rows in steps:
        n = rows.stop - rows.start
        before[rows] = h[:n]
        b = h[:n] @ w_hh.T
        if b_hh is not None:
            b += b_hh
        step(rows, b, before[rows], hidden[rows], *(s[:n] for s in others))
        if w_hr is not None:
            np.matmul(hidden[rows], w_hr.T, out=y[rows])
        h[:n] = y[rows]

    def pullback(dy, dstates):
        back, da, db = linearized()
        dh, *dothers = map(np.array, dstates)
        dys = np.empty_like(y)
        for rows in reversed(steps):
            n = rows.stop - rows.start
            np.add(dh[:n], dy[rows], out=dys[rows])
            dhidden = dys[rows] if w_hr is None else dys[rows] @ w_hr
            straight = back(rows, dhidden, *(d[:n] for d in dothers))
            np.matmul(db[rows], w_hh, out=dh[:n])
            dh[:n] += straight
        dx, dw_ih, *db_ih = pull_inputs(da)
        dweights = [dw_ih, db.T @ before, *db_ih]
        if b_hh is not None:
            dweights.append(sum_to(db, b_hh.shape))
        if w_hr is not None:
            dweights.append(dys.T @ hidden)
        return dx, [dh, *dothers], dweights

    return y, [h, *others], pullback


def _one_step(cell, x, hx, w_ih, w_hh, b_ih, b_hh):
    """A layer of one step, as a rule: the states behind it, a tuple."""
    named = _states(cell, hx)
    weights = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    x, *arrays = floating(x=x, **named, **weights, optional="b_ih b_hh")
    states, weights = arrays[: len(named)], arrays[len(named) :]
    if x.ndim != 2:
        raise ValueError(f"x: expected (N, in), got shape {x.shape}")
    H = states[0].shape[-1:]
    for name, state in zip(named, states, strict=True):
        _expect_shape(name, state, (len(x), *H))
    G = _GATES[cell] * H[0]
    _expect_shape("w_ih", weights[0], (G, x.shape[1]))
    _expect_shape("w_hh", weights[1], (G, *H))
    broadcastable((len(x), G), b_ih=weights[2], b_hh=weights[3])
    _, new, pull = _layer(cell, x, states, [*weights, None], [slice(0, len(x))])

    def pullback(dh, *others):
        dx, dstates, dweights = pull(dh, [np.zeros_like(dh), *others])
        return dx, dstates, *dweights

    return tuple(new), pullback


def _of_one_state(cell, *arrays):
    """A layer of one step of a cell without c, as a rule: h behind it."""
    y, pull = _one_step(cell, *arrays)

    def pullback(dy):
        dx, dhx, *dweights = pull(dy)
        return dx, dhx[0], *dweights

    return y[0], pullback


def _network(cell, x, hx, params, has_biases, num_layers, p, train, bidirectional, batch_first,
             batch_sizes, mask):  # fmt: skip
    """Layers of a cell, in one or both directions, as a rule; the arguments are those of lstm."""
    flag(has_biases=has_biases, train=train, bidirectional=bidirectional)
    whole(num_layers=num_layers)
    real(dropout=p)
    D = 1 + bool(bidirectional)
    x, steps = _steps(x, batch_first, batch_sizes)
    swapped = batch_sizes is None and batch_first
    states, weights = _arrays(cell, x, steps, hx, params, has_biases, num_layers, D)
    masks = _masks(mask, x, D * states[0].shape[-1], num_layers, p if train else 0)

    rows, pulls, ends = x.reshape(steps[-1].stop, x.shape[-1]), [], []
    for layer in range(num_layers):
        pull_mask = None
        if layer and masks is not None:
            rows, pull_mask = dropped(rows, p, mask=masks[layer - 1])
        runs = [
            _layer(cell, rows, [s[k] for s in states], weights[k], steps[:: -1 if k % D else 1])
            for k in range(layer * D, layer * D + D)
        ]
        outputs, ended, pull_runs = zip(*runs, strict=True)
        rows = np.concatenate(outputs, axis=1)
        ends += ended
        pulls.append((pull_mask, pull_runs))
    y = rows.reshape(*x.shape[:-1], rows.shape[-1])
    y = y.swapaxes(0, 1) if swapped else y

    def pullback(dy):
        dy, *dends = dy
        d = (dy.swapaxes(0, 1) if swapped else dy).reshape(rows.shape)
        dstates, dparams = [], []
        for layer in reversed(range(num_layers)):
            pull_mask, pull_runs = pulls[layer]
            found = [
                pull(part, [s[layer * D + k] for s in dends])
                for k, (pull, part) in enumerate(
                    zip(pull_runs, np.split(d, D, axis=1), strict=True)
                )
            ]
            dx, dstarts, dweights = zip(*found, strict=True)
            d = sum(dx[1:], dx[0])
            d = d if pull_mask is None else pull_mask(d)
            dstates[:0], dparams[:0] = dstarts, chain.from_iterable(dweights)
        dx = d.reshape(x.shape)
        dhx = [np.stack(s) for s in zip(*dstates, strict=True)]
        return (
            dx.swapaxes(0, 1) if swapped else dx,
            type(hx)(dhx) if cell is _lstm else dhx[0],
            type(params)(dparams),
        )

    return (y, *map(np.stack, zip(*ends, strict=True))), pullback


def _states(cell, hx):
    """The states of a cell by the name of the argument."""
    if cell is not _lstm:
        return {"hx": hx}
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"hx: expected a tuple or list of two arrays, h and c, got {hx!r:.80}")
    return {"hx[0]": hx[0], "hx[1]": hx[1]}


def _steps(x, batch_first, batch_sizes):
    """x with its steps in front, and the rows of each when all lie beneath one another."""
    x = floating(x=x)
    if batch_sizes is None:
        flag(batch_first=batch_first)
        if x.ndim != 3:
            raise ValueError(f"x: expected three axes, of steps, sequences, numbers, got {x.shape}")
        x = x.swapaxes(0, 1) if batch_first else x
        sizes = [x.shape[1]] * len(x)
    else:
        batch_sizes = array(batch_sizes=batch_sizes)
        if batch_sizes.dtype != np.int64:
            raise TypeError(f"batch_sizes: expected dtype int64, got {batch_sizes.dtype}")
        if x.ndim != 2:
            raise ValueError(f"x: expected packed sequences, (Σ batch_sizes, in), got {x.shape}")
        sizes = batch_sizes.tolist()
        falls = batch_sizes.ndim == 1 and sizes == sorted(sizes, reverse=True)
        if not falls or min(sizes, default=1) < 1 or sum(sizes) != len(x):
            raise ValueError(
                f"batch_sizes: expected falling numbers above 0 that add up to {len(x)}, got "
                f"{sizes}"
            )
    if not sizes:
        raise ValueError(f"x: expected at least one step, got shape {x.shape}")
    ends = np.cumsum(sizes).tolist()
    return x, [slice(end - n, end) for end, n in zip(ends, sizes, strict=True)]


def _arrays(cell, x, steps, hx, params, has_biases, num_layers, D):
    """The states, and for each layer and direction w_ih, w_hh, b_ih, b_hh and w_hr, where there is
    none None, of D directions; checked."""
    if num_layers < 1:
        raise ValueError(f"num_layers: expected at least 1, got {num_layers}")
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"params: expected a list of arrays, got {type(params).__name__}")
    named = _states(cell, hx)
    listed = {f"params[{i}]": a for i, a in enumerate(params)}
    _, *arrays = floating(x=x, **named, **listed)
    states, flat = arrays[: len(named)], arrays[len(named) :]
    for name, state in zip(named, states, strict=True):
        _expect_shape(name, state, (num_layers * D, steps[0].stop, *state.shape[-1:]))
    P, H = states[0].shape[-1], states[-1].shape[-1]
    G, projected = _GATES[cell] * H, P != H
    parts = 2 + 2 * has_biases + projected
    if len(flat) != num_layers * D * parts:
        raise ValueError(f"params: expected {num_layers * D * parts} arrays, got {len(flat)}")
    weights = []
    for k in range(num_layers * D):
        shapes = [(G, x.shape[-1] if k < D else D * P), (G, P)]
        shapes += [(G,)] * 2 * has_biases + [(P, H)] * projected
        own = range(k * parts, (k + 1) * parts)
        for i, shape in zip(own, shapes, strict=True):
            _expect_shape(f"params[{i}]", flat[i], shape)
        w_ih, w_hh, *others = (flat[i] for i in own)
        b_ih, b_hh = others[:2] if has_biases else (None, None)
        weights.append((w_ih, w_hh, b_ih, b_hh, others[-1] if projected else None))
    return states, weights


def _masks(mask, x, width, num_layers, p):
    """For each layer but the first, which rows and columns are kept; None where nothing is
    dropped."""
    if num_layers == 1 or not p:
        return None
    if mask is None:
        raise TypeError("mask: expected a boolean array of what training keeps, got None")
    mask = array(mask=mask)
    _expect_shape("mask", mask, (num_layers - 1, *x.shape[:-1], width))
    return mask.reshape(num_layers - 1, -1, width)


def _expect_shape(name, a, shape):
    if a.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {a.shape}")
