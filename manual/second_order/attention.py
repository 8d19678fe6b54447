"""The backward pass of attention.

It raises TypeError or ValueError, as the package says.
"""

import math

import numpy as np

from ..arguments import Constant, floating
from ..attention.scaled import attended, scaled_dot_product_attention


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
