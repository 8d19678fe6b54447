"""Steps along a sign.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import numpy as np

from ...arguments import flag, within
from ..steps import checked_betas, elementwise, given, next_step, toward


def lion(param, grad, state, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
    """p ← (1 − lr λ) p − lr sign(β₁ m + (1 − β₁) g), and after it m ← β₂ m + (1 − β₂) g.

    Chen et al., 2023, arXiv:2302.06675
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, weight_decay=weight_decay)
    flag(maximize=maximize)
    beta1, beta2 = checked_betas(betas)
    step, _ = next_step(state)

    def update(p, g, m):
        g = -g if maximize else g
        p = p * (1 - lr * weight_decay)
        return p - lr * np.sign(toward(m, g, 1 - beta1)), toward(m, g, 1 - beta2)

    param, new = elementwise(update, param, grad, state, exp_avg=0.0)
    return param, {"step": step, **new}
