"""What rules share: the operands of arithmetic, sums and their adjoints.

Their checks raise TypeError, ValueError or MemoryError with a message that names the argument.
"""

import math
import numbers
import os

import numpy as np

from .arguments import broadcast, floating, one_of, real

LARGE = 2**12  # the elements from which on choosing bits, or making no copy, pays
BLOCK = 2**16  # elements of one rule at a time, few enough to stay in the cache


def room(dtype, **shapes):
    """Raises MemoryError unless the named shape fits into all the memory of the machine: a system
    may grant more than there is, and stand still when that is written to."""
    ((name, shape),) = shapes.items()
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    names = getattr(os, "sysconf_names", {})  # Windows has none, and grants what there is
    if "SC_PHYS_PAGES" in names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if wanted > memory:
            raise MemoryError(
                f"{name}: shape {shape} takes {wanted / 2**30:.1f} GiB, and there are "
                f"{memory / 2**30:.1f}"
            )


def operands(**two):
    """The two named operands, arrays or numbers, as arrays, and a function that brings a slope of
    each into its shape and leaves out that of a number.

    Raises TypeError unless one of them is a floating array and the other a number or an array of
    the same dtype, ValueError for shapes that do not broadcast.
    """
    numeric = {
        name: not isinstance(a, (np.ndarray, np.generic)) and isinstance(a, numbers.Real)
        for name, a in two.items()
    }
    arrays = {name: a for name, a in two.items() if not numeric[name]}
    if not arrays:
        first = next(iter(two))
        raise TypeError(f"{first}: expected a floating array, got {two[first]!r}")
    floating(**arrays)
    real(**{name: a for name, a in two.items() if numeric[name]})
    dtype = next(iter(arrays.values())).dtype
    a, b = (np.asarray(a, dtype if numeric[name] else None) for name, a in two.items())
    broadcast(**dict(zip(two, (a, b), strict=True)))

    shapes = [None if numeric[name] else a.shape for name, a in zip(two, (a, b), strict=True)]

    def back(*slopes):
        pairs = zip(slopes, shapes, strict=True)
        found = tuple(sum_to(slope, shape) for slope, shape in pairs if shape is not None)
        return found[0] if len(found) == 1 else found

    return a, b, back


def where(condition, x, other):
    """As np.where; of large floating arrays it chooses bits, because a processor that has to guess
    the way of each element guesses half of them wrong.

    Their bits are whole numbers. Those in which the two differ, times 1 where the condition holds
    and 0 elsewhere, turn `other` into what is chosen. NaN and ∞ stay where they are.
    """
    if getattr(condition, "size", 1) < LARGE:
        return np.where(condition, x, other)
    dtype = np.result_type(x, other)
    shapes = {np.shape(a) for a in (condition, x, other)} - {()}
    if dtype.kind != "f" or len(shapes) > 1:
        return np.where(condition, x, other)
    bits = np.dtype(f"i{dtype.itemsize}")
    a, b = (np.asarray(side, dtype).view(bits) for side in (x, other))
    if not (b.ndim or b):
        return (a * condition).view(dtype)
    chosen = (a ^ b) * condition
    chosen ^= b
    return chosen.view(dtype)


def in_blocks(rule, x, *settings):
    """An element-wise rule of a large array, block by block, so that what it makes on the way stays
    in the cache."""
    flat = x.reshape(-1)
    blocks = [slice(i, i + BLOCK) for i in range(0, x.size, BLOCK)]
    y, pullbacks = np.empty_like(flat), []
    for block in blocks:
        y[block], pullback_block = rule(flat[block], *settings)
        pullbacks.append(pullback_block)

    def pullback(dy):
        flat_dy = np.broadcast_to(dy, x.shape).reshape(-1)
        dx = np.empty(x.size, np.result_type(x, dy))
        for block, pullback_block in zip(blocks, pullbacks, strict=True):
            dx[block] = pullback_block(flat_dy[block])
        return dx.reshape(x.shape)

    return y.reshape(x.shape), pullback


