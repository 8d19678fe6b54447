"""Products of matrices, and of arrays along axes that have names.

All of them take arrays in float16, float32 or float64 of one dtype, and raise TypeError for any
others, ValueError for shapes that do not fit; the message names the argument.
"""

import math
from collections import Counter

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .arguments import broadcast, broadcastable, floating, real
from .arrays import pairwise_sum, sum_to


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


def bmm(x, mat2):
    """x @ mat2 of each of B pairs: (B, N, K) and (B, K, M) → (B, N, M); see matmul. Raises
    ValueError for other axes, two B and two K."""
    x, mat2 = floating(x=x, mat2=mat2)
    return _product(3, x=x, mat2=mat2)


def addmm(x, mat1, mat2, *, beta=1, alpha=1):
    """β x + α mat1 @ mat2: (N, K) and (K, M) → (N, M), to which x broadcasts; without x if β is 0.
    dx = β dy, and the others as of matmul, times α. Raises ValueError for shapes that do not fit.
    """
    return _added(2, x, beta, alpha, mat1=mat1, mat2=mat2)


def baddbmm(x, batch1, batch2, *, beta=1, alpha=1):
    """β x + α batch1 @ batch2 of each of B pairs: (B, N, K) and (B, K, M) → (B, N, M), to which x
    broadcasts; see addmm. Raises ValueError for shapes that do not fit."""
    return _added(3, x, beta, alpha, batch1=batch1, batch2=batch2)


def _added(axes, x, beta, alpha, **factors):
    real(beta=beta, alpha=alpha)
    x, a, b = floating(x=x, **factors)
    product, pull_product = _product(axes, **dict(zip(factors, (a, b), strict=True)))
    broadcastable(product.shape, x=x)
    y = beta * x + alpha * product if beta else alpha * product

    def pullback(dy):
        da, db = pull_product(dy)
        return sum_to(beta * dy, x.shape), alpha * da, alpha * db

    return y, pullback


def _product(axes, **factors):
    """The named matrices' product, which have so many axes, those in front alike."""
    for name, a in factors.items():
        if a.ndim != axes:
            raise ValueError(f"{name}: expected {axes} axes, got shape {a.shape}")
    (_, a), (name, b) = factors.items()
    expected = (*a.shape[:-2], a.shape[-1])
    if b.shape[:-1] != expected:
        raise ValueError(f"{name}: expected shape {(*expected, 'M')}, got {b.shape}")
    return matmul(a, b)


def outer(x, vec2):
    """x vec2ᵀ of two vectors: (N) and (M) → (N, M); dx = dy vec2, dvec2 = dyᵀ x. Raises ValueError
    for other axes."""
    x, vec2 = floating(x=x, vec2=vec2)
    for name, a in (("x", x), ("vec2", vec2)):
        if a.ndim != 1:
            raise ValueError(f"{name}: expected one axis, got shape {a.shape}")
    y = x[:, np.newaxis] * vec2

    def pullback(dy):
        return dy @ vec2, x @ dy

    return y, pullback


def einsum(equation, *operands):
    """Σ of the products of all operands over every label that the output does not have: "ij,jk->ik"
    is a product of matrices. A label that is twice in one operand is its diagonal; "..." are axes
    that broadcast, and so do those of length 1; without "->" the output has "..." and all labels
    that are there once, in order. The operands may come in one list.

    One after another is multiplied into what the ones before have made, so each gets the product of
    that, of dy and of what follows, as a sum of the same kind:

        y = Σ a b        da = Σ dy b        db = Σ dy a

    and its labels that are in neither get it along their whole axes. Raises TypeError for an
    equation that is no string, ValueError for one that says something else, and where operands do
    not fit it.
    """
    together = len(operands) == 1 and isinstance(operands[0], (list, tuple))
    given = operands[0] if together else operands
    if not given:
        raise ValueError("operands: expected an array at least, got none")
    found = floating(**{f"operands.{i}": a for i, a in enumerate(given)})
    arrays = found if isinstance(found, tuple) else (found,)
    terms, out = _labels(equation, arrays)
    sizes = _sizes(arrays, terms)
    factors = [_distinct(a, labels) for a, labels in zip(arrays, terms, strict=True)]
    if len(factors) == 1:
        factors.append((np.ones((), arrays[0].dtype), []))
    (total, have), *others = factors
    steps = []
    for i, (b, of_b) in enumerate(others):
        steps.append((total, have, b, of_b))
        later = {label for _, labels in others[i + 1 :] for label in labels}
        total, have = _contracted(total, have, b, of_b, later.union(out))
    long = [label for label in out if label in sizes]
    y = _arranged(total, have, long).reshape([sizes.get(label, 1) for label in out])

    def pullback(dy):
        d, of_d = dy.reshape([sizes[label] for label in long]), long
        slopes = []
        for a, of_a, b, of_b in reversed(steps):
            slopes.append(_contracted(d, of_d, a, of_a, of_b))
            d, of_d = _contracted(d, of_d, b, of_b, of_a)
        slopes = [(d, of_d), *reversed(slopes)]
        back = [_spread(*s, a, t) for s, a, t in zip(slopes, arrays, terms, strict=False)]
        if together:
            return type(given)(back)
        return tuple(back) if len(back) > 1 else back[0]

    return y, pullback


