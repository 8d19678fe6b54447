import math

import numpy as np


def reshape(x, shape):
    return x.reshape(shape)


def flatten(x, start_dim=0, end_dim=-1):
    x = np.atleast_1d(x)
    first, last = start_dim % x.ndim, end_dim % x.ndim
    merged = math.prod(x.shape[first : last + 1])
    return x.reshape(*x.shape[:first], merged, *x.shape[last + 1 :])


def squeeze(x, dim=...):
    axes = range(x.ndim) if dim is ... else [d % max(x.ndim, 1) for d in np.atleast_1d(dim)]
    return x.reshape([n for axis, n in enumerate(x.shape) if axis not in axes or n != 1])


def unsqueeze(x, dim):
    return np.expand_dims(x, dim)


def transpose(x, dim0, dim1):
    return x.swapaxes(dim0, dim1) if x.ndim else x


def permute(x, dims):
    return x.transpose(dims)


def broadcast_to(x, shape):
    given = (1,) * (len(shape) - x.ndim) + x.shape
    return np.broadcast_to(x, [g if n == -1 else n for n, g in zip(shape, given, strict=True)])


def expand(x, size):
    return broadcast_to(x, size if isinstance(size, tuple) else (size,))


def repeat(x, repeats):
    repeats = repeats if isinstance(repeats, tuple) else (repeats,)
    x = x.reshape((1,) * (len(repeats) - x.ndim) + x.shape)
    for axis, times in enumerate(repeats):
        x = x.take(np.array([*range(x.shape[axis])] * times, int), axis)
    return x


def narrow(x, dim, start, length):
    start = int(start)
    first = start if start >= 0 else start + x.shape[dim]
    return _from_to(x, first, first + length, dim)


def split(x, split_size_or_sections, dim=0):
    size = split_size_or_sections
    if not isinstance(size, (tuple, list)):
        starts = range(0, max(x.shape[dim], 1), max(size, 1))
        return tuple(_from_to(x, start, start + size, dim) for start in starts)
    ends = [sum(size[: i + 1]) for i in range(len(size))]
    return tuple(_from_to(x, end - n, end, dim) for end, n in zip(ends, size, strict=True))


def chunk(x, chunks, dim=0):
    n = x.shape[dim]
    return split(x, -(-n // chunks), dim) if n else (x,) * chunks


def _from_to(x, start, end, dim):
    return x.take(np.arange(start, min(end, x.shape[dim])), dim)


def unbind(x, dim=0):
    return tuple(np.take(x, i, dim) for i in range(x.shape[dim]))


def cat(tensors, dim=0):
    some = [a for a in tensors if a.shape != (0,)]
    return np.concatenate(some, dim) if some else tensors[0]


def stack(tensors, dim=0):
    return np.stack(tensors, dim)


def flip(x, dims):
    for dim in dims if x.ndim else ():
        x = x.take(np.arange(x.shape[dim])[::-1], dim)
    return x


def roll(x, shifts, dims=()):
    if dims is None or dims == ():
        return roll(x.reshape(-1), shifts, (0,)).reshape(x.shape)
    pairs = zip(np.atleast_1d(shifts), np.atleast_1d(dims), strict=True)
    for shift, dim in pairs:
        n = x.shape[dim]
        x = x.take((np.arange(n) - shift) % max(n, 1), dim)
    return x
