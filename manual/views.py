"""The same elements in another shape."""

import numpy as np

from .arguments import axis_of, floating, whole
from .arrays import sum_to


def reshape(x, shape):
    """The elements of x, in their order, in another shape, one length of which may be −1: what is
    left."""
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
    """x with two axes swapped, which swaps those of dy back."""
    x = floating(x=x)
    dims = axis_of(x.ndim, dim0=dim0), axis_of(x.ndim, dim1=dim1)
    y = x.swapaxes(*dims) if x.ndim else x

    def pullback(dy):
        return dy.swapaxes(*dims) if np.ndim(dy) else dy

    return y, pullback


def permute(x, dims):
    """x with its axes in the order dims; those of dy go back where they came from."""
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
    them."""
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
