"""Adam with another second moment, or with bounds to its step.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import math

import numpy as np

from ...arguments import flag, within
from ..steps import checked_betas, direction, elementwise, given, next_step, toward


def adabelief(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-16,
    eps_root=1e-16,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    """p ← p − lr m̂ / (√ŝ + ε), where s ← β₂ s + (1 − β₂) (g − m)² + ε′ is the mean distance from m,
    and ε′, eps_root, stays in it.

    Zhuang et al., 2020, arXiv:2010.07468
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, eps_root=eps_root, weight_decay=weight_decay)
    flag(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    step, t = next_step(state)
    rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)

    def update(p, g, m, s):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = direction(p, g, coupled, maximize)
        m = toward(m, g, 1 - beta1)
        s = beta2 * s + (1 - beta2) * (g - m) * (g - m) + eps_root
        return p - rate * (m / (np.sqrt(s) / root + eps)), m, s

    param, new = elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_var=0.0)
    return param, {"step": step, **new}


def yogi(
    param,
    grad,
    state,
    *,
    lr=1e-2,
    betas=(0.9, 0.999),
    eps=1e-3,
    initial_accumulator_value=1e-6,
    weight_decay=0.0,
    maximize=False,
):
    """Adam where v ← v − (1 − β₂) sign(v − g²) g² moves by as much as g², wherever it is.

    Both moments start at initial_accumulator_value, as in TensorFlow's addons.

    Zaheer, Reddi, Sachan, Kale & Kumar, 2018, "Adaptive Methods for Nonconvex Optimization"
    """
    param, grad = given(param, grad, state)
    within(
        0,
        lr=lr,
        eps=eps,
        initial_accumulator_value=initial_accumulator_value,
        weight_decay=weight_decay,
    )
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
    mean = initial_accumulator_value

    def update(p, g, m, v):
        g = direction(p, g, weight_decay, maximize)
        m = toward(m, g, 1 - beta1)
        v = v - (1 - beta2) * np.sign(v - g * g) * (g * g)
        return p - rate * (m / (np.sqrt(v) / root + eps)), m, v

    start = {"exp_avg": mean, "exp_avg_sq": initial_accumulator_value}
    param, new = elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}


def adabound(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    final_lr=0.1,
    gamma=1e-3,
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
):
    """Adam whose rate for each element, lr / (√v̂ + ε), is held between two bounds that close in on
    final_lr (1 − 1 / (γ t + 1)) and final_lr (1 + 1 / (γ t)).

    ε is added before the bias correction of v.

    Luo, Xiong, Liu & Sun, 2019, arXiv:1902.09843
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, final_lr=final_lr, gamma=gamma, eps=eps, weight_decay=weight_decay)
    flag(amsgrad=amsgrad, maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    bounds = final_lr * (1 - 1 / (gamma * t + 1)), final_lr * (1 + 1 / (gamma * t))

    def update(p, g, m, v, *largest):
        g = direction(p, g, weight_decay, maximize)
        m = toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        largest = [np.maximum(vmax, v) for vmax in largest]
        each = np.clip(rate / (np.sqrt(largest[0] if amsgrad else v) + eps), *bounds)
        return p - each * m, m, v, *largest

    start = {"exp_avg": 0.0, "exp_avg_sq": 0.0} | ({"max_exp_avg_sq": 0.0} if amsgrad else {})
    param, new = elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}
