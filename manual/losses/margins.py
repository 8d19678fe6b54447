"""Losses of a margin, between pairs and triplets.

All of them take their inputs as arrays in float16, float32 or float64 of one dtype, and a target as
an array of numbers; reduction is "none", "mean" or "sum". They raise TypeError for any other array
and for a setting of the wrong type, ValueError for shapes that do not fit and for another
reduction; the message names the argument.
"""

import numpy as np

from ..activations import sigmoid
from ..arguments import Constant, array, broadcast, broadcastable, flag, floating, real, truth
from ..arrays import reduce, sum_to, where
from ..distances import pairwise_distance
from .likelihoods import GUARD


def hinge_embedding_loss(x, target: Constant, margin=1.0, *, reduction="mean"):
    """x where the target is 1, max(0, margin − x) where it is −1, and their sum elsewhere; the
    slopes are 1 and −1, the latter also at the edge. x and the target broadcast.

    Hadsell, Chopra & LeCun, 2006
    """
    x = floating(x=x)
    real(margin=margin)
    target = array(target=target)
    shape = broadcast(x=x, target=target)
    gap = margin - np.broadcast_to(x, shape)
    positive, negative = target != -1, target != 1
    y, spread = reduce(where(positive, x, 0) + where(negative, np.maximum(gap, 0), 0), reduction)

    def pullback(dy):
        dloss = spread(dy)
        active = negative & ~(gap < 0)
        return sum_to(where(positive, dloss, 0) - where(active, dloss, 0), x.shape)

    return y, pullback


def soft_margin_loss(x, target: Constant, *, reduction="mean"):
    """log(1 + e^(−t x)) for targets t of 1 and −1, which broadcast to x; the slope is −t σ(−t x).

    Cox, 1958, "The Regression Analysis of Binary Sequences"
    """
    x = floating(x=x)
    t = _signs(target, x)
    broadcastable(x.shape, target=t)
    v = t * x
    y, spread = reduce(np.maximum(-v, 0) + np.log1p(np.exp(-abs(v))), reduction)

    def pullback(dy):
        return spread(dy) * (-t * sigmoid(-v)[0])

    return y, pullback


def margin_ranking_loss(input1, input2, target, margin=0, *, reduction="mean"):
    """max(0, m − t (x₁ − x₂)): x₁ should be above x₂ by m where t = 1, and below where t = −1. The
    slopes are −t, t and x₂ − x₁, also at the edge; a target of whole numbers has none.

    All three broadcast. Raises ValueError unless they have as many axes as one another.

    Herbrich, Graepel & Obermayer, 2000
    """
    input1, input2 = floating(input1=input1, input2=input2)
    real(margin=margin)
    t = _signs(target, input1)
    if not input1.ndim == input2.ndim == t.ndim:
        raise ValueError(
            f"target: expected as many axes as the inputs, {input1.ndim} and {input2.ndim}, got "
            f"shape {t.shape}"
        )
    broadcast(input1=input1, input2=input2, target=t)
    d = input1 - input2
    gap = margin - t * d
    y, spread = reduce(np.maximum(gap, 0), reduction)

    def pullback(dy):
        dgap = where(gap < 0, 0, spread(dy))
        found = (
            sum_to(-dgap * t, input1.shape),
            sum_to(dgap * t, input2.shape),
            sum_to(-dgap * d, t.shape),
        )
        return found if target.dtype.kind == "f" else found[:2]

    return y, pullback