def _labels(equation, arrays):
    """The labels of the axes of each operand, and those of the output: letters, and for the axes of
    an ellipsis numbers from −1 down, as they broadcast."""
    if not isinstance(equation, str):
        raise TypeError(f"equation: expected a string, got {equation!r}")
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(arrays):
        raise ValueError(f"equation: expected {len(arrays)} operands, got {equation!r}")
    split = [text.partition("...") for text in (*texts, right)]
    if not all(c.isascii() and c.isalpha() for head, _, tail in split for c in head + tail):
        raise ValueError(f"equation: expected letters and one '...' an operand, got {equation!r}")
    *inputs, (head, dots, tail) = split
    free = [a.ndim - len(h) - len(t) for a, (h, _, t) in zip(arrays, inputs, strict=True)]
    for i, (text, n) in enumerate(zip(texts, free, strict=True)):
        if n < 0 or (n and "..." not in text):
            shape = arrays[i].shape
            raise ValueError(f"operands.{i}: expected the axes {text!r}, got shape {shape}")
    terms = [[*h, *range(-n, 0), *t] for (h, _, t), n in zip(inputs, free, strict=True)]
    times = Counter(c for h, _, t in inputs for c in h + t)
    if not arrow:
        head, dots, tail = "", "...", sorted(c for c in times if times[c] == 1)
    out = [*head, *(range(-max(free), 0) if dots else ()), *tail]
    if len(set(out)) < len(out) or not set(head).union(tail) <= set(times):
        raise ValueError(f"equation: expected labels of operands in {right!r}, each once")
    return terms, out


def _sizes(arrays, terms):
    """The length of each label that is longer than 1 somewhere, or 0."""
    sizes = {}
    for i, (a, labels) in enumerate(zip(arrays, terms, strict=True)):
        own = {}
        for label, n in zip(labels, a.shape, strict=True):
            expected = own.setdefault(label, n), n if n == 1 else sizes.setdefault(label, n)
            if expected != (n, n):
                raise ValueError(
                    f"operands.{i}: expected the length of {label!r}, {expected[expected[0] == n]},"
                    f" got shape {a.shape}"
                )
    return sizes


def _distinct(a, labels):
    """A view of a with one axis for each of its labels, along the diagonal of those that it has
    twice, without axes of length 1; and these labels."""
    sizes, strides = {}, {}
    for label, n, stride in zip(labels, a.shape, a.strides, strict=True):
        if n != 1:
            sizes[label] = n
            strides[label] = strides.get(label, 0) + stride
    return as_strided(a, tuple(sizes.values()), tuple(strides.values())), list(sizes)


def _contracted(a, of_a, b, of_b, wanted):
    """Σ a b over all labels but the wanted ones, and the labels of that."""
    a, of_a = _summed(a, of_a, {*wanted, *of_b})
    b, of_b = _summed(b, of_b, {*wanted, *of_a})
    both = [label for label in of_a if label in of_b]
    front, inner = ([c for c in both if (c in wanted) is side] for side in (True, False))
    rows, columns = ([c for c in of if c not in both] for of in (of_a, of_b))
    lengths = dict(zip((*of_a, *of_b), (*a.shape, *b.shape), strict=True))

    def matrices(x, labels, *groups):
        shape = [math.prod(lengths[c] for c in group) for group in groups]
        return _arranged(x, labels, [c for group in groups for c in group]).reshape(shape)

    left, right = matrices(a, of_a, front, rows, inner), matrices(b, of_b, front, inner, columns)
    product = left @ right if inner else left * right
    found = [*front, *rows, *columns]
    return product.reshape([lengths[c] for c in found]), found


def _summed(a, labels, wanted):
    """a without the labels that are not wanted."""
    axes = tuple(i for i, label in enumerate(labels) if label not in wanted)
    left = [label for label in labels if label in wanted]
    return (pairwise_sum(a, axes) if axes else a), left


def _arranged(a, labels, order):
    return a.transpose([labels.index(label) for label in order])


def _spread(d, of_d, a, labels):
    """The slope of an operand of these labels: d along those that it has, everywhere along those
    that it has not, and 0 off the diagonal."""
    dx = np.zeros(a.shape, d.dtype)
    view, own = _distinct(dx, labels)
    placed = _arranged(d, of_d, [label for label in own if label in of_d])
    view[...] = np.expand_dims(placed, [i for i, label in enumerate(own) if label not in of_d])
    return dx
