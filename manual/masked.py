"""Elements replaced where a mask says so.

All of them take x in float16, float32 or float64 and raise TypeError for any other array and for a
setting of the wrong type, ValueError for shapes that do not fit; the message names the argument.
"""

import math

import numpy as np

from .arguments import array, broadcast, floating, whole
from .arrays import operands, where


def masked_fill(x, mask, value):
    """value where the mask holds, x elsewhere, which broadcast; x gets dy where it stands, and a
    value that is an array, without axes, the sum of dy where that stands. Raises TypeError for a
    mask that is no boolean array, ValueError for a number that the dtype of x does not hold."""
    floating(x=x)
    mask = array(mask=mask)
    if mask.dtype != bool:
        raise TypeError(f"mask: expected dtype bool, got {mask.dtype}")
    if np.ndim(value):
        raise ValueError(f"value: expected a number without axes, got shape {np.shape(value)}")
    x, value, back = operands(x=x, value=_held(value, x.dtype))
    shape = broadcast(x=x, mask=mask)
    kept = ~np.broadcast_to(mask, shape)
    y = where(kept, np.broadcast_to(x, shape), value)

    def pullback(dy):
        return back(where(kept, dy, 0), where(kept, 0, dy))

    return y, pullback


def tril(x, diagonal=0):
    """x on and below a diagonal of its last two axes, 0 above it: the main one, or so many above
    that. So is dy. Raises ValueError for x with fewer axes."""
    x = _matrices(x, diagonal)
    return _where_kept(x, np.tri(*x.shape[-2:], _inside(x, diagonal), dtype=bool))


def triu(x, diagonal=0):
    """x on and above a diagonal of its last two axes, 0 below it: the main one, or so many above
    that. So is dy. Raises ValueError for x with fewer axes."""
    x = _matrices(x, diagonal)
    return _where_kept(x, ~np.tri(*x.shape[-2:], _inside(x, diagonal) - 1, dtype=bool))


def _held(value, dtype):
    """The value, which if it is a finite number is one in that dtype too."""
    most = float(np.finfo(dtype).max)
    if isinstance(value, (int, float)) and math.isfinite(value) and abs(value) > most:
        raise ValueError(f"value: expected a number that {dtype} holds, got {value}")
    return value


def _matrices(x, diagonal):
    """x, checked."""
    x = floating(x=x)
    whole(diagonal=diagonal)
    if x.ndim < 2:
        raise ValueError(f"x: expected two axes or more, got shape {x.shape}")
    return x


def _inside(x, diagonal):
    """The diagonal, no further away than x is large."""
    return min(max(diagonal, -x.shape[-2]), x.shape[-1])


def _where_kept(x, kept):
    y = np.where(kept, x, 0)

    def pullback(dy):
        return np.where(kept, dy, 0)

    return y, pullback
