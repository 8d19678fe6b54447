"""The same elements in another shape.

All of them take x in float16, float32 or float64. They raise TypeError for any other array and for
a setting that is no whole number, IndexError for an axis that x does not have; the message names
the argument.
"""

import numpy as np

from .arguments import axis_of, floating, whole
from .arrays import sum_to


def reshape(x, shape):
    """The elements of x, in their order, in another shape, one length of which may be −1: what is
    left. Raises TypeError for a shape that is no tuple or list of whole numbers, ValueError for
    another number of elements."""
    x = floating(x=x)
    _lengths(shape)
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(f"shape: expected {x.size} elements, got {tuple(shape)}") from None
    before = x.shape

    def pullback(dy):
        return dy.reshape(before)

    return y, pullback


def transpose(x, dim0, dim1):
    """x with the axes dim0 and dim1 swapped, which swaps those of dy back."""
    x = floating(x=x)
    dims = axis_of(x.ndim, dim0=dim0), axis_of(x.ndim, dim1=dim1)
    y = x.swapaxes(*dims) if x.ndim else x

    def pullback(dy):
        return dy.swapaxes(*dims) if np.ndim(dy) else dy

    return y, pullback


def permute(x, dims):
    """x with its axes in the order dims; those of dy go back where they came from. Raises TypeError
    for dims that are no tuple or list of whole numbers, ValueError unless each axis is there once.
    """
    x = floating(x=x)
    _lengths(dims, "dims")
    order = [axis_of(x.ndim, dims=dim) for dim in dims]
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"dims: expected each of {x.ndim} axes once, got {tuple(dims)}")
    y = x.transpose(order)

    def pullback(dy):
        return dy.transpose(np.argsort(order))

    return y, pullback


def broadcast_to(x, shape):
    """x repeated along axes of length 1 and new ones in front; −1 keeps a length. dy is summed over
    them. Raises TypeError for a shape that is no tuple or list of whole numbers, ValueError for one
    that x does not broadcast to."""
    x = floating(x=x)
    _lengths(shape)
    new = len(shape) - x.ndim
    given = (None,) * new + x.shape
    wanted = tuple(
        g if n == -1 and g is not None else n for n, g in zip(shape, given, strict=False)
    )
    if new < 0 or any(n < 0 or g not in (None, 1, n) for n, g in zip(wanted, given, strict=True)):
        raise ValueError(f"shape: expected one that {x.shape} broadcasts to, got {tuple(shape)}")
    y, before = np.broadcast_to(x, wanted), x.shape

    def pullback(dy):
        return sum_to(dy, before)

    return y, pullback


def _lengths(lengths, name="shape"):
    """Raises TypeError unless the named setting is a tuple or list of whole numbers."""
    if not isinstance(lengths, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of whole numbers, got {lengths!r}")
    for length in lengths:
        whole(**{name: length})
