"""Adam and its kin: both moments of the gradient.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package's docstring says more.
"""

import math

import numpy as np

from ..arguments import flag, floating, mapping, whole, within
from .steps import (
    checked_betas,
    direction,
    elementwise,
    given,
    next_step,
    number,
    stored,
    toward,
)


def adam(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled_weight_decay=False,
):
    """p ← p − lr m̂ / (√v̂ + ε), from running means m of g and v of g², each divided by 1 − βᵗ for
    its start at 0.

    With amsgrad, v̂ comes from the largest v so far. Weight decay λ adds λ p to g; decoupled, it
    shrinks p by 1 − lr λ before the step instead.

    Kingma & Ba, 2015, arXiv:1412.6980; Reddi, Kale & Kumar, 2018, arXiv:1904.09237 (amsgrad);
    Loshchilov & Hutter, 2019, arXiv:1711.05101 (decoupled)
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(amsgrad=amsgrad, maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
    beta1, beta2 = checked_betas(betas)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    step, t = next_step(state)
    rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)

    def update(p, g, m, v, *largest):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        m = toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        largest = [np.maximum(vmax, v) for vmax in largest]
        spread = np.sqrt(largest[0] if amsgrad else v) / root
        d = m / (spread + eps)
        return p - rate * d, m, v, *largest

    start = {"exp_avg": 0.0, "exp_avg_sq": 0.0} | ({"max_exp_avg_sq": 0.0} if amsgrad else {})
    param, new = elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}


def adamw(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-2,
    amsgrad=False,
    maximize=False,
):
    """Adam with decoupled weight decay: p is shrunk by 1 − lr λ, and the moments never see the
    decay.

    Loshchilov & Hutter, 2019, arXiv:1711.05101
    """
    settings = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "amsgrad": amsgrad,
    }
    return adam(param, grad, state, **settings, maximize=maximize, decoupled_weight_decay=True)


def adamax(
    param,
    grad,
    state,
    *,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
):
    """p ← p − lr m̂ / u, where u ← max(β₂ u, |g| + ε): Adam with the largest |g|, fading, in place
    of √v.

    It needs no correction for its start, because a maximum is not drawn toward 0.

    Kingma & Ba, 2015, arXiv:1412.6980, section 7.1
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    rate = lr / (1 - beta1**t)

    def update(p, g, m, u):
        g = direction(p, g, weight_decay, maximize)
        m = toward(m, g, 1 - beta1)
        u = np.maximum(beta2 * u, abs(g) + eps)
        return p - rate * (m / u), m, u

    param, new = elementwise(update, param, grad, state, exp_avg=0.0, exp_inf=0.0)
    return param, {"step": step, **new}


def nadam(
    param,
    grad,
    state,
    *,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
):
    """Adam that looks ahead: the next step's momentum μₜ₊₁ m, and the part (1 − μₜ) of the new g.

        p ← p − lr ((1 − μₜ) / (1 − Mₜ) g + μₜ₊₁ / (1 − Mₜ₊₁) m) / (√v̂ + ε)

    The momentum rises, μₜ = β₁ (1 − 0.96^(t ψ) / 2) with ψ = momentum_decay, and M is the product
    of all so far.

    Dozat, 2016, "Incorporating Nesterov Momentum into Adam"
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
    flag(maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    mu, ahead = (beta1 * (1 - 0.5 * 0.96 ** (n * momentum_decay)) for n in (t, t + 1))
    product = np.asarray(number(state, "mu_product", 1) * np.float32(mu), np.float32)
    total = float(product)
    now, later = lr * (1 - mu) / (1 - total), lr * ahead / (1 - total * ahead)
    corrected = 1 - beta2**t
    coupled = 0.0 if decoupled_weight_decay else weight_decay

    def update(p, g, m, v):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        m = toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        denominator = np.sqrt(v / corrected) + eps
        return p - now * (g / denominator) - later * (m / denominator), m, v

    param, new = elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_sq=0.0)
    return param, {"step": step, "mu_product": product, **new}


def radam(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    """Adam whose first steps are momentum alone: √v is used once enough squares lie behind it.

    v is the mean of about ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ) squares, ρ∞ = 2 / (1 − β₂) − 1. Above 5 the
    step is lr r m̂ / (√v + ε) · √(1 − β₂ᵗ), where r makes the variance of the step that of ρ∞:

        r² = (ρ − 4) (ρ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρ)

    Liu, Jiang, He, Chen, Liu, Gao & Han, 2020, arXiv:1908.03265
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    corrected = 1 - beta2**t
    limit = 2 / (1 - beta2) - 1
    rho = limit - 2 * t * beta2**t / corrected
    rate = lr / (1 - beta1**t)
    if adaptive := rho > 5:
        variance = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        rate *= math.sqrt(variance) * math.sqrt(corrected)
    coupled = 0.0 if decoupled_weight_decay else weight_decay

    def update(p, g, m, v):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        m = toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        return p - rate * (m / (np.sqrt(v) + eps) if adaptive else m), m, v

    param, new = elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_sq=0.0)
    return param, {"step": step, **new}


def sparse_adam(param, grad, state, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, maximize=False):
    """Adam for a gradient (indices, values) of the rows param[indices] alone: the moments of all
    other rows are left as they are.

    indices are whole numbers of shape (k,), or (axes, k) for elements of the first axes; values
    have shape (k, …) and the dtype of param. Values at the same index are added up first. Raises
    TypeError for any other gradient, ValueError for values of another shape and for an lr or eps
    that is not above 0, IndexError for an index outside param.

    Kingma & Ba, 2015, arXiv:1412.6980
    """
    mapping(state=state)
    if not isinstance(grad, tuple) or len(grad) != 2:
        raise TypeError(f"grad: expected (indices, values), got {type(grad).__name__}")
    indices, values = grad
    if np.asarray(indices).dtype.kind not in "iu":
        raise TypeError(f"indices: expected whole numbers, got {indices!r:.80}")
    indices = np.atleast_2d(indices)
    param, values = floating(param=param, values=values)
    expected = (indices.shape[1], *param.shape[len(indices) :])
    if values.shape != expected:
        raise ValueError(f"values: expected shape {expected}, got {values.shape}")
    within(0, lr=lr, eps=eps)
    flag(maximize=maximize)
    if not lr > 0:
        raise ValueError(f"lr: expected above 0, got {lr}")
    if not eps > 0:
        raise ValueError(f"eps: expected above 0, got {eps}")
    beta1, beta2 = checked_betas(betas)
    made = {"state['step']": state.get("step", 0)}
    whole(**made)
    within(0, **made)
    t = state.get("step", 0) + 1
    moments = {n: np.array(stored(state, n, param)) for n in ("exp_avg", "exp_avg_sq")}
    param = np.array(param)
    if len(values):
        where, place = np.unique(indices, axis=1, return_inverse=True)
        g = np.zeros((where.shape[1], *values.shape[1:]), values.dtype)
        np.add.at(g, place.reshape(-1), -values if maximize else values)
        at = tuple(where)
        m = toward(moments["exp_avg"][at], g, 1 - beta1)
        v = toward(moments["exp_avg_sq"][at], g * g, 1 - beta2)
        moments["exp_avg"][at], moments["exp_avg_sq"][at] = m, v
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        param[at] -= rate * (m / (np.sqrt(v) + eps))
    return param, {"step": t, **moments}
