"""Optimizers, each one pure step for one parameter:

    param, state = adam(param, grad, state, lr=1e-3)

param and grad have one shape and dtype. The state is a dict with the names of torch.optim, {}
before the first step. Nothing that was passed is changed. A setting out of range raises ValueError.

Three take something else: sparse_adam a gradient (indices, values), muon matrices only, and lbfgs
all parameters at once, with a function that evaluates the loss.
"""

import math

import numpy as np

from .arrays import alike, floating, within
from .line_search import Point, strong_wolfe

BLOCK = 2**16  # elements of a parameter that are updated at a time: they stay in the cache


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
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"nesterov: expected momentum above 0 and no dampening, got {momentum} and {dampening}"
        )

    def update(p, g, *buffer):
        d = _direction(p, g, weight_decay, maximize)
        if not momentum:
            return (p - lr * d,)
        (b,) = buffer
        b = momentum * b + (1 - dampening) * d if state else d
        return p - lr * (d + momentum * b if nesterov else b), b

    kept = {"momentum_buffer": 0.0} if momentum else {}
    param, new = _elementwise(update, param, grad, state, **kept)
    return param, {**state, **new}


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
    param, grad = alike(param=param, grad=grad)
    within(
        0,
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    step, t = _next(state)
    rate = lr / (1 + (t - 1) * lr_decay)

    def update(p, g, s):
        g = _direction(p, g, weight_decay, maximize)
        s = s + g * g
        return p - rate * (g / (np.sqrt(s) + eps)), s

    param, new = _elementwise(update, param, grad, state, sum=initial_accumulator_value)
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

    Centered, the squared running mean of g is taken off v, which leaves a variance. With momentum μ
    the quotient is added to a buffer b ← μ b + g / (√v + ε), which then takes its place.

    Tieleman & Hinton, 2012, lecture 6.5; Graves, 2013, arXiv:1308.0850 (centered)
    """
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    kept = ["square_avg"] + centered * ["grad_avg"] + bool(momentum) * ["momentum_buffer"]

    def update(p, g, *arrays):
        old = dict(zip(kept, arrays, strict=True))
        g = _direction(p, g, weight_decay, maximize)
        new = {"square_avg": alpha * old["square_avg"] + (1 - alpha) * g * g}
        variance = new["square_avg"]
        if centered:
            new["grad_avg"] = _toward(old["grad_avg"], g, 1 - alpha)
            variance = variance - new["grad_avg"] ** 2
        d = g / (np.sqrt(variance) + eps)
        if momentum:
            d = new["momentum_buffer"] = momentum * old["momentum_buffer"] + d
        return p - lr * d, *new.values()

    step, _ = _next(state)
    start = dict.fromkeys(kept, 0.0)
    param, new = _elementwise(update, param, grad, state, **start)
    return param, {"step": step, **new}


def adadelta(param, grad, state, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    """p ← p − lr d, where d = g √(u + ε) / √(v + ε), and v and u are running means of g² and d².

    The quotient has the unit of p, which no other method of the first order gives its step.

    Zeiler, 2012, arXiv:1212.5701
    """
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    within(0, 1, rho=rho)
    step, _ = _next(state)

    def update(p, g, v, u):
        g = _direction(p, g, weight_decay, maximize)
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d * d
        return p - lr * d, v, u

    param, new = _elementwise(update, param, grad, state, square_avg=0.0, acc_delta=0.0)
    return param, {"step": step, **new}


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
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    beta1, beta2 = _betas(betas)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    step, t = _next(state)
    rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)

    def update(p, g, m, v, *largest):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = _direction(p, g, coupled, maximize)
        m = _toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        largest = [np.maximum(vmax, v) for vmax in largest]
        spread = np.sqrt(largest[0] if amsgrad else v) / root
        return p - rate * (m / (spread + eps)), m, v, *largest

    start = {"exp_avg": 0.0, "exp_avg_sq": 0.0} | ({"max_exp_avg_sq": 0.0} if amsgrad else {})
    param, new = _elementwise(update, param, grad, state, **start)
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
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    beta1, beta2 = _betas(betas)
    step, t = _next(state)
    rate = lr / (1 - beta1**t)

    def update(p, g, m, u):
        g = _direction(p, g, weight_decay, maximize)
        m = _toward(m, g, 1 - beta1)
        u = np.maximum(beta2 * u, abs(g) + eps)
        return p - rate * (m / u), m, u

    param, new = _elementwise(update, param, grad, state, exp_avg=0.0, exp_inf=0.0)
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

    The momentum rises, μₜ = β₁ (1 − 0.96^(t ψ) / 2), and M is the product of all so far.

    Dozat, 2016, "Incorporating Nesterov Momentum into Adam"
    """
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
    beta1, beta2 = _betas(betas)
    step, t = _next(state)
    mu, ahead = (beta1 * (1 - 0.5 * 0.96 ** (n * momentum_decay)) for n in (t, t + 1))
    product = np.asarray(state.get("mu_product", np.float32(1)) * np.float32(mu), np.float32)
    total = float(product)
    now, later = lr * (1 - mu) / (1 - total), lr * ahead / (1 - total * ahead)
    corrected = 1 - beta2**t
    coupled = 0.0 if decoupled_weight_decay else weight_decay

    def update(p, g, m, v):
        if decoupled_weight_decay:
            p = p * (1 - lr * weight_decay)
        g = _direction(p, g, coupled, maximize)
        m = _toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        denominator = np.sqrt(v / corrected) + eps
        return p - now * (g / denominator) - later * (m / denominator), m, v

    param, new = _elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_sq=0.0)
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
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, eps=eps, weight_decay=weight_decay)
    beta1, beta2 = _betas(betas)
    step, t = _next(state)
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
        g = _direction(p, g, coupled, maximize)
        m = _toward(m, g, 1 - beta1)
        v = beta2 * v + (1 - beta2) * g * g
        return p - rate * (m / (np.sqrt(v) + eps) if adaptive else m), m, v

    param, new = _elementwise(update, param, grad, state, exp_avg=0.0, exp_avg_sq=0.0)
    return param, {"step": step, **new}


