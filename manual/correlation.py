"""The form that a convolution is made of, and which it is for given arrays and settings.

The checks raise TypeError, ValueError or MemoryError with a message that names the argument.
"""

import math
from dataclasses import dataclass

import numpy as np

from .arguments import one_of, whole
from .arrays import cascade, pairwise_sum
from .windows import Windows, fitted, per_axis

BLOCK = 2**18  # elements of windows at a time, few enough to stay in the cache


@dataclass(frozen=True)
class Correlation:
    """The form Σ y[n, o, p] w[o, c, k] x[n, c, element k of window p], where o and c are in one
    group of channels: x is (N, C, *space), y (N, O, *places) and w (O, C / groups, *kernel).

    It is linear in each of the three, so that its slope in one is the same sum without it. Each is
    a product of matrices, made of some windows at a time; 16 bits are added up in 32.
    """

    windows: Windows
    groups: int
    transposed: bool

    def roles(self):
        """Three functions of the convolution: its value of x and w, dx of dy and w, dw of x and dy.
        A transposed one goes from y to x."""
        if not self.transposed:
            return self.in_y, self.in_x, self.in_w

        def in_w(x, dy):
            return self.in_w(dy, x)

        return self.in_x, self.in_y, in_w

    def shape(self, x, w):
        """That of the value."""
        if self.transposed:
            return len(x), w.shape[1] * self.groups, *self.windows.space
        return len(x), len(w), *self.windows.places

    def in_y(self, x, w):
        """The slope in y: the convolution of x."""
        y = np.empty((len(x), len(w), *self.windows.places), x.dtype)
        for seen, out in self._blocks(x, y):
            out[...] = (self._matrices(w) @ self._columns(seen)).reshape(out.shape)
        return y

    def in_x(self, y, w):
        """The slope in x: the transposed convolution of y."""
        x = np.empty((len(y), w.shape[1] * self.groups, *self.windows.space), w.dtype)
        for images, most in self._images(x):
            given, out = y[images].swapaxes(0, 1), x[images].swapaxes(0, 1)
            buffer = self.windows.around(*out.shape[:2], _wide(w.dtype))
            for places, some, seen in self.windows.parts(most):
                found = self._matrices(w).swapaxes(1, 2) @ self._columns(given[places])
                found = found.reshape(len(out), -1, out.shape[1], *some.places)
                buffer[seen] += some.scattered(found)
            out[...] = buffer[self.windows.inside]
        return x

    def in_w(self, x, y):
        """The slope in w: the gradient of both to their weight."""
        shape = y.shape[1], x.shape[1] // self.groups, *self.windows.kernel
        found = cascade(
            self._columns(given) @ self._columns(seen).swapaxes(1, 2)
            for seen, given in self._blocks(x, y)
        )
        found = np.zeros(shape) if found is None else found.reshape(shape)
        return found.astype(x.dtype, copy=False)

    def _blocks(self, x, y):
        """What some windows see of some images, and y there, channels first."""
        for images, most in self._images(x):
            buffer = self.windows.padded(x[images].swapaxes(0, 1))
            given = y[images].swapaxes(0, 1)
            for places, some, seen in self.windows.parts(most):
                yield some.gathered(buffer[seen]), given[places]

    def _images(self, x):
        """As many images at a time as BLOCK has room for, and as many places along the first axis
        if there is none for one image."""
        first, *others = self.windows.places
        row = x.shape[1] * math.prod(self.windows.kernel) * math.prod(others)
        step = max(BLOCK // (row * first), 1)
        for i in range(0, len(x), step):
            yield slice(i, i + step), max(BLOCK // row, 1)

    def _matrices(self, w):
        """The weights of each group."""
        return w.reshape(self.groups, len(w) // self.groups, -1).astype(_wide(w.dtype), copy=False)

    def _columns(self, a):
        """(channels, …, images, *places) as a matrix for each group, a column for each place."""
        columns = math.prod(a.shape[-1 - len(self.windows.places) :])
        return a.reshape(self.groups, -1, columns).astype(_wide(a.dtype), copy=False)


def _wide(dtype):
    return np.result_type(dtype, np.float32)


def correlation(
    x, weight, bias, stride, padding, dilation, groups, transposed=False, output_padding=0, name="x"
):
    """The form for a convolution of x (N, C, *space), which is called `name`, or for a transposed
    one.

    Raises TypeError for a setting of another type, ValueError for shapes that do not fit and for a
    setting out of range, MemoryError for an output that does not fit into the machine.
    """
    n = x.ndim - 2
    if weight.ndim != n + 2 or 0 in weight.shape:
        raise ValueError(f"weight: expected {n + 2} axes, none of them empty, got {weight.shape}")
    whole(groups=groups)
    if groups < 1 or len(weight) % groups:
        raise ValueError(f"groups: expected a divisor of {len(weight)} channels, got {groups}")
    channels = weight.shape[1] * groups, len(weight)
    taken, given = channels[::-1] if transposed else channels
    if x.shape[1] != taken:
        raise ValueError(f"{name}: expected {taken} channels, got shape {x.shape}")
    if bias is not None and bias.shape != (given,):
        raise ValueError(f"bias: expected shape {(given,)}, got {bias.shape}")

    kernel, space = weight.shape[2:], x.shape[2:]
    stride, dilation = per_axis(n, 1, stride=stride), per_axis(n, 1, dilation=dilation)
    if transposed:
        before = per_axis(n, 0, padding=padding)
        more = per_axis(n, 0, output_padding=output_padding)
        reached = _reached(space, kernel, stride, before, dilation, more)
        windows = Windows(reached, space, kernel, stride, before, dilation)
        return Correlation(windows, groups, True)
    before, after = _padding(padding, kernel, stride, dilation)
    windows = fitted(space, kernel, stride, before, after, dilation, name)
    return Correlation(windows, groups, False)


def _padding(padding, kernel, stride, dilation):
    """How many zeros stand before space, and how many after it, along each axis."""
    if not isinstance(padding, str):
        before = per_axis(len(kernel), 0, padding=padding)
        return before, before
    one_of(("valid", "same"), padding=padding)
    if padding == "same" and set(stride) != {1}:
        raise ValueError(f"padding: expected a number beside a stride of {stride}, got 'same'")
    share = padding == "same"
    whole_of = [share * (k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    return tuple(z // 2 for z in whole_of), tuple(z - z // 2 for z in whole_of)


def _reached(places, kernel, stride, before, dilation, more):
    """The space that windows at those places, less the padding, reach, and `more` at its end."""
    if not all(o < max(s, d) for o, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(f"output_padding: expected less than stride or dilation, got {more}")
    extent = Windows(places, places, kernel, stride, before, dilation).extent
    space = tuple(n - 2 * b + o for n, b, o in zip(extent, before, more, strict=True))
    if min(space) < 1:
        raise ValueError(f"padding: expected one that leaves an output, got {before}, for {space}")
    return space


def channel_sums(dy):
    """Σ dy over all but the channels of (N, C, *space), first over what lies together in memory."""
    return pairwise_sum(pairwise_sum(dy, tuple(range(2, dy.ndim))), (0,))
