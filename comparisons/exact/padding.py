import mpmath
import numpy as np


def _pad(x, pad, mode="constant", value=None):
    for k in range(len(pad) // 2):
        axis, (before, behind) = x.ndim - 1 - k, pad[2 * k : 2 * k + 2]
        if mode == "circular":
            kept = range(max(-before, 0), x.shape[axis] - max(-behind, 0))
            x = x.take(list(kept), axis)
            before, behind = max(before, 0), max(behind, 0)
        n = x.shape[axis]
        rows = [np.empty((*x.shape[:axis], 0, *x.shape[axis + 1 :]), object)]
        for i in range(-before, n + behind):
            place = _place(i, n, mode)
            shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
            outside = np.full(shape, mpmath.mpf(value or 0))
            rows.append(outside if place is None else x.take([place], axis))
        x = np.concatenate(rows, axis)
    return x


def constant_pad_nd(x, pad, value=0):
    return _pad(x, pad, "constant", value)


def _place(i, n, mode):
    """The element that stands at place i, None for the value."""
    if 0 <= i < n:
        return i
    if mode == "reflect":
        return -i if i < 0 else 2 * (n - 1) - i
    if mode == "replicate":
        return 0 if i < 0 else n - 1
    return i % n if mode == "circular" else None


pad = _pad
