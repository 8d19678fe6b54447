"""Recurrences: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def rnn_forward(x, h0, Wx, Wh, b):
    """x (n, t, d), h0 (n, h) -> all hidden states (n, t, h)."""
    n, steps, _ = x.shape
    h = np.zeros((n, steps, h0.shape[1]), x.dtype)
    prev = h0
    for t in range(steps):
        prev = np.tanh(x[:, t] @ Wx + prev @ Wh + b)
        h[:, t] = prev
    return h, (x, h0, Wx, Wh, h)


def rnn_backward(dh, cache):
    x, h0, Wx, Wh, h = cache
    n, steps, d = x.shape
    dx, dWx, dWh = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh)
    db = np.zeros(Wh.shape[1], x.dtype)
    dprev = np.zeros_like(h0)
    for t in reversed(range(steps)):
        before = h[:, t - 1] if t > 0 else h0
        da = (dh[:, t] + dprev) * (1 - h[:, t] ** 2)
        dx[:, t] = da @ Wx.T
        dprev = da @ Wh.T
        dWx += x[:, t].T @ da
        dWh += before.T @ da
        db += da.sum(axis=0)
    return dx, dprev, dWx, dWh, db


rnn = (rnn_forward, rnn_backward)


def rnn_torch(x, h0, Wx, Wh, b):
    out = []
    for t in range(x.shape[1]):
        h0 = torch.tanh(x[:, t] @ Wx + h0 @ Wh + b)
        out.append(h0)
    return torch.stack(out, 1)


def gru_cell(x, h, w_ih, w_hh, b_ih, b_hh):
    """torch's: the reset gate after the matrix product."""
    gi = x @ w_ih.T + b_ih
    gh = h @ w_hh.T + b_hh
    ir, iz, inn = np.split(gi, 3, axis=1)
    hr, hz, hn = np.split(gh, 3, axis=1)
    r, z = sigmoid(ir + hr), sigmoid(iz + hz)
    cand = np.tanh(inn + r * hn)
    y = (1 - z) * cand + z * h

    def pullback(dy):
        dn = dy * (1 - z) * (1 - cand**2)
        dz = dy * (h - cand) * z * (1 - z)
        dr = dn * hn * r * (1 - r)
        dgi = np.concatenate([dr, dz, dn], axis=1)
        dgh = np.concatenate([dr, dz, dn * r], axis=1)
        dh = dgh @ w_hh + dy * z
        return dgi @ w_ih, dh, dgi.T @ x, dgh.T @ h, dgi.sum(axis=0), dgh.sum(axis=0)

    return y, pullback


class LSTMLayer:
    """Of a course: z = [x, h] W + b, the gates in the order i, f, o, g; returns the hidden states (t, n, h)."""

    def forward(self, x, h0, c0, W, b):
        steps, n, d = x.shape
        size = h0.shape[1]
        self.W, self.d, self.cache = W, d, []
        h, c = h0, c0
        out = np.zeros((steps, n, size), x.dtype)
        for t in range(steps):
            z = np.concatenate([x[t], h], axis=1)
            a = z @ W + b
            i, f, o = sigmoid(a[:, :size]), sigmoid(a[:, size : 2 * size]), sigmoid(a[:, 2 * size : 3 * size])
            g = np.tanh(a[:, 3 * size :])
            c_prev, c = c, f * c + i * g
            h = o * np.tanh(c)
            out[t] = h
            self.cache.append((z, i, f, o, g, c_prev, c))
        return out

    def backward(self, dout):
        dW = np.zeros_like(self.W)
        db = np.zeros(self.W.shape[1], self.W.dtype)
        dx = np.zeros((*dout.shape[:2], self.d), dout.dtype)
        dh = np.zeros(dout.shape[1:], dout.dtype)
        dc = np.zeros(dout.shape[1:], dout.dtype)
        for t in reversed(range(len(dout))):
            z, i, f, o, g, c_prev, c = self.cache[t]
            dh = dh + dout[t]
            tc = np.tanh(c)
            do = dh * tc
            dc = dc + dh * o * (1 - tc**2)
            di, dg, df = dc * g, dc * i, dc * c_prev
            dc = dc * f
            da = np.concatenate([di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)], axis=1)
            dW += z.T @ da
            db += da.sum(axis=0)
            dz = da @ self.W.T
            dx[t], dh = dz[:, : self.d], dz[:, self.d :]
        return dx, dh, dc, dW, db


