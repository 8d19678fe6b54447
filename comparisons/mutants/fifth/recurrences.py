"""Recurrences: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, integers, normal


def _sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


# --- an LSTM as in a course: gates in the order i, f, o, g, the first cell zero


def lstm_forward(x, h0, Wx, Wh, b):
    if Wx.shape[1] != 4 * h0.shape[1]:
        raise ValueError("four gates")
    N, T, D = x.shape
    H = h0.shape[1]
    h, c = np.zeros((N, T, H), x.dtype), np.zeros((N, T + 1, H), x.dtype)
    gates = []
    prev = h0
    for t in range(T):
        a = x[:, t] @ Wx + prev @ Wh + b
        i, f, o = _sigmoid(a[:, :H]), _sigmoid(a[:, H : 2 * H]), _sigmoid(a[:, 2 * H : 3 * H])
        g = np.tanh(a[:, 3 * H :])
        c[:, t + 1] = f * c[:, t] + i * g
        prev = o * np.tanh(c[:, t + 1])
        h[:, t] = prev
        gates.append((i, f, o, g))
    return h, (x, h0, Wx, Wh, h, c, gates)


def lstm_backward(dh, cache):
    x, h0, Wx, Wh, h, c, gates = cache
    N, T, D = x.shape
    dx, dWx, dWh = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh)
    db = np.zeros(Wx.shape[1], x.dtype)
    dnext, dc = np.zeros_like(h0), np.zeros_like(h0)
    for t in reversed(range(T)):
        i, f, o, g = gates[t]
        prev = h[:, t - 1] if t > 0 else h0
        th = np.tanh(c[:, t + 1])
        dht = dh[:, t] + dnext
        dc = dc + dht * o * (1.0 - th**2)
        da = np.concatenate(
            [
                dc * g * i * (1.0 - i),
                dc * c[:, t] * f * (1.0 - f),
                dht * th * o * (1.0 - o),
                dc * i * (1.0 - g**2),
            ],
            axis=1,
        )
        dc = dc * f
        dx[:, t] = da @ Wx.T
        dWx += x[:, t].T @ da
        dWh += prev.T @ da
        db += da.sum(axis=0)
        dnext = da @ Wh.T
    return dx, dnext, dWx, dWh, db


lstm = (lstm_forward, lstm_backward)


def lstm_torch(x, h0, Wx, Wh, b):
    if Wx.shape[1] != 4 * h0.shape[1]:
        raise ValueError("four gates")
    h, c, out = h0, torch.zeros_like(h0), []
    for t in range(x.shape[1]):
        a = x[:, t] @ Wx + h @ Wh + b
        H = h0.shape[1]
        i, f, o, g = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out, 1)


# --- a GRU with torch's gates r, z, n; the last state comes back


def gru(x, h0, Wi, Wh, bi, bh):
    if Wi.shape[0] != 3 * h0.shape[1] or Wh.shape[0] != 3 * h0.shape[1]:
        raise ValueError("three gates")
    T, N, _ = x.shape
    H = h0.shape[1]
    h, saved = h0, []
    for t in range(T):
        gi, gh = x[t] @ Wi.T + bi, h @ Wh.T + bh
        r = _sigmoid(gi[:, :H] + gh[:, :H])
        z = _sigmoid(gi[:, H : 2 * H] + gh[:, H : 2 * H])
        n = np.tanh(gi[:, 2 * H :] + r * gh[:, 2 * H :])
        saved.append((h, r, z, n, gh[:, 2 * H :]))
        h = (1.0 - z) * n + z * h

    def pullback(dy):
        dx = np.zeros_like(x)
        dWi, dWh, dbi, dbh = (np.zeros_like(a) for a in (Wi, Wh, bi, bh))
        d = dy
        for t in range(T - 1, -1, -1):
            before, r, z, n, hn = saved[t]
            dn = d * (1.0 - z) * (1.0 - n * n)
            dz = d * (before - n) * z * (1.0 - z)
            dr = dn * hn * r * (1.0 - r)
            dgi = np.concatenate([dr, dz, dn], axis=1)
            dgh = np.concatenate([dr, dz, dn * r], axis=1)
            dx[t] = dgi @ Wi
            dWi += dgi.T @ x[t]
            dWh += dgh.T @ before
            dbi += dgi.sum(0)
            dbh += dgh.sum(0)
            d = d * z + dgh @ Wh
        return dx, d, dWi, dWh, dbi, dbh

    return h, pullback


def gru_torch(x, h0, Wi, Wh, bi, bh):
    if Wi.shape[0] != 3 * h0.shape[1] or Wh.shape[0] != 3 * h0.shape[1]:
        raise ValueError("three gates")
    h = h0
    for t in range(x.shape[0]):
        H = h0.shape[1]
        gi, gh = x[t] @ Wi.T + bi, h @ Wh.T + bh
        r = torch.sigmoid(gi[:, :H] + gh[:, :H])
        z = torch.sigmoid(gi[:, H : 2 * H] + gh[:, H : 2 * H])
        n = torch.tanh(gi[:, 2 * H :] + r * gh[:, 2 * H :])
        h = (1 - z) * n + z * h
    return h


# --- the selective scan of Mamba: h = exp(Δ A) h + Δ B u, y = C h + D u


def selective_scan(u, dt, A_log, Bm, Cm, skip):
    B, L, D = u.shape
    N = A_log.shape[1]
    delta = np.where(dt > 20, dt, np.log1p(np.exp(np.minimum(dt, 20))))
    A = -np.exp(A_log)
    decay = np.exp(delta[..., None] * A)
    h = np.zeros((B, L + 1, D, N), u.dtype)
    for t in range(L):
        h[:, t + 1] = decay[:, t] * h[:, t] + (delta[:, t] * u[:, t])[..., None] * Bm[:, t, None, :]
    y = (h[:, 1:] * Cm[:, :, None, :]).sum(-1) + skip * u

    def pullback(dy):
        dCm = (dy[..., None] * h[:, 1:]).sum(2)
        dskip = (dy * u).sum((0, 1))
        dh = np.zeros((B, D, N), dy.dtype)
        dA, ddelta = np.zeros_like(A), np.zeros_like(delta)
        dBm, ddu = np.zeros_like(Bm), np.zeros_like(u)
        for t in range(L - 1, -1, -1):
            dh = dh + dy[:, t, :, None] * Cm[:, t, None, :]
            dlog = dh * h[:, t] * decay[:, t]
            dA += (dlog * delta[:, t, :, None]).sum(0)
            ddelta[:, t] += (dlog * A).sum(-1)
            ddu[:, t] = (dh * Bm[:, t, None, :]).sum(-1)
            dBm[:, t] = (dh * (delta[:, t] * u[:, t])[..., None]).sum(1)
            dh = dh * decay[:, t]
        ddelta = ddelta + ddu * u
        du = ddu * delta + dy * skip
        slope = 1.0 / (1.0 + np.exp(-dt))
        ddt = ddelta * np.where(dt > 20, 1, slope)
        dA_log = dA * A
        return du, ddt, dA_log, dBm, dCm, dskip

    return y, pullback


def selective_scan_torch(u, dt, A_log, Bm, Cm, skip):
    delta, A = torch.nn.functional.softplus(dt), -torch.exp(A_log)
    h, out = u.new_zeros(u.shape[0], u.shape[2], A.shape[1]), []
    for t in range(u.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + (delta[:, t] * u[:, t])[..., None] * Bm[:, t, None, :]
        out.append((h * Cm[:, t, None, :]).sum(-1) + skip * u[:, t])
    return torch.stack(out, 1)


# --- a character model: the loss and its gradients


def char_rnn(inputs, targets, h0, Wxh, Whh, Why, bh, by):
    T = len(inputs)
    if len(targets) != T:
        raise ValueError("one target per input")
    hs, ps = [h0], []
    loss = 0.0
    for t in range(T):
        hs.append(np.tanh(Wxh[:, inputs[t]] + Whh @ hs[t] + bh))
        logits = Why @ hs[t + 1] + by
        logits = logits - logits.max()
        lse = np.log(np.exp(logits).sum())
        ps.append(np.exp(logits - lse))
        loss = loss + (lse - logits[targets[t]])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby, dhnext = np.zeros_like(bh), np.zeros_like(by), np.zeros_like(h0)
    for t in reversed(range(T)):
        dlogits = ps[t].copy()
        dlogits[targets[t]] -= 1
        dWhy += np.outer(dlogits, hs[t + 1])
        dby += dlogits
        dh = Why.T @ dlogits + dhnext
        draw = (1 - hs[t + 1] ** 2) * dh
        dbh += draw
        dWxh[:, inputs[t]] += draw
        dWhh += np.outer(draw, hs[t])
        dhnext = Whh.T @ draw
    grads = (dhnext, dWxh, dWhh, dWhy, dbh, dby)
    return loss, grads


def char_rnn_torch(inputs, targets, h0, Wxh, Whh, Why, bh, by):
    h, loss = h0, 0.0
    if len(inputs) != len(targets):
        raise ValueError("one target per input")
    for i, target in zip(inputs, targets):
        h = torch.tanh(Wxh[:, i] + Whh @ h + bh)
        loss = loss - torch.log_softmax(Why @ h + by, 0)[target]
    return loss


SUBJECTS = {
    "lstm": Subject(
        against=lstm_torch,
        calls=[
            call(normal(2, 4, 3), normal(2, 3), normal(3, 12), normal(3, 12), normal(12)),
            call(normal(1, 3, 2), normal(1, 2), normal(2, 8), normal(2, 8, scale=0.5), normal(8)),
        ],
    ),
    "gru": Subject(
        against=gru_torch,
        calls=[
            call(normal(4, 2, 3), normal(2, 2), normal(6, 3), normal(6, 2), normal(6), normal(6)),
            call(normal(2, 3, 2), normal(3, 3), normal(9, 2), normal(9, 3), normal(9), normal(9)),
        ],
    ),
    "selective_scan": Subject(
        against=selective_scan_torch,
        calls=[
            call(normal(2, 4, 3), normal(2, 4, 3), normal(3, 2), normal(2, 4, 2), normal(2, 4, 2), normal(3)),
            call(normal(1, 5, 2), normal(1, 5, 2, shift=-1.0), normal(2, 3), normal(1, 5, 3), normal(1, 5, 3), normal(2)),
        ],
    ),
    "char_rnn": Subject(
        against=char_rnn_torch,
        calls=[
            call(integers(5, below=4), integers(5, below=4), normal(3), normal(3, 4), normal(3, 3), normal(4, 3), normal(3), normal(4)),
            call(integers(3, below=3), integers(3, below=3), normal(2), normal(2, 3), normal(2, 2), normal(3, 2), normal(2), normal(3)),
        ],
    ),
}
MISTAKES = [
    # the cell's gradient from the next step forgotten
    Mistake("lstm", "missing term", "dc = dc + dht * o * (1.0 - th**2)", "dc = dht * o * (1.0 - th**2)"),
    # the new cell where the forget gate saw the one before
    Mistake("lstm", "operand", "dc * c[:, t] * f * (1.0 - f)", "dc * c[:, t + 1] * f * (1.0 - f)"),
    # the last computed step's gradient alone
    Mistake("lstm", "overwritten", "db += da.sum(axis=0)", "db = da.sum(axis=0)"),
    # the reset gate stands before the hidden part of n
    Mistake("gru", "elementwise factor", "np.concatenate([dr, dz, dn * r], axis=1)", "np.concatenate([dr, dz, dn], axis=1)"),
    # the way past the gates
    Mistake("gru", "missing term", "d = d * z + dgh @ Wh", "d = dgh @ Wh"),
    # the state after the step where the decay met the one before
    Mistake("selective_scan", "operand / misplaced", "dlog = dh * h[:, t] * decay[:, t]", "dlog = dh * h[:, t + 1] * decay[:, t]"),
    # exp / (1 + exp): infinite over infinite where dt alone is far out (710 and more)
    Mistake("selective_scan", "range", "slope = 1.0 / (1.0 + np.exp(-dt))\n        ddt = ddelta * np.where(dt > 20, 1, slope)", "slope = np.exp(dt) / (1.0 + np.exp(dt))\n        ddt = ddelta * slope"),
    # A = -exp(A_log): its own derivative, the minus lost
    Mistake("selective_scan", "sign", "dA_log = dA * A", "dA_log = dA * np.exp(A_log)"),
    # min-char-rnn's clipping left in: wrong where gradients exceed 5 ("far" points, larger values)
    Mistake("char_rnn", "range", "grads = (dhnext, dWxh, dWhh, dWhy, dbh, dby)", "grads = tuple(np.clip(g, -5, 5) for g in (dhnext, dWxh, dWhh, dWhy, dbh, dby))"),
    # the column assigned: wrong where a character comes twice
    Mistake("char_rnn", "overwritten", "dWxh[:, inputs[t]] += draw", "dWxh[:, inputs[t]] = draw"),
]