def rprop(param, grad, state, *, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), maximize=False):
    """p ← p − s sign(g), where the step s of each element grows by η⁺ while the sign of g lasts.

    Where it turns, s shrinks by η⁻, and that element waits: its g counts as 0, now and next time.

    Riedmiller & Braun, 1993, "A Direct Adaptive Method for Faster Backpropagation Learning"
    """
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr)
    shrink, grow = etas
    if not 0 < shrink < 1 < grow:
        raise ValueError(f"etas: expected one between 0 and 1 and one above 1, got {etas}")
    step, _ = _next(state)

    def update(p, g, before, size):
        g = -g if maximize else g
        trend = g * before
        size = size * np.where(trend > 0, grow, np.where(trend < 0, shrink, 1.0)).astype(p.dtype)
        size = np.clip(size, *step_sizes)
        g = np.where(trend < 0, 0, g)
        return p - np.sign(g) * size, g, size

    param, new = _elementwise(update, param, grad, state, prev=0.0, step_size=lr)
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
    """p ← (1 − λ η) p − η g, and beside it the mean a ← a + μ (p − a) of all that p was since t₀.

    The rate falls, η = lr / (1 + λ lr t)^α, and μ = 1 / max(1, t − t₀). Both are for the next step,
    and kept in float32.

    Polyak & Juditsky, 1992; Xu, 2011, arXiv:1107.2490 (the rate)
    """
    param, grad = alike(param=param, grad=grad)
    within(0, lr=lr, weight_decay=weight_decay)
    step, t = _next(state)
    eta, mu = (float(np.float32(state.get(n, v))) for n, v in (("eta", lr), ("mu", 1.0)))

    def update(p, g, mean):
        g = _direction(p, g, weight_decay, maximize)
        p = p * (1 - lambd * eta) - eta * g
        return p, p if mu == 1 else mean + (p - mean) * mu

    param, new = _elementwise(update, param, grad, state, ax=0.0)
    eta, mu = lr / (1 + lambd * lr * t) ** alpha, 1 / max(1, t - t0)
    return param, {
        "step": step,
        "eta": np.asarray(eta, np.float32),
        "mu": np.asarray(mu, np.float32),
        **new,
    }