def lstm_torch(x, h0, c0, W, b):
    out = []
    for t in range(x.shape[0]):
        i, f, o, g = (torch.cat([x[t], h0], 1) @ W + b).chunk(4, dim=1)
        c0 = torch.sigmoid(f) * c0 + torch.sigmoid(i) * torch.tanh(g)
        h0 = torch.sigmoid(o) * torch.tanh(c0)
        out.append(h0)
    return torch.stack(out)


def linear_scan(a, x, chunk=4):
    """h[t] = a[t] h[t - 1] + x[t], h[-1] = 0, over axis 1 of (n, t, d); only the state before each chunk is saved."""
    n, length, d = x.shape
    carries = []
    h = np.zeros((n, d), x.dtype)
    y = np.empty(x.shape, x.dtype)
    for start in range(0, length, chunk):
        carries.append(h)
        for t in range(start, min(start + chunk, length)):
            h = a[:, t] * h + x[:, t]
            y[:, t] = h

    def pullback(dy):
        da, dx = np.empty(a.shape, a.dtype), np.empty(x.shape, x.dtype)
        carry = np.zeros((n, d), x.dtype)
        for number in reversed(range(len(carries))):
            start = number * chunk
            stop = min(start + chunk, length)
            states = [carries[number]]
            for t in range(start, stop):
                states.append(a[:, t] * states[-1] + x[:, t])
            for t in reversed(range(start, stop)):
                carry = carry + dy[:, t]
                dx[:, t] = carry
                da[:, t] = carry * states[t - start]
                carry = carry * a[:, t]
        return da, dx

    return y, pullback


def linear_scan_torch(a, x, chunk=4):
    h, out = 0, []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        out.append(h)
    return torch.stack(out, 1)


def selective_scan(u, delta, A, B, C, D):
    """u, delta (n, t, d); A (d, s); B, C (n, t, s); D (d): h = exp(dt A) h + dt B u, y = C h + D u, dt = softplus(delta)."""
    n, length, d = u.shape
    dt = np.logaddexp(delta, 0)
    h = np.zeros((n, d, A.shape[1]), u.dtype)
    states = [h]
    y = np.empty(u.shape, u.dtype)
    for t in range(length):
        h = np.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        states.append(h)
        y[:, t] = (h * C[:, t, None]).sum(axis=-1) + D * u[:, t]

    def pullback(dy):
        du, ddt = dy * D, np.zeros(delta.shape, delta.dtype)
        dA, dB, dC = np.zeros_like(A), np.zeros_like(B), np.zeros_like(C)
        dh = np.zeros_like(h)
        for t in reversed(range(length)):
            dh = dh + dy[:, t, :, None] * C[:, t, None]
            dC[:, t] = (dy[:, t, :, None] * states[t + 1]).sum(axis=1)
            decay = np.exp(dt[:, t, :, None] * A)
            ddecay = dh * states[t] * decay
            dbu = (dh * B[:, t, None]).sum(axis=-1)
            dA += (ddecay * dt[:, t, :, None]).sum(axis=0)
            ddt[:, t] = (ddecay * A).sum(axis=-1) + dbu * u[:, t]
            dB[:, t] = (dh * (dt[:, t] * u[:, t])[..., None]).sum(axis=1)
            du[:, t] += dbu * dt[:, t]
            dh = dh * decay
        return du, ddt * sigmoid(delta), dA, dB, dC, (dy * u).sum(axis=(0, 1))

    return y, pullback


def selective_scan_torch(u, delta, A, B, C, D):
    dt = F.softplus(delta)
    h, out = 0, []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        out.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
    return torch.stack(out, 1)


