"""Right rules to plant mistakes in: torch's name, arguments and conventions, NumPy's arithmetic."""

import math

import numpy as np
from scipy.special import expit, ndtr, xlogy

from ...manual.arrays import reduce, sum_to
from ...reference.losses import CLAMPS_TO_0


def softmax(x, dim):
    """eˣ / Σ eˣ over one axis; the slope is dx = y (dy − Σ dy y)."""
    z = np.exp(x - x.max(dim, keepdims=True, initial=-math.inf))
    y = z / z.sum(dim, keepdims=True)

    def pullback(dy):
        return y * (dy - (dy * y).sum(dim, keepdims=True))

    return y, pullback


def log_softmax(x, dim):
    """x − log Σ eˣ over one axis; the slope is dx = dy − softmax(x) Σ dy."""
    d = x - x.max(dim, keepdims=True, initial=-math.inf)
    y = d - np.log(np.maximum(np.exp(d).sum(dim, keepdims=True), 1))

    def pullback(dy):
        return dy - np.exp(y) * dy.sum(dim, keepdims=True)

    return y, pullback


def logsumexp(x, dim):
    """log Σ eˣ over one axis; the slope is softmax(x)."""
    m = x.max(dim, keepdims=True, initial=-math.inf)
    z = np.exp(x - m)
    total = np.maximum(z.sum(dim, keepdims=True), 1)
    y = (m + np.log(total)).sum(dim)

    def pullback(dy):
        return dy.reshape(total.shape) * (z / total)

    return y, pullback


def mse_loss(x, target, *, reduction="mean", weight=None):
    """(x − t)², of which a weighted mean L = Σ w (x − t)² / Σ w slopes in w as well."""
    error = x - target
    squares = error * error
    w = np.ones_like(squares) if weight is None else weight
    y, spread = reduce(w * squares, reduction, np.sum(w))

    def pullback(dy):
        dterm = spread(dy)
        derror = 2 * error * w * dterm
        dx, dtarget = sum_to(derror, x.shape), sum_to(-derror, target.shape)
        if weight is None:
            return dx, dtarget
        return dx, dtarget, dterm * (squares - y if reduction == "mean" else squares)

    return y, pullback


def gelu(x, approximate="none"):
    """x Φ(x), or x σ(2u) with u = √(2/π) (x + 0.044715 x³) for Φ; the slope is Φ(x) + x φ(x)."""
    c = np.clip(x, -100, 100)
    if approximate == "tanh":
        u = math.sqrt(2 / math.pi) * (c + 0.044715 * c * c * c)
        Phi = expit(2 * u)
    else:
        Phi = ndtr(x)
    y = x * Phi

    def pullback(dy):
        if approximate == "tanh":
            du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * c * c)
            phi = 2 * du * Phi * expit(-2 * u)
        else:
            phi = np.exp(-c * c / 2) / math.sqrt(2 * math.pi)
        return dy * (Phi + c * phi)

    return y, pullback


def softplus(x, beta=1.0, threshold=20.0):
    """log(1 + e^βx) / β, and x where βx > threshold; the slope is σ(βx), and 1."""
    z = np.exp(-abs(beta * x))
    straight = beta * x > threshold
    y = np.where(straight, x, (np.maximum(beta * x, 0) + np.log1p(z)) / beta)

    def pullback(dy):
        slope = np.where(beta * x > 0, 1, z) / (1 + z)
        return dy * np.where(straight, 1, slope)

    return y, pullback


def elu(x, alpha=1.0):
    """x above 0, α (eˣ − 1) elsewhere; the slope is 1, and α eˣ, also at 0."""
    below = np.minimum(x, 0)
    y = np.where(x <= 0, alpha * np.expm1(below), x)

    def pullback(dy):
        return dy * np.where(x <= 0, alpha * np.exp(below), 1)

    return y, pullback


def leaky_relu(x, negative_slope=0.01):
    """x above 0, a x elsewhere; the slope is 1, and a, also at 0."""
    y = np.where(x > 0, x, negative_slope * x)

    def pullback(dy):
        return np.where(x > 0, dy, negative_slope * dy)

    return y, pullback


