import itertools

import mpmath
import numpy as np


def matmul(x, other):
    return np.matmul(x, other)


def bmm(x, mat2):
    return np.matmul(x, mat2)


def addmm(x, mat1, mat2, *, beta=1, alpha=1):
    product = mpmath.mpf(alpha) * np.matmul(mat1, mat2)
    return product + mpmath.mpf(beta) * x if beta else product


def baddbmm(x, batch1, batch2, *, beta=1, alpha=1):
    return addmm(x, batch1, batch2, beta=beta, alpha=alpha)


def outer(x, vec2):
    return np.multiply.outer(x, vec2)


def einsum(equation, *operands):
    arrays = operands[0] if isinstance(operands[0], (list, tuple)) else operands
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [a.ndim - len(t.replace("...", "")) for a, t in zip(arrays, terms, strict=True)]
    digits = "0123456789"[: max(free)]
    terms = [t.replace("...", digits[len(digits) - n :]) for t, n in zip(terms, free, strict=True)]
    if not arrow:
        out = "..." + "".join(c for c in sorted(left) if c.isalpha() and left.count(c) == 1)
    out = out.replace("...", digits)
    every = sorted({c for term in terms for c in term})
    sizes = {
        c: [n for a, t in pairs for n, label in zip(a.shape, t, strict=True) if label == c]
        for pairs in [list(zip(arrays, terms, strict=True))]
        for c in every
    }
    lengths = {c: next((n for n in found if n != 1), 1) for c, found in sizes.items()}
    y = np.full([lengths[c] for c in out], mpmath.mpf(0), dtype=object)
    for place in itertools.product(*(range(lengths[c]) for c in every)):
        at = dict(zip(every, place, strict=True))
        product = mpmath.mpf(1)
        for a, term in zip(arrays, terms, strict=True):
            product *= a[tuple(at[c] % n for c, n in zip(term, a.shape, strict=True))]
        y[tuple(at[c] for c in out)] += product
    return y
