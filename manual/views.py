"""The same elements in another shape, in parts, together with others, or in another order.

All of them take x in float16, float32 or float64. They raise TypeError for any other array and for
a setting that is no whole number, IndexError for an axis that x does not have; the message names
the argument.
"""

import math
from itertools import accumulate

import numpy as np

from .arguments import array, axis_of, floating, whole
from .arrays import room, sum_to


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


def flatten(x, start_dim=0, end_dim=-1):
    """x with the axes from start_dim to end_dim made one; a single number becomes one element.
    Raises ValueError for a start_dim behind end_dim."""
    x = floating(x=x)
    first, last = axis_of(x.ndim, start_dim=start_dim), axis_of(x.ndim, end_dim=end_dim)
    if first > last:
        raise ValueError(f"start_dim: expected at most end_dim, {end_dim}, got {start_dim}")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], merged, *x.shape[last + 1 :]))


def squeeze(x, dim=...):
    """x without its axes of length 1: all, or those that dim names, one or several. Raises
    TypeError for what is no whole number or several, ValueError for an axis that is named twice.
    """
    x = floating(x=x)
    axes = range(x.ndim) if dim is ... else _axes(x.ndim, dim=dim)
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in axes))


def unsqueeze(x, dim):
    """x with a new axis of length 1, which is then its axis dim."""
    x = floating(x=x)
    axis = axis_of(x.ndim + 1, dim=dim)
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


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
    _lengths(shape)
    return _stretched(x, shape=shape)


def expand(x, size):
    """broadcast_to, to a size that may also be a single length. Raises TypeError for a size that is
    no whole number or several, ValueError for one that x does not broadcast to."""
    return _stretched(x, size=_several(size=size))


def repeat(x, repeats):
    """Copies of x side by side, so many along each axis, those in front new ones: (n, m) with (a,
    b, c) → (a, b n, c m). x gets the sum of dy over its copies. Raises TypeError for repeats that
    are no whole number or several, ValueError for fewer than x has axes and for one below 0."""
    x, times = floating(x=x), _several(repeats=repeats)
    if len(times) < x.ndim or any(n < 0 for n in times):
        raise ValueError(f"repeats: expected {x.ndim} or more, none below 0, got {times}")
    before = (1,) * (len(times) - x.ndim) + x.shape
    after = tuple(n * m for n, m in zip(times, before, strict=True))
    room(x.dtype, repeats=after)
    y, shape = np.tile(x, times), x.shape
    copies = [length for pair in zip(times, before, strict=True) for length in pair]

    def pullback(dy):
        dx = dy.reshape(copies)
        for axis in range(len(times)):  # where the next copies are, once those before are added up
            dx = _added(dx, axis)
        return dx.reshape(shape)

    return y, pullback


def narrow(x, dim, start, length):
    """The elements from start on, so many, along the axis dim; start counts from the end if it is
    below 0, and may be an array of one whole number without axes. Raises TypeError for any other
    array, ValueError for x without axes, and for more elements than there are, IndexError for a
    start outside x."""
    x, start = floating(x=x), _number(start=start)
    axis = _axis_inside(x, dim)
    whole(length=length)
    n = x.shape[axis]
    if not -n <= start <= n:
        raise IndexError(f"start: expected from {-n} to {n}, got {start}")
    first = start + n if start < 0 else start
    if length < 0 or first + length > n:
        raise ValueError(f"length: expected from 0 to {n - first}, got {length}")
    (y,), pull_parts = _parts(x, [(slice(None),) * axis + (slice(first, first + length),)])

    def pullback(dy):
        return pull_parts((dy,))

    return y, pullback


def split(x, split_size_or_sections, dim=0):
    """x in parts along the axis dim, a tuple: of one length, the last one shorter, or of several
    that are given. dy is one too, where None stands for 0. Raises TypeError for what is no whole
    number or several, ValueError for x without axes, a length below 0, and lengths that do not add
    up to that of the axis."""
    x, axis = floating(x=x), _axis_inside(x, dim)
    n, lengths = x.shape[axis], _several(split_size_or_sections=split_size_or_sections)
    if not isinstance(split_size_or_sections, (tuple, list)):
        (most,) = lengths
        if most < 0 or (n and not most):
            raise ValueError(f"split_size_or_sections: expected above 0, got {most}")
        lengths = _evenly(n, most)
    if any(length < 0 for length in lengths) or sum(lengths) != n:
        raise ValueError(f"split_size_or_sections: expected lengths of sum {n}, got {lengths}")
    return _cut(x, lengths, axis)


