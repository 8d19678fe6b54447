import mpmath
import numpy as np


def sort(x, dim=-1, descending=False, *, stable=False):
    return topk(x, np.atleast_1d(x).shape[dim], dim, descending)


def topk(x, k, dim=-1, largest=True, sorted=True):
    rows = np.moveaxis(np.atleast_1d(x), dim, -1)
    index = np.empty((*rows.shape[:-1], k), np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        index[place] = _in_order(rows[place], largest)[:k]
    values = np.take_along_axis(rows, index, -1)
    found = (np.moveaxis(a, -1, dim) for a in (values, index))
    return tuple(a if x.ndim else a.reshape(()) for a in found)


def _in_order(row, descending):
    """The places of the elements, NaN after all others; of equal ones the first comes first."""
    nans = [i for i, v in enumerate(row) if mpmath.isnan(v)]
    others = [i for i, v in enumerate(row) if not mpmath.isnan(v)]
    others.sort(key=lambda i: -row[i] if descending else row[i])
    return nans + others if descending else others + nans
