"""Where the windows of a pooling lie.

An array to be pooled is (rows, *space): whatever stands in front of the axes of space is one axis.
Along each axis of space lie the windows of an Axis, and a window of all axes is the product of one
along each. The checks raise TypeError, ValueError or MemoryError, with a message that names the
argument.
"""

import math
from functools import cached_property

import numpy as np

from ..arguments import flag
from ..arrays import room
from ..windows import per_axis


class Axis:
    """The windows along one axis of n elements: each from a start to an end, which may lie beyond
    the axis, and over every `step`-th element. After `period` windows they repeat, further on.
    """

    def __init__(self, n, starts, ends, step=1, period=1):
        self.n, self.starts, self.ends, self.step, self.period = n, starts, ends, step, period
        self.out = len(starts)
        self.before = max(-int(starts[0]), 0) if self.out else 0
        self.after = max(int(ends[-1]) - n, 0) if self.out else 0

    @cached_property
    def taps(self):
        """How many elements the largest window has."""
        return max(((end - start - 1) // self.step + 1 for start, end in self.different), default=0)

    @cached_property
    def first(self):
        """Which element of each window is the first that lies on the axis."""
        return np.maximum(-(self.starts // self.step), 0)

    @property
    def at(self):
        """Where the elements of each window are, (out, taps); in place of one beyond the axis, or
        beyond the end of a window that is smaller, the window's first or last that is not."""
        last = (np.minimum(self.ends, self.n) - 1 - self.starts) // self.step
        taps = np.clip(np.arange(self.taps), self.first[:, np.newaxis], last[:, np.newaxis])
        return self.starts[:, np.newaxis] + taps * self.step

    @property
    def stride(self):
        """How far a window is from that of the next period."""
        following = self.starts[self.period : self.period + 1]
        return int(following[0] - self.starts[0]) if len(following) else self.n

    @property
    def misses(self):
        """Whether a window has no element of the axis."""
        first = self.starts + self.first * self.step
        return bool((first >= np.minimum(self.ends, self.n)).any())

    @property
    def different(self):
        """Start and end of the windows of one period."""
        pairs = zip(self.starts[: self.period], self.ends[: self.period], strict=True)
        return [(int(start), int(end)) for start, end in pairs]

    def slices(self):
        """Of a padded axis with one period, the first elements of all windows, the second, …"""
        far = (self.out - 1) * self.stride + 1
        return [slice(a, a + far, self.stride) for a in range(0, self.taps * self.step, self.step)]

    def views(self, padded, axis):
        """Of an array in one piece that is padded along this axis, (slice of the windows, their
        elements) for every period: a view with windows in place of the axis, and their elements
        behind all."""
        shape, strides, stride = list(padded.shape), list(padded.strides), padded.strides[axis]
        strides[axis] = self.stride * stride
        for r, (start, end) in enumerate(self.different):
            shape[axis], taps = len(range(r, self.out, self.period)), end - start
            ahead = (start + self.before) * stride if padded.size else 0
            yield (
                slice(r, None, self.period),
                np.ndarray((*shape, taps), padded.dtype, padded, ahead, (*strides, stride)),
            )


def sliding(x, rank, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The axes of windows of one size at equal distances.

    Raises TypeError for a setting that is not one whole number or one for each axis, ValueError for
    one out of range, and for windows that do not fit into x, or have no element of it.
    """
    flag(ceil_mode=ceil_mode)
    kernel = per_axis(rank, 1, kernel_size=kernel_size)
    no_stride = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    strides = kernel if no_stride else per_axis(rank, 1, stride=stride)
    paddings, steps = per_axis(rank, 0, padding=padding), per_axis(rank, 1, dilation=dilation)
    axes = []
    for n, k, s, p, d in zip(x.shape[-rank:], kernel, strides, paddings, steps, strict=True):
        if 2 * p > k:
            raise ValueError(f"padding: expected at most half of the kernel, {k}, got {p}")
        beyond = n + 2 * p - d * (k - 1) - 1
        out = (beyond + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= n + p:  # it would start in the padding behind
            out -= 1
        if out < 1:
            raise ValueError(f"kernel_size: expected windows that fit into {n} elements, got {k}")
        starts = np.arange(out) * s - p
        axis = Axis(n, starts, starts + d * (k - 1) + 1, d)
        if axis.misses:
            raise ValueError(f"dilation: expected an element of x in every window, got {d}")
        axes.append(axis)
    return axes


def adaptive(x, rank, output_size, missing=True):
    """The axes of so many windows each that together cover it: ⌊i n / out⌋ to ⌈(i + 1) n / out⌉.

    Raises TypeError for an output size that is not one whole number or one for each axis, each of
    which may be None for the length of x if `missing`; ValueError for one below 0, MemoryError for
    one too large.
    """
    space = x.shape[-rank:]
    given = output_size
    if missing and isinstance(given, (tuple, list)) and len(given) == rank:
        given = [n if o is None else o for n, o in zip(space, given, strict=True)]
    outs = per_axis(rank, 0, alone=rank == 1, output_size=given)
    room(x.dtype, output_size=(math.prod(x.shape[:-rank]), *outs))
    axes = []
    for n, out in zip(space, outs, strict=True):
        i = np.arange(out)
        period = out // math.gcd(n, out) if out else 1
        axes.append(Axis(n, i * n // out, -(-(i + 1) * n // out), period=period))
    return axes


def rows_of(x, rank, filled):
    """x as (rows, *space), for an x of (C, *space) or (N, C, *space).

    Raises ValueError for another number of axes, and unless there are elements along those of its
    axes that come `filled` from the end.
    """
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(f"x: expected {rank} axes behind (C) or (N, C), got shape {x.shape}")
    if 0 in x.shape[x.ndim - filled :]:
        raise ValueError(f"x: expected elements along the last {filled} axes, got shape {x.shape}")
    return x.reshape(math.prod(x.shape[:-rank]), *x.shape[-rank:])


def padded(a, axes, fill):
    """a, (rows, *space), with `fill` before and behind, as far as its windows reach. Raises
    MemoryError where that is too far."""
    if not any(axis.before or axis.after for axis in axes):
        return a
    shape = len(a), *(axis.before + axis.n + axis.after for axis in axes)
    room(a.dtype, padding=shape)
    wide = np.full(shape, fill, a.dtype)
    wide[inside(axes)] = a
    return wide


def inside(axes):
    """Where in a padded array the array is."""
    return (slice(None), *(slice(axis.before, axis.before + axis.n) for axis in axes))
