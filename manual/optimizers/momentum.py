"""Steps along the gradient, its mean or its sign.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package's docstring says more.
"""

import numpy as np

from ..arguments import flag, pair, real, within
from .steps import direction, elementwise, given, next_step, number


def sgd(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    maximize=False,
):
    """p ← p − lr d, where d is the gradient g + λ p, or with momentum μ the buffer b ← μ b + (1 −
    τ) d, where τ is the dampening.

    The buffer starts as the first gradient, undampened. Nesterov looks ahead: d + μ b in place of
    b. Raises ValueError for nesterov without momentum or with dampening.

    Robbins & Monro, 1951; Polyak, 1964; Sutskever, Martens, Dahl & Hinton, 2013 (Nesterov's form)
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    real(dampening=dampening)
    flag(nesterov=nesterov, maximize=maximize)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"nesterov: expected momentum above 0 and no dampening, got {momentum} and {dampening}"
        )

    begun = "momentum_buffer" in state

    def update(p, g, *buffer):
        d = direction(p, g, weight_decay, maximize)
        if not momentum:
            return (p - lr * d,)
        (b,) = buffer
        b = momentum * b + (1 - dampening) * d if begun else d
        return p - lr * (d + momentum * b if nesterov else b), b

    kept = {"momentum_buffer": 0.0} if momentum else {}
    param, new = elementwise(update, param, grad, state if begun else {}, **kept)
    return param, {**state, **new}


def rprop(param, grad, state, *, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), maximize=False):
    """p ← p − s sign(g), where the step s of each element grows by η⁺ while the sign of g lasts.

    Where it turns, s shrinks by η⁻, and that element waits: its g counts as 0, now and next time.
    etas is (η⁻, η⁺), and step_sizes are the bounds of s, which starts as lr. Raises ValueError
    unless 0 < η⁻ < 1 < η⁺.

    Riedmiller & Braun, 1993, "A Direct Adaptive Method for Faster Backpropagation Learning"
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr)
    pair(etas=etas, step_sizes=step_sizes)
    flag(maximize=maximize)
    shrink, grow = etas
    if not 0 < shrink < 1 < grow:
        raise ValueError(f"etas: expected one between 0 and 1 and one above 1, got {etas}")
    step, _ = next_step(state)

    def update(p, g, before, size):
        g = -g if maximize else g
        trend = g * before
        size = size * np.where(trend > 0, grow, np.where(trend < 0, shrink, 1.0)).astype(p.dtype)
        size = np.clip(size, *step_sizes)
        g = np.where(trend < 0, 0, g)
        return p - np.sign(g) * size, g, size

    param, new = elementwise(update, param, grad, state, prev=0.0, step_size=lr)
    return param, {"step": step, **new}


def asgd(
    param,
    grad,
    state,
    *,
    lr=1e-2,
    lambd=1e-4,
    alpha=0.75,
    t0=1e6,
    weight_decay=0.0,
    maximize=False,
):
    """p ← (1 − λ η) p − η g, and beside it the mean a ← a + μ (p − a) of all values of p since step
    t₀; λ is lambd, and weight_decay adds its share of p to g.

    The rate falls, η = lr / (1 + λ lr t)^α, and μ = 1 / max(1, t − t₀). Both are for the next step,
    and kept in float32. Raises ValueError for an α whose power is not finite.

    Polyak & Juditsky, 1992; Xu, 2011, arXiv:1107.2490 (the rate)
    """
    param, grad = given(param, grad, state)
    within(0, lr=lr, weight_decay=weight_decay)
    real(lambd=lambd, alpha=alpha, t0=t0)
    flag(maximize=maximize)
    step, t = next_step(state)
    eta, mu = (float(number(state, n, v)) for n, v in (("eta", lr), ("mu", 1.0)))

    def update(p, g, mean):
        g = direction(p, g, weight_decay, maximize)
        p = p * (1 - lambd * eta) - eta * g
        return p, p if mu == 1 else mean + (p - mean) * mu

    param, new = elementwise(update, param, grad, state, ax=0.0)
    try:
        eta = lr / (1 + lambd * lr * t) ** alpha
    except ArithmeticError:
        raise ValueError(f"alpha: expected a power that is finite, got {alpha}") from None
    mu = 1 / max(1, t - t0)
    return param, {
        "step": step,
        "eta": np.asarray(eta, np.float32),
        "mu": np.asarray(mu, np.float32),
        **new,
    }
