"""Steps by a second-order model of the loss.

All of them raise TypeError for an argument of the wrong type, ValueError for a setting out of
range; the message names the argument.
"""

import numpy as np

from ..arguments import flag, floating, mapping, real, whole, within
from ..line_search import Point, strong_wolfe


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
    maximize=False,
):
    """Up to max_iter times x ← x + t d, where d = −H g and H is built from the last history_size
    changes s of x and y of g.

    H is the inverse Hessian that maps each y to its s and is nearest to the one before; its product
    with a vector needs only the s and y, in two loops. It starts as (sᵀy / yᵀy) I. A pair with sᵀy
    ≤ 10⁻¹⁰ is left out, which keeps H positive. t is lr, at the very first step lr / ‖g‖₁ where
    that is less, or found by a line search that fulfils the strong Wolfe conditions. With maximize
    all of it is done to −loss.

    params is a list of arrays, x all of them laid end to end; closure(params) gives the loss, a
    number, and the list of gradients. Raises TypeError for params that are no list of floating
    arrays and a closure that cannot be called, ValueError for a line_search_fn other than None and
    "strong_wolfe".

    Nocedal, 1980; Liu & Nocedal, 1989
    """
    real(tolerance_grad=tolerance_grad, tolerance_change=tolerance_change)
    _check(lr, max_iter, max_eval, history_size, line_search_fn, maximize)
    params = _arrays(params, closure, state)
    max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
    x = np.concatenate([p.reshape(-1) for p in params])

    def evaluate(x):
        loss, grads = closure(_cut(x, params))
        g = np.concatenate([np.reshape(g, -1) for g in grads])
        return (-float(loss), -g) if maximize else (float(loss), g)

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

            here, left = Point(0, loss, g, slope), max_eval - evaluations
            found, made = strong_wolfe(along, t, here, abs(d).max(), max_ls=left)
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


def _check(lr, max_iter, max_eval, history_size, line_search_fn, maximize):
    within(0, lr=lr)
    whole(max_iter=max_iter, history_size=history_size)
    within(1, history_size=history_size)
    if max_eval is not None:
        whole(max_eval=max_eval)
    flag(maximize=maximize)
    wolfe = isinstance(line_search_fn, str) and line_search_fn == "strong_wolfe"
    if line_search_fn is not None and not wolfe:
        raise ValueError(f"line_search_fn: expected None or 'strong_wolfe', got {line_search_fn!r}")


def _arrays(params, closure, state):
    """The parameters as arrays, once the closure and the state have been checked as well."""
    mapping(state=state)
    if not callable(closure):
        raise TypeError(f"closure: expected a function of the parameters, got {closure!r:.80}")
    if not isinstance(params, (list, tuple)) or not params:
        raise TypeError(f"params: expected a list of arrays, got {params!r:.80}")
    return [floating(**{f"params[{i}]": p}) for i, p in enumerate(params)]


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
