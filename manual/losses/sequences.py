"""Losses of sequences.

All of them raise TypeError for an argument of the wrong type, ValueError for a shape that does not
fit and for a setting out of range; the message names the argument.
"""

import functools
import math

import numpy as np

from ..arguments import Constant, array, axis_of, flag, floating
from ..arrays import reduce


def ctc_loss(
    log_probs,
    targets: Constant,
    input_lengths,
    target_lengths,
    blank=0,
    reduction="mean",
    zero_infinity=False,
):
    """−log of the probability that a sequence of log_probs, (T, N, C) or (T, C), spells its target:
    the sum over all paths that become the target when repeats are merged and then blanks left out.

    A path goes through the states blank, l₁, blank, l₂, …, blank. With α the log-probability of all
    that comes before, and β of all that comes after, exp(α + β) / P is the share of a state in all
    paths. Summed over the states of a class that is its occupancy o, and the slope is −o; torch
    gives exp(log_probs) − o, the slope in logits whose log_softmax they are, and so do we.

    targets is (N, S), or all of them laid end to end; both lengths are (N), whole numbers in an
    array or a tuple. "mean" divides each loss by the length of its target first. Where no path is
    possible the loss is ∞, or 0 with zero_infinity, and has no slope; where a log_prob on the way
    is NaN or ∞, loss and slope are NaN. It is long because batches come in two forms.

    Raises ValueError for shapes, lengths or a blank that do not fit, TypeError for targets that are
    not real numbers and lengths that are not whole, IndexError for a label or a blank that is no
    class.

    Graves, Fernández, Gomez & Schmidhuber, 2006
    """
    log_probs = floating(log_probs=log_probs)
    flag(zero_infinity=zero_infinity)
    batch, labels, lengths = _sequences(log_probs, targets, input_lengths, target_lengths, blank)
    found = [_ctc(p[:T], own, blank) for p, T, own in zip(batch, lengths, labels, strict=True)]
    loss = np.array([nll for nll, _ in found], log_probs.dtype)
    if zero_infinity:
        loss = np.where(np.isinf(loss), 0, loss)
    loss = loss.reshape(log_probs.shape[1:-1])
    spelled = np.array([max(len(own), 1) for own in labels], log_probs.dtype).reshape(loss.shape)
    y, spread = reduce(loss / spelled if reduction == "mean" else loss, reduction)

    def pullback(dy):
        share = (spread(dy) / spelled if reduction == "mean" else spread(dy)).reshape(-1)
        grad = np.zeros_like(batch)
        for i, (nll, occupancy) in enumerate(found):
            if np.isfinite(nll):
                grad[i, : lengths[i]] = share[i] * (np.exp(batch[i, : lengths[i]]) - occupancy)
            elif math.isnan(nll) or not zero_infinity:
                grad[i, : lengths[i]] = math.nan
        return grad[0] if log_probs.ndim == 2 else np.moveaxis(grad, 0, 1)

    return y, pullback


def _ctc(log_p, labels, blank):
    """The loss of one sequence (T, C), and the occupancy (T, C)."""
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    if not len(log_p):
        return (math.inf if len(labels) else 0.0), log_p
    emitted = log_p[:, states]
    alpha = _forward(emitted, states)
    beta = _forward(emitted[::-1, ::-1], states[::-1])[::-1, ::-1]  # it is symmetric in time
    total = functools.reduce(_log_add, alpha[-1, -2:])
    if not np.isfinite(total):
        return math.inf if total < 0 else math.nan, np.zeros_like(log_p)
    possible = (alpha > -math.inf) & (beta > -math.inf)
    ahead, behind = np.where(possible, alpha, -math.inf), np.where(possible, beta, 0)
    share = ahead + (behind - np.where(possible, emitted, 0)) - total
    return -total, np.exp(share) @ (states[:, np.newaxis] == np.arange(log_p.shape[1]))


def _forward(emitted, states):
    """The log-probability of all ways to each state (T, S), with what it emits itself: from the
    same state, the one before, or past a blank between two labels that differ."""
    alpha = np.full_like(emitted, -math.inf)
    alpha[0, :2] = emitted[0, :2]
    skips = states[2:] != states[:-2]
    for t in range(1, len(emitted)):
        ways = alpha[t - 1].copy()
        ways[1:] = _log_add(ways[1:], alpha[t - 1, :-1])
        ways[2:] = np.where(skips, _log_add(ways[2:], alpha[t - 1, :-2]), ways[2:])
        alpha[t] = ways + emitted[t]
    return alpha


def _log_add(a, b):
    """log(eᵃ + eᵇ), silently −∞ where both are, and NaN where one is NaN or ∞."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    finite = np.isfinite(high)
    total = high + np.log1p(np.exp(np.where(finite, low, -math.inf) - np.where(finite, high, 0)))
    return np.where(high == math.inf, math.nan, total)


def _sequences(log_probs, targets, input_lengths, target_lengths, blank):
    """The batch as (N, T, C), the labels of each sequence, and its length."""
    if log_probs.ndim not in (2, 3):
        raise ValueError(f"log_probs: expected (T, N, C) or (T, C), got shape {log_probs.shape}")
    batch = np.moveaxis(log_probs, 1, 0) if log_probs.ndim == 3 else log_probs[np.newaxis]
    N, T, C = batch.shape
    if not 0 <= axis_of(C, blank=blank) == blank:
        raise ValueError(f"blank: expected a class from 0 to {C - 1}, got {blank}")
    targets = array(targets=targets)
    if targets.dtype.kind not in "iuf":
        raise TypeError(f"targets: expected classes, got dtype {targets.dtype}")
    targets = targets.astype(np.int64)
    lengths = {}
    for name, given in (("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        if isinstance(given, np.ndarray) != isinstance(input_lengths, np.ndarray):
            raise TypeError(f"{name}: expected an array or a tuple like input_lengths, got {given}")
        if isinstance(given, np.ndarray):
            array(**{name: given})
        lengths[name] = np.asarray(given).reshape(-1)
        if lengths[name].dtype.kind not in "iu":
            raise TypeError(f"{name}: expected whole numbers, got dtype {lengths[name].dtype}")
        if lengths[name].shape != (N,):
            raise ValueError(f"{name}: expected {N} lengths, got shape {lengths[name].shape}")
    inputs, spelled = lengths.values()
    if np.any((inputs < 0) | (inputs > T)):
        raise ValueError(f"input_lengths: expected from 0 to {T}, got {inputs}")
    if targets.ndim == 2 and len(targets) == N:
        if np.any((spelled < 0) | (spelled > targets.shape[1])):
            raise ValueError(
                f"target_lengths: expected from 0 to {targets.shape[1]}, got {spelled}"
            )
        labels = [row[:n] for row, n in zip(targets, spelled, strict=True)]
    elif targets.ndim == 1:
        if np.any(spelled < 0) or spelled.sum() != len(targets):
            raise ValueError(f"target_lengths: expected {len(targets)} in all, got {spelled}")
        labels = np.split(targets, np.cumsum(spelled)[:-1])
    else:
        raise ValueError(f"targets: expected ({N}, S) or one axis, got shape {targets.shape}")
    for own in labels:  # what pads a row may be anything
        if np.any((own < 0) | (own >= C)):
            raise IndexError(f"targets: expected classes from 0 to {C - 1}, got {own}")
    return batch, labels, inputs
