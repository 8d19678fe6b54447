"""Losses: right functions, and the mistakes that are made in them."""


import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, call, integers, normal


def _log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


# --- cross entropy with smoothed labels and ignored rows: the loss and its gradient


def cross_entropy(logits, targets, smoothing=0.1, ignore=-100):
    N, V = logits.shape
    valid = targets != ignore
    n = int(valid.sum())
    safe = np.where(valid, targets, 0)
    logp = _log_softmax(logits)
    nll = -logp[np.arange(N), safe]
    uniform = -logp.sum(-1) / V
    per_row = (1.0 - smoothing) * nll + smoothing * uniform
    loss = np.where(valid, per_row, 0).sum() / n
    wanted = np.full_like(logits, smoothing / V)
    wanted[np.arange(N), safe] += 1.0 - smoothing
    dlogits = (np.exp(logp) - wanted) * valid[:, None] / n
    return loss, dlogits


def cross_entropy_torch(logits, targets, smoothing=0.1, ignore=-100):
    return F.cross_entropy(logits, targets, label_smoothing=smoothing, ignore_index=ignore)


# --- the hinge loss of a linear classifier, as in a course


def svm_loss(W, X, y, reg=0.1):
    N = X.shape[0]
    scores = X @ W
    margins = scores - scores[np.arange(N), y][:, None] + 1.0
    margins[np.arange(N), y] = 0.0
    loss = np.maximum(margins, 0.0).sum() / N + reg * (W * W).sum()
    dscores = (margins > 0).astype(W.dtype)
    dscores[np.arange(N), y] -= dscores.sum(axis=1)
    dscores /= N
    dW = X.T @ dscores + 2.0 * reg * W
    dX = dscores @ W.T
    return loss, (dW, dX)


def svm_loss_torch(W, X, y, reg=0.1):
    scores = X @ W
    others = F.one_hot(y, W.shape[1]) == 0
    margins = torch.relu(scores - scores.gather(1, y[:, None]) + 1.0)
    return (margins * others).sum() / X.shape[0] + reg * (W * W).sum()


# --- the symmetric loss of CLIP, with a learned log scale


def clip_loss(a, b, log_scale):
    N = a.shape[0]
    if b.shape[0] != N:
        raise ValueError("pairs")
    scale = np.exp(log_scale)
    sim = a @ b.T
    logits = scale * sim
    rows, cols = _log_softmax(logits), _log_softmax(logits.T)
    y = -0.5 * (np.trace(rows) + np.trace(cols)) / N

    def pullback(dy):
        eye = np.eye(N, dtype=a.dtype)
        dlogits = 0.5 * ((np.exp(rows) - eye) + (np.exp(cols) - eye).T) / N
        dlogits = dlogits * dy
        da = scale * (dlogits @ b)
        db = scale * (dlogits.T @ a)
        dlog_scale = (dlogits * logits).sum()
        return da, db, dlog_scale

    return y, pullback


def clip_loss_torch(a, b, log_scale):
    if a.shape[0] != b.shape[0]:
        raise ValueError("pairs")
    logits = torch.exp(log_scale) * (a @ b.T)
    rows, cols = torch.log_softmax(logits, -1), torch.log_softmax(logits.T, -1)
    return -0.5 * (torch.trace(rows) + torch.trace(cols)) / a.shape[0]


# --- distillation: T² KL(teacher ‖ student) at a temperature, the mean over the rows


def distillation(student, teacher, T=2.0):
    N = student.shape[0]
    logq, logp = _log_softmax(student / T), _log_softmax(teacher / T)
    p, q = np.exp(logp), np.exp(logq)
    kl = (p * (logp - logq)).sum(-1)
    y = T * T * kl.sum() / N

    def pullback(dy):
        ds = dy * T * (q - p) / N
        v = logp - logq
        v = v - kl[:, None]
        dt = dy * T * p * v / N
        return ds, dt

    return y, pullback


def distillation_torch(student, teacher, T=2.0):
    logq, logp = torch.log_softmax(student / T, -1), torch.log_softmax(teacher / T, -1)
    return T * T * (torch.exp(logp) * (logp - logq)).sum() / student.shape[0]


SUBJECTS = {
    "cross_entropy": Subject(
        against=cross_entropy_torch,
        calls=[call(normal(6, 4), integers(6, below=4), ignore=1), call(normal(3, 5), integers(3, below=5), smoothing=0.2)],
    ),
    "svm_loss": Subject(
        against=svm_loss_torch,
        calls=[
            call(normal(3, 4), normal(5, 3), integers(5, below=4)),
            call(normal(2, 3), normal(4, 2), integers(4, below=3), reg=0.5),
        ],
    ),
    "clip_loss": Subject(
        against=clip_loss_torch, calls=[call(normal(4, 3), normal(4, 3), normal()), call(normal(3, 5), normal(3, 5), normal(shift=1.0))]
    ),
    "distillation": Subject(
        against=distillation_torch, calls=[call(normal(3, 5), normal(3, 5)), call(normal(4, 3, scale=2.0), normal(4, 3), T=3.0)]
    ),
}
MISTAKES = [
    # the gradient's mean over all rows, the loss's over those that count (the first call ignores class 1)
    Mistake("cross_entropy", "factor / counts", "valid[:, None] / n", "valid[:, None] / N"),
    # the smoothed mass on the other classes alone, as in other papers
    Mistake("cross_entropy", "variant", "np.full_like(logits, smoothing / V)", "np.full_like(logits, smoothing / (V - 1))"),
    # the right class has no gradient
    Mistake("svm_loss", "missing term", "dscores[np.arange(N), y] -= dscores.sum(axis=1)", "dscores[np.arange(N), y] = 0.0"),
    # the softmax over columns added without turning it back
    Mistake("clip_loss", "transpose", "(np.exp(cols) - eye).T", "(np.exp(cols) - eye)"),
    # a loss is the last one, is it not
    Mistake("clip_loss", "cotangent", "dlogits = dlogits * dy\n", "dlogits = dlogits\n"),
    # the softmax of the teacher: not centred
    Mistake("distillation", "missing term / extra term", "v = v - kl[:, None]\n", "v = v\n"),
    # T² of the loss, the chain's 1 / T forgotten, for the student alone
    Mistake("distillation", "factor", "ds = dy * T * (q - p) / N", "ds = dy * T * T * (q - p) / N"),
]
