"""5. A convolution: the same weights at every place.

    y[n, o, r, s] = Σ_{c, i, j} x[n, c, r + i, s + j] w[o, c, i, j] + b[o]

x (N, C, H, W), w (O, C, I, J), b (O) → y (N, O, H − I + 1, W − J + 1).

To derive: dw[o, c, i, j] is a sum over all places at which that weight was used, db[o] over all
outputs of that channel. One x is used by several outputs, once for each weight (i, j): so begin
with zeros, and for each (i, j) add what comes back through it, w[:, :, i, j] times dy, to those
x[:, :, r + i, s + j] that it came from.

gradtwin check convolution.py:convolution --against torch.nn.functional.conv2d \
    --shape 2,3,6,5 --shape 4,3,3,2 --shape 4
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def convolution(x, w, b):
    windows = sliding_window_view(x, w.shape[2:], axis=(2, 3))  # [n, c, r, s, i, j], a view
    y = np.einsum("ncrsij,ocij->nors", windows, w) + b[:, None, None]

    def pullback(dy):
        raise NotImplementedError("return dx, dw, db")

    return y, pullback
