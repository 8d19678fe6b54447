"""Backward passes as functions of their own, to be differentiated again. The names are ATen's.

For those that work element by element, y is grad_output · f′(x), where x is short for self, and
both broadcast. The slope in grad_output is f′, as ever; the docstrings give the one in x, divided
by grad_output: f″. The reduction of a loss is 0, "none", 1, "mean", or 2, "sum".

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range, IndexError for a dim that is not there; the message names the argument.

`loss_gradient` composes them: what its pullback makes of a direction is the Hessian's product with
it. Torch has no such pass for hardsigmoid and the margin losses of classes, and differentiates
others through the functions that they are made of, like l1_loss.
"""

import math

import numpy as np

from . import activations, pooling, standardized
from .arguments import (
    Constant,
    alike,
    array,
    as_dtype,
    axis_of,
    broadcast,
    flag,
    floated,
    floating,
    one_of,
    real,
    same_shape,
    weights,
    whole,
    within,
)
from .arrays import sum_to, where
from .attention.scaled import attended, scaled_dot_product_attention
from .correlation import channel_sums, correlation
from .losses import classes
from .losses.likelihoods import GUARD
from .pooling.maxima import collected, placed
from .windows import images, per_axis


def sigmoid_backward(grad_output, output):
    """f′ = σ (1 − σ) of the output σ; in the output the slope is 1 − 2 σ."""
    g, y = _fitting(grad_output=grad_output, output=output)
    return _promoted(g, y * (1 - y), (y, 1 - 2 * y))


def tanh_backward(grad_output, output):
    """f′ = 1 − t² of the output t; in the output the slope is −2 t."""
    g, y = _fitting(grad_output=grad_output, output=output)
    return _promoted(g, 1 - y * y, (y, -2 * y))


def threshold_backward(grad_output, self, threshold):
    """That of relu and threshold: f′ = 1 above the threshold; f″ = 0."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(threshold=threshold)
    return _promoted(g, x > threshold, (x, np.zeros_like(x)))


def hardtanh_backward(grad_output, self, min_val, max_val):
    """f′ = 1 between min_val and max_val; f″ = 0."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(min_val=min_val, max_val=max_val)
    return _promoted(g, (x > min_val) & (x < max_val), (x, np.zeros_like(x)))


def leaky_relu_backward(grad_output, self, negative_slope, self_is_result):
    """f′ = 1 above 0 and negative_slope below, whether self is x or, with self_is_result, the
    result of a slope that is not negative; f″ = 0. Raises ValueError for a result of a negative
    slope."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(negative_slope=negative_slope)
    flag(self_is_result=_or_false(self_is_result))
    if self_is_result and negative_slope < 0:
        raise ValueError(f"negative_slope: expected at least 0 of a result, got {negative_slope}")
    slope = where(x > 0, 1, negative_slope).astype(x.dtype)
    return _promoted(g, slope, (x, np.zeros_like(x)))


def gelu_backward(grad_output, self, *, approximate="none"):
    """f″ = φ(x) (2 − x²); of the tanh approximation, with σ = σ(v) and the slopes v′, v″ of v, it
    is σ (1 − σ) (2 v′ + x ((1 − 2 σ) v′² + v″)). Both arrays have one shape."""
    g, x = _fitting(grad_output=grad_output, self=self)
    same_shape(grad_output=g, self=x)  # oneDNN does not broadcast
    one_of(("none", "tanh"), approximate=approximate)
    near = np.clip(x, -40, 40)
    square = near * near
    if approximate == "tanh":
        c = np.sqrt(8 / np.pi).item()
        s, slope = activations.sigmoid(c * near * (1 + 0.044715 * square))
        first, second = c * (1 + 0.134145 * square), c * 0.26829 * near
        bend = slope(2 * first + near * ((1 - 2 * s) * first * first + second))
    else:
        bend = np.exp(-square / 2) / np.sqrt(2 * np.pi).item() * (2 - square)
    return _promoted(g, _slope(activations.gelu, x, approximate), (x, bend))


def silu_backward(grad_output, self):
    """f″ = σ (1 − σ) (2 + x (1 − 2 σ)), where 1 − 2 σ(x) = −tanh(x / 2)."""
    g, x = _fitting(grad_output=grad_output, self=self)
    near = np.clip(x, -1e3, 1e3)
    bend = activations.sigmoid(near)[1](2 - near * np.tanh(near / 2))
    return _promoted(g, _slope(activations.silu, x), (x, bend))


def mish_backward(grad_output, self):
    """With t = tanh(log(1 + eˣ)) and σ = σ(x), f″ = σ (1 − t²) (2 + x (1 − σ − 2 σ t))."""
    g, x = _fitting(grad_output=grad_output, self=self)
    z = np.exp(-abs(x))
    n, two = where(x > 0, 1 + 2 * z, z * (z + 2)), where(x > 0, 2 * z * z, 2)
    t, rest = n / (n + two), two / (n + two)  # and 1 − t, which does not cancel
    near, s = np.clip(x, -1e3, 1e3), activations.sigmoid(x)[0]
    bend = s * rest * (1 + t) * (2 + near * (1 - s - 2 * s * t))
    return _promoted(g, _slope(activations.mish, x), (x, bend))


def softplus_backward(grad_output, self, beta, threshold):
    """f″ = β σ(β x) σ(−β x), and 0 beyond the threshold of β x."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(beta=beta, threshold=threshold)
    bend = activations.sigmoid(x * beta)[1](np.full_like(x, beta))
    bend = where(x * beta > threshold, 0, bend)
    return _promoted(g, _slope(activations.softplus, x, beta, threshold), (x, bend))


