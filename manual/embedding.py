"""Rows of a table, picked by their index.

All of them raise TypeError for an array of another dtype and a setting of the wrong type,
ValueError for a shape that does not fit and a setting out of range; the message names the argument.
"""

import math

import numpy as np

from .arguments import array, flag, floating, one_of, real, same_shape, whole
from .distances import _norm


def embedding(
    input,
    weight,
    padding_idx=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    sparse=False,
):
    """weight[input]: (…) → (…, D) from a weight (V, D), for indices in int64 or int32. A row
    collects dy from wherever it was picked, the row padding_idx nothing; scale_grad_by_freq divides
    by the number of times it was.

    With max_norm, rows that are picked and longer are first shortened to it; the shortened weight
    is a further output, and its slope is left out. sparse is torch's choice of a layout.

    Raises TypeError for indices of another dtype, ValueError for a weight that is no matrix and a
    padding_idx outside the table, IndexError for an index outside it.

    Bengio, Ducharme, Vincent & Jauvin, 2003
    """
    index, weight = _picked(input, weight)
    flag(scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    padding = _padding(padding_idx, len(weight))
    table = _shortened(weight, index, max_norm, norm_type)
    y = table[index]

    def pullback(dy):
        dout = dy if max_norm is None else dy[0]
        counted = index != padding
        return _collected(dout[counted], index[counted], weight, scale_grad_by_freq)

    return (y if max_norm is None else (y, table)), pullback


def embedding_bag(
    input,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    mode="mean",
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    """The sum, mean or largest of the rows of each bag: input (B, N) holds B bags, or (N) all of
    them laid end to end, each beginning at one of the offsets. An empty bag gives 0.

    A sum may be weighted by per_sample_weights, of the shape of input, whose slope is the row times
    dy. Each row picked gets dy, times its weight or over the length of its bag; with "max" the
    first largest gets it, element by element. include_last_offset ends the last bag at the last
    offset. The rest is as for embedding. It is long because of its settings.

    Raises TypeError, ValueError and IndexError as embedding does, ValueError also for offsets that
    do not fit and for a "max" with frequencies or sparse, NotImplementedError for weights of
    anything but a sum.
    """
    index, weight = _picked(input, weight)
    flag(scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    one_of(("sum", "mean", "max"), mode=mode)
    samples = floating(
        weight=weight, per_sample_weights=per_sample_weights, optional="per_sample_weights"
    )[1]
    if samples is not None:
        same_shape(input=index, per_sample_weights=samples)
        if mode != "sum":
            raise NotImplementedError(f"per_sample_weights: expected mode 'sum', got {mode!r}")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ValueError(f"mode: expected 'sum' or 'mean' with frequencies or sparse, got {mode!r}")
    starts, ends = _bags(index, offsets, include_last_offset)
    padding = _padding(padding_idx, len(weight))
    table = _shortened(weight, index, max_norm, norm_type)
    used = index.reshape(-1)
    bag = np.repeat(np.arange(len(starts)), ends - starts)  # of each index
    used = used[: len(bag)]
    rows, counted = table[used], (used != padding)[:, np.newaxis]
    factor = np.ones_like(rows[:, :1])
    if mode == "max":
        counted = _winners(np.where(counted, rows, -math.inf), starts, ends)
    elif mode == "mean":
        factor = factor / np.maximum(_sums(counted.astype(rows.dtype), starts, ends), 1)[bag]
    elif samples is not None:
        factor = samples.reshape(-1, 1)
    y = _sums(np.where(counted, factor * rows, 0), starts, ends)

    def pullback(dy):
        dout = (dy if max_norm is None else dy[0])[bag]
        drows = np.where(counted, factor * dout, 0)
        dweight = _collected(drows, used, weight, scale_grad_by_freq)
        if samples is None:
            return dweight
        return dweight, np.where(counted, rows * dout, 0).sum(axis=1).reshape(samples.shape)

    return (y if max_norm is None else (y, table)), pullback


def one_hot(input, num_classes=-1):
    """1 at the class and 0 elsewhere: classes (…) in int64 → (…, num_classes) in int64, where
    num_classes is by default one more than the largest. There is nothing to differentiate: the
    pullback returns (). Raises TypeError for another dtype, ValueError for a class below 0 and for
    too few num_classes."""
    index = array(input=input)
    whole(num_classes=num_classes)
    if index.dtype != np.int64:
        raise TypeError(f"input: expected classes of dtype int64, got {index.dtype}")
    if not index.size and num_classes <= 0:
        raise ValueError(f"num_classes: expected above 0 for no classes, got {num_classes}")
    if np.any(index < 0):
        raise ValueError(f"input: expected classes from 0 on, got {index.min()}")
    classes = num_classes if num_classes != -1 else int(index.max()) + 1
    if classes < 1 or np.any(index >= classes):
        raise ValueError(f"num_classes: expected above {index.max(initial=0)}, got {num_classes}")
    y = (index[..., np.newaxis] == np.arange(classes)).astype(np.int64)

    def pullback(dy):
        return ()

    return y, pullback


def _picked(input, weight):
    """The indices and the table, checked."""
    index, weight = array(input=input), floating(weight=weight)
    if index.dtype not in (np.int64, np.int32):
        raise TypeError(f"input: expected indices of dtype int64 or int32, got {index.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"weight: expected (V, D), got shape {weight.shape}")
    outside = (index < 0) | (index >= len(weight))
    if np.any(outside):
        raise IndexError(
            f"input: expected indices from 0 to {len(weight) - 1}, got {index[outside].flat[0]}"
        )
    return index, weight


def _padding(padding_idx, count):
    """padding_idx counted from 0, or −1 if it is None."""
    if padding_idx is None:
        return -1
    whole(padding_idx=padding_idx)
    if not -count <= padding_idx < count:
        raise ValueError(f"padding_idx: expected from {-count} to {count - 1}, got {padding_idx}")
    return padding_idx % count


def _shortened(weight, index, max_norm, norm_type):
    """The weight with every row that is picked at most max_norm long; torch divides by the norm +
    10⁻⁷."""
    if max_norm is None:
        return weight
    real(max_norm=max_norm, norm_type=norm_type)
    norm = _norm(weight, norm_type)[0]
    picked = np.isin(np.arange(len(weight)), index)
    scale = np.where(picked & (norm > max_norm), max_norm / (norm + 1e-7), 1).astype(weight.dtype)
    return weight * scale[:, np.newaxis]


def _collected(rows, index, weight, by_frequency):
    """The adjoint of picking rows: the sum, or mean, of all that were picked with one index."""
    order = np.argsort(index, kind="stable")
    picked, starts, counts = np.unique(index[order], return_index=True, return_counts=True)
    sums = _sums(rows[order], starts, starts + counts)
    dweight = np.zeros_like(weight)
    dweight[picked] = sums / counts[:, np.newaxis].astype(sums.dtype) if by_frequency else sums
    return dweight


def _sums(rows, starts, ends):
    """The sum of the rows from each start to its end, which is the next start; pairwise."""
    sums, full = np.zeros((len(starts), rows.shape[1]), rows.dtype), ends > starts
    if full.any():  # as columns, since NumPy adds pairwise along contiguous memory only
        sums[full] = np.add.reduceat(np.ascontiguousarray(rows.T), starts[full], axis=1).T
    return sums


def _winners(rows, starts, ends):
    """Whether each element is the first of the largest in its bag; an element of −∞ never is."""
    first = np.zeros(rows.shape, bool)
    for a, b in zip(starts, ends, strict=True):
        if b > a:
            np.put_along_axis(first[a:b], rows[a:b].argmax(axis=0)[np.newaxis], True, axis=0)
    return first & (rows > -math.inf)


def _bags(index, offsets, include_last_offset):
    """Where each bag starts and ends among the indices laid end to end."""
    if index.ndim == 2:
        if offsets is not None:
            raise ValueError(f"offsets: expected None where input has two axes, got {offsets!r}")
        starts = np.arange(len(index)) * index.shape[1]
        return starts, starts + index.shape[1]
    if index.ndim != 1:
        raise ValueError(f"input: expected one axis or two, got shape {index.shape}")
    if offsets is None:
        raise ValueError("offsets: expected where each bag starts, got None")
    offsets = array(offsets=offsets)
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"offsets: expected one axis of whole numbers, got shape {offsets.shape}, dtype "
            f"{offsets.dtype}"
        )
    flag(include_last_offset=include_last_offset)
    n = len(index)
    if len(offsets) and (offsets[0] != 0 or np.any((offsets < 0) | (offsets > n))):
        raise ValueError(f"offsets: expected 0 first and none above {n}, got {offsets}")
    ascending = np.sort(offsets)  # torch counts how many lie before an index
    ends = np.append(ascending[1:], [] if include_last_offset else n).astype(np.int64)
    return ascending[: len(ends)], ends
