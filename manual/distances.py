"""Distances and similarities of vectors.

All of them take arrays in float16, float32 or float64 of one dtype. They raise TypeError for
anything else and for a setting of the wrong type, ValueError for shapes that do not fit and for a
setting out of range, IndexError for a dim that is not there; the message names the argument.
"""

import math

import numpy as np

from .arguments import axis_of, broadcast, flag, floating, one_of, real, within
from .arrays import sum_to, where

_MODES = (
    "use_mm_for_euclid_dist_if_necessary",
    "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """‖x₁ − x₂ + ε‖ₚ over the last axis, which keepdim keeps with length 1. x₁ and x₂ broadcast,
    and p is any number."""
    x1, x2 = floating(x1=x1, x2=x2)
    real(p=p, eps=eps)
    flag(keepdim=keepdim)
    broadcast(x1=x1, x2=x2)
    d = x1 - x2 + eps
    y, pull_norm = _norm(np.atleast_1d(d), p)
    y = y[..., np.newaxis] if keepdim else y

    def pullback(dy):
        dd = pull_norm(dy[..., 0] if keepdim else dy).reshape(d.shape)
        return sum_to(dd, x1.shape), sum_to(-dd, x2.shape)

    return y, pullback


def pdist(x, p=2.0):
    """‖xᵢ − xⱼ‖ₚ for all rows i < j of a matrix, by i and then j, with p at least 0; a row collects
    from its pairs. Raises ValueError for an x that is no matrix."""
    x = floating(x=x)
    if x.ndim != 2:
        raise ValueError(f"x: expected a matrix, got shape {x.shape}")
    within(0, p=p)
    i, j = np.triu_indices(len(x), 1)
    y, pull_norm = _norm(x[i] - x[j], p, whole=True)

    def pullback(dy):
        pairs = np.zeros((len(x), len(x), x.shape[1]), x.dtype)
        pairs[i, j] = pull_norm(dy)
        return sum_to(pairs, (len(x), 1, x.shape[1]))[:, 0] - sum_to(pairs, (1, *x.shape))[0]

    return y, pullback


def cdist(x1, x2, p=2.0, compute_mode="use_mm_for_euclid_dist_if_necessary"):
    """‖x₁ᵢ − x₂ⱼ‖ₚ for all rows: (…, P, M) and (…, R, M) → (…, P, R), with p at least 0. The axes
    in front broadcast. compute_mode is torch's choice of an algorithm; here the differences are
    always taken. Raises ValueError for fewer axes and for rows of two lengths."""
    x1, x2 = floating(x1=x1, x2=x2)
    within(0, p=p)
    one_of(_MODES, compute_mode=compute_mode)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.ndim < 2:
            raise ValueError(f"{name}: expected at least two axes, got shape {x.shape}")
    if x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"x2: expected rows of length {x1.shape[-1]}, got shape {x2.shape}")
    rows, columns = x1[..., :, np.newaxis, :], x2[..., np.newaxis, :, :]
    broadcast(x1=rows, x2=columns)
    y, pull_norm = _norm(rows - columns, p, whole=True)

    def pullback(dy):
        dd = pull_norm(dy)
        return (
            sum_to(dd, rows.shape).reshape(x1.shape),
            sum_to(-dd, columns.shape).reshape(x2.shape),
        )

    return y, pullback


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """a · b along dim, a = x₁ / n₁, b = x₂ / n₂, where n is ‖x‖, but at least ε; x₁ and x₂
    broadcast.

    With û = x / ‖x‖, which is 0 at 0, dx₁ = dy / n₁ (b − y û₁): torch lets the slope of the norm
    through where ε stands in for it, and so do we.
    """
    x1, x2 = floating(x1=x1, x2=x2)
    within(0, eps=eps)
    shape = broadcast(x1=x1, x2=x2)
    axis = axis_of(len(shape), dim=dim)
    sides = []
    for x in (x1, x2):
        last = np.moveaxis(np.atleast_1d(np.broadcast_to(x, shape)), axis, -1)
        norm = _norm(last, 2)[0][..., np.newaxis]
        n = np.maximum(norm, eps)
        sides.append((n, last / n, last / where(norm > 0, norm, 1)))
    (n1, a, u1), (n2, b, u2) = sides
    y = (a * b).sum(axis=-1)

    def pullback(dy):
        g, cosine = np.asarray(dy)[..., np.newaxis], y[..., np.newaxis]
        dx1, dx2 = g / n1 * (b - cosine * u1), g / n2 * (a - cosine * u2)
        back = [np.moveaxis(d, -1, axis).reshape(shape) for d in (dx1, dx2)]
        return sum_to(back[0], x1.shape), sum_to(back[1], x2.shape)

    return y, pullback


def _norm(d, p, whole=False):
    """‖d‖ₚ = (Σ |d|ᵖ)^(1 / p) over the last axis; with the slope sign(d) (|d| / ‖d‖)^(p − 1), which
    is 0 where d is. ‖d‖₀ is the number of elements that are not 0, and has the slope 0.

    With q = |d| / m, where m is the largest |d|, or for p < 0 the least, no power overflows, and
    both formulas hold at p = ±∞ as well, where equal largest elements share the slope:

        ‖d‖ = m S^(1 / p)        (|d| / ‖d‖)^(p − 1) = q^(p − 1) S^(1 / p − 1)        S = Σ qᵖ

    With `whole` each of them has the whole slope, as torch has it between all rows.
    """
    if abs(p) > float(np.finfo(d.dtype).max):
        p = math.copysign(math.inf, p)
    size = abs(d)
    if p == 0:
        norm, slope = (d != 0).sum(axis=-1, keepdims=True).astype(d.dtype), np.zeros_like(d)
    else:
        ends = {"axis": -1, "keepdims": True}
        m = size.max(initial=0, **ends) if p > 0 else size.min(initial=math.inf, **ends)
        q = where(m == 0, 1, size / where((m > 0) & np.isfinite(m), m, 1))
        total = where(m == 0, 1, (q**p).sum(**ends))
        norm = m * total ** (1 / p)
        total = 1 if whole and p == math.inf else total
        share = where(d == 0, 1, q) ** (p - 1) * total ** (1 / p - 1)
        slope = where(m == 0, 0, np.sign(d) * share)

    def pullback(dnorm):
        return np.asarray(dnorm)[..., np.newaxis] * slope

    return norm[..., 0], pullback