def hardswish_backward(grad_output, self):
    """f″ = 1/3 between −3 and 3, 0 outside."""
    g, x = _fitting(grad_output=grad_output, self=self)
    bend = where((x > -3) & (x < 3), 1 / 3, 0).astype(x.dtype)
    return _promoted(g, _slope(activations.hardswish, x), (x, bend))


def elu_backward(grad_output, alpha, scale, input_scale, is_result, self_or_result):
    """That of elu, celu and selu: f′ = scale above 0 and α scale input_scale e^(input_scale x)
    below, where f″ = input_scale f′. With is_result it takes the result r, and f′ below is
    input_scale (r + α scale). Raises ValueError for a result of a negative α."""
    g, x = _fitting(grad_output=grad_output, self_or_result=self_or_result)
    real(alpha=alpha, scale=scale, input_scale=input_scale)
    flag(is_result=_or_false(is_result))
    if is_result and alpha < 0:
        raise ValueError(f"alpha: expected at least 0 of a result, got {alpha}")
    below = where(x > 0, 0, x)
    if is_result:
        slope = input_scale * (below + alpha * scale)
        bend = np.full_like(x, input_scale)
    else:
        slope = alpha * scale * input_scale * np.exp(input_scale * below)
        bend = input_scale * slope
    bend = where(x < 0, bend, 0)
    return _promoted(g, where(x > 0, scale, slope).astype(x.dtype), (x, bend))


def log_sigmoid_backward(grad_output, self):
    """f″ = −σ(x) σ(−x). Torch's own also takes what its forward pass has saved."""
    g, x = _fitting(grad_output=grad_output, self=self)
    slope, bend = activations.sigmoid(-x)
    return _promoted(g, slope, (x, -bend(np.ones_like(x))))


def hardshrink_backward(grad_out, self, lambd):
    """f′ = 1 outside of ± λ; f″ = 0."""
    g, x = _fitting(grad_out=grad_out, self=self)
    real(lambd=lambd)
    return _promoted(g, abs(x) > lambd, (x, np.zeros_like(x)))