def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x, clipped; the slope is 1 strictly between the edges and 0 elsewhere."""
    y = np.clip(x, min_val, max_val)

    def pullback(dy):
        return np.where((x <= min_val) | (x >= max_val), 0, dy)

    return y, pullback


def silu(x):
    """x σ(x); the slope is σ(x) (1 + x σ(−x))."""
    s = expit(x)
    y = x * s

    def pullback(dy):
        return dy * s * (1 + x * expit(-x))

    return y, pullback


def softsign(x):
    """x / (1 + |x|); the slope is 1 / (1 + |x|)²."""
    y = x / (1 + abs(x))

    def pullback(dy):
        return dy * (1 / (1 + abs(x))) ** 2

    return y, pullback


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, x̂ = (x − μ) / σ; the slope is dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / σ."""
    axes = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(axes, keepdims=True)
    sigma = np.sqrt((centred * centred).mean(axes, keepdims=True) + eps)
    hat = centred / sigma
    y = hat if weight is None else weight * hat
    y = y if bias is None else y + bias

    def pullback(dy):
        dhat = dy if weight is None else dy * weight
        along = hat * (dhat * hat).mean(axes, keepdims=True)
        dx = (dhat - dhat.mean(axes, keepdims=True) - along) / sigma
        dweight = None if weight is None else sum_to(dy * hat, weight.shape)
        dbias = None if bias is None else sum_to(dy, bias.shape)
        return _present(dx, dweight, dbias)

    return y, pullback


def rms_norm(x, normalized_shape, weight=None, eps=None):
    """w x̂, x̂ = x / √(mean(x²) + ε); the slope is dx = (dx̂ − x̂ mean(dx̂ x̂)) / √(mean(x²) + ε)."""
    axes = tuple(range(-len(normalized_shape), 0))
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    rms = np.sqrt((x * x).mean(axes, keepdims=True) + eps)
    hat = x / rms
    y = hat if weight is None else weight * hat

    def pullback(dy):
        dhat = dy if weight is None else dy * weight
        dx = (dhat - hat * (dhat * hat).mean(axes, keepdims=True)) / rms
        return _present(dx, None if weight is None else sum_to(dy * hat, weight.shape))

    return y, pullback


def normalize(x, p=2.0, dim=1, eps=1e-12):
    """u = x / max(‖x‖, ε); the slope is dx = (du − ∂‖x‖ Σ du u) / ‖x‖, or du / ε."""
    norm = (abs(x) ** p).sum(dim, keepdims=True) ** (1 / p)
    floor = np.maximum(norm, eps)
    y = x / floor

    def pullback(dy):
        dnorm = np.where(norm > eps, (dy * y).sum(dim, keepdims=True), 0)
        return (dy - np.sign(x) * abs(y) ** (p - 1) * dnorm) / floor

    return y, pullback


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """Σ u₁ u₂ of the two unit vectors; the slope in u₁ is u₂."""
    shape = np.broadcast_shapes(x1.shape, x2.shape)
    u1, pull1 = _direction(np.broadcast_to(x1, shape), dim, eps)
    u2, pull2 = _direction(np.broadcast_to(x2, shape), dim, eps)
    y = (u1 * u2).sum(dim)

    def pullback(dy):
        dy = np.expand_dims(dy, dim)
        dx1 = sum_to(pull1(dy * u2), x1.shape)
        dx2 = sum_to(pull2(dy * u1), x2.shape)
        return dx1, dx2

    return y, pullback


def _direction(x, dim, eps):
    """x / max(‖x‖, ε) as cosine_similarity takes it: ε bounds the value, the slope ignores it."""
    norm = np.sqrt((x * x).sum(dim, keepdims=True))
    floor = np.maximum(norm, eps)
    y = x / floor

    def pullback(dy):
        dnorm = (dy * y).sum(dim, keepdims=True)
        return (dy - x / np.where(norm > 0, norm, 1) * dnorm) / floor

    return y, pullback


