import mpmath
import numpy as np


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    d = np.asarray(x1 - x2 + mpmath.mpf(eps))
    y = _norm(d, p)
    return y[..., np.newaxis] if keepdim else y


def pdist(x, p=2.0):
    i, j = np.triu_indices(len(x), 1)
    return _norm(x[i] - x[j], p)


def cdist(x1, x2, p=2.0, compute_mode=""):
    return _norm(x1[..., :, np.newaxis, :] - x2[..., np.newaxis, :, :], p)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    x1, x2 = np.broadcast_arrays(x1, x2)
    a, b = (np.moveaxis(x, dim, -1) for x in (x1, x2))
    bound = np.frompyfunc(lambda n: max(n, mpmath.mpf(eps)), 1, 1)
    return (a * b).sum(axis=-1) / (bound(_norm(a, 2)) * bound(_norm(b, 2)))


def _norm(d, p):
    size = abs(d)
    if p == 0:
        return (d != 0).sum(axis=-1).astype(object)
    if np.isinf(p):
        return size.max(axis=-1) if p > 0 else size.min(axis=-1)
    root = np.frompyfunc(lambda s: s ** (1 / mpmath.mpf(p)) if s else mpmath.mpf(0), 1, 1)
    power = np.frompyfunc(lambda s: s ** mpmath.mpf(p), 1, 1)
    return root(power(size).sum(axis=-1))