def in_blocks_of_rows(rule, rows, *others):
    """A rule that makes a number of each row, along the last axis, of a large array and of others
    like it, which have no slope: block by block along the first axis."""
    if rows.size <= BLOCK or rows.ndim == 1:
        return rule(rows, *others)
    step = max(BLOCK * len(rows) // rows.size, 1)
    blocks = [slice(i, i + step) for i in range(0, len(rows), step)]
    parts = [rule(rows[block], *(a[block] for a in others)) for block in blocks]
    y = np.concatenate([y_block for y_block, _ in parts])

    def pullback(dy):
        drows = np.empty_like(rows)
        for block, (_, pullback_block) in zip(blocks, parts, strict=True):
            drows[block] = pullback_block(dy[block])
        return drows

    return y, pullback


def along(index):
    """What takes the elements at an index along the last axis, or puts them: as
    np.take_along_axis, which looks longer for the way."""
    grid = (
        np.arange(n).reshape(-1, *[1] * (index.ndim - 1 - axis))
        for axis, n in enumerate(index.shape[:-1])
    )
    return (*grid, index)


def exponentials(rows):
    """The parts of a softmax over the last axis: d = x − max x, z = eᵈ, the index at which d is
    first 0, the winner's, and the sum of all other z.

    The winner is left out of the sum because log Σ z = log1p(others) and 1 − p = others / (1 +
    others) keep their digits where the others are small.
    """
    if not rows.shape[-1]:
        return rows, rows, rows.astype(int), rows.sum(axis=-1, keepdims=True)
    winner = rows.argmax(axis=-1, keepdims=True)
    at_winner = along(winner)
    d = rows - rows[at_winner]
    z = np.exp(d)
    of_others = z.copy()
    of_others[at_winner] = 0
    return d, z, winner, of_others.sum(axis=-1, keepdims=True)


def probabilities(z, winner, others):
    """Of the parts of a softmax, p and 1 − p."""
    total = 1 + others
    p, rest = z / total, total - z
    rest /= total
    rest[along(winner)] = others / total
    return p, rest


def pairwise_sum(x, axes):
    """The sum over `axes`, pairwise, so that its error grows with log n (Higham, 1993).

    NumPy adds pairwise along the last axis of contiguous memory only; over the first axis it adds
    row after row.
    """
    if len(axes) == x.ndim:
        return np.ascontiguousarray(x.reshape(-1)).sum()
    others = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in others]
    rows = x.transpose(*others, *axes).reshape(*shape, math.prod(x.shape[axis] for axis in axes))
    return np.ascontiguousarray(rows).sum(axis=-1)


def cascade(terms):
    """The sum of arrays that come one after another, pairwise, with no more than log n of them at
    hand; None of none."""
    sums = []
    for i, term in enumerate(terms, 1):
        while not i & 1:
            term, i = sums.pop() + term, i >> 1
        sums.append(term)
    total = sums.pop() if sums else None
    while sums:
        total = sums.pop() + total
    return total


def sum_to(dy, shape):
    """The adjoint of broadcasting from `shape`: sums dy over every axis that was stretched or put
    in front."""
    if dy.shape == shape:
        return dy
    ahead = dy.ndim - len(shape)
    stretched = (ahead + i for i, n in enumerate(shape) if n == 1)
    return pairwise_sum(dy, (*range(ahead), *stretched)).reshape(shape)


def reduce(x, reduction, total=None):
    """The last step of a loss, as a rule: "none" keeps x, "sum" adds it up, "mean" divides the sum
    by `total`.

    `total` is the number of elements unless it is given. A mean over nothing is NaN and has no
    gradient. Raises TypeError or ValueError for any other reduction.
    """
    one_of(("none", "mean", "sum"), reduction=reduction)
    y = x if reduction == "none" else pairwise_sum(x, tuple(range(x.ndim)))
    share = 1
    if reduction == "mean":
        total = x.size if total is None else total
        y, share = (y / total, total) if total else (y * math.nan, math.inf)

    def pullback(dy):
        if reduction == "none":
            return dy
        spread = np.full if x.size < LARGE else _broadcast
        return spread(x.shape, dy / share)

    return y, pullback


def _broadcast(shape, value):
    return np.broadcast_to(value, shape)
