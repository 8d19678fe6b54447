"""Steps between the gradient and its mean, and parameters between an iterate and its mean.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import math

import numpy as np

from ...arguments import flag, pair, real, within
from ..steps import checked_betas, direction, elementwise, given, next_step, toward


def qhm(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    momentum=0.9,
    nu=0.7,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    """p ← p − lr ((1 − ν) g + ν b), where b ← μ b + (1 − μ) g starts at 0.

    Ma & Yarats, 2019, arXiv:1810.06801
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    real(nu=nu)
    flag(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    step, _ = next_step(state)

    def update(p, g, b):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        b = toward(b, g, 1 - momentum)
        return p - lr * ((1 - nu) * g + nu * b), b

    param, new = elementwise(update, param, grad, state, momentum_buffer=0.0)
    return param, {"step": step, **new}


def qhadam(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    nus=(0.7, 1.0),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    """p ← p − lr ((1 − ν₁) g + ν₁ m̂) / (√((1 − ν₂) g² + ν₂ v̂) + ε): Adam, and between its moments
    and those of the gradient at hand. With both ν 1 it is Adam.

    Ma & Yarats, 2019, arXiv:1810.06801
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    pair(nus=nus)
    flag(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    nu1, nu2 = nus
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    step, t = next_step(state)
    corrected1, corrected2 = 1 - beta1**t, 1 - beta2**t

    def update(p, g, m, v):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        m = toward(m, g, 1 - beta1)
        v = toward(v, g * g, 1 - beta2)
        top = (1 - nu1) * g + nu1 * (m / corrected1)
        bottom = (1 - nu2) * (g * g) + nu2 * (v / corrected2)
        return p - lr * (top / (np.sqrt(bottom) + eps)), m, v

    param, new = elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_sq=0.0)
    return param, {"step": step, **new}


def schedule_free_sgd(
    param, grad, state, *, lr=1.0, momentum=0.9, weight_decay=0.0, maximize=False
):
    """SGD on z; p lies between z and x, the mean of all z, weighted by the square of the largest
    lr so far:

        p ← (1 − c) p + c z − lr (1 − μ (1 − c)) g,     z ← z − lr g

    Gradients are those at p, and λ p is added to them. x is (p − (1 − μ) z) / μ.

    Defazio et al., 2024, arXiv:2405.15682
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    flag(maximize=maximize)
    step, _ = next_step(state)
    largest, total, c = _share(state, lr)

    def update(p, g, z):
        g = direction(p, g, weight_decay, maximize)
        return toward(p, z, c) + lr * (momentum * (1 - c) - 1) * g, z - lr * g

    begun = state or {"z": param}
    param, new = elementwise(update, param, grad, begun, z=0.0)
    return param, {"step": step, "lr_max": largest, "weight_sum": total, **new}


def schedule_free_adamw(
    param,
    grad,
    state,
    *,
    lr=2.5e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
):
    """Schedule-free SGD, as above with μ = β₁, of g / (√v̂ + ε) + λ p in place of g.

    Defazio et al., 2024, arXiv:2405.15682
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    largest, total, c = _share(state, lr)
    root = math.sqrt(1 - beta2**t)

    def update(p, g, z, v):
        g = -g if maximize else g
        v = beta2 * v + (1 - beta2) * g * g
        d = g / (np.sqrt(v) / root + eps)
        d = d + weight_decay * p
        return toward(p, z, c) + lr * (beta1 * (1 - c) - 1) * d, z - lr * d, v

    begun = state or {"z": param, "exp_avg_sq": np.zeros_like(param)}
    param, new = elementwise(update, param, grad, begun, z=0.0, exp_avg_sq=0.0)
    return param, {"step": step, "lr_max": largest, "weight_sum": total, **new}


def _share(state, lr):
    """The largest rate so far, the sum of its squares, and this step's share of that."""
    largest = np.float64(np.maximum(state.get("lr_max", 0.0), lr))
    total = np.float64(state.get("weight_sum", 0.0) + largest * largest)
    return (
        np.asarray(largest),
        np.asarray(total),
        float(largest * largest / total) if total else 0.0,
    )
