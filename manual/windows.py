"""Windows that slide over the last axes of an array (N, C, *space).

Gather and scatter go through one view of memory: what is read from it forward is added to it
backward. The checks raise TypeError, ValueError or MemoryError with a message that names the
argument.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

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
    return (*parts.values(),) * (n // len(parts))


@dataclass(frozen=True)
class Windows:
    """Windows over each axis of space, with zeros around it: of the one at place p, element k is
    element p · stride + k · dilation − before of the axis. All settings are tuples."""

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
        return (..., *(slice(b, b + n) for b, n in zip(self.before, self.space, strict=True)))

    def around(self, N, C, dtype):
        """Zeros for space and what is around it. Raises MemoryError for too many."""
        axes = zip(self.before, self.space, self.extent, strict=True)
        shape = (N, C, *(max(b + n, reach) for b, n, reach in axes))
        room(dtype, padding=shape)
        return np.zeros(shape, dtype)

    def padded(self, x):
        """x with zeros around it, or itself where it needs none."""
        if not any(self.before) and all(map(int.__le__, self.extent, self.space)):
            return x
        buffer = self.around(*x.shape[:2], x.dtype)
        buffer[self.inside] = x
        return buffer

    def view(self, buffer):
        """The windows in what is padded: (N, C, *kernel, *places)."""
        n = len(self.space)
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        every = sliding_window_view(buffer, reach, range(2, 2 + n), writeable=True)
        ends = ((p - 1) * s + 1 for p, s in zip(self.places, self.stride, strict=True))
        steps = (
            *(slice(None, end, s) for end, s in zip(ends, self.stride, strict=True)),
            *(slice(None, None, d) for d in self.dilation),
        )
        return np.moveaxis(every[..., *steps], range(2, 2 + n), range(-n, 0))

    def gathered(self, x):
        """What the windows see: (N, C, *kernel, *places)."""
        return self.view(self.padded(x))

    def scattered(self, columns):
        """The adjoint of that: each element of each window, added where it was seen."""
        buffer = self.around(*columns.shape[:2], columns.dtype)
        self.add(self.view(buffer), columns)
        return buffer[self.inside]

    def add(self, view, columns):
        """Adds to the windows in a view what is of their shape, element by element of the kernel,
        since of one element no two windows have the same place."""
        for k in np.ndindex(self.kernel):
            view[:, :, *k] += columns[:, :, *k]


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