def softshrink_backward(grad_output, self, lambd):
    """f′ = 1 outside of ± λ; f″ = 0."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(lambd=lambd)
    return _promoted(g, abs(x) > lambd, (x, np.zeros_like(x)))


def rrelu_with_noise_backward(
    grad_output, self, noise: Constant, lower, upper, training, self_is_result
):
    """f′ is the noise drawn in training, which is 1 above 0; without training, it is leaky_relu's
    with the mean of lower and upper. f″ = 0. The noise has the shape of x."""
    g, x = _fitting(grad_output=grad_output, self=self)
    real(lower=lower, upper=upper)
    flag(training=_or_false(training), self_is_result=_or_false(self_is_result))
    if not training:
        return leaky_relu_backward(g, x, (lower + upper) / 2, self_is_result)
    x, noise = alike(self=x, noise=floated(x, noise))
    return _promoted(g, noise, (x, np.zeros_like(x)))


def prelu_kernel_backward(grad_output, self, weight):
    """Both gradients of max(x, 0) + w min(x, 0), the second not yet summed: g and 0 above 0, w g
    and x g below. They are linear in each of g, w and x."""
    g, x, w = _fitting(grad_output=grad_output, self=self, weight=weight)
    shape = np.broadcast_shapes(g.shape, x.shape, w.shape)
    positive = x > 0
    y = tuple(
        np.broadcast_to(part, shape)
        for part in (where(positive, g, w * g), where(positive, 0, x * g))
    )

    def pullback(dy):
        dx, dw = dy
        found = (
            (where(positive, dx, w * dx + x * dw), g),
            (where(x < 0, g * dw, 0), x),
            (where(positive, 0, g * dx), w),
        )
        return tuple(sum_to(np.broadcast_to(d, shape), a.shape) for d, a in found)

    return y, pullback


def glu_backward(grad_output, self, dim):
    """(g σ(b), g a σ′(b)) of the halves a and b of x along dim. With σ″ = σ′ (1 − 2 σ), where 1 − 2
    σ(b) = −tanh(b / 2), and dy = (p, q), the slopes are

        dg = p σ + q a σ′        da = q g σ′        db = p g σ′ + q g a σ″

    Raises ValueError unless x is twice as long as g along dim.
    """
    g, x = floating(grad_output=grad_output, self=self)
    axis = axis_of(x.ndim, dim=dim)
    twice = (*g.shape[:axis], 2 * g.shape[axis], *g.shape[axis + 1 :]) if axis < g.ndim else ()
    if x.shape != twice:
        raise ValueError(f"self: expected twice grad_output, {g.shape}, along {dim}, got {x.shape}")
    a, b = np.split(x, 2, axis)
    s, pull = activations.sigmoid(b)
    s1 = pull(np.ones_like(b))
    s2 = -s1 * np.tanh(b / 2)
    y = np.concatenate([g * s, g * a * s1], axis)

    def pullback(dy):
        p, q = np.split(dy, 2, axis)
        return p * s + q * a * s1, np.concatenate([q * g * s1, p * g * s1 + q * g * a * s2], axis)

    return y, pullback


def softmax_backward_data(grad_output, output, dim, input_dtype):
    """p (g − Σ p g) of the output p, whatever p adds up to; in p the slope is

        dp = dy (g − Σ p g) − g Σ p dy

    input_dtype is that of softmax's own input; torch looks at it on a GPU only.
    """
    g, p = alike(grad_output=grad_output, output=output)
    as_dtype(input_dtype, "input_dtype", optional=False)
    axis = axis_of(p.ndim, dim=dim)

    def total(a):
        return _total(a, axis)

    left = g - total(p * g)
    y = p * left

    def pullback(dy):
        along = total(p * dy)
        return p * (dy - along), dy * left - g * along

    return y, pullback


def log_softmax_backward_data(grad_output, output, dim, input_dtype):
    """g − e^ℓ Σ g of the output ℓ, whatever e^ℓ adds up to; in ℓ the slope is −dy e^ℓ Σ g."""
    g, log_p = alike(grad_output=grad_output, output=output)
    as_dtype(input_dtype, "input_dtype", optional=False)
    axis = axis_of(g.ndim, dim=dim)
    p, total = np.exp(log_p), _total(g, axis)
    y = g - p * total

    def pullback(dy):
        return dy - _total(p * dy, axis), -dy * p * total

    return y, pullback


def _total(a, axis):
    return np.broadcast_to(a.sum(axis=axis, keepdims=True) if a.ndim else a, a.shape)


def mse_loss_backward(grad_output, self, target, reduction):
    """f′ = 2 e, f″ = 2 with e = x − t; in t all slopes are the negative ones. Raises ValueError for
    another reduction and a shape that does not fit."""
    return _of_error(grad_output, self, target, reduction, lambda e: (2 * e, np.full_like(e, 2)))


def huber_loss_backward(grad_output, self, target, reduction, delta):
    """f′ = e cut off at ± δ, e = x − t; f″ = 1 within. Raises ValueError for another reduction and
    a shape that does not fit."""
    within(0, delta=delta)

    def measured(e):
        return np.clip(e, -delta, delta), (abs(e) < delta).astype(e.dtype)

    return _of_error(grad_output, self, target, reduction, measured)


def smooth_l1_loss_backward(grad_output, self, target, reduction, beta):
    """f′ = e / β cut off at ± 1, e = x − t; f″ = 1 / β within, and 0 everywhere for β = 0, where f′
    at 0 is −1. Raises ValueError for another reduction and a shape that does not fit."""
    within(0, beta=beta)

    def measured(e):
        within_beta = abs(e) < beta
        sides = where(e <= -beta, -1, 1)
        return where(within_beta, e / (beta or 1), sides), within_beta / (beta or 1)

    return _of_error(grad_output, self, target, reduction, measured)


def _of_error(grad_output, x, target, reduction, measured):
    """The backward pass of a loss of e = x − t: measured(e) is f′ and f″."""
    g, x, t = floating(grad_output=grad_output, self=x, target=target)
    same_shape(self=x, target=t)
    n = _divisor(g, x.shape, reduction, x.size)
    slope, bend = (np.asarray(a / n) for a in measured(x - t))
    return _promoted(g, slope, (x, bend), (t, -bend))


def soft_margin_loss_backward(grad_output, self, target: Constant, reduction):
    """f′ = −t σ(−t x), f″ = t² σ(t x) σ(−t x). The target t has the shape of x. Raises ValueError
    for another reduction and a shape that does not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    x, t = alike(self=x, target=floated(x, target))
    n = _divisor(g, x.shape, reduction, x.size)
    s, bend = activations.sigmoid(-t * x)
    return _promoted(g, -t * s / n, (x, bend(t * t / n)))


