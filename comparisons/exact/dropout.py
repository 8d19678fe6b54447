import mpmath
import numpy as np


def dropout(x, p=0.5, training=True, *, mask=None):
    if not training:
        return x
    return x * np.where(mask, 1 / (1 - mpmath.mpf(p)), 0) if p < 1 else x * 0


def alpha_dropout(x, p=0.5, training=False, *, mask=None):
    if not training or p == 1:
        return dropout(x, p, training, mask=mask)
    p = mpmath.mpf(p)
    limit = mpmath.mpf("1.0507009873554805") * mpmath.mpf("1.6732632423543772")
    a = 1 / mpmath.sqrt((1 - p) * (1 + p * limit**2))
    return a * np.where(mask, x, -limit) + a * p * limit


dropout1d = dropout2d = dropout3d = dropout
feature_alpha_dropout = alpha_dropout
