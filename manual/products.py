"""Products of matrices.

All of them take arrays in float16, float32 or float64 of one dtype, and raise TypeError for any
others, ValueError for shapes that do not fit; the message names the argument.
"""

import numpy as np

from .arguments import broadcast, floating
from .arrays import sum_to


def matmul(x, other):
    """x @ other: (…, N, K) and (…, K, M) → (…, N, M); dx = dy otherᵀ, dother = xᵀ dy. A vector is a
    matrix of one row before the @, and of one column behind it. Raises ValueError for an array
    without axes and for two K."""
    x, other = floating(x=x, other=other)
    for name, a in (("x", x), ("other", other)):
        if not a.ndim:
            raise ValueError(f"{name}: expected at least one axis, got none")
    a, b = np.atleast_2d(x), other[:, np.newaxis] if other.ndim == 1 else other
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"other: expected {a.shape[-1]} rows, got shape {other.shape}")
    broadcast(x=a[..., :1, :1], other=b[..., :1, :1])
    product = a @ b
    rows, columns = product.shape[-2:]
    ends = (rows,) * (x.ndim > 1) + (columns,) * (other.ndim > 1)
    y = product.reshape(product.shape[:-2] + ends)

    def pullback(dy):
        d = dy.reshape(product.shape)
        dx, dother = sum_to(d @ b.mT, a.shape), sum_to(a.mT @ d, b.shape)
        return dx.reshape(x.shape), dother.reshape(other.shape)

    return y, pullback