def binary_cross_entropy_backward(grad_output, self, target, weight: Constant = None, reduction=1):
    """f′ = w (p − t) / (p q) with q = 1 − p; in p the slope is w ((p − t)² + t (1 − t)) / (p q)²,
    where nothing cancels, in t it is −w / (p q). Torch has another guard for these than for f′: ε =
    1e-12 is added to p and to q; they have it here only where p q is below it.

    Raises ValueError for another reduction, a shape that does not fit, and a p or t outside [0, 1].
    """
    g, p, t = floating(grad_output=grad_output, self=self, target=target)
    same_shape(self=p, target=t)
    w = weights(p, weight=weight)
    for name, a in (("self", p), ("target", t)):
        if not np.all((a >= 0) & (a <= 1)):
            raise ValueError(f"{name}: expected values from 0 to 1, as its loss does")
    share = np.asarray((1 if w is None else w) / _divisor(g, p.shape, reduction, p.size), p.dtype)
    pq = p * (1 - p)
    guarded = where(pq < GUARD, (p + 1e-12) * (1 - p + 1e-12), pq)
    bend = share * (((p - t) ** 2 + t * (1 - t)) / (guarded * guarded))
    y, _ = _promoted(g, share * ((p - t) / np.maximum(pq, GUARD)))
    _, pullback = _promoted(
        g, share * ((p - t) / guarded), (p, bend), (t, -share / np.maximum(pq, 1e-12))
    )
    return y, pullback