def chunk(x, chunks, dim=0):
    """split into at most so many parts of one length, the last one shorter; fewer where they would
    be empty. Raises ValueError for x without axes and for chunks below 1."""
    x, axis = floating(x=x), _axis_inside(x, dim)
    whole(chunks=chunks)
    if chunks < 1:
        raise ValueError(f"chunks: expected above 0, got {chunks}")
    n = x.shape[axis]
    return _cut(x, _evenly(n, -(-n // chunks)) if n else (0,) * chunks, axis)


def unbind(x, dim=0):
    """What lies at each place of the axis dim, a tuple; dy is one too, where None stands for 0.
    Raises ValueError for x without axes."""
    x, axis = floating(x=x), _axis_inside(x, dim)
    return _parts(x, [(slice(None),) * axis + (i,) for i in range(x.shape[axis])])


def cat(tensors, dim=0):
    """The arrays of a list one behind the other along the axis dim; each gets its part of dy. They
    agree in all other lengths, but for empty ones with one axis, which count for nothing. Raises
    TypeError for what is no list or tuple of them, ValueError for none and for other lengths."""
    arrays = _listed(tensors)
    whole(dim=dim)
    some = [i for i, a in enumerate(arrays) if a.shape != (0,)]
    first = some[0] if some else 0
    axis = axis_of(arrays[first].ndim, dim=dim) if some else 0
    others = [a.shape[:axis] + a.shape[axis + 1 :] for a in arrays]
    for i in some:
        if not arrays[i].ndim or arrays[i].ndim != arrays[first].ndim or others[i] != others[first]:
            expected = f"the shape of tensors[{first}] but for axis {axis}"
            raise ValueError(f"tensors[{i}]: expected {expected}, got {arrays[i].shape}")
    y = np.concatenate([arrays[i] for i in some or [first]], axis)
    lengths = [a.shape[axis] if i in some else 0 for i, a in enumerate(arrays)]

    def pullback(dy):
        parts = _cut(dy, lengths, axis)[0]
        pairs = zip(parts, arrays, strict=True)
        return type(tensors)(part.reshape(a.shape) for part, a in pairs)

    return y, pullback


def stack(tensors, dim=0):
    """The arrays of a list, of one shape, side by side along a new axis dim; each gets its part of
    dy. Raises TypeError for what is no list or tuple of them, ValueError for none and for another
    shape."""
    arrays = _listed(tensors)
    axis = axis_of(arrays[0].ndim + 1, dim=dim)
    for i, a in enumerate(arrays):
        if a.shape != arrays[0].shape:
            raise ValueError(f"tensors[{i}]: expected shape {arrays[0].shape}, got {a.shape}")
    y = np.stack(arrays, axis)

    def pullback(dy):
        return type(tensors)(np.moveaxis(dy, axis, 0))

    return y, pullback


def flip(x, dims):
    """x with the order of its elements turned round along the axes dims; so is dy. Raises TypeError
    for dims that are no tuple or list of whole numbers, ValueError for an axis that is named
    twice."""
    x = floating(x=x)
    _lengths(dims, "dims")
    axes = _axes(x.ndim, dims=dims)
    axes = tuple(axes) if x.ndim else ()
    y = np.flip(x, axes)

    def pullback(dy):
        return np.flip(dy, axes)

    return y, pullback


def roll(x, shifts, dims=()):
    """x with its elements moved on by shifts along the axes dims, those at the end to the front;
    without dims as if it had one axis. dy is moved back. Raises TypeError for what is no whole
    number or several, ValueError unless there is a shift for each axis."""
    x, moves = floating(x=x), _several(shifts=shifts)
    axes = () if dims is None else _several(dims=dims)
    if not moves or len(moves) != max(len(axes), 1):
        raise ValueError(f"shifts: expected {max(len(axes), 1)}, one for each axis, got {moves}")
    axes = [_axis_inside(x, dim, "dims") for dim in axes]
    y = _rolled(x, moves, axes)

    def pullback(dy):
        return _rolled(dy, [-n for n in moves], axes)

    return y, pullback


def _added(a, axis):
    """The sum over an axis, pairwise: half of it and the other half, again and again."""
    parts = np.moveaxis(a, axis, 0)
    if not len(parts):
        return np.zeros(parts.shape[1:], a.dtype)
    while len(parts) > 1:
        half, odd = divmod(len(parts), 2)
        sums = parts[:half] + parts[half : 2 * half]
        if odd:
            sums[0] += parts[-1]
        parts = sums
    return parts[0]


def _rolled(a, moves, axes):
    return np.roll(a, moves, axes) if axes else np.roll(a, moves[0])


def _stretched(x, **setting):
    """x broadcast to the named shape, as a rule."""
    ((name, shape),) = setting.items()
    x = floating(x=x)
    new = len(shape) - x.ndim
    given = (None,) * new + x.shape
    wanted = tuple(
        g if n == -1 and g is not None else n for n, g in zip(shape, given, strict=False)
    )
    if new < 0 or any(n < 0 or g not in (None, 1, n) for n, g in zip(wanted, given, strict=True)):
        raise ValueError(f"{name}: expected one that {x.shape} broadcasts to, got {tuple(shape)}")
    y, before = np.broadcast_to(x, wanted), x.shape

    def pullback(dy):
        return sum_to(dy, before)

    return y, pullback


def _evenly(n, length):
    """The lengths of the parts of n elements, so many in each, the last one shorter."""
    return [length] * (n // length) + [n % length] * (n % length > 0) if n else [0]


def _cut(x, lengths, axis):
    """x in parts of these lengths along an axis, as a rule."""
    before = (slice(None),) * axis
    ends = zip(lengths, accumulate(lengths), strict=True)
    return _parts(x, [(*before, slice(end - length, end)) for length, end in ends])


def _parts(x, places):
    """x[place] for each place, of which no two overlap, as a rule."""
    y, shape, dtype = tuple(x[place] for place in places), x.shape, x.dtype

    def pullback(dy):
        dx = np.zeros(shape, dtype)
        for place, part in zip(places, dy, strict=True):
            if part is not None:
                dx[place] = part
        return dx

    return y, pullback


def _axis_inside(x, dim, name="dim"):
    """axis_of, of x with at least one axis."""
    axis = axis_of(x.ndim, **{name: dim})
    if not x.ndim:
        raise ValueError(f"x: expected an axis, got shape {x.shape}")
    return axis


def _axes(ndim, **setting):
    """The named axis or axes, counted from 0. Raises ValueError for one that is named twice."""
    ((name, dims),) = setting.items()
    axes = [axis_of(ndim, **{name: dim}) for dim in _several(**setting)]
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: expected each axis once, got {dims}")
    return axes


def _several(**setting):
    """The named setting, a whole number or a tuple or list of such, as a tuple."""
    ((name, value),) = setting.items()
    if isinstance(value, (tuple, list)):
        _lengths(value, name)
        return tuple(value)
    whole(**setting)
    return (value,)


def _number(**setting):
    """The named whole number, which may be an array without axes."""
    ((name, value),) = setting.items()
    if isinstance(value, np.ndarray):
        if value.ndim or array(**setting).dtype.kind not in "iu":
            text = f"shape {value.shape}, dtype {value.dtype}"
            raise TypeError(f"{name}: expected a whole number without axes, got {text}")
        return int(value)
    whole(**setting)
    return value


def _listed(tensors):
    """The arrays of a list or tuple, of one dtype. Raises TypeError for anything else, ValueError
    for none."""
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"tensors: expected a list of arrays, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError("tensors: expected at least one array, got none")
    arrays = floating(**{f"tensors[{i}]": a for i, a in enumerate(tensors)})
    return [arrays] if len(tensors) == 1 else list(arrays)


def _lengths(lengths, name="shape"):
    """Raises TypeError unless the named setting is a tuple or list of whole numbers."""
    if not isinstance(lengths, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of whole numbers, got {lengths!r}")
    for length in lengths:
        whole(**{name: length})