def adafactor(
    param,
    grad,
    state,
    *,
    lr=1e-2,
    beta2_decay=-0.8,
    eps=(None, 1e-3),
    d=1.0,
    weight_decay=0.0,
    maximize=False,
):
    """p ← p − α g / √v, where a matrix keeps of v only the means r and c of its rows and columns.

        v = r cᵀ / mean(r)        α = max(ε₂, rms(p)) min(lr, 1/√t)

    v is then of rank one. The means follow g² by t^β₂, which is 1 at the first step, so that no
    correction is needed. Where g / √v exceeds d in root mean square, the step is scaled to d.
    Weight decay shrinks p by 1 − lr λ. Vectors keep v itself. ε₁ is the dtype's epsilon where None.

    Shazeer & Stern, 2018, arXiv:1804.04235
    """
    param, grad = alike(param=param, grad=grad)
    if not beta2_decay <= 0:
        raise ValueError(f"beta2_decay: expected at most 0, got {beta2_decay}")
    least = float(np.finfo(param.dtype).eps) if eps[0] is None else eps[0]
    within(0, lr=lr, weight_decay=weight_decay, **{"eps[0]": least, "eps[1]": eps[1]})
    within(1, d=d)
    step, t = _next(state)
    share = t**beta2_decay
    alpha = max(eps[1], _rms(param)) * min(lr, 1 / math.sqrt(t))
    g = -grad if maximize else grad
    if param.ndim > 1:
        rows, columns = _mean_square(g, -1), _mean_square(g, -2)
        row = _toward(state.get("row_var", np.zeros_like(rows)), rows, share)
        column = _toward(state.get("col_var", np.zeros_like(columns)), columns, share)
        new = {"row_var": row, "col_var": column}
        v = row @ column
        v /= np.maximum(row.mean(axis=-2, keepdims=True), least)
    else:
        squares = g * g
        new = {"variance": _toward(state.get("variance", np.zeros_like(param)), squares, share)}
        v = np.array(new["variance"])
    np.maximum(v, least * least, out=v)
    np.sqrt(v, out=v)
    update = np.divide(g, v, out=v)
    update *= alpha / max(1.0, _rms(update) / d)
    param = param * (1 - lr * weight_decay)
    param -= update
    return param, {"step": step, **new}


def sparse_adam(param, grad, state, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, maximize=False):
    """Adam for a gradient (indices, values) of the rows param[indices] alone: the moments of all
    other rows are left as they are.

    indices are whole numbers of shape (k,), or (axes, k) for elements of the first axes; values
    have shape (k, …). What stands at one index twice is added up first.

    Kingma & Ba, 2015, arXiv:1412.6980
    """
    indices, values = grad
    indices = np.atleast_2d(indices)
    param, values = floating(param=param, values=values)
    expected = (indices.shape[1], *param.shape[len(indices) :])
    if values.shape != expected:
        raise ValueError(f"values: expected shape {expected}, got {values.shape}")
    if not lr > 0:
        raise ValueError(f"lr: expected above 0, got {lr}")
    if not eps > 0:
        raise ValueError(f"eps: expected above 0, got {eps}")
    beta1, beta2 = _betas(betas)
    t = state.get("step", 0) + 1
    zero = np.zeros_like(param)
    moments = {n: np.array(state.get(n, zero)) for n in ("exp_avg", "exp_avg_sq")}
    param = np.array(param)
    if len(values):
        where, place = np.unique(indices, axis=1, return_inverse=True)
        g = np.zeros((where.shape[1], *values.shape[1:]), values.dtype)
        np.add.at(g, place.reshape(-1), -values if maximize else values)
        at = tuple(where)
        m = _toward(moments["exp_avg"][at], g, 1 - beta1)
        v = _toward(moments["exp_avg_sq"][at], g * g, 1 - beta2)
        moments["exp_avg"][at], moments["exp_avg_sq"][at] = m, v
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        param[at] -= rate * (m / (np.sqrt(v) + eps))
    return param, {"step": t, **moments}


