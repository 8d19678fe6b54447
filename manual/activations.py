"""Activation functions: y and dy have the shape and dtype of x, except in glu, which halves an
axis.

All of them take x as an array of any shape in float16, float32 or float64. They raise TypeError for
any other array and for a setting of the wrong type, ValueError for a setting out of range,
IndexError for a dim that x does not have; the message names the argument.

All but the softmaxes and glu work element by element. The slope at a kink is torch's convention:
that of the flat side, unless a docstring says otherwise.
"""

import math

import numpy as np

from .arguments import Constant, as_dtype, axis_of, flag, floating, one_of, real, truth, within
from .arrays import BLOCK, exponentials, in_blocks, probabilities, sum_to, where
from .normal import normal

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def sigmoid(x):
    """σ(x) = 1 / (1 + e⁻ˣ); the slope is σ(x) σ(−x).

    With z = e^−|x|, which cannot overflow, σ(|x|) = 1 / (1 + z) and σ(−|x|) = z / (1 + z). Their
    product keeps its digits in both tails, where y (1 − y) has none left beyond x ≈ 17 (float32) or
    37 (float64).

    Verhulst, 1845
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(sigmoid, x)
    z = np.exp(-abs(x))
    y = where(x >= 0, 1, z) / (1 + z)

    def pullback(dy):
        return dy * (z / (1 + z) ** 2)

    return y, pullback


def tanh(x):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ); the slope is 1 − tanh² x = sech² x.

    sech x = 2h / (1 + h²) with h = e^−|x| cancels nothing; 1 − y² is 0 from x ≈ 9 (float32) or 19.

    LeCun, Bottou, Orr & Müller, 1998, "Efficient BackProp"
    """
    x = floating(x=x)
    y = np.tanh(x)

    def pullback(dy):
        h = np.exp(-abs(x))
        return dy * (2 * h / (1 + h * h)) ** 2

    return y, pullback


def relu(x):
    """max(x, 0); the slope is 1 above 0 and, by torch's convention, 0 at 0.

    Nair & Hinton, 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines"
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(relu, x)
    y = where(x <= 0, 0, x)

    def pullback(dy):
        return where(x <= 0, 0, dy)

    return y, pullback


def relu6(x):
    """min(max(x, 0), 6); the slope is 1 between.

    Krizhevsky, 2010, "Convolutional Deep Belief Networks on CIFAR-10"
    """
    return hardtanh(x, 0.0, 6.0)


def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x between min_val and max_val, and outside the nearer of the two; the slope is 1 between.
    Raises ValueError for a max_val below min_val.

    Collobert, 2004, "Large Scale Machine Learning"
    """
    x = floating(x=x)
    real(min_val=min_val, max_val=max_val)
    if min_val > max_val:
        raise ValueError(f"max_val: expected at least min_val, {min_val}, got {max_val}")
    if x.size > BLOCK:
        return in_blocks(hardtanh, x, min_val, max_val)
    y = np.clip(x, min_val, max_val)

    def pullback(dy):
        return where((x <= min_val) | (x >= max_val), 0, dy)

    return y, pullback


def leaky_relu(x, negative_slope=0.01):
    """x above 0 and a x below; the slope at 0 is a = negative_slope.

    Maas, Hannun & Ng, 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models"
    """
    x = floating(x=x)
    real(negative_slope=negative_slope)
    if x.size > BLOCK:
        return in_blocks(leaky_relu, x, negative_slope)
    y = where(x > 0, x, x * negative_slope)

    def pullback(dy):
        return where(x > 0, dy, dy * negative_slope)

    return y, pullback


