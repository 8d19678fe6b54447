"""Steps over the root of a mean of squares.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package's docstring says more.
"""

import numpy as np

from ..arguments import flag, within
from .steps import direction, elementwise, given, next_step, toward


def adagrad(
    param,
    grad,
    state,
    *,
    lr=1e-2,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    maximize=False,
):
    """p ← p − lr / (1 + (t − 1) η) · g / (√s + ε), where s ← s + g² sums all squares and η is
    lr_decay.

    Duchi, Hazan & Singer, 2011, "Adaptive Subgradient Methods"
    """
    param, grad = given(param, grad, state)
    within(
        0,
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    flag(maximize=maximize)
    step, t = next_step(state)
    rate = lr / (1 + (t - 1) * lr_decay)

    def update(p, g, s):
        g = direction(p, g, weight_decay, maximize)
        s = s + g * g
        return p - rate * (g / (np.sqrt(s) + eps)), s

    param, new = elementwise(update, param, grad, state, sum=initial_accumulator_value)
    return param, {"step": step, **new}


def rmsprop(
    param,
    grad,
    state,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    maximize=False,
):
    """p ← p − lr g / (√v + ε), where v ← α v + (1 − α) g² is the running mean of squares.

    With centered, the squared running mean of g is taken off v, which leaves a variance. With
    momentum μ the quotient is added to a buffer b ← μ b + g / (√v + ε), which then takes its place.

    Tieleman & Hinton, 2012, lecture 6.5; Graves, 2013, arXiv:1308.0850 (centered)
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    flag(centered=centered, maximize=maximize)
    kept = ["square_avg"] + centered * ["grad_avg"] + bool(momentum) * ["momentum_buffer"]

    def update(p, g, *arrays):
        old = dict(zip(kept, arrays, strict=True))
        g = direction(p, g, weight_decay, maximize)
        new = {"square_avg": alpha * old["square_avg"] + (1 - alpha) * g * g}
        variance = new["square_avg"]
        if centered:
            new["grad_avg"] = toward(old["grad_avg"], g, 1 - alpha)
            variance = variance - new["grad_avg"] ** 2
        d = g / (np.sqrt(variance) + eps)
        if momentum:
            d = new["momentum_buffer"] = momentum * old["momentum_buffer"] + d
        return p - lr * d, *new.values()

    step, _ = next_step(state)
    start = dict.fromkeys(kept, 0.0)
    param, new = elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}


def adadelta(param, grad, state, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    """p ← p − lr d, where d = g √(u + ε) / √(v + ε), and v and u are running means of g² and d²
    with ρ in [0, 1].

    The quotient has the unit of p, which no other method of the first order gives its step.

    Zeiler, 2012, arXiv:1212.5701
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    within(0, 1, rho=rho)
    flag(maximize=maximize)
    step, _ = next_step(state)

    def update(p, g, v, u):
        g = direction(p, g, weight_decay, maximize)
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d * d
        return p - lr * d, v, u

    param, new = elementwise(update, param, grad, state, square_avg=0.0, acc_delta=0.0)
    return param, {"step": step, **new}