def cosine_embedding_loss(input1, input2, target: Constant, margin=0, *, reduction="mean"):
    """1 − c where the target is 1, max(0, c − margin) where it is −1, else 0; c is the cosine of
    the rows x₁ and x₂, with 10⁻¹² added to each square of a norm.

    dx₁ = dc (x₂ / n − c x₁ / ‖x₁‖²), n = ‖x₁‖ ‖x₂‖. The inputs are (N, D) for targets (N), or (D)
    for a single one. Raises ValueError for other numbers of axes. Hadsell, Chopra & LeCun, 2006
    """
    input1, input2 = floating(input1=input1, input2=input2)
    real(margin=margin)
    target = array(target=target)
    if target.ndim > 1:
        raise ValueError(f"target: expected at most one axis, got shape {target.shape}")
    for name, x in (("input1", input1), ("input2", input2)):
        if x.ndim != target.ndim + 1:
            raise ValueError(f"{name}: expected {target.ndim + 1} axes, got shape {x.shape}")
    shape = broadcast(input1=input1, input2=input2)
    square1, square2 = ((x * x).sum(axis=-1, keepdims=True) + GUARD for x in (input1, input2))
    n = np.sqrt(square1 * square2)
    cosine = ((input1 * input2).sum(axis=-1, keepdims=True) / n)[..., 0]
    broadcast(input1=cosine, target=target)
    gap = cosine - margin
    loss = where(target == 1, 1 - cosine, where(target == -1, np.maximum(gap, 0), 0))
    y, spread = reduce(loss, reduction)

    def pullback(dy):
        dloss = spread(dy)
        sign = where(target == 1, -1, where((target == -1) & (gap >= 0), 1, 0))
        dc = sum_to(sign.astype(dloss.dtype) * dloss, cosine.shape)[..., np.newaxis]
        c = cosine[..., np.newaxis]
        return tuple(  # a norm is of an input as it came, a product of both at full length
            sum_to(np.broadcast_to(dc * b / n, shape), a.shape) - sum_to(dc * c * a / q, a.shape)
            for a, b, q in ((input1, input2, square1), (input2, input1, square2))
        )

    return y, pullback


def triplet_margin_loss(
    anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, *, reduction="mean"
):
    """max(0, margin + d(a, p) − d(a, n)), where d is pairwise_distance with this p and ε; swap
    takes the lesser of d(a, n) and d(p, n) for the latter.

    All three are (…, D) with as many axes, and broadcast. Raises ValueError for others, and for a
    margin that is not above 0.

    Balntas, Riba, Ponsa & Mikolajczyk, 2016
    """
    real(p=p, eps=eps)
    flag(swap=swap)

    def distance(x1, x2):
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean"
):
    """triplet_margin_loss with another distance, a rule of two arrays; without one it is
    pairwise_distance.

    Raises TypeError for a distance that is no function, and the ValueError of triplet_margin_loss.

    Balntas, Riba, Ponsa & Mikolajczyk, 2016
    """
    swap = truth(swap=swap)
    distance = pairwise_distance if distance_function is None else distance_function
    if not callable(distance):
        raise TypeError(f"distance_function: expected a rule of two arrays, got {distance!r}")
    return _triplet(distance, anchor, positive, negative, margin, swap, reduction)


def _triplet(distance, anchor, positive, negative, margin, swap, reduction):
    """swap takes the lesser of d(a, n) and d(p, n); where they are equal, half of each slope."""
    anchor, positive, negative = floating(anchor=anchor, positive=positive, negative=negative)
    real(margin=margin)
    if not margin > 0:
        raise ValueError(f"margin: expected above 0, got {margin}")
    for name, x in (("positive", positive), ("negative", negative)):
        if x.ndim != anchor.ndim:
            raise ValueError(
                f"{name}: expected {anchor.ndim} axes, like anchor, got shape {x.shape}"
            )
        broadcast(**{"anchor": anchor, name: x})
    near, pull_near = distance(anchor, positive)
    far, pull_far = distance(anchor, negative)
    if swap:
        other, pull_other = distance(positive, negative)
        share = where(far == other, 0.5, far < other).astype(far.dtype)
        far = np.minimum(far, other)
    gap = margin + near - far
    y, spread = reduce(np.maximum(gap, 0), reduction)

    def pullback(dy):
        dgap = where(gap < 0, 0, spread(dy))
        danchor, dpositive = pull_near(sum_to(dgap, near.shape))
        dfar = sum_to(-dgap, far.shape)
        from_anchor, dnegative = pull_far(dfar * share if swap else dfar)
        if swap:
            from_positive, from_negative = pull_other(dfar * (1 - share))
            dpositive, dnegative = dpositive + from_positive, dnegative + from_negative
        return danchor + from_anchor, dpositive, dnegative

    return y, pullback


def _signs(target, x):
    """A target of 1 and −1, whole or floating, as an array like x."""
    target = array(target=target)
    return target.astype(x.dtype) if target.dtype.kind in "iu" else floating(x=x, target=target)[1]
