"""Checks of arguments at the boundary of a rule.

All of them raise TypeError, ValueError or IndexError with a message that names the argument, what
was expected and what came.
"""

import math
import numbers
from typing import Annotated, Any

import numpy as np

# Annotates an argument that has no gradient, as the weights of classes.
Constant = Annotated[Any, "no gradient"]
WIDEST = np.dtype(np.float64)
FLOATING = frozenset(map(np.dtype, ("float16", "float32", "float64")))


def array(**given):
    """The named arguments, each a NumPy array of any shape; a single one without a tuple around it.

    Raises TypeError for anything else, for an array that holds no numbers or wider ones than
    float64, and for one whose bytes are not in the native order of this processor.
    """
    for name, a in given.items():
        if not isinstance(a, (np.ndarray, np.generic)):
            raise TypeError(f"{name}: expected an array, got {_kind(a)}")
        if a.dtype.kind not in "biufc":
            raise TypeError(f"{name}: expected an array of numbers, got dtype {a.dtype}")
        if a.dtype.kind == "f" and a.dtype.itemsize > WIDEST.itemsize:
            raise TypeError(f"{name}: expected at most {WIDEST}, got dtype {a.dtype}")
        if not a.dtype.isnative:
            raise TypeError(f"{name}: expected bytes in native order, got dtype {a.dtype}")
    return _bare([np.asarray(a) for a in given.values()])


def floating(*, optional="", **given):
    """The named arguments, each a NumPy array of any shape in float16, float32 or float64, all of
    one dtype; a single one without a tuple around it. What is named in `optional` may be None.

    Raises TypeError for anything else.
    """
    first, dtype, converted = "", None, []
    for name, a in given.items():
        if a is not None or name not in optional.split():
            if type(a) is not np.ndarray or a.dtype not in FLOATING:
                a = array(**{name: a})
                if a.dtype.kind != "f":
                    raise TypeError(f"{name}: expected a floating array, got dtype {a.dtype}")
            if dtype is None:
                first, dtype = name, a.dtype
            elif a.dtype != dtype:
                raise TypeError(f"{name}: expected the dtype of {first}, {dtype}, got {a.dtype}")
        converted.append(a)
    return _bare(converted)


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
    """The shape that the named arrays broadcast to, leaving out what is None. Raises ValueError for
    an array that does not fit those before it."""
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
        if a is not None and a.shape != shape[max(len(shape) - a.ndim, 0) :]:
            try:
                fits = np.broadcast_shapes(a.shape, shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"{name}: expected a shape that broadcasts to {shape}, got {a.shape}"
                )


def real(**settings):
    """Raises TypeError unless each named setting is a real number, ValueError for a whole one of
    more than 64 bits."""
    for name, value in settings.items():
        if type(value) is float:  # as most are
            continue
        known = isinstance(value, (int, float, np.integer, np.floating))
        if isinstance(value, bool) or not known:
            raise TypeError(f"{name}: expected a number, got {value!r}")
        _fits(name, value)


def whole(**settings):
    """Raises TypeError unless each named setting is a whole number, ValueError for one of more than
    64 bits."""
    for name, value in settings.items():
        known = type(value) is int or isinstance(value, numbers.Integral)
        if isinstance(value, bool) or not known:
            raise TypeError(f"{name}: expected a whole number, got {value!r}")
        _fits(name, value)


def _fits(name, value):
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: expected a number that fits into 64 bits, got {value}")


def pair(**settings):
    """Raises TypeError unless each named setting is a tuple or list of two numbers."""
    for name, value in settings.items():
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{name}: expected two numbers, got {value!r}")
        real(**{f"{name}[{i}]": part for i, part in enumerate(value)})


def mapping(**settings):
    """Raises TypeError unless each named argument is a dict."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            raise TypeError(f"{name}: expected a dict, got {_kind(value)}")


def flag(**settings):
    """Raises TypeError unless each named setting is True or False."""
    for name, value in settings.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {value!r}")


def truth(**setting):
    """Whether the named setting, of any type, is true. Raises TypeError if there is no answer."""
    ((name, value),) = setting.items()
    try:
        return bool(value)
    except ValueError:
        raise TypeError(f"{name}: expected True or False, got {value!r:.80}") from None


def floated(x, weight):
    """A weight of whole numbers in the dtype of x; anything else as it is."""
    is_whole = isinstance(weight, (np.ndarray, np.generic)) and weight.dtype.kind in "iu"
    return np.asarray(weight, x.dtype) if is_whole else weight


def weights(x, **given):
    """The named weights of the elements of x, arrays that broadcast to it, or None; a single one
    without a tuple around it. They have no gradient, so whole numbers are taken as well, and become
    floating like x.

    Raises TypeError for another dtype, ValueError for a shape that does not broadcast to x.
    """
    made = {name: floated(x, a) for name, a in given.items()}
    _, *found = floating(x=x, **made, optional=" ".join(given))
    broadcastable(x.shape, **dict(zip(given, found, strict=True)))
    return _bare(found)


def axis_of(ndim, **setting):
    """The named axis of an array with `ndim` axes, counted from 0.

    Raises TypeError unless it is a whole number, IndexError where there is no such axis.
    """
    ((name, value),) = setting.items()
    whole(**setting)
    most = max(ndim, 1)
    if not -most <= value < most:
        raise IndexError(f"{name}: expected an axis from {-most} to {most - 1}, got {value}")
    return value % most


def one_of(allowed, **setting):
    """Raises TypeError unless the named setting is a string, ValueError unless it is one of
    `allowed`."""
    ((name, value),) = setting.items()
    if isinstance(value, str) and value in allowed:
        return
    *others, last = map(repr, allowed)
    text = f"{name}: expected {', '.join(others)} or {last}, got {value!r}"
    if not isinstance(value, str):
        raise TypeError(text)
    raise ValueError(text)


def as_dtype(dtype, name="dtype", optional=True):
    """The argument of that name as a NumPy dtype; None is returned as it is if `optional`. Raises
    TypeError for anything but a floating dtype."""
    if dtype is None and optional:
        return None
    if not (isinstance(dtype, (np.dtype, type)) and np.dtype(dtype).kind == "f"):
        expected = "None or a floating dtype" if optional else "a floating dtype"
        raise TypeError(f"{name}: expected {expected}, got {dtype!r}")
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


def _bare(found):
    return found[0] if len(found) == 1 else tuple(found)


def _kind(value):
    return "None" if value is None else type(value).__name__


def expect(holds, text):
    """Raises RuntimeError with the text unless it holds."""
    if not holds:
        raise RuntimeError(text)