def muon(
    param,
    grad,
    state,
    *,
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_coefficients=(3.4445, -4.775, 2.0315),
    eps=1e-7,
    ns_steps=5,
    adjust_lr_fn=None,
):
    """p ← (1 − lr λ) p − lr O, where O is the matrix of the running mean b of g with every singular
    value brought near 1.

    Newton and Schulz find it without a decomposition: X ← a X + (b A + c A²) X, A = X Xᵀ, does to
    each singular value s what the polynomial a s + b s³ + c s⁵ does, and leaves the singular
    vectors. It is done in bfloat16, where X starts at b / ‖b‖, laid flat. Nesterov takes the mean
    of g and b for b. The rate is lr √max(1, rows / columns), or 0.2 lr √max(rows, columns) to match
    the size of AdamW's step.

    Jordan, 2024, https://kellerjordan.github.io/posts/muon; Liu et al., 2025, arXiv:2502.16982
    """
    param, grad = alike(param=param, grad=grad)
    if param.ndim != 2:
        raise ValueError(f"param: expected a matrix, got shape {param.shape}")
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if ns_steps >= 100:
        raise ValueError(f"ns_steps: expected below 100, got {ns_steps}")
    if len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients: expected three, got {ns_coefficients}")
    if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
        raise ValueError(
            f"adjust_lr_fn: expected None, 'original' or 'match_rms_adamw', got {adjust_lr_fn!r}"
        )
    rounded = _bfloat16
    b = _toward(state.get("momentum_buffer", np.zeros_like(param)), grad, 1 - momentum)
    tall = param.shape[0] > param.shape[1]
    x = rounded(_toward(grad, b, momentum) if nesterov else b)
    x = x.T if tall else x
    x = rounded(x / max(rounded(np.linalg.norm(x)), rounded(np.float32(eps))))
    first, third, fifth = ns_coefficients
    for _ in range(ns_steps):
        a = rounded(x @ x.T)
        x = rounded(first * x + rounded(third * a + fifth * (a @ a)) @ x)
    x = x.T if tall else x
    rows, columns = param.shape
    if adjust_lr_fn == "match_rms_adamw":
        rate = lr * 0.2 * math.sqrt(max(rows, columns))
    else:
        rate = lr * math.sqrt(max(1, rows / columns))
    param = param * (1 - lr * weight_decay) - rate * x.astype(param.dtype)
    return param, {"momentum_buffer": b}


def lbfgs(
    params,
    closure,
    state,
    *,
    lr=1,
    max_iter=20,
    max_eval=None,
    tolerance_grad=1e-7,
    tolerance_change=1e-9,
    history_size=100,
    line_search_fn=None,
):
    """Up to max_iter times x ← x + t d, where d = −H g and H is built from the last history_size
    changes s of x and y of g.

    H is the inverse Hessian that maps each y to its s and is nearest to the one before; its product
    with a vector needs only the s and y, in two loops. It starts as (sᵀy / yᵀy) I. A pair with sᵀy
    ≤ 10⁻¹⁰ is left out, which keeps H positive. t is lr, at the very first step lr / ‖g‖₁ where
    that is less, or found by a line search that fulfils the strong Wolfe conditions.

    params is a list of arrays, x all of them laid end to end; closure(params) gives the loss, a
    number, and the list of gradients. Nocedal, 1980; Liu & Nocedal, 1989
    """
    within(0, lr=lr)
    if line_search_fn not in (None, "strong_wolfe"):
        raise ValueError(f"line_search_fn: expected None or 'strong_wolfe', got {line_search_fn!r}")
    params = [floating(**{f"params[{i}]": p}) for i, p in enumerate(params)]
    max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
    x = np.concatenate([p.reshape(-1) for p in params])

    def evaluate(x):
        loss, grads = closure(_cut(x, params))
        return float(loss), np.concatenate([np.reshape(g, -1) for g in grads])

    loss, g = evaluate(x)
    evaluations = 1
    state = {
        "func_evals": 0,
        "n_iter": 0,
        **{k: list(v) if isinstance(v, list) else v for k, v in state.items()},
    }
    state["func_evals"] += 1
    if abs(g).max() <= tolerance_grad:
        return _cut(x, params), state
    for i in range(1, max_iter + 1):
        state["n_iter"] += 1
        if state["n_iter"] == 1:
            state |= {"d": -g, "old_dirs": [], "old_stps": [], "ro": [], "H_diag": 1}
        else:
            _remember(state, g, history_size)
            state["d"] = _times_inverse_hessian(state, -g)
        state["prev_flat_grad"], state["prev_loss"] = g, loss
        d, t = state["d"], lr
        if state["n_iter"] == 1:
            t = min(1.0, 1.0 / abs(g).sum()) * lr
        state["t"] = t
        slope = g @ d
        if slope > -tolerance_change:
            break
        made = 0
        if line_search_fn:
            start = x

            def along(t, start=start, d=d):
                loss, g = evaluate(start + t * d)
                return Point(t, loss, g, g @ d)

            found, made = strong_wolfe(
                along,
                t,
                Point(0, loss, g, slope),
                abs(d).max(),
                max_ls=max_eval - evaluations,
            )
            t, loss, g = found.t, found.loss, found.gradient
            state["t"] = t
            x = start + t * d
        else:
            x = x + t * d
            if i != max_iter:  # what lies beyond the last step is of no use to it
                loss, g = evaluate(x)
                made = 1
        evaluations += made
        state["func_evals"] += made
        if (
            i == max_iter
            or evaluations >= max_eval
            or abs(g).max() <= tolerance_grad
            or abs(t * d).max() <= tolerance_change
            or abs(loss - state["prev_loss"]) < tolerance_change
        ):
            break
    return _cut(x, params), state


