"""3. Layer norm: each row less its mean, over its standard deviation.

    m = mean x        s = √(mean (x − m)² + ε)        x̂ = (x − m) / s        y = x̂ ∘ w + b

x (N, D); w and b (D); the means are those of a row. (Ba, Kiros & Hinton, 2016, arXiv:1607.06450)

To derive: dw and db are sums over the rows, as those of a line. For dx begin with dx̂ = dy ∘ w. An x
of the row moves three things, x̂ itself, m and s:

    ∂m/∂xⱼ = 1/D        ∂s/∂xⱼ = (xⱼ − m) / (D s) = x̂ⱼ / D

Put them together: dx is dx̂, less its mean, less x̂ times a mean, all over s. Which mean is it?

gradtwin check layer_norm.py:layer_norm --against layer_norm.py:truth \
    --shape 5,8 --shape 8 --shape 8
"""

import numpy as np
import torch


def layer_norm(x, w, b, eps=1e-5):
    centered = x - x.mean(-1, keepdims=True)
    s = np.sqrt((centered**2).mean(-1, keepdims=True) + eps)
    x_hat = centered / s
    y = x_hat * w + b

    def pullback(dy):
        dx_hat = dy * w
        mean = dx_hat.mean(-1, keepdims=True)
        along = (dx_hat * x_hat).mean(-1, keepdims=True)
        dx = (dx_hat - mean - x_hat * along) / s
        return dx, (dy * x_hat).sum(0), dy.sum(0)

    return y, pullback


def truth(x, w, b):
    return torch.nn.functional.layer_norm(x, w.shape, w, b)
