"""Optimizers, each one pure step for one parameter:

    param, state = adam(param, grad, state, lr=1e-3)

param and grad have one shape and dtype. The state is a dict with the names of torch.optim, {}
before the first step. Nothing that was passed is changed. A setting out of range raises ValueError.
"""

import numpy as np

from .arrays import floating, same_shape, within


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
    τ) d.

    The buffer starts as the first gradient, undampened. Nesterov looks ahead: d + μ b in place of
    b.

    Robbins & Monro, 1951; Polyak, 1964; Sutskever, Martens, Dahl & Hinton, 2013 (Nesterov's form)
    """
    param, grad = _checked(param, grad)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"nesterov: expected momentum above 0 and no dampening, got {momentum} and {dampening}"
        )
    d = _direction(param, grad, weight_decay, maximize)
    if momentum:
        b = momentum * state["momentum_buffer"] + (1 - dampening) * d if state else np.array(d)
        state = {"momentum_buffer": b}
        d = d + momentum * b if nesterov else b
    return param - lr * d, dict(state)


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

    Centered, the squared running mean of g is taken off v, which leaves a variance. With momentum μ
    the quotient is added to a buffer b ← μ b + g / (√v + ε), which then takes its place.

    Tieleman & Hinton, 2012, lecture 6.5; Graves, 2013, arXiv:1308.0850 (centered)
    """
    param, grad = _checked(param, grad)
    within(0, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    g = _direction(param, grad, weight_decay, maximize)
    zero = np.zeros_like(param)
    new = {
        "step": _next(state),
        "square_avg": alpha * state.get("square_avg", zero) + (1 - alpha) * g * g,
    }
    variance = new["square_avg"]
    if centered:
        mean = state.get("grad_avg", zero)
        new["grad_avg"] = mean + (1 - alpha) * (g - mean)
        variance = variance - new["grad_avg"] ** 2
    d = g / (np.sqrt(variance) + eps)
    if momentum:
        d = new["momentum_buffer"] = momentum * state.get("momentum_buffer", zero) + d
    return param - lr * d, new


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
    param, grad = _checked(param, grad)
    within(
        0,
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    g = _direction(param, grad, weight_decay, maximize)
    step = _next(state)
    total = state.get("sum", np.full_like(param, initial_accumulator_value)) + g * g
    rate = lr / (1 + (float(step) - 1) * lr_decay)
    return param - rate * (g / (np.sqrt(total) + eps)), {"step": step, "sum": total}


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
    param, grad = _checked(param, grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}]: expected at least 0 and below 1, got {beta}")
    beta1, beta2 = betas
    if decoupled_weight_decay:
        param = param * (1 - lr * weight_decay)
    g = _direction(param, grad, 0 if decoupled_weight_decay else weight_decay, maximize)
    zero = np.zeros_like(param)
    step, m, v = _next(state), state.get("exp_avg", zero), state.get("exp_avg_sq", zero)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * g * g
    new = {"step": step, "exp_avg": m, "exp_avg_sq": v}
    if amsgrad:
        v = new["max_exp_avg_sq"] = np.maximum(state.get("max_exp_avg_sq", zero), v)
    t = float(step)
    denominator = np.sqrt(v) / (1 - beta2**t) ** 0.5 + eps
    return param - lr / (1 - beta1**t) * (m / denominator), new


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


def _checked(param, grad):
    param, grad = floating(param=param, grad=grad)
    same_shape(param=param, grad=grad)
    return param, grad


def _direction(param, grad, weight_decay, maximize):
    """The gradient to descend: its sign turned to maximize, λ p added for an L2 penalty."""
    g = -grad if maximize else grad
    return g + weight_decay * param if weight_decay else g


def _next(state):
    """The step count, which torch keeps as a float32 number."""
    return np.asarray(state.get("step", 0) + 1, np.float32)
