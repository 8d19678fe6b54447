"""An array in other orders, with what they are called."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MOST = 2**18  # elements of all orders of one shape that are kept
AXES = 5  # of which all orders are tried, but for so many
FAR = 8  # the most places by which something is shifted
SHARES = {2: "halves", 3: "thirds", 4: "quarters"}

Named = tuple[str, np.ndarray]


def reordered(a: np.ndarray) -> Iterator[Named]:
    """Other orders with what they are called, the plainest first."""
    for axis in range(a.ndim):
        yield from in_parts(a, axis, (2,))
        yield from shifted(a, axis, range(1, 2))
    for axis in range(a.ndim):
        yield from in_parts(a, axis, (3, 4))
        yield from _interleaved(a, axis)
    for axis in range(a.ndim):
        yield from shifted(a, axis, range(2, FAR + 1))
        yield from _read_as_three(a, axis)
    yield from _split(a)


def shifted(a: np.ndarray, axis: int, far: range) -> Iterator[Named]:
    """Moved with zeros at the edge, or rolled."""
    for distance in far:
        if distance >= a.shape[axis]:
            return
        for step in (distance, -distance):
            rolled = np.roll(a, step, axis)
            moved = rolled.copy()
            edge = slice(step) if step > 0 else slice(step, None)
            moved[(slice(None),) * axis + (edge,)] = 0
            yield f"shifted by {step} along axis {axis}", moved
            yield f"shifted by {step} along axis {axis}, wrapped round", rolled


def in_parts(a: np.ndarray, axis: int, counts: Sequence[int]) -> Iterator[Named]:
    """With its halves, thirds or quarters along an axis in another order."""
    for count in counts:
        if a.shape[axis] % count or a.shape[axis] < 2 * min(count, 3):
            continue
        parts = np.split(a, count, axis)
        for order in list(itertools.permutations(range(count)))[1:]:
            made = np.concatenate([parts[k] for k in order], axis)
            how = "exchanged" if count == 2 else f"as {order}"
            yield f"with its {SHARES[count]} along axis {axis} {how}", made


def _interleaved(a: np.ndarray, axis: int) -> Iterator[Named]:
    """With an axis read as two, and those exchanged; or turned round by blocks."""
    n, before, after = a.shape[axis], a.shape[:axis], a.shape[axis + 1 :]
    for k in _divisors(n):
        apart = a.reshape(*before, k, n // k, *after)
        text = f"with axis {axis} read as {k} × {n // k} and the two exchanged"
        if k == 2:
            text = f"with its halves along axis {axis} interleaved"
        elif n // k == 2:
            text = f"with even and odd elements along axis {axis} one after another"
        yield text, apart.swapaxes(axis, axis + 1).reshape(a.shape)
        for turned, what in ((axis, "blocks"), (axis + 1, "elements of each block")):
            text = f"with the {what} of {n // k} along axis {axis} in reverse order"
            yield text, np.flip(apart, turned).reshape(a.shape)


def _read_as_three(a: np.ndarray, axis: int) -> Iterator[Named]:
    """With an axis read as three, and those in another order."""
    n, before, after = a.shape[axis], a.shape[:axis], a.shape[axis + 1 :]
    for k, j in itertools.product(_divisors(n), repeat=2):
        if n % (k * j) or n == k * j:
            continue
        three = (k, j, n // k // j)
        for order in list(itertools.permutations(range(3)))[1:]:
            axes = (*range(axis), *(axis + o for o in order), *range(axis + 3, a.ndim + 2))
            made = a.reshape(*before, *three, *after).transpose(axes).reshape(a.shape)
            yield f"with axis {axis} read as {k} × {j} × {three[2]}, those as {order}", made


def _split(a: np.ndarray) -> Iterator[Named]:
    """With one axis read as two, all as in another order, and these read in a row: what a reshape
    makes in the place of a transpose."""
    if not 1 < a.ndim < 5:
        return
    for axis in range(a.ndim):
        for k in _divisors(a.shape[axis]):
            shape = (*a.shape[:axis], k, a.shape[axis] // k, *a.shape[axis + 1 :])
            for axes in list(itertools.permutations(range(a.ndim + 1)))[1:]:
                turned = a.reshape(shape).transpose(axes)
                text = f"read as {'×'.join(map(str, shape))} with its axes as {axes}"
                yield f"{text}, in a row", turned.reshape(a.shape)


def _divisors(n: int) -> list[int]:
    return [k for k in range(2, n // 2 + 1) if n % k == 0]


# As a table -------------------------------------------------------------------------------------


class Order(NamedTuple):
    """A kind of mistake, what it is called, and where each element is taken from: its place plus
    one in a row of all, or 0 where nothing is left."""

    cause: str
    text: str
    taken: np.ndarray

    def of(self, a: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(1, a.dtype), a.ravel()])[self.taken].reshape(a.shape)


@functools.lru_cache(32)
def table(shape: tuple[int, ...]) -> list[Order]:
    """Other orders of an array of this shape, each once, the plainest first; as many as MOST
    elements of all of them allow."""
    own = np.arange(1, math.prod(shape) + 1).reshape(shape)
    found: dict[bytes, Order] = {own.tobytes(): Order("", "", own.ravel())}
    left = MOST // max(own.size, 1)
    named = itertools.chain(
        transposed(own),
        (("misplaced", *order) for order in reordered(own)),
        (("misplaced", *order) for order in indexed(own)),
    )
    for cause, text, made in itertools.islice(named, left):
        key = np.ascontiguousarray(made).tobytes()
        if key not in found:
            found[key] = Order(cause, text, made.ravel())
    return list(found.values())[1:]


def transposed(a: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """With axes of one length exchanged, in the whole or in its blocks along them; with its axes in
    another order, read in a row; flipped along one."""
    if a.ndim < AXES:
        for axes in list(itertools.permutations(range(a.ndim)))[1:]:
            turned = a.transpose(axes)
            if turned.shape == a.shape:
                yield "transpose", f"with its axes as {axes}", turned
            # Of a matrix that is a transpose in a wrong shape; of more axes, heads in wrong places.
            cause = "transpose" if a.ndim == 2 else "misplaced"
            yield cause, f"with its axes as {axes}, read in order", turned.reshape(a.shape)
            back = a.reshape(turned.shape).transpose(np.argsort(axes)).reshape(a.shape)
            yield cause, f"read with its axes as {axes}", back
    for axis in range(a.ndim):
        yield "misplaced", f"flipped along axis {axis}", np.flip(a, axis)
    yield from (("transpose", *named) for named in in_blocks(a))


def in_blocks(a: np.ndarray) -> Iterator[Named]:
    """With blocks of it transposed: those of its rows, or those along the diagonal."""
    if a.ndim == 2:
        for block in range(2, len(a)):
            made = np.concatenate([a[at].T.reshape(a[at].shape) for at in _blocks(len(a), block)])
            yield f"with its blocks of {block} rows transposed, read in order", made
    if a.ndim > 1 and a.shape[-1] == a.shape[-2]:
        for block in range(2, a.shape[-1]):
            made = a.copy()
            for at in _blocks(a.shape[-1], block):
                made[..., at, at] = a[..., at, at].swapaxes(-1, -2)
            yield f"with its blocks of {block} along the diagonal transposed", made


def indexed(a: np.ndarray) -> Iterator[Named]:
    """With a slice taken for others along an axis: its index divided by a number, or what that
    leaves; or turned round in blocks of which the last is shorter."""
    for axis in range(a.ndim):
        n = a.shape[axis]
        index = np.arange(n)
        for k in range(2, n):
            yield (
                f"with slice i // {k} in the place of slice i along axis {axis}",
                a.take(index // k, axis),
            )
        for k in range(1, n):
            text = f"with slice i mod {k} in the place of slice i along axis {axis}"
            yield text, a.take(index % k, axis)
            turned = np.concatenate([index[at][::-1] for at in _blocks(n, k)])
            yield f"turned round in each block of {k} along axis {axis}", a.take(turned, axis)


def _blocks(n: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]
