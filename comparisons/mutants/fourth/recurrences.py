"""Recurrences: right functions, and the mistakes that are made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal, uniform


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def rnn_forward(x, h0, Wx, Wh, b):
    """x (N, T, D) → all h (N, T, H)."""
    N, T, _ = x.shape
    h = np.zeros((N, T, h0.shape[1]), x.dtype)
    last = h0
    for t in range(T):
        last = np.tanh(x[:, t] @ Wx + last @ Wh + b)
        h[:, t] = last
    return h, (x, h0, Wx, Wh, b, h)


def rnn_backward(dout, cache):
    x, h0, Wx, Wh, b, h = cache
    dx = np.zeros(x.shape, x.dtype)
    dWx, dWh, db = np.zeros(Wx.shape, Wx.dtype), np.zeros(Wh.shape, Wh.dtype), np.zeros(b.shape, b.dtype)
    carry = np.zeros(h0.shape, h0.dtype)
    for t in reversed(range(x.shape[1])):
        prev = h[:, t - 1] if t > 0 else h0
        da = (dout[:, t] + carry) * (1 - h[:, t] ** 2)
        dx[:, t] = da @ Wx.T
        dWx += x[:, t].T @ da
        dWh += prev.T @ da
        db += da.sum(0)
        carry = da @ Wh.T
    return dx, carry, dWx, dWh, db


rnn = (rnn_forward, rnn_backward)


def rnn_torch(x, h0, Wx, Wh, b):
    out, h = [], h0
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ Wx + h @ Wh + b)
        out.append(h)
    return torch.stack(out, 1)


class LSTM:
    """x (T, N, D), W (D, 4H), U (H, 4H), b (4H,): gates in the order i, f, g, o; zero state at first; all h."""

    def forward(self, x, W, U, b):
        T, N, _ = x.shape
        H = U.shape[0]
        self.W, self.U, self.saved = W, U, []
        h, c = np.zeros((N, H), x.dtype), np.zeros((N, H), x.dtype)
        out = []
        for t in range(T):
            z = x[t] @ W + h @ U + b
            i, f, o = sigmoid(z[:, :H]), sigmoid(z[:, H : 2 * H]), sigmoid(z[:, 3 * H :])
            g = np.tanh(z[:, 2 * H : 3 * H])
            c_prev, h_prev = c, h
            c = f * c_prev + i * g
            h = o * np.tanh(c)
            self.saved.append((x[t], h_prev, c_prev, c, i, f, g, o))
            out.append(h)
        return np.stack(out)

    def backward(self, dout):
        dW, dU = np.zeros(self.W.shape, self.W.dtype), np.zeros(self.U.shape, self.U.dtype)
        db = np.zeros(self.W.shape[1:], self.W.dtype)
        dx = []
        dh, dc = np.zeros_like(dout[0]), np.zeros_like(dout[0])
        for t in reversed(range(len(dout))):
            x, h_prev, c_prev, c, i, f, g, o = self.saved[t]
            dh = dh + dout[t]
            tc = np.tanh(c)
            do = dh * tc
            dc = dc + dh * o * (1 - tc**2)
            di, df, dg = dc * g, dc * c_prev, dc * i
            dz = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
            dW += x.T @ dz
            dU += h_prev.T @ dz
            db += dz.sum(axis=0)
            dx.append(dz @ self.W.T)
            dh = dz @ self.U.T
            dc = dc * f
        return np.stack(dx[::-1]), dW, dU, db


def lstm_torch(x, W, U, b):
    H = U.shape[0]
    h = c = torch.zeros(x.shape[1], H, dtype=x.dtype)
    out = []
    for t in range(len(x)):
        i, f, g, o = (x[t] @ W + h @ U + b).split(H, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out)


def gru_step(x, h, W, U, b, c):
    """One step as torch has it, the reset gate after the product: W (D, 3H), U (H, 3H), order r, z, n."""
    H = h.shape[1]
    gx, gh = x @ W + b, h @ U + c
    r = sigmoid(gx[:, :H] + gh[:, :H])
    z = sigmoid(gx[:, H : 2 * H] + gh[:, H : 2 * H])
    n = np.tanh(gx[:, 2 * H :] + r * gh[:, 2 * H :])
    y = (1 - z) * n + z * h

    def pullback(dy):
        dn = dy * (1 - z) * (1 - n**2)
        dz = dy * (h - n) * z * (1 - z)
        dr = dn * gh[:, 2 * H :] * r * (1 - r)
        dgx = np.concatenate([dr, dz, dn], 1)
        dgh = np.concatenate([dr, dz, dn * r], 1)
        dh = dgh @ U.T + dy * z
        return dgx @ W.T, dh, x.T @ dgx, h.T @ dgh, dgx.sum(0), dgh.sum(0)

    return y, pullback


def gru_step_torch(x, h, W, U, b, c):
    return torch.ops.aten.gru_cell(x, h, W.T, U.T, b, c)


def gated_scan(a, x, h0, chunk=3):
    """h[t] = a[t] · h[t − 1] + x[t] over the axis of time of (N, T, D), in chunks of which the first states are saved."""
    N, T, D = x.shape
    h, h_last = np.empty(x.shape, x.dtype), h0
    starts = {}
    for t0 in range(0, T, chunk):
        starts[t0] = h_last
        for t in range(t0, min(t0 + chunk, T)):
            h_last = a[:, t] * h_last + x[:, t]
            h[:, t] = h_last

    def pullback(dh):
        da, dx = np.empty(a.shape, a.dtype), np.empty(x.shape, x.dtype)
        carry = np.zeros((N, D), x.dtype)
        for t0 in reversed(range(0, T, chunk)):
            t1 = min(t0 + chunk, T)
            states = [starts[t0]]
            for t in range(t0, t1):
                states.append(a[:, t] * states[-1] + x[:, t])
            for t in reversed(range(t0, t1)):
                carry = carry + dh[:, t]
                dx[:, t] = carry
                da[:, t] = carry * states[t - t0]
                carry = carry * a[:, t]
        return da, dx, carry

    return h, pullback


def gated_scan_torch(a, x, h0, chunk=3):
    out, h = [], h0
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        out.append(h)
    return torch.stack(out, 1)


def linear_attention(q, k, v, decay):
    """S[t] = decay · S[t − 1] + k[t] v[t]ᵀ, y[t] = S[t]ᵀ q[t] over (H, T, D), a decay per head, in torch."""
    H, T, D = q.shape
    S = q.new_zeros(H, D, v.shape[-1])
    states, ys = [S], []
    for t in range(T):
        S = decay[:, None, None] * S + k[:, t, :, None] * v[:, t, None, :]
        states.append(S)
        ys.append(torch.einsum("hdv,hd->hv", S, q[:, t]))
    y = torch.stack(ys, 1)

    def pullback(dy):
        dq, dk, dv = (torch.zeros(z.shape, dtype=z.dtype) for z in (q, k, v))
        ddecay = torch.zeros(H, dtype=q.dtype)
        dS = torch.zeros_like(S)
        for t in reversed(range(T)):
            dS = dS + q[:, t, :, None] * dy[:, t, None, :]
            dq[:, t] = torch.einsum("hdv,hv->hd", states[t + 1], dy[:, t])
            dk[:, t] = torch.einsum("hdv,hv->hd", dS, v[:, t])
            dv[:, t] = torch.einsum("hdv,hd->hv", dS, k[:, t])
            ddecay += (dS * states[t]).sum((1, 2))
            dS = decay[:, None, None] * dS
        return dq, dk, dv, ddecay

    return y, pullback


def linear_attention_torch(q, k, v, decay):
    T = q.shape[1]
    gap = torch.arange(T)[:, None] - torch.arange(T)
    w = torch.where(gap >= 0, decay[:, None, None] ** gap.clamp(min=0), torch.zeros((), dtype=q.dtype))
    return (q @ k.transpose(1, 2) * w) @ v


SUBJECTS = {
    "rnn": Subject(against=rnn_torch, calls=[call(normal(3, 4, 2), normal(3, 5), normal(2, 5), normal(5, 5), normal(5))]),
    "LSTM": Subject(against=lstm_torch, calls=[call(normal(4, 3, 2), normal(2, 12), normal(3, 12), normal(12))]),
    "gru_step": Subject(against=gru_step_torch, calls=[call(normal(4, 3), normal(4, 2), normal(3, 6), normal(2, 6), normal(6), normal(6))]),
    "gated_scan": Subject(against=gated_scan_torch, calls=[call(uniform(2, 7, 3), normal(2, 7, 3), normal(2, 3))]),
    "linear_attention": Subject(against=linear_attention_torch, calls=[call(normal(2, 5, 3), normal(2, 5, 3), normal(2, 5, 2), uniform(2))]),
}
MISTAKES = [
    Mistake("rnn", "operand / misplaced", "dWh += prev.T @ da", "dWh += h[:, t].T @ da"),
    # the first state is taken for zero, as h[−1] = h[T − 1] is what the index gives
    Mistake("rnn", "misplaced / operand", "prev = h[:, t - 1] if t > 0 else h0", "prev = h[:, t - 1]"),
    Mistake("rnn", "missing term", "da = (dout[:, t] + carry) *", "da = dout[:, t] *"),
    Mistake("rnn", "transpose", "carry = da @ Wh.T", "carry = da @ Wh"),
    # the cell's path through time
    Mistake("LSTM", "operand / misplaced", "dc * g, dc * c_prev, dc * i", "dc * g, dc * c, dc * i"),
    # one layer used twice: the list goes on from the earlier sequence, and its beginning is read
    Mistake("LSTM", "state", "self.W, self.U, self.saved = W, U, []", 'self.W, self.U, self.saved = W, U, getattr(self, "saved", [])'),
    Mistake("LSTM", "overwritten / missing term", "dc = dc + dh * o", "dc = dh * o"),
    Mistake("LSTM", "operand / elementwise factor", "dh * o * (1 - tc**2)", "dh * o * (1 - c**2)"),
    # the gates in another library's order
    Mistake("LSTM", "misplaced / swapped", "dg * (1 - g**2), do * o * (1 - o)]", "do * o * (1 - o), dg * (1 - g**2)]"),
    Mistake("gru_step", "missing term / overwritten", "dgh @ U.T + dy * z", "dgh @ U.T"),
    # the variant where the gate stands before the product
    Mistake("gru_step", "elementwise factor / variant", "np.concatenate([dr, dz, dn * r], 1)", "np.concatenate([dr, dz, dn], 1)"),
    Mistake("gru_step", "sign / swapped", "dz = dy * (h - n)", "dz = dy * (n - h)"),
    Mistake("gated_scan", "operand / misplaced", "carry * states[t - t0]", "carry * states[t - t0 + 1]"),
    # each chunk begins anew
    Mistake("gated_scan", "missing term / misplaced", "            t1 = min(t0 + chunk, T)\n            states", "            t1, carry = min(t0 + chunk, T), np.zeros((N, D), x.dtype)\n            states"),
    # the state that a chunk begins with: its last, not its first
    Mistake("gated_scan", "operand / misplaced", "states = [starts[t0]]", "states = [h[:, t0]]"),
    Mistake("linear_attention", "operand / misplaced", "states[t + 1], dy[:, t]", "states[t], dy[:, t]"),
    Mistake("linear_attention", "missing term", "dS = decay[:, None, None] * dS", "dS = torch.zeros_like(dS)"),
    Mistake("linear_attention", "broadcast", "ddecay += (dS * states[t]).sum((1, 2))", "ddecay += (dS * states[t]).sum((0, 1, 2))"),
]
