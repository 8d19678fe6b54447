"""Backward passes of normalizations.

They raise TypeError or ValueError, as the package says.
"""

import math

import numpy as np

from .. import standardized
from ..arguments import Constant, flag, floating, real, same_shape


def native_layer_norm_backward(grad_out, input, normalized_shape, weight=None, eps=1e-5):
    """dx of layer_norm, and with a weight dw and db as well. Torch's own also takes the statistics
    that its forward pass has saved.

    With a = w g, P a = a − mean(a) − x̂ mean(a x̂) and r = 1 / σ, dx = r P a, and P is its own
    adjoint. Of the directions p, q and s of the three gradients, x̂ and r get

        dx̂ = q g − r (p mean(a x̂) + a mean(p x̂))        dr = Σ p P a

    and x gets r P dx̂ − r x̂ mean(p dx), because r itself has the slope −r² x̂ / n. Raises ValueError
    for shapes that do not fit.
    """
    g, x, weight = floating(grad_out=grad_out, input=input, weight=weight, optional="weight")
    same_shape(grad_out=g, input=x)
    rows, n = standardized.rows_of(normalized_shape, {"input": x, "weight": weight})
    real(eps=eps)
    over, along = (rows, 1), (1, n)
    hat, r, *_ = standardized.standardized(x.reshape(rows, n), over, eps)
    return _of_norm(g, x, weight, along, hat, r, over)


def native_group_norm_backward(grad_out, input, group, weight=None, eps=1e-5):
    """native_layer_norm_backward, for group_norm with so many groups."""
    g, x, weight = floating(grad_out=grad_out, input=input, weight=weight, optional="weight")
    same_shape(grad_out=g, input=x)
    N, C, L = standardized.channels_of({"input": x, "weight": weight})
    G, K = group, standardized.channels_in(C, group=group)
    real(eps=eps)
    over, along = (N, G, 1, 1), (1, G, K, 1)
    hat, r, *_ = standardized.standardized(x.reshape(N, G, K, L), over, eps)
    return _of_norm(g, x, weight, along, hat, r, over)


def native_batch_norm_backward(
    grad_out,
    input,
    weight=None,
    running_mean: Constant = None,
    running_var: Constant = None,
    train=False,
    eps=1e-5,
):
    """native_layer_norm_backward, for batch_norm. In evaluation x̂ is linear in x, and dx = r a.
    Raises ValueError there without running statistics."""
    arrays = {"grad_out": grad_out, "input": input, "weight": weight}
    running = {"running_mean": running_mean, "running_var": running_var}
    names = "weight running_mean running_var"
    g, x, weight, mean, var = floating(**arrays, **running, optional=names)
    same_shape(grad_out=g, input=x)
    flag(train=train)
    standardized.epsilon(eps, train)
    given = {"weight": weight, "running_mean": mean, "running_var": var}
    N, C, L = standardized.channels_of({"input": x, **given})
    along, seen = (1, C, 1), x.reshape(N, C, L)
    if not train:
        return _of_norm(g, x, weight, along, *standardized.fixed(seen, mean, var, eps))
    hat, r, *_ = standardized.standardized(seen, along, eps)
    return _of_norm(g, x, weight, along, hat, r, along)


def _of_norm(g, x, weight, along, hat, r, over=None):
    """dx, and with a weight dw and db, of a normalization: x̂ and r = 1 / σ are in another shape, in
    which the weight is `along`. Statistics are means that leave `over`, or not those of x."""
    w = None if weight is None else weight.reshape(along)
    g_seen = g.reshape(hat.shape)
    a = g_seen if w is None else g_seen * w

    def pull(dhat):
        return dhat * r if over is None else standardized.slope(dhat, hat, r)

    dx = pull(a)
    y = dx.reshape(x.shape)
    if w is not None:
        sums = standardized.dot(g_seen, hat, along), standardized.sum_to(g_seen, along)
        y = y, *(total.reshape(weight.shape) for total in sums)

    def mean(a, b):
        return standardized.dot(a, b, over) / (hat.size // max(math.prod(over), 1))

    def pullback(dy):
        p, *others = dy if isinstance(dy, tuple) else (dy,)
        p, back = p.reshape(hat.shape), pull(p.reshape(hat.shape))
        dg, dhat = back, np.zeros_like(hat)
        if w is not None:
            q, s = (d.reshape(along) for d in others)
            dg, dhat = w * back + q * hat + s, q * g_seen
        if over is None:
            ddx = pull(dhat)
        else:
            ddx = pull(dhat - r * (p * mean(a, hat) + a * mean(p, hat)))
            ddx -= r * hat * mean(p, dx)
        found = dg.reshape(g.shape), ddx.reshape(x.shape)
        if w is None:
            return found
        return *found, standardized.dot(g_seen, back, along).reshape(weight.shape)

    return y, pullback
