"""4. Attention: three functions in a row.

    scores = q kᵀ / √D        p = softmax of each row of scores        y = p v

q (…, L, D), k (…, S, D), v (…, S, E) → y (…, L, E). (Vaswani et al., 2017, arXiv:1706.03762)

To derive: nothing new. Go through the three lines from the last to the first, each by what the
exercises before have found; y = p v is a product, which has a gradient for either factor:

    dy → dp and dv → dscores → dq and dk

and do not forget what q kᵀ is divided by.

gradtwin check attention.py:attention --against torch.nn.functional.scaled_dot_product_attention \
    --shape 2,4,3 --shape 2,5,3 --shape 2,5,6
"""

import math

import numpy as np


def attention(q, k, v):
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) * scale
    z = np.exp(scores - scores.max(-1, keepdims=True))
    p = z / z.sum(-1, keepdims=True)
    y = p @ v

    def pullback(dy):
        dp, dv = dy @ v.swapaxes(-1, -2), p.swapaxes(-1, -2) @ dy
        dscores = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv

    return y, pullback
