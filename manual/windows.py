"""Windows that slide over the last axes of an array (A, B, *space).

Gather and scatter have one geometry: what is read from a place forward is added to it backward.
The checks raise TypeError, ValueError or MemoryError with a message that names the
argument.
"""

from dataclasses import dataclass, replace

import numpy as np

from .arguments import whole, within
from .arrays import room


def per_axis(n, least, alone=True, **setting):
    """The named setting for each of n axes: one whole number for all of them, or n in a tuple or
    list; where one `alone` will do, a tuple of one as well. Raises TypeError for anything else,
    ValueError for another count and for a number below the least."""
    ((name, value),) = setting.items()
    several = isinstance(value, (tuple, list))
    parts = {f"{name}[{i}]": part for i, part in enumerate(value)} if several else {name: value}
    whole(**parts)
    if several and len(value) != n and not (alone and len(value) == 1):
        raise ValueError(f"{name}: expected a whole number or {n} of them, got {value!r}")
    within(least, **parts)
    return tuple(map(int, parts.values())) * (n // len(parts))


@dataclass(frozen=True)
class Windows:
    """Windows over each axis of space, with zeros around it: of the one at place p, element k is
    element p · stride + k · dilation − before of the axis. All settings are tuples.

    Windows over several axes are windows over one after another: gathered from the last axis on,
    along which little is to be copied yet, and scattered from the first on.
    """

    space: tuple
    places: tuple
    kernel: tuple
    stride: tuple
    before: tuple
    dilation: tuple

    @property
    def extent(self):
        """How far the windows reach, along each axis."""
        axes = zip(self.places, self.stride, self.kernel, self.dilation, strict=True)
        return tuple((p - 1) * s + (k - 1) * d + 1 for p, s, k, d in axes)

    @property
    def inside(self):
        """Where space lies among the zeros around it."""
        return (..., *map(slice, self.before, map(int.__add__, self.before, self.space)))

    def around(self, A, B, dtype):
        """Zeros for space and what is around it. Raises MemoryError for too many."""
        axes = zip(self.before, self.space, self.extent, strict=True)
        shape = (A, B, *(max(b + n, reach) for b, n, reach in axes))
        room(dtype, padding=shape)
        return np.zeros(shape, dtype)

    def padded(self, x):
        """x with zeros around it, or itself where it needs none."""
        if not any(self.before) and all(map(int.__le__, self.extent, self.space)):
            return x
        buffer = self.around(*x.shape[:2], x.dtype)
        buffer[self.inside] = x
        return buffer

    def parts(self, most):
        """For at most so many places along the first axis at a time: these, the windows there
        alone, and what they see of what is padded, of which two parts may see the same."""
        (first, *places), (stride, *_) = self.places, self.stride
        for i in range(0, first, most):
            some = replace(self, places=(min(most, first - i), *places))
            start, (end, *ends) = i * stride, some.extent
            seen = slice(start, start + end), *map(slice, ends)
            yield (..., slice(i, i + most), *map(slice, places)), some, (..., *seen)

    def gathered(self, x):
        """What the windows see of x, which is padded: (A, B, …) → (A, elements, B, *places)."""
        x = x[:, np.newaxis]
        for axis in reversed(range(len(self.kernel))):
            each = [x[self._element(axis, k)] for k in range(self.kernel[axis])]
            A, K, *others = each[0].shape
            x = np.stack(each, axis=1).reshape(A, len(each) * K, *others)
        return x

    def scattered(self, columns):
        """The adjoint of that: each element of each window, added where it was seen."""
        for axis, (length, reach) in enumerate(zip(self.kernel, self.extent, strict=True)):
            A, K, *others = columns.shape
            each = columns.reshape(A, length, K // length, *others)
            others[axis + 1] = reach
            columns = np.zeros((A, K // length, *others), columns.dtype)
            for k in range(length):
                columns[self._element(axis, k)] += each[:, k]
        return columns[:, 0]

    def _element(self, axis, k):
        """Where the windows along an axis have that element."""
        start, stride = k * self.dilation[axis], self.stride[axis]
        last = start + (self.places[axis] - 1) * stride
        behind = len(self.kernel) - axis - 1
        return ..., slice(start, last + 1, stride), *(slice(None) for _ in range(behind))


def fitted(space, kernel, stride, before, after, dilation, name="x"):
    """As many windows as fit into space, that of what is called `name`, and the zeros around it.
    Raises ValueError for none."""
    axes = zip(space, kernel, stride, before, after, dilation, strict=True)
    places = tuple((n + b + a - (k - 1) * d - 1) // s + 1 for n, k, s, b, a, d in axes)
    if min(places) < 1:
        raise ValueError(
            f"{name}: expected room for a window of {kernel}, with dilation={dilation} and "
            f"padding={before}, got {space}"
        )
    return Windows(space, places, kernel, stride, before, dilation)


def images(n, many=False, **given):
    """The named array (N, C, *space), with n axes of space; an N of 1 is put in front of one that
    has none, if it need not be `many`. Raises ValueError for other axes, and if one but N is empty.
    """
    ((name, x),) = given.items()
    if x.ndim not in (n + 2, n + 2 - (not many)) or 0 in x.shape[-n - 1 :]:
        raise ValueError(
            f"{name}: expected (N, C, …) or (C, …) with {n} more, and only N may be 0, got shape "
            f"{x.shape}"
        )
    return x[np.newaxis] if x.ndim == n + 1 else x