def prelu(x, weight):
    """x above 0 and w x below, where the weight w is one number, or one for each channel, axis 1 of
    x; the slope is w, in w it is x, and at 0 they are w and 0. Raises ValueError for a weight of
    another shape.

    He, Zhang, Ren & Sun, 2015, arXiv:1502.01852
    """
    x, weight = floating(x=x, weight=weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ValueError(
            f"weight: expected one number or {channels}, one for each channel, got shape "
            f"{weight.shape}"
        )
    w = weight.reshape(-1, *[1] * (x.ndim - 2)) if weight.size > 1 else weight.reshape(())
    y = where(x > 0, x, w * x)

    def pullback(dy):
        dx = where(x > 0, dy, w * dy)
        return dx, sum_to(where(x > 0, 0, x * dy), w.shape).reshape(weight.shape)

    return y, pullback


def rrelu(x, lower=1.0 / 8, upper=1.0 / 3, training=False, *, noise: Constant = None):
    """x above 0 and a x below, where a is drawn between lower and upper for each element: noise, in
    the shape and dtype of x. Without training a is their mean. The slope at 0 is a.

    Raises ValueError for an upper below lower, either of them not finite, or noise of another
    shape, TypeError for training without noise.

    Xu, Wang, Chen & Li, 2015, arXiv:1505.00853
    """
    x, noise = floating(x=x, noise=noise, optional="noise")
    real(lower=lower, upper=upper)
    flag(training=training)
    if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
        raise ValueError(f"upper: expected at least lower, {lower}, both finite, got {upper}")
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    _as_drawn(noise, x.shape)
    y = where(x <= 0, x * noise, x)

    def pullback(dy):
        return where(x <= 0, dy * noise, dy)

    return y, pullback


def threshold(x, threshold, value):
    """x above the threshold, else the value; the slope is 1 above."""
    x = floating(x=x)
    real(threshold=threshold, value=value)
    y = where(x <= threshold, value, x).astype(x.dtype)

    def pullback(dy):
        return where(x <= threshold, 0, dy)

    return y, pullback


def hardshrink(x, lambd=0.5):
    """x outside of ± λ, 0 within; the slope is 1 outside.

    Donoho & Johnstone, 1994, "Ideal Spatial Adaptation by Wavelet Shrinkage"
    """
    x = floating(x=x)
    real(lambd=lambd)
    if x.size > BLOCK:
        return in_blocks(hardshrink, x, lambd)
    y = where(abs(x) <= lambd, 0, x)

    def pullback(dy):
        return where(abs(x) <= lambd, 0, dy)

    return y, pullback


def softshrink(x, lambd=0.5):
    """x − λ above λ, x + λ below −λ, 0 between; the slope is 1 outside. λ = lambd is at least 0.

    Donoho, 1995, "De-noising by Soft-Thresholding"
    """
    x = floating(x=x)
    within(0, lambd=lambd)
    if x.size > BLOCK:
        return in_blocks(softshrink, x, lambd)
    y = where(abs(x) <= lambd, 0, x - np.copysign(lambd, x).astype(x.dtype))

    def pullback(dy):
        return where(abs(x) <= lambd, 0, dy)

    return y, pullback


def tanhshrink(x):
    """x − tanh x; the slope is tanh² x.

    Near 0 that cancels, and x cosh x − sinh x = Σ 2k x²ᵏ⁺¹ / (2k + 1)! is summed instead, over cosh
    x: for |x| < 1 eleven terms, all of one sign.
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(tanhshrink, x)
    t = np.tanh(x)
    small = np.clip(x, -1, 1)
    square = small * small
    series = np.zeros_like(x)
    for k in range(11, 0, -1):  # Horner's scheme
        series = square * (series + 2 * k / math.factorial(2 * k + 1))
    y = where(abs(x) < 1, small * series / np.cosh(small), x - t)

    def pullback(dy):
        return dy * (t * t)

    return y, pullback


def elu(x, alpha=1.0):
    """x above 0 and α (eˣ − 1) below; the slope is 1 above and α eˣ below and at 0.

    Clevert, Unterthiner & Hochreiter, 2016, arXiv:1511.07289
    """
    x = floating(x=x)
    real(alpha=alpha)
    return _exponential(x, alpha, 1, 1)


def selu(x):
    """λ elu(x, α), with the λ and α for which a mean of 0 and a variance of 1 reproduce themselves.

    Klambauer, Unterthiner, Mayr & Hochreiter, 2017, arXiv:1706.02515
    """
    return _exponential(floating(x=x), SELU_ALPHA, SELU_SCALE, 1)


def celu(x, alpha=1.0):
    """x above 0 and α (e^(x / α) − 1) below; the slope there is e^(x / α), which is 1 at 0. Raises
    ValueError for an α of 0.

    Barron, 2017, arXiv:1704.07483
    """
    x = floating(x=x)
    real(alpha=alpha)
    if alpha == 0:
        raise ValueError(f"alpha: expected another number than 0, got {alpha}")
    return _exponential(x, alpha, 1, alpha)


def _exponential(x, alpha, scale, width):
    """scale · x above 0, scale · α (e^(x / width) − 1) below."""
    if x.size > BLOCK:
        return in_blocks(_exponential, x, alpha, scale, width)
    below = np.minimum(x, 0) / width
    y = where(x > 0, scale * x, scale * alpha * np.expm1(below))

    def pullback(dy):
        return dy * where(x <= 0, scale * alpha / width * np.exp(below), scale)

    return y, pullback


def gelu(x, approximate="none"):
    """x Φ(x), where Φ is the normal distribution; the slope is Φ(x) + x φ(x). φ is its density,
    which is 0 beyond ± 40. approximate is "none" or "tanh".

    Hendrycks & Gimpel, 2016, arXiv:1606.08415
    """
    x = floating(x=x)
    one_of(("none", "tanh"), approximate=approximate)
    if x.size > BLOCK:
        return in_blocks(gelu, x, approximate)
    if approximate == "tanh":
        return _gelu_tanh(x)
    near = np.clip(x, -40, 40)
    Phi, phi = normal(near)
    y, slope = x * Phi, Phi + near * phi

    def pullback(dy):
        return dy * slope

    return y, pullback


def _gelu_tanh(x):
    """x σ(v) with v = √(8/π) (x + 0.044715 x³), which is x/2 (1 + tanh(v/2)); the slope is σ(v) + x
    σ(v) σ(−v) v′. Beyond ± 40 both have reached their limits."""
    near = np.clip(x, -40, 40)
    square = near * near
    c = math.sqrt(8 / math.pi)
    v = c * near * (1 + 0.044715 * square)
    s, slope = sigmoid(v)
    y = x * s

    def pullback(dy):
        return dy * (s + near * slope(c * (1 + 0.134145 * square)))

    return y, pullback


def silu(x):
    """x σ(x); the slope is σ(x) + x σ(x) σ(−x).

    Elfwing, Uchibe & Doya, 2018, arXiv:1702.03118
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(silu, x)
    s, pull_sigmoid = sigmoid(x)
    y, slope = x * s, s + pull_sigmoid(x)

    def pullback(dy):
        return dy * slope

    return y, pullback


def mish(x):
    """x t with t = tanh(log(1 + eˣ)) = n / (n + 2), n = eˣ (eˣ + 2); the slope is t + x σ(x) (1 −
    t²).

    Above 0 all is divided by e²ˣ, so that nothing overflows; 1 − t = 2 / (n + 2) does not cancel.

    Misra, 2019, arXiv:1908.08681
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(mish, x)
    z = np.exp(-abs(x))
    n, two = where(x > 0, 1 + 2 * z, z * (z + 2)), where(x > 0, 2 * z * z, 2)
    t = n / (n + two)
    y = x * t

    def pullback(dy):
        return dy * (t + x * sigmoid(x)[0] * (two / (n + two)) * (1 + t))

    return y, pullback


def softplus(x, beta=1, threshold=20):
    """log(1 + e^(β x)) / β, but x where β x exceeds the threshold; the slope is σ(β x), there 1.

    Dugas, Bengio, Bélisle, Nadeau & Garcia, 2001
    """
    x = floating(x=x)
    real(beta=beta, threshold=threshold)
    if x.size > BLOCK:
        return in_blocks(softplus, x, beta, threshold)
    v = beta * x
    y = where(v > threshold, x, (np.maximum(v, 0) + np.log1p(np.exp(-abs(v)))) / beta)

    def pullback(dy):
        return where(v > threshold, dy, dy * sigmoid(v)[0])

    return y, pullback


def logsigmoid(x):
    """log σ(x) = min(x, 0) − log(1 + e^−|x|); the slope is σ(−x).

    Good, 1952, "Rational Decisions"
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(logsigmoid, x)
    y = np.minimum(x, 0) - np.log1p(np.exp(-abs(x)))

    def pullback(dy):
        return dy * sigmoid(-x)[0]

    return y, pullback


def softsign(x):
    """x / (1 + |x|); the slope is 1 / (1 + |x|)².

    Bergstra, Desjardins, Lamblin & Bengio, 2009, "Quadratic Polynomials Learn
    Better Image Features"
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(softsign, x)
    r = 1 / (1 + abs(x))
    y = x * r

    def pullback(dy):
        return dy * (r * r)

    return y, pullback


def hardsigmoid(x):
    """min(max(x + 3, 0), 6) / 6; the slope is 1/6 between ± 3.

    Courbariaux, Bengio & David, 2015, arXiv:1511.00363
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(hardsigmoid, x)
    y = np.clip(x + 3, 0, 6) / 6

    def pullback(dy):
        return where((x > -3) & (x < 3), dy / 6, 0)

    return y, pullback


def hardswish(x):
    """x hardsigmoid(x); the slope is (2x + 3) / 6 between ± 3, at −3 it is 0 and at 3 it is 1.

    Howard et al., 2019, arXiv:1905.02244
    """
    x = floating(x=x)
    if x.size > BLOCK:
        return in_blocks(hardswish, x)
    y = x * (np.clip(x + 3, 0, 6) / 6)

    def pullback(dy):
        near = np.clip(x, -3, 3)
        return dy * where(x <= -3, 0, where(x < 3, (2 * near + 3) / 6, 1))

    return y, pullback


def glu(x, dim=-1):
    """a σ(b), where a and b are the halves of x along dim; the slopes are σ(b) and a σ(b) σ(−b).
    Raises ValueError for an x without axes and for an odd length along dim.

    Dauphin, Fan, Auli & Grangier, 2017, arXiv:1612.08083
    """
    x = floating(x=x)
    if x.ndim == 0:
        raise ValueError(f"x: expected at least one axis, got shape {x.shape}")
    axis = axis_of(x.ndim, dim=dim)
    if x.shape[axis] % 2:
        raise ValueError(f"x: expected an even length along axis {axis}, got shape {x.shape}")
    a, b = np.split(x, 2, axis)
    gate, pull_gate = sigmoid(b)
    y = a * gate

    def pullback(dy):
        return np.concatenate([dy * gate, pull_gate(dy * a)], axis)

    return y, pullback


def softmax(x, dim=None, *, dtype=None):
    """pⱼ = e^xⱼ / Σ e^xₖ over dim; dx = p (dy − Σ p dy), where dy is measured from that of the
    largest x if its p is above ½, so that nothing cancels when that has won. x is first converted
    to `dtype`, a floating one.

    dim is by default 0 for an array of 0, 1 or 3 axes, else 1. Bridle, 1990
    """
    x, axis, dtype = _along(x, dim, dtype)
    _, z, winner, others = exponentials(_rows(x, axis, dtype))
    p = z / (1 + others)
    y = _unrows(p, axis, x.shape)

    def pullback(dy):
        g = _rows(dy, axis, dtype)
        h = g - np.where(others < 1, np.take_along_axis(g, winner, -1), 0)
        drows = p * (h - (p * h).sum(axis=-1, keepdims=True))
        return _unrows(drows, axis, x.shape).astype(x.dtype, copy=False)

    return y, pullback


def log_softmax(x, dim=None, *, dtype=None):
    """log pⱼ = xⱼ − log Σ e^xₖ over dim; dxⱼ = dyⱼ − pⱼ Σ dyₖ, which is written dyⱼ (1 − pⱼ) − pⱼ
    Σ_{k≠j} dyₖ, so that nothing cancels when one class wins. dim and dtype are those of softmax.

    Bridle, 1990
    """
    x, axis, dtype = _along(x, dim, dtype)
    d, z, winner, others = exponentials(_rows(x, axis, dtype))
    y = _unrows(d - np.log1p(others), axis, x.shape)

    def pullback(dy):
        g = _rows(dy, axis, dtype)
        p, rest = probabilities(z, winner, others)
        drows = g * rest - p * (g.sum(axis=-1, keepdims=True) - g)
        return _unrows(drows, axis, x.shape).astype(x.dtype, copy=False)

    return y, pullback


def softmin(x, dim=None, *, dtype=None):
    """softmax(−x). Bridle, 1990"""
    y, pull_softmax = softmax(-floating(x=x), dim, dtype=dtype)

    def pullback(dy):
        return -pull_softmax(dy)

    return y, pullback


def gumbel_softmax(logits, tau=1, hard=False, *, dim=-1, noise: Constant = None):
    """softmax((logits + noise) / τ); hard makes that one at its largest and zero elsewhere, and
    leaves the slope as it is.

    noise, in the shape and dtype of the logits, is drawn from Gumbel's distribution, −log(−log u);
    adding one number to it along dim changes nothing. Raises TypeError without noise, ValueError
    for noise of another shape. Jang, Gu & Poole, 2017, arXiv:1611.01144
    """
    logits, noise = floating(logits=logits, noise=noise, optional="noise")
    real(tau=tau)
    hard = truth(hard=hard)
    axis = axis_of(logits.ndim, dim=dim)
    _as_drawn(noise, logits.shape)
    soft, pull_softmax = softmax((logits + noise) / tau, axis)
    y = soft
    if hard:
        rows = _rows(soft, axis, soft.dtype)
        ones = np.arange(rows.shape[-1]) == rows.argmax(axis=-1)[..., np.newaxis]
        y = _unrows(ones, axis, soft.shape).astype(soft.dtype)

    def pullback(dy):
        return pull_softmax(dy) / tau

    return y, pullback


def _as_drawn(noise, shape):
    """Raises TypeError without noise, ValueError for another shape."""
    if noise is None:
        raise TypeError("noise: expected an array of what was drawn, got None")
    if noise.shape != shape:
        raise ValueError(f"noise: expected shape {shape}, got {noise.shape}")


def _along(x, dim, dtype):
    """x, the axis of a softmax over it, and the dtype in which it is computed."""
    x = floating(x=x)
    axis = axis_of(x.ndim, dim=(0 if x.ndim in (0, 1, 3) else 1) if dim is None else dim)
    return x, axis, as_dtype(dtype) or x.dtype


def _rows(a, axis, dtype):
    """a with this axis last, in the dtype; an array without axes gets one of length 1."""
    return np.moveaxis(np.atleast_1d(a), axis, -1).astype(dtype, copy=False)


def _unrows(rows, axis, shape):
    return np.moveaxis(rows, -1, axis).reshape(shape)
