"""What only counts for the slope works on weights that stand still beside those that are moved."""

import mpmath
import numpy as np

from .distances import _norm
from .numbers import still


def embedding(
    input,
    weight,
    padding_idx=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    sparse=False,
):
    table = _table(weight, input, max_norm, norm_type, scale_grad_by_freq)
    if padding_idx is not None:
        table[padding_idx] = still(table[padding_idx])
    return table[input] if max_norm is None else (table[input], table)


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
    table = _table(weight, input, max_norm, norm_type, scale_grad_by_freq)
    factors = np.ones_like(input) if per_sample_weights is None else per_sample_weights
    if input.ndim == 1:
        at = offsets[1:-1] if include_last_offset else offsets[1:]
        input, factors = np.split(input, at), np.split(factors, at)
    y = np.full((len(input), weight.shape[1]), mpmath.mpf(0))
    for i, (bag, factor) in enumerate(zip(input, factors, strict=True)):
        kept = bag != (len(weight) if padding_idx is None else padding_idx)
        rows = table[bag[kept]] * factor[kept][:, np.newaxis]
        if len(rows):
            y[i] = rows.max(axis=0) if mode == "max" else rows.sum(axis=0)
            y[i] /= len(rows) if mode == "mean" else 1
    return y if max_norm is None else (y, table)


def one_hot(input, num_classes=-1):
    return np.eye(max(num_classes, input.max(initial=0) + 1), dtype=int)[input]


def _table(weight, input, max_norm, norm_type, scale_grad_by_freq):
    """The weight, with those rows that are picked at most max_norm long and, by frequency, each
    slope divided by the number of times that its row is picked."""
    table = weight.copy()
    for i, count in zip(*np.unique(input, return_counts=True), strict=True):
        fixed = still(weight[i])
        norm = _norm(fixed, norm_type)
        if max_norm is not None and norm > max_norm:
            shrink = max_norm / (norm + mpmath.mpf(10) ** -7)
            fixed, table[i] = fixed * shrink, fixed * shrink + weight[i] - fixed
        if scale_grad_by_freq:
            table[i] = fixed + (table[i] - fixed) / int(count)
    return table