def matmul(x, other):
    """x W for matrices and stacks of them; the slope is dx = dy Wᵀ, dW = xᵀ dy."""
    y = x @ other

    def pullback(dy):
        return sum_to(dy @ other.mT, x.shape), sum_to(x.mT @ dy, other.shape)

    return y, pullback


def outer(x, vec2):
    """x vᵀ of two vectors; the slope is dx = dy v, dv = dyᵀ x."""
    y = x[:, np.newaxis] * vec2

    def pullback(dy):
        return dy @ vec2, dy.T @ x

    return y, pullback


def add(x, other, *, alpha=1):
    """x + α z; the slope is 1 in x and α in z."""
    y = x + alpha * other

    def pullback(dy):
        return sum_to(dy, x.shape), sum_to(alpha * dy, other.shape)

    return y, pullback


def mul(x, other):
    """x z; the slope is z in x and x in z."""
    y = x * other

    def pullback(dy):
        return sum_to(dy * other, x.shape), sum_to(dy * x, other.shape)

    return y, pullback


def div(x, other):
    """x / z; the slope is 1 / z in x and −y / z in z."""
    y = x / other

    def pullback(dy):
        dother = sum_to(-dy * y / other, other.shape)
        dx = sum_to(dy / other, x.shape)
        return dx, dother

    return y, pullback


def maximum(x, other):
    """The larger one; the slope is 1 in the larger and 0 in the smaller, 1/2 each in a tie."""
    y = np.maximum(x, other)

    def pullback(dy):
        dx = np.where(x == other, dy / 2, np.where(x > other, dy, 0))
        dother = np.where(x == other, dy / 2, np.where(x < other, dy, 0))
        return sum_to(dx, x.shape), sum_to(dother, other.shape)

    return y, pullback


def pow(x, exponent):
    """xⁿ for a number n; the slope is n xⁿ⁻¹, and 0 for n = 0."""
    y = x**exponent

    def pullback(dy):
        if exponent == 0:
            return np.zeros(x.shape, x.dtype)
        return dy * exponent * x ** (exponent - 1)

    return y, pullback


def prod(x, dim):
    """The product over one axis; the slope is the product of the others."""
    rows = np.moveaxis(x, dim, -1)
    y = rows.prod(-1)

    def pullback(dy):
        itself = np.eye(rows.shape[-1], dtype=bool)
        others = np.where(itself, 1, rows[..., np.newaxis, :]).prod(-1)
        return np.moveaxis(dy[..., np.newaxis] * others, -1, dim)

    return y, pullback


def cumsum(x, dim):
    """yᵢ = Σ_{j ≤ i} xⱼ over one axis; the slope is dxⱼ = Σ_{i ≥ j} dyᵢ."""
    y = x.cumsum(dim).reshape(x.shape)

    def pullback(dy):
        backward = np.flip(np.atleast_1d(dy), dim).cumsum(dim)
        return np.flip(backward, dim).reshape(x.shape)

    return y, pullback


def amax(x, dim):
    """The largest over an axis or several; the slope is 1 for it, shared evenly in a tie."""
    top = x.max(dim, keepdims=True)
    y = x.max(dim)

    def pullback(dy):
        picked = x == top
        count = picked.sum(dim, keepdims=True, dtype=x.dtype)
        return np.where(picked, dy.reshape(top.shape) / count, 0)

    return y, pullback


def var(x, dim, *, correction=1):
    """Σ d² / (n − c) with d = x − mean(x) over one axis; the slope is 2 d / (n − c)."""
    n = x.shape[dim]
    d = x - x.mean(dim, keepdims=True)
    y = (d * d).sum(dim) / (n - correction)

    def pullback(dy):
        return np.expand_dims(dy, dim) * 2 * d / (n - correction)

    return y, pullback


