"""A softmax whose backward forgets that every output depends on every input.

gradtwin check examples/wrong_softmax.py:softmax --against torch.nn.functional.softmax \
    --shape 3,4 --settings dim=-1
"""

import numpy as np


def softmax(x, dim):
    z = np.exp(x - x.max(dim, keepdims=True))
    y = z / z.sum(dim, keepdims=True)

    def pullback(dy):
        return y * dy  # right: y * (dy − (dy * y).sum(dim, keepdims=True))

    return y, pullback
