"""Losses: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit

from ..mistakes import Mistake, Subject, booleans, call, integers, normal


def smoothed_cross_entropy(logits, labels, smoothing=0.1, ignore_index=-100):
    """The mean over the labels that count, and the gradient of the logits."""
    n, classes = logits.shape
    valid = labels != ignore_index
    shifted = logits - logits.max(1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    safe = np.where(valid, labels, 0)
    nll, uniform = -logp[np.arange(n), safe], -logp.mean(1)
    losses = ((1 - smoothing) * nll + smoothing * uniform)[valid]
    loss = losses.sum() / len(losses)
    target = np.full(logits.shape, smoothing / classes, logits.dtype)
    target[np.arange(n), safe] += 1 - smoothing
    grad = (np.exp(logp) - target) * valid[:, None]
    grad /= len(losses)
    return loss, grad


def smoothed_cross_entropy_torch(logits, labels, smoothing=0.1, ignore_index=-100):
    logp = torch.log_softmax(logits, 1)
    valid = labels != ignore_index
    nll = -logp.gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
    return ((1 - smoothing) * nll - smoothing * logp.mean(1))[valid].mean()


def focal_loss(logits, targets, alpha=0.25, gamma=2.0):
    """Sigmoid focal loss, its mean; targets are 0 and 1."""
    side = np.where(targets == 1, 1, -1).astype(logits.dtype)
    weight = np.where(targets == 1, alpha, 1 - alpha).astype(logits.dtype)
    z = side * logits
    pt, miss = expit(z), expit(-z)
    ce = np.logaddexp(0, -z)
    loss = (weight * miss**gamma * ce).mean()
    dz = -weight * miss**gamma * (miss + gamma * pt * ce)
    return loss, side * dz / logits.size


def focal_loss_torch(logits, targets, alpha=0.25, gamma=2.0):
    positive = targets == 1
    z = torch.where(positive, logits, -logits)
    weight = torch.where(positive, torch.full_like(logits, alpha), torch.full_like(logits, 1 - alpha))
    return (-weight * torch.sigmoid(-z) ** gamma * F.logsigmoid(z)).mean()


def dice_loss(logits, mask, smooth=1.0):
    """1 - (2 overlap + smooth) / (sizes + smooth), a sample; the mean of the samples."""
    p, m = expit(logits).reshape(len(logits), -1), mask.reshape(len(mask), -1).astype(logits.dtype)
    overlap = (p * m).sum(1)
    sizes = p.sum(1) + m.sum(1)
    score = (2 * overlap + smooth) / (sizes + smooth)
    loss = (1 - score).mean()

    def pullback(dy):
        dscore = -dy / len(p)
        dp = dscore * (2 * m - score[:, None]) / (sizes + smooth)[:, None]
        dlogits = dp * p * (1 - p)
        return dlogits.reshape(logits.shape), None

    return loss, pullback


def dice_loss_torch(logits, mask, smooth=1.0):
    p, m = torch.sigmoid(logits).flatten(1), mask.flatten(1).to(logits.dtype)
    score = (2 * (p * m).sum(1) + smooth) / (p.sum(1) + m.sum(1) + smooth)
    return (1 - score).mean()


def info_nce(images, texts, log_scale):
    """CLIP's: cosines times exp(log_scale), cross entropy along both axes, halved."""
    n = len(images)
    ni, nt = (np.sqrt((v * v).sum(1, keepdims=True)) for v in (images, texts))
    a, b = images / ni, texts / nt
    scale = np.exp(log_scale)
    cosines = a @ b.T
    logits = scale * cosines

    def softmax(v, axis):
        e = np.exp(v - v.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    def lse(v, axis):
        top = v.max(axis)
        return top + np.log(np.exp(v - np.expand_dims(top, axis)).sum(axis))

    right = np.diagonal(logits)
    loss = ((lse(logits, 1) - right).mean() + (lse(logits, 0) - right).mean()) / 2

    def pullback(dy):
        eye = np.eye(n, dtype=logits.dtype)
        dlogits = dy * (softmax(logits, 1) + softmax(logits, 0) - 2 * eye) / (2 * n)
        dlog_scale = (dlogits * logits).sum()
        da, db = scale * dlogits @ b, scale * dlogits.T @ a
        dimages = (da - a * (da * a).sum(1, keepdims=True)) / ni
        dtexts = (db - b * (db * b).sum(1, keepdims=True)) / nt
        return dimages, dtexts, np.asarray(dlog_scale)

    return loss, pullback


def info_nce_torch(images, texts, log_scale):
    a = images / torch.sqrt((images * images).sum(1, keepdim=True))
    b = texts / torch.sqrt((texts * texts).sum(1, keepdim=True))
    logits = torch.exp(log_scale) * (a @ b.T)
    labels = torch.arange(len(images))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


SUBJECTS = {
    "smoothed_cross_entropy": Subject(
        against=smoothed_cross_entropy_torch,
        calls=[
            call(normal(9, 4), integers(9, below=4), ignore_index=1),
            call(normal(4, 3), integers(4, below=3), smoothing=0.3),
        ],
    ),
    "focal_loss": Subject(
        against=focal_loss_torch,
        calls=[call(normal(4, 3), integers(4, 3, below=2)), call(normal(7), integers(7, below=2), alpha=0.6, gamma=1.5)],
    ),
    "dice_loss": Subject(
        against=dice_loss_torch,
        calls=[call(normal(2, 4, 3), booleans(2, 4, 3)), call(normal(3, 5), booleans(3, 5), smooth=0.1)],
    ),
    "info_nce": Subject(
        against=info_nce_torch,
        calls=[call(normal(4, 5), normal(4, 5), normal(shift=1.0)), call(normal(3, 6), normal(3, 6), normal())],
    ),
}

MISTAKES = [
    # the other definition: spread over the wrong classes only
    Mistake("smoothed_cross_entropy", "variant", "smoothing / classes, logits.dtype", "smoothing / (classes - 1), logits.dtype"),
    # divided by all rows, also by the ignored ones (the first call)
    Mistake("smoothed_cross_entropy", "factor / counts", "grad /= len(losses)", "grad /= n"),
    # the modulating factor taken for a constant
    Mistake("focal_loss", "missing term", "(miss + gamma * pt * ce)", "miss"),
    # the mean's 1 / N
    Mistake("focal_loss", "factor", "return loss, side * dz / logits.size", "return loss, side * dz"),
    # "the loss comes last": dy is not looked at
    Mistake("dice_loss", "cotangent", "dscore = -dy / len(p)", "dscore = -1 / len(p)"),
    Mistake("dice_loss", "elementwise factor", "dlogits = dp * p * (1 - p)", "dlogits = dp"),
    Mistake("info_nce", "transpose", "scale * dlogits.T @ a", "scale * dlogits @ a"),
    # of the scale, where its logarithm is the argument
    Mistake("info_nce", "factor / operand / elementwise factor", "dlog_scale = (dlogits * logits).sum()", "dlog_scale = (dlogits * cosines).sum()"),
]