def nll_loss_backward(
    grad_output,
    self,
    target,
    weight: Constant,
    reduction,
    ignore_index,
    total_weight: Constant,
):
    """nll_loss is linear in x: so its pullback of grad_output has no slope in x, and that in
    grad_output is nll_loss itself, of dy. A "mean" is over total_weight, Σ w_t. The other arguments
    are those of nll_loss. Raises ValueError for an x without axes, another reduction and a shape
    that does not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    whole(reduction=reduction)
    given = total_weight if reduction == 1 else floated(x, total_weight)  # else it does not count
    total = floating(self=x, total_weight=given)[1]
    if not x.ndim:
        raise ValueError(f"self: expected an axis of classes, got shape {x.shape}")
    target, settings = array(target=target), {"ignore_index": ignore_index, "reduction": "none"}
    n = _divisor(g, target.shape, reduction, total.item() if reduction == 1 else 1)
    _, pull = classes.nll_loss(x, target, weight, **settings)
    y = pull(np.broadcast_to(g / n, target.shape))

    def pullback(dy):
        loss, _ = classes.nll_loss(dy, target, weight, **settings)
        return sum_to(loss / n, g.shape), np.zeros_like(x)

    return y, pullback


def nll_loss2d_backward(
    grad_output,
    self,
    target,
    weight: Constant,
    reduction,
    ignore_index,
    total_weight: Constant,
):
    """nll_loss_backward for images: x is (N, C, H, W), the target (N, H, W), the weight (C). Raises
    ValueError for other numbers of axes."""
    x = floating(self=self)
    if x.ndim != 4:
        raise ValueError(f"self: expected (N, C, H, W), got shape {x.shape}")
    if np.ndim(weight) > 1:
        raise ValueError(f"weight: expected one number for each class, got {np.shape(weight)}")
    return nll_loss_backward(grad_output, x, target, weight, reduction, ignore_index, total_weight)


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


def scaled_dot_product_attention_backward(
    grad_out, query, key, value, attn_mask: Constant = None, is_causal=False, scale=None
):
    """dQ, dK and dV of attention, of arrays with the same axes in front. Torch's own, of a kernel,
    also takes what that has saved, and is not differentiable; this is its composition's.

    With Π X = P (X − Σ P X), its own adjoint, the gradient of the scores is dZ = Π dP, where
    dP = g Vᵀ, and dQ = s dZ K, dK = s dZᵀ Q, dV = Pᵀ g. Directions a, b, c of the three give it the
    slope H = s (a Kᵀ + Q bᵀ), so dP gets Π H, and P gets

        G = H (dP − Σ P dP) − dP Σ P H + g cᵀ

    and the scores Π G; what a and b multiply beside dZ is added to dQ's and dK's arguments. It is
    long because it is two passes and their backward. Raises ValueError for shapes that do not fit,
    and for an attn_mask beside is_causal.

    Vaswani et al., 2017, arXiv:1706.03762
    """
    g, q, k, v = floating(grad_out=grad_out, query=query, key=key, value=value)
    y, _ = scaled_dot_product_attention(q, k, v, attn_mask, 0.0, is_causal, scale)
    for name, a in (("key", k), ("value", v)):
        if a.shape[:-2] != q.shape[:-2]:
            raise ValueError(f"{name}: expected {q.shape[:-2]} in front, got shape {a.shape}")
    if g.shape != y.shape:
        raise ValueError(f"grad_out: expected shape {y.shape}, got {g.shape}")
    s = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask = np.tri(q.shape[-2], k.shape[-2], dtype=bool) if is_causal else attn_mask
    (_, P), _ = attended(s * q, k, v, mask)
    most = P.argmax(axis=-1, keepdims=True)

    def total(a):
        return (P * a).sum(axis=-1, keepdims=True)

    def centred(a):  # at that of the largest weight, so that nothing cancels beside it
        return a - np.take_along_axis(a, most, -1)

    def turned(a):
        return a.swapaxes(-1, -2)

    dP = centred(g @ turned(v))
    rest = dP - total(dP)
    dZ = P * rest
    y = s * (dZ @ k), s * (turned(dZ) @ q), turned(P) @ g

    def pullback(dy):
        a, b, c = dy
        H = centred(s * (a @ turned(k) + q @ turned(b)))
        through = P * (H - total(H))
        G = centred(H * rest - dP * total(H) + g @ turned(c))
        Z = P * (G - total(G))
        return (
            through @ v + P @ c,
            s * (dZ @ b + Z @ k),
            s * (turned(dZ) @ a + turned(Z) @ q),
            turned(through) @ g,
        )

    return y, pullback


def convolution_backward(
    grad_output,
    input,
    weight,
    bias_sizes,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
    output_mask,
):
    """dx, dw and db of a convolution or a transposed one: those that output_mask asks for. A
    convolution y(x, w) is linear in both, and so are its gradients dx(g, w) and dw(x, g) in g. With
    directions p, q and r of the three the slopes are

        y(p, w) + y(x, q) + r        dx(g, q)        dw(p, g)

    in g, x and w. Settings are tuples of a number for each axis of space; bias_sizes changes no
    number. It is long because of its many arguments. Raises TypeError for an output_mask
    that is not three times True or False, ValueError for shapes that do not fit.
    """
    g, x, w = floating(grad_output=grad_output, input=input, weight=weight)
    n = max(x.ndim - 2, 1)
    images(n, True, input=x)
    flag(transposed=_or_false(transposed))
    _mask_of_three(output_mask)
    _lengths(bias_sizes)
    settings = stride, per_axis(n, 0, padding=padding), dilation, groups
    more = per_axis(n, 0, output_padding=output_padding)
    if any(more) and not transposed:
        raise ValueError(f"output_padding: expected 0 unless transposed, got {more}")
    form = correlation(x, w, None, *settings, transposed, more, "input")
    if g.shape != form.shape(x, w):
        raise ValueError(f"grad_output: expected shape {form.shape(x, w)}, got {g.shape}")
    value, to_x, to_w = form.roles()
    first = (to_x, (g, w)), (to_w, (x, g)), (channel_sums, (g,))
    y = tuple(f(*args) for (f, args), asked in zip(first, output_mask, strict=True) if asked)

    def pullback(dy):
        directions = iter(dy if len(y) > 1 else (dy,))
        p, q, r = (next(directions) if asked else None for asked in output_mask)
        dg, dx, dw = np.zeros_like(g), np.zeros_like(x), np.zeros_like(w)
        if p is not None:
            dg, dw = dg + value(p, w), to_w(p, g)
        if q is not None:
            dg, dx = dg + value(x, q), to_x(g, q)
        if r is not None:
            dg = dg + r.reshape(-1, *(1 for _ in range(n)))
        return dg, dx, dw

    return (y if len(y) > 1 else y[0]), pullback


def _mask_of_three(output_mask):
    """Raises TypeError unless it is three times True or False, ValueError for three times False."""
    if not isinstance(output_mask, (tuple, list)) or len(output_mask) != 3:
        raise TypeError(f"output_mask: expected three times True or False, got {output_mask!r}")
    flag(**{f"output_mask[{i}]": asked for i, asked in enumerate(output_mask)})
    if not any(output_mask):
        raise ValueError(f"output_mask: expected True for one of the three, got {output_mask!r}")


def _lengths(bias_sizes):
    """Raises TypeError unless it is None or a tuple or list of whole numbers."""
    if not isinstance(bias_sizes, (tuple, list, type(None))):
        raise TypeError(f"bias_sizes: expected None or some lengths, got {bias_sizes!r}")
    whole(**{f"bias_sizes[{i}]": length for i, length in enumerate(bias_sizes or ())})


def avg_pool2d_backward(
    grad_output,
    self,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    count_include_pad,
    divisor_override,
):
    """That of avg_pool2d, which is linear: so the slope in grad_output is avg_pool2d, and in self
    there is none. Raises ValueError for a grad_output of another shape than the means."""
    flags = _or_false(ceil_mode), _or_false(count_include_pad)
    settings = kernel_size, stride, padding, *flags, divisor_override
    return _of_linear(grad_output, self, 2, pooling.avg_pool2d, *settings)


def avg_pool3d_backward(
    grad_output,
    self,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    count_include_pad,
    divisor_override,
):
    """That of avg_pool3d. Raises ValueError as avg_pool2d_backward does."""
    flags = _or_false(ceil_mode), _or_false(count_include_pad)
    settings = kernel_size, stride, padding, *flags, divisor_override
    return _of_linear(grad_output, self, 3, pooling.avg_pool3d, *settings)


def adaptive_avg_pool2d_backward(grad_output, self):
    """That of adaptive_avg_pool2d to the size of grad_output; as that is linear, the slope in
    grad_output is it, and in self there is none. Raises ValueError for shapes that do not fit."""
    return _of_linear(grad_output, self, 2, pooling.adaptive_avg_pool2d)


def adaptive_avg_pool3d_backward(grad_output, self):
    """That of adaptive_avg_pool3d. Raises ValueError as adaptive_avg_pool2d_backward does."""
    return _of_linear(grad_output, self, 3, pooling.adaptive_avg_pool3d)


def max_pool3d_with_indices_backward(
    grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices
):
    """That of max_pool3d: each grad_output goes where its maximum was. So the slope in it is to be
    taken from there, and in self there is none. Raises TypeError unless the indices are int64,
    ValueError for one out of range and for shapes that are not those of the maxima."""
    settings = kernel_size, stride, padding, dilation, _or_false(ceil_mode)
    return _of_taken(grad_output, self, indices, 3, pooling.max_pool3d, *settings)


def adaptive_max_pool2d_backward(grad_output, self, indices):
    """That of adaptive_max_pool2d to the size of grad_output, as max_pool3d_with_indices_backward
    has it. Raises TypeError and ValueError as that does."""
    return _of_taken(grad_output, self, indices, 2, pooling.adaptive_max_pool2d)


def adaptive_max_pool3d_backward(grad_output, self, indices):
    """That of adaptive_max_pool3d. Raises TypeError and ValueError as
    max_pool3d_with_indices_backward does."""
    return _of_taken(grad_output, self, indices, 3, pooling.adaptive_max_pool3d)


def _of_linear(grad_output, self, rank, rule, *settings):
    """The pullback of a linear rule, whose adjoint is the rule."""
    g, x, settings, back = _of_pool(grad_output, self, rank, rule, settings)

    def pullback(dy):
        return rule(dy, *settings)[0], np.zeros_like(x)

    return back(g), pullback


def _of_taken(grad_output, self, indices, rank, rule, *settings):
    """What is done with the gradient of elements of self that were taken by their indices."""
    g, x, *_ = _of_pool(grad_output, self, rank, rule, settings)
    places = placed(g, indices, x.shape[-rank:])

    def pullback(dy):
        return dy.reshape(-1).take(places), np.zeros_like(x)

    return collected(g, places, x.shape), pullback


def _of_pool(grad_output, self, rank, rule, settings):
    """Both arrays, the settings, which without any are the size of grad_output, and the pullback of
    the pooling. Raises ValueError for shapes that do not fit."""
    g, x = floating(grad_output=grad_output, self=self)
    if x.ndim not in (rank + 1, rank + 2) or not math.prod(x.shape[1:]):
        raise ValueError(f"self: expected (C, …) or (N, C, …), not empty, got shape {x.shape}")
    if g.ndim != x.ndim:
        raise ValueError(f"grad_output: expected {x.ndim} axes, got shape {g.shape}")
    settings = settings or (g.shape[-rank:],)
    y, back = rule(x, *settings)
    if g.shape != y.shape:
        raise ValueError(f"grad_output: expected shape {y.shape}, got {g.shape}")
    return g, x, settings, back


def _slope(rule, x, *settings):
    return rule(x, *settings)[1](np.ones_like(x))


def _fitting(**arrays):
    """The named arrays, floating, of shapes that broadcast."""
    found = floating(**arrays)
    broadcast(**dict(zip(arrays, found, strict=True)))
    return found


def _or_false(given):
    """A flag for which None means False."""
    return False if given is None else given


def _divisor(g, shape, reduction, total):
    """What the terms of a loss, of this shape, are divided by: `total` for a mean, NaN instead of
    0. Raises ValueError for another reduction, or where grad_output does not fit."""
    whole(reduction=reduction)
    if reduction not in (0, 1, 2):
        raise ValueError(f"reduction: expected 0, 1 or 2, got {reduction}")
    expected = () if reduction else shape
    if g.shape != expected:
        raise ValueError(f"grad_output: expected shape {expected}, got {g.shape}")
    return (total or math.nan) if reduction == 1 else 1


def _promoted(g, slope, *others):
    """g f′ as a rule of g, and of every other array, each given with the slope of f′ in it. Where
    f′ is 0, the result is 0, whatever g is."""

    def times(slope, factor, shape):
        return sum_to(where(slope == 0, 0, factor * slope).astype(g.dtype), shape)

    shape = np.broadcast_shapes(g.shape, slope.shape)
    y = times(slope, g, shape)

    def pullback(dy):
        return times(slope, dy, g.shape), *(times(bend, dy * g, a.shape) for a, bend in others)

    return y, pullback