def std(x, dim, *, correction=1):
    """√var over one axis; the slope in var is 1 / 2y, and 0 where y = 0."""
    variance, pull_var = var(x, dim, correction=correction)
    y = np.sqrt(variance)

    def pullback(dy):
        return pull_var(np.where(y > 0, dy / (2 * np.where(y > 0, y, 1)), 0))

    return y, pullback


def huber_loss(x, target, reduction="mean", delta=1.0):
    """e² / 2 with e = x − t, and δ (|e| − δ/2) beyond δ; the slope is c = clip(e, −δ, δ)."""
    e = x - target
    c = np.clip(e, -delta, delta)
    y, spread = reduce(c * (e - c / 2), reduction)

    def pullback(dy):
        derror = spread(dy) * c
        return sum_to(derror, x.shape), sum_to(-derror, target.shape)

    return y, pullback


def smooth_l1_loss(x, target, reduction="mean", beta=1.0):
    """e² / 2β with e = x − t, and |e| − β/2 beyond β; the slope is clip(e, −β, β) / β."""
    if beta == 0:
        return l1_loss(x, target, reduction)
    e = x - target
    c = np.clip(e, -beta, beta)
    y, spread = reduce(c * (e - c / 2) / beta, reduction)

    def pullback(dy):
        derror = spread(dy) * (c / beta)
        return sum_to(derror, x.shape), sum_to(-derror, target.shape)

    return y, pullback


def l1_loss(x, target, reduction="mean"):
    """|e| with e = x − t; the slope is sign(e), which is 0 at 0."""
    e = x - target
    y, spread = reduce(abs(e), reduction)

    def pullback(dy):
        derror = spread(dy) * np.sign(e)
        return sum_to(derror, x.shape), sum_to(-derror, target.shape)

    return y, pullback


def kl_div(x, target, reduction="mean", log_target=False):
    """t (log t − x), or eᵗ (t − x); the slope is −t in x and log t + 1 − x in t, or eᵗ times."""
    t = np.exp(target) if log_target else target
    term = t * (target - x) if log_target else xlogy(t, t) - t * x
    if reduction == "batchmean":
        y, spread = reduce(term, "mean", x.shape[0])
    else:
        y, spread = reduce(term, reduction)

    def pullback(dy):
        dterm = spread(dy)
        dx = sum_to(-t * dterm, x.shape)
        if log_target:
            return dx, sum_to(dterm * t * (target + 1 - x), target.shape)
        log_t = np.log(np.where(t > 0, t, math.nan))
        return dx, sum_to(dterm * (log_t + 1 - x), target.shape)

    return y, pullback


def nll_loss(x, target, *, ignore_index=-100, reduction="mean"):
    """−x_t, averaged over the targets that are not ignored; the slope is −1 at class t."""
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    counted = target != ignore_index
    t = np.where(counted, target, -1)[..., np.newaxis]
    hit = t == np.arange(rows.shape[-1])
    y, spread = reduce(-np.where(hit, rows, 0).sum(-1), reduction, int(counted.sum()))

    def pullback(dy):
        dx = np.where(hit, -spread(dy)[..., np.newaxis], 0)
        return np.moveaxis(dx, -1, 1) if x.ndim > 1 else dx

    return y, pullback


def embedding(input, weight, padding_idx=None):
    """Rows of the weight; the slope adds dy to the row it came from, but for the padding's."""
    y = weight[input]

    def pullback(dy):
        dweight = np.zeros(weight.shape, weight.dtype)
        np.add.at(dweight, input, dy)
        if padding_idx is not None:
            dweight[padding_idx] = 0
        return dweight

    return y, pullback


def index_select(x, dim, index):
    """Slices of x along one axis; the slope adds dy to the slice it came from."""
    y = x.take(index, dim)

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        np.add.at(np.moveaxis(dx, dim, 0), index, np.moveaxis(dy, dim, 0))
        return dx

    return y, pullback


def gather(x, dim, index):
    """y[i, j] = x[index[i, j], j] for dim = 0; the slope adds dy where it came from."""
    place = list(np.indices(index.shape, sparse=True))
    place[dim] = index
    y = x[tuple(place)]

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        np.add.at(dx, tuple(place), dy)
        return dx

    return y, pullback


