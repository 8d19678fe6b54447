"""2. Softmax: every output depends on every input.

    yᵢ = e^xᵢ / Σₖ e^xₖ        along the axis `dim`

(To take away the largest x first changes nothing but that e^x stays finite.)

To derive: the slope of yᵢ in xⱼ, once for i = j and once for i ≠ j, written with y alone. Both are

    ∂yᵢ/∂xⱼ = yᵢ ([i = j] − yⱼ)

Then the chain rule, dxⱼ = Σᵢ dyᵢ ∂yᵢ/∂xⱼ: multiply it out, and no matrix is left, only one sum.

gradtwin check softmax.py:softmax --against torch.nn.functional.softmax --shape 3,4 \
    --settings dim=-1
"""

import numpy as np


def softmax(x, dim):
    z = np.exp(x - x.max(dim, keepdims=True))
    y = z / z.sum(dim, keepdims=True)

    def pullback(dy):
        return y * (dy - (dy * y).sum(dim, keepdims=True))

    return y, pullback
