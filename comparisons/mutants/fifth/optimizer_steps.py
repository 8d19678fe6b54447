"""Steps of optimizers as rules: parameters, gradient and state in, new parameters out, differentiated."""


import numpy as np
import torch

from ..mistakes import Mistake, Subject, call, normal, uniform

# --- AdamW


def adamw_step(p, g, m, v, lr=0.1, b1=0.9, b2=0.99, eps=1e-8, wd=0.1, t=3):
    m1 = b1 * m + (1 - b1) * g
    v1 = b2 * v + (1 - b2) * g * g
    c1, c2 = 1 - b1**t, 1 - b2**t
    root = np.sqrt(v1 / c2)
    den = root + eps
    y = p * (1 - lr * wd) - lr * (m1 / c1) / den

    def pullback(dy):
        dp = dy * (1 - lr * wd)
        du = -lr * dy
        dm1 = du / den / c1
        dden = -du * (m1 / c1) / den**2
        dv1 = dden / (2 * root) / c2
        dg = dm1 * (1 - b1) + dv1 * (1 - b2) * 2 * g
        return dp, dg, dm1 * b1, dv1 * b2

    return y, pullback


def adamw_step_torch(p, g, m, v, lr=0.1, b1=0.9, b2=0.99, eps=1e-8, wd=0.1, t=3):
    m1 = b1 * m + (1 - b1) * g
    v1 = b2 * v + (1 - b2) * (g * g)
    return p * (1 - lr * wd) - lr * (m1 / (1 - b1**t)) / (torch.sqrt(v1 / (1 - b2**t)) + eps)


# --- LAMB: the step as long as the parameters


def lamb_step(p, g, m, v, lr=0.1, b1=0.9, b2=0.99, eps=1e-6, wd=0.01):
    m1 = b1 * m + (1 - b1) * g
    root = np.sqrt(b2 * v + (1 - b2) * g * g)
    den = root + eps
    u = m1 / den + wd * p
    pn, un = np.sqrt((p * p).sum() + 1e-12), np.sqrt((u * u).sum() + 1e-12)
    y = p - lr * (pn / un) * u

    def pullback(dy):
        s = -lr * dy
        dratio = (s * u).sum()
        dpn = dratio / un
        dun = -dratio * pn / un**2
        du = s * (pn / un) + dun * (u / un)
        dp = dy + dpn * (p / pn) + wd * du
        dm1 = du / den
        dv1 = -du * m1 / den**2 / (2 * root)
        dg = dm1 * (1 - b1) + dv1 * (1 - b2) * 2 * g
        return dp, dg, dm1 * b1, dv1 * b2

    return y, pullback


def lamb_step_torch(p, g, m, v, lr=0.1, b1=0.9, b2=0.99, eps=1e-6, wd=0.01):
    m1 = b1 * m + (1 - b1) * g
    u = m1 / (torch.sqrt(b2 * v + (1 - b2) * (g * g)) + eps) + wd * p
    pn, un = torch.sqrt((p * p).sum() + 1e-12), torch.sqrt((u * u).sum() + 1e-12)
    return p - lr * (pn / un) * u


# --- Muon: momentum, made orthogonal by Newton and Schulz's iteration


def muon_step(p, g, buf, lr=0.1, mu=0.9, steps=2):
    a, b, c = 3.4445, -4.7750, 2.0315
    m = mu * buf + g
    n = np.sqrt((m * m).sum() + 1e-12)
    X = m / n
    saved = []
    for _ in range(steps):
        A = X @ X.T
        B = b * A + c * (A @ A)
        saved.append((X, A, B))
        X = a * X + B @ X
    y = p - lr * X

    def pullback(dy):
        d = -lr * dy
        for X0, A, B in reversed(saved):
            dB = d @ X0.T
            dA = b * dB + c * (dB @ A.T + A.T @ dB)
            d = a * d + B.T @ d + (dA + dA.T) @ X0
        first = m / n
        dm = (d - first * (d * first).sum()) / n
        return dy, dm, mu * dm

    return y, pullback


def muon_step_torch(p, g, buf, lr=0.1, mu=0.9, steps=2):
    m = mu * buf + g
    X = m / torch.sqrt((m * m).sum() + 1e-12)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * (A @ A)) @ X
    return p - lr * X


# --- plain descent on a gradient that is clipped by its norm


def clipped_step(p, g, lr=0.1, max_norm=1.0):
    n = np.sqrt((g * g).sum())
    raw = max_norm / (n + 1e-6)
    coef = np.minimum(raw, 1.0).astype(g.dtype)
    clipped = coef * g
    y = p - lr * clipped

    def pullback(dy):
        dclipped = -lr * dy
        dg = coef * dclipped
        if raw <= 1:
            dcoef = (dclipped * g).sum()
            dn = -dcoef * max_norm / (n + 1e-6) ** 2
            dg = dg + dn * (g / n)
        return dy, dg

    return y, pullback


def clipped_step_torch(p, g, lr=0.1, max_norm=1.0):
    coef = torch.clamp(max_norm / (torch.linalg.vector_norm(g) + 1e-6), max=1.0)
    return p - lr * (coef * g)


SUBJECTS = {
    "adamw_step": Subject(
        against=adamw_step_torch,
        calls=[
            call(normal(3, 4), normal(3, 4), normal(3, 4), uniform(3, 4)),
            call(normal(5), normal(5), normal(5), uniform(5), lr=0.01, b2=0.95, eps=1e-3, t=1),
        ],
    ),
    "lamb_step": Subject(
        against=lamb_step_torch,
        calls=[
            call(normal(3, 2), normal(3, 2), normal(3, 2), uniform(3, 2)),
            call(normal(4), normal(4), normal(4), uniform(4), wd=0.1, b1=0.5),
        ],
    ),
    "muon_step": Subject(
        against=muon_step_torch,
        calls=[call(normal(3, 4), normal(3, 4), normal(3, 4)), call(normal(2, 2), normal(2, 2), normal(2, 2), steps=3, mu=0.5)],
    ),
    "clipped_step": Subject(
        against=clipped_step_torch, calls=[call(normal(3, 3), normal(3, 3)), call(normal(4), normal(4), lr=0.5, max_norm=0.5)]
    ),
}
MISTAKES = [
    # the second moment taken for a constant, where g is concerned
    Mistake("adamw_step", "missing term", "dg = dm1 * (1 - b1) + dv1 * (1 - b2) * 2 * g", "dg = dm1 * (1 - b1)"),
    # Adam's coupled decay beside AdamW's own
    Mistake("adamw_step", "extra term", "return dp, dg, dm1 * b1, dv1 * b2", "return dp + wd * dg, dg, dm1 * b1, dv1 * b2"),
    # the minus of 1 / un
    Mistake("lamb_step", "sign", "dun = -dratio * pn / un**2", "dun = dratio * pn / un**2"),
    # A is symmetric, so its gradient is taken for symmetric
    Mistake("muon_step", "transpose / operand", "(dA + dA.T) @ X0", "2.0 * dA @ X0"),
    # the clipped gradient in the slope of the norm
    Mistake("clipped_step", "operand", "dg = dg + dn * (g / n)", "dg = dg + dn * (clipped / n)"),
]
