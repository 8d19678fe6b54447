"""Padding: more elements at the ends of axes, or fewer.

All of them take x in float16, float32 or float64. They raise TypeError for anything else and for a
setting of the wrong type, ValueError for widths that do not fit; the message names the argument.
"""

import numpy as np

from .arguments import floating, one_of, real, whole
from .arrays import pairwise_sum, room

COUNTS = {2: (2, 3), 4: (3, 4), 6: (4, 5)}  # widths, and the axes that x may have, but with zeros


def pad(x, pad, mode="constant", value=None):
    """x with so many more elements before and behind each axis, the widths (before, behind) of the
    last axis first; a negative one takes elements away. The new ones are the value, 0 unless given,
    or x reflected at its outermost elements, those elements themselves ("replicate"), or with
    "circular" x once more, without what was taken away.

    A new element is a copy of one of x, which gets its dy as well; a value has none. Raises
    TypeError for widths that are no tuple or list of whole numbers, ValueError for more than there
    are to take away, to reflect or to repeat.
    """
    x = floating(x=x)
    one_of(("constant", "reflect", "replicate", "circular"), mode=mode)
    widths = _widths(x, pad)
    if value is not None:
        real(value=value)
    if mode == "constant":
        return _with_value(x, widths, 0.0 if value is None else value)
    if value:
        raise ValueError(f"value: expected None for mode {mode!r}, got {value}")
    _check(x, widths, pad, mode)
    taken = [(min(a, 0), min(b, 0)) for a, b in widths] if mode == "circular" else []
    kept, pull_kept = _with_value(x, taken, 0.0)
    added = [(max(a, 0), max(b, 0)) for a, b in widths] if mode == "circular" else widths
    y, before = kept, []
    for axis, (a, b) in enumerate(added, x.ndim - len(added)):
        before.append((axis, -a, y.shape[axis], _places(mode, y.shape[axis], a, b)))
        y = _picked(y, *before[-1])

    def pullback(dy):
        for step in reversed(before):
            dy = _put_back(dy, *step)
        return pull_kept(dy)

    return y, pullback


def constant_pad_nd(x, pad, value=0):
    """pad with a value, by its name in ATen; raises TypeError and ValueError as that does."""
    x = floating(x=x)
    real(value=value)
    return _with_value(x, _widths(x, pad), value)


def _widths(x, pad):
    """(before, behind) of the last axes, the last of all last."""
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad: expected a tuple of whole numbers, got {pad!r}")
    whole(**{f"pad[{i}]": width for i, width in enumerate(pad)})
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: expected two widths for an axis of {x.shape}, got {tuple(pad)}")
    return list(zip(pad[::2], pad[1::2], strict=True))[::-1]


def _check(x, widths, pad, mode):
    """Raises ValueError for widths that this mode does not have."""
    if x.ndim not in COUNTS.get(len(pad), ()):
        raise ValueError(f"pad: expected two widths for each axis behind the channels, got {pad}")
    channels = x.shape[x.ndim - len(widths) - 1]
    if mode != "circular" and not channels:
        raise ValueError(f"x: expected channels, got shape {x.shape}")
    grown = []
    for n, (a, b) in zip(x.shape[-len(widths) :], widths, strict=True):
        left = n + min(a, 0) + min(b, 0) if mode == "circular" else n
        most = {"circular": left, "reflect": n - 1}.get(mode, max(a, b))
        if left < (mode != "circular") or max(a, b) > most or n + a + b < 0:
            raise ValueError(f"pad: expected fewer for mode {mode!r} and {n} elements, got {pad}")
        grown.append(n + a + b)
    if mode != "circular" and not any(grown):
        raise ValueError(f"pad: expected less to be taken away of {x.shape}, got {pad}")


def _with_value(x, widths, value):
    """x with that value around it, or with fewer elements; dy loses what stands around."""
    first = x.ndim - len(widths)
    grown = [n + a + b for n, (a, b) in zip(x.shape[first:], widths, strict=True)]
    for n, (a, b) in zip(x.shape[first:], widths, strict=True):
        if n + min(a, 0) + min(b, 0) < 0:
            raise ValueError(f"pad: expected at most {n} elements to be taken, got {(a, b)}")
    room(x.dtype, pad=(*x.shape[:first], *grown))
    inner = (
        ...,
        *(slice(max(a, 0), m - max(b, 0)) for m, (a, b) in zip(grown, widths, strict=True)),
    )
    kept = (..., *(slice(max(-a, 0), n - max(-b, 0))
                   for n, (a, b) in zip(x.shape[first:], widths, strict=True)))  # fmt: skip
    y = np.empty((*x.shape[:first], *grown), x.dtype)
    y[...] = value
    y[inner] = x[kept]
    shape, dtype = x.shape, x.dtype

    def pullback(dy):
        if all(a >= 0 and b >= 0 for a, b in widths):
            return dy[inner]
        dx = np.zeros(shape, dtype)
        dx[kept] = dy[inner]
        return dx

    return y, pullback


def _places(mode, n, a, b):
    """For each new element along an axis of n, of which a stand before and b behind, the element
    that it is a copy of."""
    place = np.arange(-a, n + b)
    if mode == "circular":
        return place % n
    if mode == "replicate":
        return place.clip(0, n - 1)
    return n - 1 - abs(n - 1 - abs(place))


def _parts(start, n, places):
    """The slice of the new elements that are those of x in their order, and of these elements."""
    low, high = max(-start, 0), min(n - start, len(places))
    return (low, high, low + start, high + start) if low < high else (0, 0, 0, 0)


def _picked(x, axis, start, n, places):
    low, high, first, last = _parts(start, n, places)
    ahead = (slice(None),) * axis
    parts = [
        x.take(places[:low], axis),
        x[(*ahead, slice(first, last))],
        x.take(places[high:], axis),
    ]
    return np.concatenate(parts, axis)


def _put_back(dy, axis, start, n, places):
    """The adjoint: what stands in order goes back at once, all copies of an element as a sum."""
    low, high, first, last = _parts(start, n, places)
    ahead = (slice(None),) * axis
    dx = np.zeros((*dy.shape[:axis], n, *dy.shape[axis + 1 :]), dy.dtype)
    dx[(*ahead, slice(first, last))] = dy[(*ahead, slice(low, high))]
    copies = np.ones(len(places), bool)
    copies[low:high] = False
    for place in np.unique(places[copies]):
        at = np.flatnonzero(copies & (places == place))
        dx[(*ahead, place)] += pairwise_sum(dy.take(at, axis), (axis,))
    return dx