def ema(x, beta=0.9, debias=True):
    """m[t] = beta m[t - 1] + (1 - beta) x[t] over the last axis; debiased by 1 - beta ** (t + 1)."""
    y = np.empty(x.shape, x.dtype)
    m = np.zeros(x.shape[:-1], x.dtype)
    correction = 1 - beta ** (np.arange(x.shape[-1]) + 1) if debias else np.ones(x.shape[-1])
    for t in range(x.shape[-1]):
        m = beta * m + (1 - beta) * x[..., t]
        y[..., t] = m / correction[t]

    def pullback(dy):
        dx = np.empty(x.shape, dy.dtype)
        dm = np.zeros(x.shape[:-1], dy.dtype)
        for t in reversed(range(x.shape[-1])):
            dm = dm * beta + dy[..., t] / correction[t]
            dx[..., t] = (1 - beta) * dm
        return (dx,)

    return y, pullback


def ema_torch(x, beta=0.9, debias=True):
    m, out = 0, []
    for t in range(x.shape[-1]):
        m = beta * m + (1 - beta) * x[..., t]
        out.append(m / (1 - beta ** (t + 1)) if debias else m)
    return torch.stack(out, -1)


SUBJECTS = {
    "rnn": Subject(against=rnn_torch, calls=[
        call(normal(3, 4, 2), normal(3, 5), normal(2, 5), normal(5, 5, scale=0.5), normal(5)),
        call(normal(2, 3, 4), normal(2, 4), normal(4, 4, scale=0.5), normal(4, 4, scale=0.5), normal(4))]),
    "gru_cell": Subject(against="torch.gru_cell", calls=[
        call(normal(3, 4), normal(3, 5), normal(15, 4), normal(15, 5), normal(15), normal(15)),
        call(normal(2, 3), normal(2, 3), normal(9, 3), normal(9, 3), normal(9), normal(9))]),
    "LSTMLayer": Subject(against=lstm_torch, calls=[
        call(normal(4, 2, 3), normal(2, 3), normal(2, 3), normal(6, 12, scale=0.5), normal(12)),
        call(normal(2, 3, 2), normal(3, 4), normal(3, 4), normal(6, 16, scale=0.5), normal(16))]),
    "linear_scan": Subject(against=linear_scan_torch, calls=[
        call(uniform(2, 10, 3), normal(2, 10, 3)), call(uniform(1, 6, 2), normal(1, 6, 2), chunk=3)]),
    "selective_scan": Subject(against=selective_scan_torch, calls=[
        call(normal(2, 5, 3), normal(2, 5, 3), normal(3, 4, shift=-1.0, scale=0.3), normal(2, 5, 4), normal(2, 5, 4), normal(3)),
        call(normal(1, 4, 2), normal(1, 4, 2), normal(2, 2, shift=-1.0, scale=0.3), normal(1, 4, 2), normal(1, 4, 2), normal(2))]),
    "ema": Subject(against=ema_torch, calls=[call(normal(3, 6)), call(normal(2, 2, 5), beta=0.5, debias=False)]),
}
MISTAKES = [
    # only the slope of the step's own state, not what comes from later steps
    Mistake("rnn", "missing term", "(dh[:, t] + dprev) * (1", "dh[:, t] * (1"),
    # after for before: the state that the step made
    Mistake("rnn", "operand", "before.T @ da", "h[:, t].T @ da"),
    Mistake("rnn", "elementwise factor / operand", "(1 - h[:, t] ** 2)", "(1 - before**2)"),
    Mistake("rnn", "transpose", "dprev = da @ Wh.T", "dprev = da @ Wh"),
    # the reset gate before the product (Cho et al.): r is in the wrong place
    Mistake("gru_cell", "elementwise factor", "[dr, dz, dn * r]", "[dr, dz, dn]"),
    Mistake("gru_cell", "sign", "dy * (h - cand) * z", "dy * (cand - h) * z"),
    Mistake("gru_cell", "missing term", "dgh @ w_hh + dy * z", "dgh @ w_hh"),
    Mistake("gru_cell", "operand / elementwise factor", "dn * hn * r * (1 - r)", "dn * (hn - b_hh[2 * h.shape[1] :]) * r * (1 - r)"),  # the product without its bias
    Mistake("gru_cell", "misplaced / swapped", "np.concatenate([dr, dz, dn], axis=1)", "np.concatenate([dz, dr, dn], axis=1)"),
    # the cell's gradient from later steps is dropped
    Mistake("LSTMLayer", "missing term", "dc = dc + dh * o * (1 - tc**2)", "dc = dh * o * (1 - tc**2)"),
    Mistake("LSTMLayer", "operand", "dc * c_prev\n", "dc * c\n"),
    # torch's order of gates against the course's
    Mistake("LSTMLayer", "misplaced", "do * o * (1 - o), dg * (1 - g**2)]", "dg * (1 - g**2), do * o * (1 - o)]"),
    # g is tanh: the slope of a sigmoid
    Mistake("LSTMLayer", "elementwise factor", "dg * (1 - g**2)", "dg * g * (1 - g)"),
    # adds into what it was given
    Mistake("LSTMLayer", "mutation", "dh = dh + dout[t]\n", "dout[t] += dh\n            dh = dout[t]\n"),
    # decayed before it is used, where dc * f came too early
    Mistake("LSTMLayer", "elementwise factor / operand", "di, dg, df = dc * g, dc * i, dc * c_prev\n            dc = dc * f\n", "dc = dc * f\n            di, dg, df = dc * g, dc * i, dc * c_prev\n"),
    # the state of the same step instead of the one before
    Mistake("linear_scan", "operand / misplaced", "carry * states[t - start]", "carry * states[t - start + 1]"),
    # the gradient does not cross from chunk to chunk
    Mistake("linear_scan", "missing term / misplaced", "            states = [carries[number]]\n", "            states = [carries[number]]\n            carry = np.zeros((n, d), x.dtype)\n"),
    # recomputation starts every chunk from zero
    Mistake("linear_scan", "missing term / operand", "states = [carries[number]]", "states = [np.zeros((n, d), x.dtype)]"),
    Mistake("linear_scan", "misplaced", "carry = carry * a[:, t]", "carry = carry * a[:, t - 1]"),  # a shifted the wrong way
    # the step's size is in the decay and in the input; only the decay was thought of
    Mistake("selective_scan", "missing term", "(ddecay * A).sum(axis=-1) + dbu * u[:, t]", "(ddecay * A).sum(axis=-1)"),
    # an accumulator as kernels have it: float64 is computed in float32
    Mistake("selective_scan", "precision", "np.zeros(delta.shape, delta.dtype)", "np.zeros(delta.shape, np.float32)"),
    # d exp(z) = exp(z) dz, without exp(z)
    Mistake("selective_scan", "elementwise factor", "ddecay = dh * states[t] * decay", "ddecay = dh * states[t]"),
    # softplus was put in front later
    Mistake("selective_scan", "elementwise factor / missing term", "ddt * sigmoid(delta), dA", "ddt, dA"),
    Mistake("selective_scan", "overwritten / missing term", "du[:, t] += dbu * dt[:, t]", "du[:, t] = dbu * dt[:, t]"),
    Mistake("selective_scan", "operand", "dy[:, t, :, None] * states[t + 1]", "dy[:, t, :, None] * states[t]"),
    Mistake("ema", "variant / missing term / elementwise factor", "dy[..., t] / correction[t]", "dy[..., t]"),  # debias: the default
    Mistake("ema", "factor", "(1 - beta) * dm", "dm"),
    # decayed before it is used
    Mistake("ema", "misplaced / variant / factor", "dm = dm * beta + dy[..., t] / correction[t]", "dm = beta * (dm + dy[..., t] / correction[t])"),
    Mistake("rnn", "dtype", "db = np.zeros(Wh.shape[1], x.dtype)", "db = np.zeros(Wh.shape[1])"),  # float64 in float32
    Mistake("gru_cell", "broadcast / factor", "dgi.sum(axis=0), dgh", "dgi.mean(axis=0), dgh"),
    # a loss on the last state alone was thought of
    Mistake("LSTMLayer", "missing term / cotangent", "dh = dh + dout[t]\n", "dh = dh + (dout[t] if t == len(dout) - 1 else 0)\n"),
    Mistake("selective_scan", "range", "ddt * sigmoid(delta), dA", "ddt * np.exp(delta) / (1 + np.exp(delta)), dA"),
]
