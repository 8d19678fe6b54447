"""Steps of optimizers, differentiable (for learnt optimizers and hypergradients): right functions, and the mistakes made in them."""

import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal, uniform


def sgd_step(p, g, buf, lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True):
    """The parameters after one step of SGD, as torch does it (no dampening)."""
    d = g + weight_decay * p
    moved = momentum * buf + d
    step = d + momentum * moved if nesterov else moved
    y = p - lr * step

    def pullback(dy):
        dstep = -lr * dy
        dd, dmoved = (dstep, momentum * dstep) if nesterov else (0, dstep)
        dd = dd + dmoved
        dbuf = momentum * dmoved
        dp = dy + weight_decay * dd
        return dp, dd, dbuf

    return y, pullback


def sgd_step_torch(p, g, buf, lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True):
    d = g + weight_decay * p
    b = momentum * buf + d
    return p - lr * (d + momentum * b if nesterov else b)


def adamw_step(p, g, m, v, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-3, weight_decay=0.1, t=3):
    """The parameters after AdamW's step number t; v of zeros and more."""
    m1 = beta1 * m + (1 - beta1) * g
    v1 = beta2 * v + (1 - beta2) * g * g
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    root = np.sqrt(v1 / c2)
    denom = root + eps
    y = (1 - lr * weight_decay) * p - lr * (m1 / c1) / denom

    def pullback(dy):
        dp = (1 - lr * weight_decay) * dy
        dm1 = -lr / c1 * dy / denom
        ddenom = lr * (m1 / c1) * dy / denom**2
        dv1 = ddenom / (2 * root * c2)
        dg = (1 - beta1) * dm1 + 2 * (1 - beta2) * g * dv1
        return dp, dg, beta1 * dm1, beta2 * dv1

    return y, pullback


def adamw_step_torch(p, g, m, v, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-3, weight_decay=0.1, t=3):
    m1, v1 = m.lerp(g, 1 - beta1), v.lerp(g**2, 1 - beta2)
    return p - lr * weight_decay * p - lr * (m1 / (1 - beta1**t)) / ((v1 / (1 - beta2**t)).sqrt() + eps)


class RMSpropStep:
    """p − lr · g / √(α s + (1 − α) g² − mean² + ε), the centred form: mean = α a + (1 − α) g."""

    def forward(self, p, g, s, a, lr=0.1, alpha=0.9, eps=0.1):
        self.g, self.lr, self.alpha = g, lr, alpha
        self.mean = alpha * a + (1 - alpha) * g
        var = alpha * s + (1 - alpha) * g**2 - self.mean**2
        self.r = 1 / np.sqrt(np.maximum(var, 0) + eps)
        self.positive = var > 0
        return p - lr * g * self.r

    def backward(self, dout):
        alpha = self.alpha
        dr = -self.lr * self.g * dout
        dvar = np.where(self.positive, -0.5 * dr * self.r**3, 0)
        dmean = -2 * self.mean * dvar
        dg = -self.lr * self.r * dout + (1 - alpha) * (2 * self.g * dvar + dmean)
        ds = alpha * dvar
        da = alpha * dmean
        return dout.copy(), dg, ds, da


def rmsprop_step_torch(p, g, s, a, lr=0.1, alpha=0.9, eps=0.1):
    mean = alpha * a + (1 - alpha) * g
    var = alpha * s + (1 - alpha) * g**2 - mean**2
    return p - lr * g / torch.sqrt(torch.relu(var) + eps)


def clipped_step(p, g, lr=0.1, max_norm=1.0):
    """p − lr · g · min(1, max_norm / |g|)."""
    norm = float((g * g).sum()) ** 0.5
    scale = max_norm / norm if norm > max_norm else 1.0
    y = p - lr * scale * g

    def pullback(dy):
        dh = -lr * dy
        dg = scale * dh
        if norm > max_norm:
            dg = dg - scale * g * float((dh * g).sum()) / norm**2
        return dy.copy(), dg

    return y, pullback


