"""Checks of arguments at the boundary of a rule."""

import math
import numbers
from typing import Annotated, Any

import numpy as np

# Annotates an argument that has no gradient, as the weights of classes.
Constant = Annotated[Any, "no gradient"]


def floating(**arrays):
    """The named arguments as arrays, None left alone; a lone one comes bare.

    Raises TypeError unless all are real floating arrays of one dtype.
    """
    converted = {name: None if a is None else np.asarray(a) for name, a in arrays.items()}
    present = {name: a for name, a in converted.items() if a is not None}
    for name, a in present.items():
        if a.dtype.kind != "f":
            raise TypeError(f"{name}: expected a floating array, got dtype {a.dtype}")
    first, *others = present.items()
    for name, a in others:
        if a.dtype != first[1].dtype:
            raise TypeError(
                f"{name}: expected the dtype of {first[0]}, {first[1].dtype}, got {a.dtype}"
            )
    return converted.popitem()[1] if len(converted) == 1 else tuple(converted.values())


def same_shape(**arrays):
    """Raises ValueError unless both named arrays have one shape."""
    (first, a), (second, b) = arrays.items()
    if a.shape != b.shape:
        raise ValueError(f"{second}: expected the shape of {first}, {a.shape}, got {b.shape}")


def alike(**arrays):
    """The two named arrays. Raises TypeError unless both are floating of one dtype, ValueError
    unless they have one shape."""
    found = floating(**arrays)
    same_shape(**dict(zip(arrays, found, strict=True)))
    return found


def broadcast(**arrays):
    """The shape that the named arrays broadcast to, None left out. Raises ValueError for one that
    does not fit those before it."""
    shape, seen = (), []
    for name, a in arrays.items():
        if a is None:
            continue
        try:
            shape = np.broadcast_shapes(shape, a.shape)
        except ValueError:
            raise ValueError(
                f"{name}: expected a shape that broadcasts with {' and '.join(seen)}, {shape}, got "
                f"{a.shape}"
            ) from None
        seen.append(name)
    return shape


def broadcastable(shape, **arrays):
    """Raises ValueError unless each named array, where there is one, broadcasts to `shape`."""
    for name, a in arrays.items():
        if a is not None:
            try:
                fits = np.broadcast_shapes(a.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name}: expected a shape that broadcasts to {shape}, got {a.shape}"
                )


def real(**settings):
    """Raises TypeError unless each named setting is a real number."""
    for name, value in settings.items():
        if not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: expected a number, got {value!r}")


def whole(**settings):
    """Raises TypeError unless each named setting is a whole number."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name}: expected a whole number, got {value!r}")


def flag(**settings):
    """Raises TypeError unless each named setting is True or False."""
    for name, value in settings.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {value!r}")


def floated(x, weight):
    """A weight of whole numbers as a floating one like x; anything else as it is."""
    is_whole = weight is not None and np.asarray(weight).dtype.kind in "iu"
    return np.asarray(weight, x.dtype) if is_whole else weight


def weights(x, **given):
    """The named weights of the elements of x, None left alone, a lone one bare. They have no
    gradient: whole numbers will do, and become floating like x."""
    _, *found = floating(x=x, **{name: floated(x, a) for name, a in given.items()})
    broadcastable(x.shape, **dict(zip(given, found, strict=True)))
    return found[0] if len(found) == 1 else found


def axis_of(ndim, **setting):
    """The named axis of an array with so many, counted from 0.

    Raises TypeError unless it is a whole number, IndexError where there is no such axis.
    """
    ((name, value),) = setting.items()
    whole(**setting)
    most = max(ndim, 1)
    if not -most <= value < most:
        raise IndexError(f"{name}: expected an axis from {-most} to {most - 1}, got {value}")
    return value % most


def one_of(allowed, **setting):
    """Raises TypeError unless the named setting is a string, ValueError unless it is allowed."""
    ((name, value),) = setting.items()
    *others, last = map(repr, allowed)
    text = f"{', '.join(others)} or {last}"
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {text}, got {value!r}")
    if value not in allowed:
        raise ValueError(f"{name}: expected {text}, got {value!r}")


def as_dtype(dtype, name="dtype"):
    """A floating dtype, or None. Raises TypeError, with that name, for anything else."""
    if dtype is None:
        return None
    if not (isinstance(dtype, (np.dtype, type)) and np.dtype(dtype).kind == "f"):
        raise TypeError(f"{name}: expected None or a floating dtype, got {dtype!r}")
    return np.dtype(dtype)


def within(low, high=math.inf, **settings):
    """Raises TypeError unless each named setting is a number, ValueError unless low ≤ setting ≤
    high; NaN is never within."""
    real(**settings)
    for name, value in settings.items():
        if not low <= value <= high:
            bounds = f"from {low} to {high}"
            if math.inf in (-low, high):
                bounds = f"at least {low}" if high == math.inf else f"at most {high}"
            raise ValueError(f"{name}: expected {bounds}, got {value}")


def expect(holds, text):
    """Raises RuntimeError with the text unless it holds."""
    if not holds:
        raise RuntimeError(text)
