"""Following the regularized leader.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package above says more.
"""

import numpy as np

from ...arguments import flag, within
from ..steps import elementwise, given, next_step


def ftrl(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    lr_power=-0.5,
    initial_accumulator_value=0.1,
    l1=0.0,
    l2=0.0,
    beta=0.0,
    maximize=False,
):
    """p ← −(z − clip(z, −l1, l1)) / (n^κ / lr + β / lr + 2 l2), where n ← n + g² starts at
    initial_accumulator_value, z ← z + g − (n^κ − n_before^κ) / lr p, and κ is −lr_power.

    z starts at 0, so that the first p is not near the one before.

    McMahan et al., 2013, "Ad Click Prediction: a View from the Trenches"
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, initial_accumulator_value=initial_accumulator_value, l1=l1, l2=l2, beta=beta)
    within(-1, 0, lr_power=lr_power)
    flag(maximize=maximize)
    step, _ = next_step(state)

    def update(p, g, n, z):
        g = -g if maximize else g
        after = n + g * g
        power, before = after**-lr_power, n**-lr_power
        z = z + g - (power - before) / lr * p
        bottom = power / lr + beta / lr + 2 * l2
        return (np.clip(z, -l1, l1) - z) / bottom, after, z

    start = {"accumulator": initial_accumulator_value, "linear": 0.0}
    param, new = elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}