def clipped_step_torch(p, g, lr=0.1, max_norm=1.0):
    norm = torch.sqrt((g * g).sum())
    return p - lr * g * (max_norm / norm if norm > max_norm else 1.0)


class LambStep(torch.autograd.Function):
    """p − 0.1 · (|p| / |u|) · u of the update u + 0.05 p, one tensor."""

    @staticmethod
    def forward(ctx, p, u):
        w = u + 0.05 * p
        np_, nw = p.norm(), w.norm()
        ctx.save_for_backward(p, w, np_, nw)
        return p - 0.1 * np_ / nw * w

    @staticmethod
    def backward(ctx, dy):
        p, w, np_, nw = ctx.saved_tensors
        d = -0.1 * dy
        inner = (d * w).sum()
        dw = np_ / nw * (d - w * inner / nw**2)
        dp = dy + p / np_ * inner / nw + 0.05 * dw
        return dp, dw


def lamb_step_torch(p, u):
    w = u + 0.05 * p
    return p - 0.1 * w * torch.sqrt((p * p).sum() / (w * w).sum())


def hypergradient_forward(p, lr, A, b, steps=3):
    """p after some steps of gradient descent on ½ pᵀ A p − bᵀ p, where lr (D,) is learnt; A symmetric or not."""
    path = [p]
    for _ in range(steps):
        p = p - lr * (0.5 * (A + A.T) @ p - b)
        path.append(p)
    return p, (path, lr, A, b)


def hypergradient_backward(dout, cache):
    path, lr, A, b = cache
    S = 0.5 * (A + A.T)
    dlr, db, dS = np.zeros(lr.shape, lr.dtype), np.zeros(b.shape, b.dtype), np.zeros(A.shape, A.dtype)
    dp = dout
    for p in reversed(path[:-1]):
        dlr -= dp * (S @ p - b)
        dgrad = -lr * dp
        db -= dgrad
        dS += np.outer(dgrad, p)
        dp = dp + S @ dgrad
    return dp, dlr, 0.5 * (dS + dS.T), db


hypergradient = (hypergradient_forward, hypergradient_backward)


def hypergradient_torch(p, lr, A, b, steps=3):
    for _ in range(steps):
        p = p - lr * ((A @ p + A.T @ p) / 2 - b)
    return p


def ema_weights(avg, w, decay=0.99, step=4):
    """Averaged weights with the decay warmed up: min(decay, (1 + step) / (10 + step))."""
    d = min(decay, (1 + step) / (10 + step))
    y = d * avg + (1 - d) * w

    def pullback(dy):
        return d * dy, (1 - d) * dy

    return y, pullback


def ema_weights_torch(avg, w, decay=0.99, step=4):
    d = min(decay, (1 + step) / (10 + step))
    return avg + (1 - d) * (w - avg)


