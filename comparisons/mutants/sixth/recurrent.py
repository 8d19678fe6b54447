"""Recurrences and scans: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
from scipy.special import expit

from ..mistakes import Mistake, Subject, call, normal, uniform


def gru_cell(x, h, wi, wh, bi, bh):
    """The gates r, z, n as torch orders them; wi (3 size, inputs), wh (3 size, size)."""
    ir, iz, in_ = np.split(x @ wi.T + bi, 3, axis=1)
    hr, hz, hn = np.split(h @ wh.T + bh, 3, axis=1)
    r, z = expit(ir + hr), expit(iz + hz)
    n = np.tanh(in_ + r * hn)
    y = (1 - z) * n + z * h

    def pullback(dy):
        dn = dy * (1 - z) * (1 - n * n)
        dz = dy * (h - n) * z * (1 - z)
        dr = dn * hn * r * (1 - r)
        di = np.concatenate([dr, dz, dn], axis=1)
        dh_gates = np.concatenate([dr, dz, dn * r], axis=1)
        dx, dh = di @ wi, dh_gates @ wh + dy * z
        return dx, dh, di.T @ x, dh_gates.T @ h, di.sum(0), dh_gates.sum(0)

    return y, pullback


def gru_cell_torch(x, h, wi, wh, bi, bh):
    ir, iz, in_ = (x @ wi.T + bi).chunk(3, 1)
    hr, hz, hn = (h @ wh.T + bh).chunk(3, 1)
    r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
    n = torch.tanh(in_ + r * hn)
    return (1 - z) * n + z * h


class LSTM:
    """x (time, batch, inputs), w (inputs, 4 size), u (size, 4 size): all hidden states, cells from zero."""

    def forward(self, x, h0, w, u, b):
        self.x, self.w, self.u, self.steps = x, w, u, []
        h, c = h0, np.zeros(h0.shape, h0.dtype)
        states = []
        for t in range(len(x)):
            i, f, o, g = np.split(x[t] @ w + h @ u + b, 4, axis=1)
            i, f, o, g = expit(i), expit(f), expit(o), np.tanh(g)
            before = c
            c = f * c + i * g
            self.steps.append((h, before, i, f, o, g, np.tanh(c)))
            h = o * self.steps[-1][-1]
            states.append(h)
        return np.stack(states)

    def backward(self, dout):
        x, w, u = self.x, self.w, self.u
        dx = np.zeros(x.shape, x.dtype)
        self.dw = np.zeros(w.shape, w.dtype)
        self.du = np.zeros(u.shape, u.dtype)
        self.db = np.zeros(w.shape[1], w.dtype)
        dh_next, dc_next = np.zeros(dout.shape[1:], x.dtype), np.zeros(dout.shape[1:], x.dtype)
        for t in reversed(range(len(x))):
            h, c, i, f, o, g, tc = self.steps[t]
            dh = dout[t] + dh_next
            dc = dh * o * (1 - tc * tc) + dc_next
            do = dh * tc * o * (1 - o)
            di, df, dg = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
            da = np.concatenate([di, df, do, dg], axis=1)
            self.dw += x[t].T @ da
            self.du += h.T @ da
            self.db += da.sum(0)
            dx[t] = da @ w.T
            dh_next, dc_next = da @ u.T, dc * f
        return dx, dh_next, self.dw.copy(), self.du.copy(), self.db.copy()


def lstm_torch(x, h0, w, u, b):
    h, c, states = h0, torch.zeros_like(h0), []
    for step in x:
        i, f, o, g = (step @ w + h @ u + b).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def linear_scan(a, b, h0):
    """h[t] = a[t] h[t-1] + b[t]: a (batch, time, heads), b (batch, time, heads, size), h0 (batch, heads, size)."""
    hs, h = np.zeros(b.shape, b.dtype), h0
    for t in range(b.shape[1]):
        h = a[:, t, :, None] * h + b[:, t]
        hs[:, t] = h

    def pullback(dy):
        da, db = np.zeros(a.shape, a.dtype), np.zeros(b.shape, b.dtype)
        carry = np.zeros(h0.shape, h0.dtype)
        for t in range(b.shape[1] - 1, -1, -1):
            dh = dy[:, t] + carry
            before = hs[:, t - 1] if t else h0
            db[:, t] = dh
            da[:, t] = (dh * before).sum(-1)
            carry = a[:, t, :, None] * dh
        return da, db, carry

    return hs, pullback


def linear_scan_torch(a, b, h0):
    h, hs = h0, []
    for t in range(b.shape[1]):
        h = a[:, t, :, None] * h + b[:, t]
        hs.append(h)
    return torch.stack(hs, 1)


def selective_scan_forward(u, delta, a_log, bm, cm, skip):
    """Mamba: u, delta (batch, time, channels), a_log (channels, states), bm, cm (batch, time, states), skip (channels,)."""
    dt = np.logaddexp(0, delta)
    a = -np.exp(a_log)
    decay = np.exp(dt[..., None] * a)
    h = np.zeros((u.shape[0],) + a.shape, u.dtype)
    hs = [h]
    y = np.zeros(u.shape, u.dtype)
    for t in range(u.shape[1]):
        h = decay[:, t] * h + (dt[:, t] * u[:, t])[..., None] * bm[:, t, None, :]
        hs.append(h)
        y[:, t] = (h * cm[:, t, None, :]).sum(-1)
    return y + skip * u, (u, delta, a_log, bm, cm, skip, dt, a, decay, hs)


def selective_scan_backward(dout, cache):
    u, delta, a_log, bm, cm, skip, dt, a, decay, hs = cache
    du, ddt = dout * skip, np.zeros(delta.shape, delta.dtype)
    da, dbm, dcm = (np.zeros(v.shape, v.dtype) for v in (a, bm, cm))
    carry = np.zeros(hs[0].shape, u.dtype)
    for t in reversed(range(u.shape[1])):
        dh = carry + dout[:, t, :, None] * cm[:, t, None, :]
        dcm[:, t] = (dout[:, t, :, None] * hs[t + 1]).sum(1)
        dbm[:, t] = (dh * (dt[:, t] * u[:, t])[..., None]).sum(1)
        through_b = (dh * bm[:, t, None, :]).sum(-1)
        dexponent = dh * hs[t] * decay[:, t]
        ddt[:, t] = (dexponent * a).sum(-1) + through_b * u[:, t]
        da += (dexponent * dt[:, t, :, None]).sum(0)
        du[:, t] += through_b * dt[:, t]
        carry = dh * decay[:, t]
    ddelta = ddt * expit(delta)
    da_log = da * a
    return du, ddelta, da_log, dbm, dcm, (dout * u).sum((0, 1))


selective_scan = (selective_scan_forward, selective_scan_backward)


def selective_scan_torch(u, delta, a_log, bm, cm, skip):
    dt = torch.logaddexp(torch.zeros_like(delta), delta)
    a = -torch.exp(a_log)
    h, ys = 0, []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * u[:, t])[..., None] * bm[:, t, None, :]
        ys.append((h * cm[:, t, None, :]).sum(-1))
    return torch.stack(ys, 1) + skip * u


SUBJECTS = {
    "gru_cell": Subject(
        against=gru_cell_torch,
        calls=[call(normal(3, 4), normal(3, 5), normal(15, 4), normal(15, 5), normal(15), normal(15))],
    ),
    "LSTM": Subject(
        against=lstm_torch,
        calls=[call(normal(4, 2, 3), normal(2, 5), normal(3, 20), normal(5, 20), normal(20))],
    ),
    "linear_scan": Subject(
        against=linear_scan_torch,
        calls=[call(uniform(2, 5, 3), normal(2, 5, 3, 4), normal(2, 3, 4))],
    ),
    "selective_scan": Subject(
        against=selective_scan_torch,
        calls=[
            call(normal(2, 5, 3), normal(2, 5, 3), normal(3, 4, scale=0.5), normal(2, 5, 4), normal(2, 5, 4), normal(3))
        ],
    ),
}

MISTAKES = [
    # the update gate's slope, of the convention in which z weighs n
    Mistake("gru_cell", "sign", "dz = dy * (h - n) * z * (1 - z)", "dz = dy * (n - h) * z * (1 - z)"),
    # both sides of the candidate are given the same
    Mistake("gru_cell", "elementwise factor", "np.concatenate([dr, dz, dn * r], axis=1)", "np.concatenate([dr, dz, dn], axis=1)"),
    # the cell after the step is saved, where the forget gate had the one before it
    Mistake("LSTM", "operand", "self.steps.append((h, before, i, f", "self.steps.append((h, c, i, f"),
    # the buffer is made once and adds up over further calls of the same object
    Mistake(
        "LSTM",
        "state",
        "self.db = np.zeros(w.shape[1], w.dtype)",
        'if not hasattr(self, "db") or self.db.shape != w.shape[1:] or self.db.dtype != w.dtype:\n'
        "            self.db = np.zeros(w.shape[1], w.dtype)",
    ),
    # h[t] where h[t-1] is meant
    Mistake("linear_scan", "operand", "before = hs[:, t - 1] if t else h0", "before = hs[:, t]"),
    # the slope of softplus, far out: inf / inf
    Mistake("selective_scan", "range", "ddelta = ddt * expit(delta)", "ddelta = ddt * np.exp(delta) / (1 + np.exp(delta))"),
    # a = -exp(a_log)
    Mistake("selective_scan", "sign", "da_log = da * a\n", "da_log = da * np.exp(a_log)\n"),
    # delta discretizes b as well
    Mistake("selective_scan", "missing term", "(dexponent * a).sum(-1) + through_b * u[:, t]", "(dexponent * a).sum(-1)"),
]