def conv1d(x, weight, bias=None, stride=1):
    """y = Σ W x over windows (n, c, t, k); the slope scatters W dy into the same windows."""
    size = weight.shape[-1]
    windows = _windows(x, size, stride)
    y = np.einsum("nctk,ock->not", windows, weight)
    y = y if bias is None else y + bias[:, np.newaxis]

    def pullback(dy):
        dwindows = np.einsum("not,ock->nctk", dy, weight)
        dx = np.zeros(x.shape, x.dtype)
        scattered = _windows(dx, size, stride, writeable=True)
        for k in range(size):
            scattered[..., k] += dwindows[..., k]
        dweight = np.einsum("not,nctk->ock", dy, windows)
        return _present(dx, dweight, None if bias is None else dy.sum((0, 2)))

    return y, pullback


def avg_pool1d(x, kernel_size, stride=None):
    """The mean of each window; the slope adds dy / size to each of its elements."""
    stride = kernel_size if stride is None else stride
    y = _windows(x, kernel_size, stride).mean(-1)

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        scattered = _windows(dx, kernel_size, stride, writeable=True)
        for k in range(kernel_size):
            scattered[..., k] += dy / kernel_size
        return dx

    return y, pullback


def mish(x):
    """x τ with τ = tanh(log(1 + eˣ)); the slope is τ + x σ(x) (1 − τ²)."""
    tau = np.tanh(np.logaddexp(0, x))
    y = x * tau

    def pullback(dy):
        return dy * (tau + x * expit(x) * (1 - tau * tau))

    return y, pullback


def clamp(x, min, max):
    """x, clipped; the slope is 1 from edge to edge and 0 beyond, and torch's at the edges."""
    y = np.clip(x, min, max)
    inside = (x > min) & (x < max) if CLAMPS_TO_0 else (x >= min) & (x <= max)

    def pullback(dy):
        return np.where(inside, dy, 0)

    return y, pullback


def glu(x, dim=-1):
    """a σ(b) of the two halves a, b of one axis; the slope is σ(b) in a and a σ(b) σ(−b) in b."""
    a, b = np.split(x, 2, dim)
    y = a * expit(b)

    def pullback(dy):
        da = dy * expit(b)
        db = dy * a * expit(b) * expit(-b)
        return np.concatenate([da, db], dim)

    return y, pullback


def logaddexp(x, other):
    """log(eˣ + eᶻ); the slope is σ(x − z) in x and σ(z − x) in z."""
    y = np.logaddexp(x, other)

    def pullback(dy):
        dx = sum_to(dy * expit(x - other), x.shape)
        dother = sum_to(dy * expit(other - x), other.shape)
        return dx, dother

    return y, pullback


def lerp(x, end, weight):
    """x + w (z − x), reckoned from the nearer end; the slope is 1 − w in x, w in z, z − x in w."""
    near = x + weight * (end - x)
    y = np.where(abs(weight) < 0.5, near, end - (1 - weight) * (end - x))

    def pullback(dy):
        dx = sum_to(dy * (1 - weight), x.shape)
        dend = sum_to(dy * weight, end.shape)
        dweight = sum_to(dy * (end - x), weight.shape)
        return dx, dend, dweight

    return y, pullback


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """w x̂ + b, where x̂ is normed over groups of channels; the slope is layer_norm's, per group."""
    N, C, *rest = x.shape
    rows = x.reshape(N, num_groups, C // num_groups * math.prod(rest))
    centred = rows - rows.mean(-1, keepdims=True)
    sigma = np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)
    hat = centred / sigma
    channels = (C, *(1 for _ in rest))
    y = hat.reshape(x.shape)
    y = y if weight is None else weight.reshape(channels) * y
    y = y if bias is None else y + bias.reshape(channels)

    def pullback(dy):
        dhat = dy if weight is None else dy * weight.reshape(channels)
        dhat = dhat.reshape(rows.shape)
        along = hat * (dhat * hat).mean(-1, keepdims=True)
        dx = (dhat - dhat.mean(-1, keepdims=True) - along) / sigma
        dweight = sum_to(dy * hat.reshape(x.shape), channels).reshape(C)
        dbias = sum_to(dy, channels).reshape(C)
        return _present(
            dx.reshape(x.shape),
            None if weight is None else dweight,
            None if bias is None else dbias,
        )

    return y, pullback


