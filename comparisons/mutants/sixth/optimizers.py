"""Steps of optimizers as rules, differentiated: right functions, and the mistakes that are made in them."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal, uniform


def adamw_step(p, g, m, v, step=3, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.05):
    """The new parameters, of parameters, gradient and both moments."""
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    m_new = beta1 * m + (1 - beta1) * g
    v_new = beta2 * v + (1 - beta2) * g * g
    root = np.sqrt(v_new / c2)
    y = p * (1 - lr * decay) - lr * (m_new / c1) / (root + eps)

    def pullback(dy):
        dm_new = -lr * dy / (root + eps) / c1
        droot = lr * dy * (m_new / c1) / (root + eps) ** 2
        dv_new = droot / (2 * root) / c2
        dp = dy * (1 - lr * decay)
        dg = (1 - beta1) * dm_new + (1 - beta2) * 2 * g * dv_new
        return dp, dg, beta1 * dm_new, beta2 * dv_new

    return y, pullback


def adamw_step_torch(p, g, m, v, step=3, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.05):
    m_hat = (beta1 * m + (1 - beta1) * g) / (1 - beta1**step)
    v_hat = (beta2 * v + (1 - beta2) * g * g) / (1 - beta2**step)
    return p * (1 - lr * decay) - lr * m_hat / (torch.sqrt(v_hat) + eps)


def clipped_nesterov_step(p, g, buf, lr=0.1, momentum=0.9, max_norm=1.0):
    """The gradient is clipped to a norm as clip_grad_norm_ does it, then Nesterov's step."""
    norm = np.sqrt((g * g).sum())
    ratio = max_norm / (norm + 1e-6)
    clipped = g * ratio if ratio <= 1 else g
    new_buf = momentum * buf + clipped
    y = p - lr * (clipped + momentum * new_buf)

    def pullback(dy):
        dnew_buf = -lr * momentum * dy
        dclipped = -lr * dy + dnew_buf
        dbuf = momentum * dnew_buf
        if ratio > 1:
            return dy.copy(), dclipped, dbuf
        dratio = (dclipped * g).sum()
        dnorm = -dratio * ratio / (norm + 1e-6)
        dg = dclipped * ratio
        dg = dg + dnorm * g / norm
        return dy.copy(), dg, dbuf

    return y, pullback


def clipped_nesterov_step_torch(p, g, buf, lr=0.1, momentum=0.9, max_norm=1.0):
    ratio = (max_norm / (torch.linalg.vector_norm(g) + 1e-6)).clamp(max=1.0)
    clipped = g * ratio
    return p - lr * (clipped + momentum * (momentum * buf + clipped))


def newton_schulz(g, steps=2, eps=1e-7):
    """Muon's orthogonalization by a quintic iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[0] > g.shape[1]
    start = g.T if tall else g
    norm = np.sqrt((start * start).sum())
    x, saved = start / (norm + eps), []
    for _ in range(steps):
        m = x @ x.T
        k = b * m + c * (m @ m)
        saved.append((x, m, k))
        x = a * x + k @ x

    def pullback(dy):
        dx = dy.T if tall else dy
        for x, m, k in reversed(saved):
            dk = dx @ x.T
            dm = b * dk + c * (dk @ m.T + m.T @ dk)
            dx = a * dx + k.T @ dx + (dm + dm.T) @ x
        dnorm = -(dx * start).sum() / (norm + eps) ** 2
        dstart = dx / (norm + eps) + dnorm * start / norm
        return dstart.T if tall else dstart

    return (x.T if tall else x), pullback


def newton_schulz_torch(g, steps=2, eps=1e-7):
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (torch.sqrt((x * x).sum()) + eps)
    for _ in range(steps):
        m = x @ x.T
        x = 3.4445 * x + (-4.7750 * m + 2.0315 * (m @ m)) @ x
    return x.T if tall else x


SUBJECTS = {
    "adamw_step": Subject(
        against=adamw_step_torch,
        calls=[
            call(normal(3, 4), normal(3, 4), normal(3, 4), uniform(3, 4)),
            call(normal(5), normal(5), normal(5), uniform(5), step=1, lr=0.5, eps=0.1, decay=0.2),
        ],
    ),
    "clipped_nesterov_step": Subject(
        against=clipped_nesterov_step_torch,
        calls=[
            call(normal(3, 4), normal(3, 4), normal(3, 4)),
            call(normal(5), normal(5), normal(5), lr=0.3, momentum=0.5, max_norm=100.0),
        ],
    ),
    "newton_schulz": Subject(
        against=newton_schulz_torch,
        calls=[call(normal(3, 5)), call(normal(4, 2), steps=3)],
    ),
}

MISTAKES = [
    # the second moment taken for a constant
    Mistake("adamw_step", "missing term", "dg = (1 - beta1) * dm_new + (1 - beta2) * 2 * g * dv_new", "dg = (1 - beta1) * dm_new"),
    # from Adam, where the decay is added to the gradient
    Mistake(
        "adamw_step",
        "extra term / variant",
        "return dp, dg, beta1 * dm_new",
        "return dp + decay * dg, dg, beta1 * dm_new",
    ),
    # the ratio taken for a constant
    Mistake("clipped_nesterov_step", "missing term", "        dg = dg + dnorm * g / norm\n", ""),
    # x xᵀ is symmetric, its gradient is not
    Mistake("newton_schulz", "transpose", "(dm + dm.T) @ x", "(dm + dm) @ x"),
]