SUBJECTS = {
    "sgd_step": Subject(against=sgd_step_torch, calls=[call(normal(3, 4), normal(3, 4), normal(3, 4)),
                                                       call(normal(5), normal(5), normal(5), nesterov=False)]),
    "adamw_step": Subject(against=adamw_step_torch, calls=[call(normal(3, 4), normal(3, 4), normal(3, 4), uniform(3, 4))]),
    "RMSpropStep": Subject(against=rmsprop_step_torch, calls=[call(normal(3, 4), normal(3, 4), uniform(3, 4), normal(3, 4, scale=0.3))]),
    "clipped_step": Subject(against=clipped_step_torch, calls=[call(normal(3, 4), normal(3, 4)), call(normal(4), normal(4), max_norm=50.0)]),
    "LambStep": Subject(against=lamb_step_torch, calls=[call(normal(3, 4), normal(3, 4))]),
    "hypergradient": Subject(against=hypergradient_torch, calls=[call(normal(4), uniform(4), normal(4, 4, scale=0.5), normal(4))]),
    "ema_weights": Subject(against=ema_weights_torch, calls=[call(normal(3, 4), normal(3, 4)), call(normal(5), normal(5), step=10000)]),
}
MISTAKES = [
    # nesterov's second way to d
    Mistake("sgd_step", "missing term / overwritten", "        dd = dd + dmoved\n", "        dd = dd if nesterov else dmoved\n"),
    Mistake("sgd_step", "missing term", "dp = dy + weight_decay * dd", "dp = dy.copy()"),
    Mistake("sgd_step", "variant / factor", "dbuf = momentum * dmoved", "dbuf = momentum * dstep"),
    # v1 depends on g as well
    Mistake("adamw_step", "missing term", "dg = (1 - beta1) * dm1 + 2 * (1 - beta2) * g * dv1", "dg = (1 - beta1) * dm1"),
    Mistake("adamw_step", "factor / variant", "dv1 = ddenom / (2 * root * c2)", "dv1 = ddenom / (2 * root)"),
    # ε within the root for ε beside it
    Mistake("adamw_step", "variant", "dv1 = ddenom / (2 * root * c2)", "dv1 = ddenom / (2 * denom * c2)"),
    # Adam's L2 for AdamW's decay
    Mistake("adamw_step", "variant / factor", "dp = (1 - lr * weight_decay) * dy", "dp = dy.copy()"),
    Mistake("adamw_step", "factor / swapped / operand / variant", "return dp, dg, beta1 * dm1, beta2 * dv1", "return dp, dg, beta2 * dm1, beta1 * dv1"),
    Mistake("RMSpropStep", "missing term", "(2 * self.g * dvar + dmean)", "2 * self.g * dvar"),
    Mistake("RMSpropStep", "sign", "dmean = -2 * self.mean * dvar", "dmean = 2 * self.mean * dvar"),
    # where the difference of two means is negative, only
    Mistake("RMSpropStep", "elementwise factor / range / kink", "np.where(self.positive, -0.5 * dr * self.r**3, 0)", "-0.5 * dr * self.r**3"),
    # the norm is taken for a constant: only of the first call, where it acts
    Mistake("clipped_step", "missing term", "dg = dg - scale * g * float((dh * g).sum()) / norm**2", "dg = dg * 1.0"),
    Mistake("clipped_step", "factor / variant", "float((dh * g).sum()) / norm**2", "float((dh * g).sum()) / norm"),
    # the second call, which is not clipped
    Mistake("clipped_step", "extra term / range / variant", "        if norm > max_norm:\n            dg", "        if norm > 0:\n            dg"),
    Mistake("LambStep", "missing term", "dp = dy + p / np_ * inner / nw + 0.05 * dw", "dp = dy + 0.05 * dw"),
    Mistake("LambStep", "operand", "dw = np_ / nw * (d - w * inner / nw**2)", "dw = np_ / nw * (d - p * inner / nw**2)"),
    # the path is saved after, not before, each step
    Mistake("hypergradient", "operand / misplaced", "for p in reversed(path[:-1]):", "for p in reversed(path[1:]):"),
    Mistake("hypergradient", "overwritten", "db -= dgrad", "db = -dgrad"),
    Mistake("hypergradient", "missing term / transpose", "return dp, dlr, 0.5 * (dS + dS.T), db", "return dp, dlr, dS, db"),
    # dy is added to in place, step by step
    Mistake("hypergradient", "mutation", "dp = dp + S @ dgrad", "dp += S @ dgrad"),
    Mistake("hypergradient", "missing term", "dp = dp + S @ dgrad", "dp = dp + np.diagonal(S) * dgrad"),
    # the warm-up is forgotten: right at the second call
    Mistake("ema_weights", "variant / factor", "return d * dy, (1 - d) * dy", "return decay * dy, (1 - decay) * dy"),
    Mistake("ema_weights", "swapped", "return d * dy, (1 - d) * dy", "return (1 - d) * dy, d * dy"),
]
