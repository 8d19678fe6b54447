"""Steps that are scaled by a norm of the whole tensor.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import math

import numpy as np

from ...arguments import flag, real, within
from ..steps import checked_betas, direction, given, next_step, stored, toward


def lamb(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-6,
    weight_decay=0.0,
    maximize=False,
):
    """p ← p − lr ‖p‖ / ‖u‖ u, where u = m̂ / (√v̂ + ε) + λ p; where a norm is 0, p ← p − lr u.

    You et al., 2020, arXiv:1904.00962
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    corrected1, root = 1 - beta1**t, math.sqrt(1 - beta2**t)
    g = -grad if maximize else grad
    m = toward(stored(state, "exp_avg", param), g, 1 - beta1)
    v = beta2 * stored(state, "exp_avg_sq", param) + (1 - beta2) * g * g
    u = m / corrected1 / (np.sqrt(v) / root + eps)
    u = u + weight_decay * param
    trust = _ratio(_norm(param), _norm(u))
    return param - lr * trust * u, {"step": step, "exp_avg": m, "exp_avg_sq": v}


def lars(
    param,
    grad,
    state,
    *,
    lr=1.0,
    momentum=0.9,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    trust_coefficient=1e-3,
    eps=1e-8,
    maximize=False,
):
    """SGD with momentum of r (g + λ p), where r = η ‖p‖ / (‖g‖ + λ ‖p‖ + ε) and η is
    trust_coefficient; where a norm is 0, r is 1.

    You, Gitman & Ginsburg, 2017, arXiv:1708.03888
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay, eps=eps)
    real(dampening=dampening, trust_coefficient=trust_coefficient)
    flag(nesterov=nesterov, maximize=maximize)
    size, slope = _norm(param), _norm(grad)
    bottom = slope + weight_decay * size + eps
    trust = _ratio(trust_coefficient * size, slope and bottom)
    d = trust * direction(param, grad, weight_decay, maximize)
    b = stored(state, "momentum_buffer", param)
    b = momentum * b + (1 - dampening) * d if state else d
    return param - lr * (d + momentum * b if nesterov else b), {"momentum_buffer": b}


def stable_adamw(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.99),
    eps=1e-8,
    weight_decay=1e-2,
    maximize=False,
):
    """AdamW whose rate is divided by the root mean square of g / √v̂ over the tensor, where that is
    above 1; the decay is scaled by this rate too.

    Wortsman et al., 2023, arXiv:2304.13013
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    g = -grad if maximize else grad
    m = toward(stored(state, "exp_avg", param), g, 1 - beta1)
    v = beta2 * stored(state, "exp_avg_sq", param) + (1 - beta2) * g * g
    fresh = v / (1 - beta2**t)
    least = np.maximum(fresh, eps * eps) if eps else np.where(fresh > 0, fresh, 1)
    rms = math.sqrt(np.mean(g * g / least)) if g.size else 0.0
    rate = lr / max(1.0, rms)
    param = param * (1 - rate * weight_decay)
    param = param - rate / (1 - beta1**t) * (m / (np.sqrt(fresh) + eps))
    return param, {"step": step, "exp_avg": m, "exp_avg_sq": v}


def _norm(a):
    return math.sqrt(np.sum(np.square(a), dtype=np.float64))


def _ratio(top, bottom):
    return top / bottom if top > 0 and bottom > 0 else 1.0
