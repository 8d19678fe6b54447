"""Steps that take a matrix as one.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range, a gradient of another shape and a state that does not fit; the package's docstring says more.
"""

import math

import numpy as np

from ..arguments import flag, one_of, real, whole, within
from .steps import given, next_step, stored, toward


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

    v is then of rank one. The means follow g² by t^β₂, where β₂, at most 0, is beta2_decay: that is
    1 at the first step, so that no correction is needed. Where g / √v exceeds d in root mean
    square, the step is scaled to d. Weight decay shrinks p by 1 − lr λ. Vectors keep v itself. eps
    is (ε₁, ε₂), and ε₁ is the dtype's epsilon where None. Raises TypeError for any other eps.

    Shazeer & Stern, 2018, arXiv:1804.04235
    """
    param, grad = given(param, grad, state)
    within(-math.inf, 0, beta2_decay=beta2_decay)
    flag(maximize=maximize)
    if not isinstance(eps, (tuple, list)) or len(eps) != 2:
        raise TypeError(f"eps: expected two numbers, or None and a number, got {eps!r}")
    least = float(np.finfo(param.dtype).eps) if eps[0] is None else eps[0]
    within(0, lr=lr, weight_decay=weight_decay, **{"eps[0]": least, "eps[1]": eps[1]})
    within(1, d=d)
    step, t = next_step(state)
    share = t**beta2_decay
    alpha = max(eps[1], _rms(param)) * min(lr, 1 / math.sqrt(t))
    g = -grad if maximize else grad
    if param.ndim > 1:
        rows, columns = _mean_square(g, -1), _mean_square(g, -2)
        row = toward(stored(state, "row_var", rows), rows, share)
        column = toward(stored(state, "col_var", columns), columns, share)
        new = {"row_var": row, "col_var": column}
        v = row @ column
        v /= np.maximum(row.mean(axis=-2, keepdims=True), least)
    else:
        squares = g * g
        new = {"variance": toward(stored(state, "variance", param), squares, share)}
        v = np.array(new["variance"])
    np.maximum(v, least * least, out=v)
    np.sqrt(v, out=v)
    update = np.divide(g, v, out=v)
    update *= alpha / max(1.0, _rms(update) / d)
    if weight_decay:
        param = param * (1 - lr * weight_decay)
    param = param - update
    return param, {"step": step, **new}


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
    of g and b for b. adjust_lr_fn names the rate: lr √max(1, rows / columns), "original" and the
    default, lr √(rows / columns), "spectral_unclamped", or 0.2 lr √max(rows, columns),
    "match_rms_adamw", to match the size of AdamW's step.

    Raises ValueError for a param that is no matrix, for 100 ns_steps or more, and unless
    ns_coefficients are three numbers.

    Jordan, 2024, https://kellerjordan.github.io/posts/muon; Bernstein, 2025,
    https://jeremybernste.in/writing/deriving-muon; Liu et al., 2025, arXiv:2502.16982
    """
    param, grad = given(param, grad, state)
    if param.ndim != 2:
        raise ValueError(f"param: expected a matrix, got shape {param.shape}")
    within(0, lr=lr, momentum=momentum, weight_decay=weight_decay)
    most = float(np.finfo(np.float32).max)  # bfloat16 has this range as well
    within(-most, most, eps=eps)
    flag(nesterov=nesterov)
    whole(ns_steps=ns_steps)
    if ns_steps >= 100:
        raise ValueError(f"ns_steps: expected below 100, got {ns_steps}")
    if not isinstance(ns_coefficients, (tuple, list)) or len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients: expected three numbers, got {ns_coefficients!r}")
    real(**{f"ns_coefficients[{i}]": c for i, c in enumerate(ns_coefficients)})
    rows, columns = param.shape
    rates = {
        "original": math.sqrt(max(1, rows / columns)),
        "spectral_unclamped": math.sqrt(rows / columns),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
    }
    adjust_lr_fn = "original" if adjust_lr_fn is None else adjust_lr_fn
    one_of(rates, adjust_lr_fn=adjust_lr_fn)
    rate = lr * rates[adjust_lr_fn]
    rounded = _bfloat16
    b = toward(stored(state, "momentum_buffer", param), grad, 1 - momentum)
    tall = param.shape[0] > param.shape[1]
    x = rounded(toward(grad, b, momentum) if nesterov else b)
    x = x.T if tall else x
    x = rounded(x / max(rounded(np.linalg.norm(x)), rounded(np.float32(eps))))
    first, third, fifth = ns_coefficients
    for _ in range(ns_steps):
        a = rounded(x @ x.T)
        x = rounded(first * x + rounded(third * a + fifth * (a @ a)) @ x)
    x = x.T if tall else x
    param = param * (1 - lr * weight_decay) - rate * x.astype(param.dtype)
    return param, {"momentum_buffer": b}


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
    np.copyto(rounded, x, where=np.isnan(x))  # their bits would overflow
    return rounded
