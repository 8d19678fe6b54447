"""Steps that leave out every element whose update would go against its gradient.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import math

import numpy as np

from ...arguments import flag, within
from ..steps import checked_betas, given, next_step, stored, toward


def cautious_adamw(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-2,
    maximize=False,
):
    """AdamW where elements with m g ≤ 0 stay; the others' steps are divided by their share of all,
    at least a thousandth.

    Liang, Chen, Liu & Liu, 2024, arXiv:2411.16085
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, t = next_step(state)
    g = -grad if maximize else grad
    m = toward(stored(state, "exp_avg", param), g, 1 - beta1)
    v = beta2 * stored(state, "exp_avg_sq", param) + (1 - beta2) * g * g
    spread = np.sqrt(v) / math.sqrt(1 - beta2**t)
    param = param * (1 - lr * weight_decay)
    param = param - lr / (1 - beta1**t) * (_agreeing(m, g) / (spread + eps))
    return param, {"step": step, "exp_avg": m, "exp_avg_sq": v}


def cautious_lion(
    param, grad, state, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False
):
    """Lion where elements whose sign is not that of g stay; the others' steps are divided by their
    share of all, at least a thousandth.

    Liang, Chen, Liu & Liu, 2024, arXiv:2411.16085
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, _ = next_step(state)
    g = -grad if maximize else grad
    m = stored(state, "exp_avg", param)
    update = _agreeing(np.sign(toward(m, g, 1 - beta1)), g)
    param = param * (1 - lr * weight_decay) - lr * update
    return param, {"step": step, "exp_avg": toward(m, g, 1 - beta2)}


def _agreeing(update, g):
    agree = update * g > 0
    share = max(float(np.mean(agree)), 1e-3) if agree.size else 1.0
    return np.where(agree, update / share, 0)