def pairwise_distance(x1, x2, *, eps=1e-6):
    """‖d‖ over the last axis, d = x₁ − x₂ + ε; the slope in d is d / ‖d‖, and 0 where d = 0."""
    d = x1 - x2 + eps
    norm = np.sqrt((d * d).sum(-1, keepdims=True))
    y = norm[..., 0]

    def pullback(dy):
        dd = dy[..., np.newaxis] * (d / np.where(norm == 0, math.inf, norm))
        return sum_to(dd, x1.shape), sum_to(-dd, x2.shape)

    return y, pullback


def margin_ranking_loss(x1, x2, target, margin=0.0, *, reduction="mean"):
    """max(e, 0) with e = m − t (x₁ − x₂); the slope in e is 1 above 0, and torch's at 0."""
    e = margin - target * (x1 - x2)
    lost = e > 0 if CLAMPS_TO_0 else e >= 0
    y, spread = reduce(np.maximum(e, 0), reduction)

    def pullback(dy):
        de = np.where(lost, spread(dy), 0)
        dx1 = sum_to(-target * de, x1.shape)
        dx2 = sum_to(target * de, x2.shape)
        return dx1, dx2, sum_to((x2 - x1) * de, target.shape)

    return y, pullback


def bilinear(x1, x2, weight, bias=None):
    """y_o = x₁ᵀ W_o x₂ + b_o; the slope in each is the product of dy and the other two."""
    y = np.einsum("...i,oij,...j->...o", x1, weight, x2)
    y = y if bias is None else y + bias

    def pullback(dy):
        dx1 = np.einsum("...o,oij,...j->...i", dy, weight, x2)
        dx2 = np.einsum("...o,oij,...i->...j", dy, weight, x1)
        N = math.prod(dy.shape[:-1])
        rows, rows1, rows2 = (a.reshape(N, a.shape[-1]) for a in (dy, x1, x2))
        dweight = np.einsum("no,ni,nj->oij", rows, rows1, rows2)
        return _present(dx1, dx2, dweight, None if bias is None else sum_to(dy, bias.shape))

    return y, pullback


def max_pool1d(x, kernel_size, stride=None):
    """The largest of each window; the slope is 1 for it, for the first in a tie."""
    stride = kernel_size if stride is None else stride
    windows = _windows(x, kernel_size, stride)
    winner = windows.argmax(-1)
    y = windows.max(-1)

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        scattered = _windows(dx, kernel_size, stride, writeable=True)
        for k in range(kernel_size):
            scattered[..., k] += np.where(winner == k, dy, 0)
        return dx

    return y, pullback


def diff(x, *, dim=-1):
    """yᵢ = xᵢ₊₁ − xᵢ over one axis; the slope is dxᵢ = dyᵢ₋₁ − dyᵢ."""
    y = np.diff(x, axis=dim)

    def pullback(dy):
        dx = np.zeros(x.shape, x.dtype)
        rows, drows = np.moveaxis(dx, dim, 0), np.moveaxis(dy, dim, 0)
        rows[1:] += drows
        rows[:-1] -= drows
        return dx

    return y, pullback


def _windows(x, size, stride, writeable=False):
    """Every window of the last axis as a view (…, window, size)."""
    view = np.lib.stride_tricks.sliding_window_view(x, size, -1, writeable=writeable)
    return view[..., ::stride, :]


def _present(*gradients):
    """The gradients that are not None; a single one without a tuple around it."""
    present = tuple(g for g in gradients if g is not None)
    return present if len(present) > 1 else present[0]