def _remember(state, g, history_size):
    """Adds the last change of x and of g to the history, unless it would bend H the wrong way."""
    y, s = g - state["prev_flat_grad"], state["d"] * state["t"]
    ys = y @ s
    if ys > 1e-10:
        for name, new in (("old_dirs", y), ("old_stps", s), ("ro", 1.0 / ys)):
            state[name] = [*state[name], new][-history_size:]
        state["H_diag"] = ys / (y @ y)


def _times_inverse_hessian(state, q):
    """H q: the rank-two updates undone from the newest to the oldest, and then made again."""
    history = list(zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True))
    shares = []
    for y, s, rho in reversed(history):
        shares.append((s @ q) * rho)
        q = q - shares[-1] * y
    r = q * state["H_diag"]
    for (y, s, rho), share in zip(history, reversed(shares), strict=True):
        r = r + (share - (y @ r) * rho) * s
    return r


def _cut(x, like):
    """The vector in pieces, shaped like those arrays."""
    ends = np.cumsum([p.size for p in like])[:-1]
    pieces = zip(np.split(x, ends), like, strict=True)
    return [np.array(piece).reshape(p.shape) for piece, p in pieces]


def _elementwise(update, param, grad, state, **start):
    """The new parameter, and the arrays of the new state by name, where every element is treated
    alike: update(p, g, *arrays) gives the new p and arrays.

    It is done block by block, so that what an update makes on the way stays in the cache, and
    nothing but the results is as large as the parameter. `start` has what the arrays are before
    the first step.
    """
    given = [param, grad]
    for name, value in start.items():
        array = np.asarray(state.get(name, value), None if name in state else param.dtype)
        if name in state and (array.shape, array.dtype) != (param.shape, param.dtype):
            raise ValueError(
                f"state[{name!r}]: expected shape {param.shape} and dtype {param.dtype}, got "
                f"{array.shape} and {array.dtype}"
            )
        given.append(array)
    made = [np.empty(param.shape, param.dtype) for _ in given[1:]]
    sources, targets = ([a.reshape(-1) for a in arrays] for arrays in (given, made))
    for i in range(0, param.size, BLOCK):
        block = slice(i, i + BLOCK)
        new = update(*(a[block] if a.size == param.size else a for a in sources))
        for target, values in zip(targets, new, strict=True):
            target[block] = values
    return made[0], dict(zip(start, made[1:], strict=True))


def _betas(betas):
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}]: expected at least 0 and below 1, got {beta}")
    return betas


def _direction(param, grad, weight_decay, maximize):
    """The gradient to descend: its sign turned to maximize, λ p added for an L2 penalty."""
    g = -grad if maximize else grad
    return g + weight_decay * param if weight_decay else g


def _toward(mean, new, share):
    """The mean moved by a share of its way to the new value."""
    return mean + share * (new - mean)


def _next(state):
    """The step count, which torch keeps as a float32 number, and the same as a Python number."""
    step = np.asarray(state.get("step", 0) + 1, np.float32)
    return step, float(step)


def _rms(x):
    """The root of the mean square."""
    return float(np.linalg.norm(x)) / math.sqrt(x.size)


def _mean_square(x, axis):
    return np.expand_dims(np.vecdot(x, x, axis=axis) / x.shape[axis], axis)


def _bfloat16(x):
    """Rounded to the nearest bfloat16, half to even, in float32: the 16 upper bits of it."""
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    rounded = np.empty_like(bits)
    np.right_shift(bits, 16, out=rounded)
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded &= 0xFFFF0000
    rounded = rounded.view(np.float32)
    np.copyto(rounded, x, where=np.isnan(x))  # whose bits would run over
    return rounded
