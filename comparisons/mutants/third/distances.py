"""Losses of distances, margins and distributions: right functions, and the mistakes that are made in them."""

import numpy as np
import torch
import torch.nn.functional as F

from ..mistakes import Mistake, Subject, booleans, call, integers, normal, uniform


def triplet(anchor, positive, negative, margin=1.0, eps=1e-6):
    """(n, d) each: the mean of max(0, margin + |a - p + eps| - |a - n + eps|), as torch has it."""
    dp, dn = anchor - positive + eps, anchor - negative + eps
    lp = np.sqrt((dp**2).sum(axis=1, keepdims=True))
    ln = np.sqrt((dn**2).sum(axis=1, keepdims=True))
    loss = margin + lp - ln
    y = np.maximum(loss, 0).mean()

    def pullback(dy):
        active = (loss >= 0) * (dy / len(anchor))
        gp = active * dp / lp
        gn = active * dn / ln
        return gp - gn, -gp, gn

    return y, pullback


def triplet_torch(anchor, positive, negative, margin=1.0, eps=1e-6):
    return F.triplet_margin_loss(anchor, positive, negative, margin=margin, eps=eps)


def clip_loss(a, b, temperature=0.1):
    """InfoNCE both ways, as CLIP has it: rows of a and b made unit, their cosines over the temperature, the diagonal
    is what belongs together."""
    n = len(a)
    na = np.sqrt((a**2).sum(axis=1, keepdims=True))
    nb = np.sqrt((b**2).sum(axis=1, keepdims=True))
    ua, ub = a / na, b / nb
    s = ua @ ub.T / temperature

    def lse(s, axis):
        top = s.max(axis=axis, keepdims=True)
        return top + np.log(np.exp(s - top).sum(axis=axis, keepdims=True))

    rows, cols = lse(s, 1), lse(s, 0)
    y = (0.5 * (rows.sum() + cols.sum()) - np.trace(s)) / n

    def pullback(dy):
        ds = 0.5 * (np.exp(s - rows) + np.exp(s - cols))
        ds[np.arange(n), np.arange(n)] -= 1
        ds = ds * (dy / n / temperature)
        dua, dub = ds @ ub, ds.T @ ua
        da = (dua - ua * (ua * dua).sum(axis=1, keepdims=True)) / na
        db = (dub - ub * (ub * dub).sum(axis=1, keepdims=True)) / nb
        return da, db

    return y, pullback


def clip_loss_torch(a, b, temperature=0.1):
    ua, ub = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    s = ua @ ub.t() / temperature
    return -0.5 * (torch.log_softmax(s, 1).diagonal().mean() + torch.log_softmax(s, 0).diagonal().mean())


class Huber(torch.autograd.Function):
    """The mean; of two tensors that broadcast; delta = 0.5."""

    @staticmethod
    def forward(ctx, x, target):
        d = x - target
        ctx.save_for_backward(d)
        ctx.shapes = x.shape, target.shape
        a = d.abs()
        return torch.where(a <= 0.5, 0.5 * d * d, 0.5 * (a - 0.25)).mean()

    @staticmethod
    def backward(ctx, dy):
        (d,) = ctx.saved_tensors
        g = d.clamp(-0.5, 0.5) * (dy / d.numel())
        return g.sum_to_size(ctx.shapes[0]), -g.sum_to_size(ctx.shapes[1])


def huber_torch(x, target):
    x, target = torch.broadcast_tensors(x, target)
    return F.huber_loss(x, target, delta=0.5)


def smooth_l1_forward(x, target, beta=1.0):
    d = x - target
    a = np.abs(d)
    return np.where(a < beta, 0.5 * d**2 / beta, a - 0.5 * beta).mean(), (d, beta)


def smooth_l1_backward(dout, cache):
    d, beta = cache
    slope = np.where(np.abs(d) < beta, d / beta, np.sign(d))
    dx = dout * slope / d.size
    return dx, -dx


smooth_l1 = (smooth_l1_forward, smooth_l1_backward)


def smooth_l1_torch(x, target, beta=1.0):
    return F.smooth_l1_loss(x, target, beta=beta)


def distillation(student, teacher, temperature=2.0):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean of the rows; both have a gradient."""
    n = len(student)

    def log_softmax(z):
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    log_s, log_t = log_softmax(student / temperature), log_softmax(teacher / temperature)
    p_s, p_t = np.exp(log_s), np.exp(log_t)
    rows = (p_t * (log_t - log_s)).sum(axis=1, keepdims=True)
    y = temperature**2 * rows.mean()

    def pullback(dy):
        scale = dy * temperature / n
        dstudent = scale * (p_s - p_t)
        dteacher = scale * p_t * (log_t - log_s - rows)
        return dstudent, dteacher

    return y, pullback


def distillation_torch(student, teacher, temperature=2.0):
    log_s, log_t = torch.log_softmax(student / temperature, 1), torch.log_softmax(teacher / temperature, 1)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


def svm_loss(x, y, margin=1.0):
    """Of a course: sum over the other classes of max(0, s_j - s_y + margin), the mean of the rows."""
    n = x.shape[0]
    correct = x[np.arange(n), y]
    margins = np.maximum(0, x - correct[:, None] + margin)
    margins[np.arange(n), y] = 0
    loss = margins.sum() / n
    dx = np.zeros_like(x)
    dx[margins > 0] = 1
    num_pos = (margins > 0).sum(axis=1)
    dx[np.arange(n), y] -= num_pos
    dx /= n
    return loss, (dx,)


def svm_loss_torch(x, y, margin=1.0):
    m = F.relu(x - x.gather(1, y[:, None]) + margin)
    return m.scatter(1, y[:, None], 0.0).sum() / x.shape[0]


def quantile_loss(pred, target, quantiles=(0.1, 0.5, 0.9)):
    """pred (n, q), target (n,): the sum over the quantiles of the pinball, the mean of the rows."""
    if pred.shape[1] != len(quantiles):
        raise ValueError("a column for each quantile")
    q = np.asarray(quantiles, pred.dtype)
    e = target[:, None] - pred
    y = np.where(e >= 0, q * e, (q - 1) * e).sum(axis=1).mean()

    def pullback(dy):
        slope = np.where(e >= 0, q, q - 1) * (dy / len(pred))
        return -slope, slope.sum(axis=1)

    return y, pullback


def quantile_loss_torch(pred, target, quantiles=(0.1, 0.5, 0.9)):
    if pred.shape[1] != len(quantiles):
        raise ValueError("a column for each quantile")
    q = torch.tensor(quantiles, dtype=pred.dtype)
    e = target[:, None] - pred
    return torch.where(e >= 0, q * e, (q - 1) * e).sum(1).mean()


def gaussian_nll(mean, target, logvar, full=False):
    """logvar (n, 1) is one for all of a row; the mean of (log v + (t - m)^2 / v) / 2 [+ log(2 pi) / 2]."""
    inv = np.exp(-logvar)
    d = target - mean
    y = 0.5 * (logvar + d**2 * inv).mean()
    if full:
        y = y + 0.5 * float(np.log(2 * np.pi))

    def pullback(dy):
        scale = dy / d.size
        dmean = -scale * d * inv
        dlogvar = (0.5 * scale * (1 - d**2 * inv)).sum(axis=1, keepdims=True)
        return dmean, -dmean, dlogvar

    return y, pullback


def gaussian_nll_torch(mean, target, logvar, full=False):
    y = 0.5 * (logvar + (target - mean) ** 2 * torch.exp(-logvar)).mean()
    return y + 0.5 * np.log(2 * np.pi) if full else y


def weighted_mse(pred, target, weight):
    """sum w (p - t)^2 / sum w; pred and target (n, d), weight (n,), one for each row and with a gradient."""
    d = pred - target
    per_row = (d**2).mean(axis=1)
    total = weight.sum()
    y = (weight * per_row).sum() / total

    def pullback(dy):
        dpred = 2 * dy * weight[:, None] * d / (total * d.shape[1])
        dweight = dy * (per_row - y) / total
        return dpred, -dpred, dweight

    return y, pullback


def weighted_mse_torch(pred, target, weight):
    return (weight * ((pred - target) ** 2).mean(1)).sum() / weight.sum()


def contrastive(a, b, same, margin=2.0):
    """Hadsell's: same d^2 / 2 + (1 - same) max(0, margin - d)^2 / 2 with d the distance of the rows, the mean; in
    blocks of four rows, the distances saved."""
    n = len(a)
    dist = np.empty(n, a.dtype)
    total = 0.0
    for start in range(0, n, 4):
        at = slice(start, start + 4)
        dist[at] = np.sqrt(((a[at] - b[at]) ** 2).sum(axis=1))
        gap = np.maximum(margin - dist[at], 0)
        total = total + np.where(same[at], dist[at] ** 2, gap**2).sum()
    y = np.asarray(total / (2 * n), a.dtype)

    def pullback(dy):
        da, db = np.zeros_like(a), np.zeros_like(b)
        for start in range(0, n, 4):
            at = slice(start, start + 4)
            r = dist[at]
            gap = np.maximum(margin - r, 0)
            pull = np.where(same[at], 1, -gap / np.where(r > 0, r, 1)).astype(a.dtype)
            g = dy / n * pull[:, None] * (a[at] - b[at])
            da[at] += g
            db[at] -= g
        return da, db, None

    return y, pullback


def contrastive_torch(a, b, same, margin=2.0):
    sq = ((a - b) ** 2).sum(1)
    d = torch.sqrt(torch.where(sq > 0, sq, 1.0)) * (sq > 0)
    return torch.where(same, sq, F.relu(margin - d) ** 2).sum() / (2 * len(a))


SUBJECTS = {
    "triplet": Subject(against=triplet_torch, calls=[
        call(normal(6, 3), normal(6, 3), normal(6, 3)), call(normal(4, 5), normal(4, 5), normal(4, 5), margin=0.3)]),
    "clip_loss": Subject(against=clip_loss_torch, calls=[
        call(normal(4, 3), normal(4, 3)), call(normal(5, 4), normal(5, 4), temperature=0.7)]),
    "Huber": Subject(against=huber_torch, calls=[call(normal(5, 3), normal(5, 3)), call(normal(4, 6), normal(4, 1))]),
    "smooth_l1": Subject(against=smooth_l1_torch, calls=[
        call(normal(4, 5), normal(4, 5)), call(normal(12), normal(12), beta=0.4)]),
    "distillation": Subject(against=distillation_torch, calls=[
        call(normal(4, 3), normal(4, 3)), call(normal(3, 5), normal(3, 5), temperature=4.0)]),
    "svm_loss": Subject(against=svm_loss_torch, calls=[
        call(normal(5, 4), integers(5, below=4)), call(normal(4, 6), integers(4, below=6), margin=0.5)]),
    "quantile_loss": Subject(against=quantile_loss_torch, calls=[
        call(normal(6, 3), normal(6)), call(normal(5, 2), normal(5), quantiles=(0.25, 0.8))]),
    "gaussian_nll": Subject(against=gaussian_nll_torch, calls=[
        call(normal(5, 3), normal(5, 3), normal(5, 1)), call(normal(3, 4), normal(3, 4), normal(3, 1), full=True)]),
    "weighted_mse": Subject(against=weighted_mse_torch, calls=[
        call(normal(6, 3), normal(6, 3), uniform(6)), call(normal(4, 5), normal(4, 5), uniform(4))]),
    "contrastive": Subject(against=contrastive_torch, calls=[
        call(normal(7, 3), normal(7, 3), booleans(7)), call(normal(5, 2), normal(5, 2), booleans(5), margin=3.0)]),
}
MISTAKES = [
    # the anchor is in both distances
    Mistake("triplet", "missing term", "return gp - gn, -gp, gn", "return gp, -gp, gn"),
    Mistake("triplet", "sign", "return gp - gn, -gp, gn", "return gp - gn, gp, gn"),
    # of squared distances, as FaceNet has them
    Mistake("triplet", "variant / elementwise factor", "gp = active * dp / lp\n        gn = active * dn / ln", "gp = 2 * active * dp\n        gn = 2 * active * dn"),
    # all rows push, also those that are far enough
    Mistake("triplet", "elementwise factor", "active = (loss >= 0) * (dy / len(anchor))", "active = dy / len(anchor)"),
    # the mean over those that are active
    Mistake("triplet", "counts / factor", "(dy / len(anchor))", "(dy / max((loss > 0).sum(), 1))"),
    # the normalization taken for a constant
    Mistake("clip_loss", "missing term", "(dub - ub * (ub * dub).sum(axis=1, keepdims=True)) / nb", "dub / nb"),
    Mistake("clip_loss", "factor", "(dy / n / temperature)", "(dy / n)"),
    Mistake("clip_loss", "transpose", "ds @ ub, ds.T @ ua", "ds @ ub, ds @ ua"),
    # one direction alone
    Mistake("clip_loss", "missing term / variant", "0.5 * (np.exp(s - rows) + np.exp(s - cols))", "np.exp(s - rows)"),
    # before for after: the rows as they came
    Mistake("clip_loss", "operand", "dua, dub = ds @ ub, ds.T @ ua", "dua, dub = ds @ b, ds.T @ ua"),
    # projected along the other's direction
    Mistake("clip_loss", "operand", "(dua - ua * (ua * dua)", "(dua - ub * (ua * dua)"),
    # the default delta = 1
    Mistake("Huber", "variant", "d.clamp(-0.5, 0.5)", "d.clamp(-1.0, 1.0)"),
    # smooth L1 is Huber over delta
    Mistake("Huber", "variant / factor", "(dy / d.numel())", "(dy / 0.5 / d.numel())"),
    # broadcast target: the mean (second call)
    Mistake("Huber", "broadcast", "-g.sum_to_size(ctx.shapes[1])", "-g.mean(1, keepdim=True) if ctx.shapes[1][-1] == 1 else -g"),
    Mistake("smooth_l1", "elementwise factor / variant", "< beta, d / beta, np", "< beta, d, np"),
    # the cotangent multiplied in for one gradient alone
    Mistake("smooth_l1", "cotangent", "return dx, -dx", "return dx, -slope / d.size"),
    Mistake("smooth_l1", "sign", "return dx, -dx", "return dx, dx"),
    # precision: the slopes are stored small
    Mistake("smooth_l1", "precision", "np.sign(d))\n", "np.sign(d)).astype(np.float16)\n"),
    # the centring of the teacher's softmax
    Mistake("distillation", "missing term", "(log_t - log_s - rows)", "(log_t - log_s)"),
    # T^2 was put in front of the loss later
    Mistake("distillation", "factor", "scale = dy * temperature / n", "scale = dy / temperature / n"),
    # all elements, as the reduction "mean" does
    Mistake("distillation", "factor / counts", "temperature / n\n", "temperature / student.size\n"),
    Mistake("distillation", "operand / elementwise factor / variant", "scale * p_t * (log_t", "scale * p_s * (log_t"),
    Mistake("distillation", "swapped", "return dstudent, dteacher", "return dteacher, dstudent"),
    # the student at temperature 1
    Mistake("distillation", "operand / variant", "(p_s - p_t)", "(np.exp(log_softmax(student)) - p_t)"),
    # as often as there are margins that are positive, not once
    Mistake("svm_loss", "counts / missing term", "dx[np.arange(n), y] -= num_pos", "dx[np.arange(n), y] -= 1"),
    Mistake("svm_loss", "missing term", "    dx[np.arange(n), y] -= num_pos\n", ""),
    Mistake("svm_loss", "factor / counts", "dx /= n", "dx /= x.size"),
    # a class exactly at the margin is counted, but does not push
    Mistake("svm_loss", "kink", "num_pos = (margins > 0).sum(axis=1)", "num_pos = (x - correct[:, None] + margin >= 0).sum(axis=1) - 1"),
    # prediction minus target: the quantiles are turned round
    Mistake("quantile_loss", "variant / elementwise factor / operand", "np.where(e >= 0, q, q - 1) *", "np.where(e >= 0, 1 - q, -q) *"),
    Mistake("quantile_loss", "broadcast", "slope.sum(axis=1)", "slope.mean(axis=1)"),
    Mistake("quantile_loss", "dtype", "q = np.asarray(quantiles, pred.dtype)", "q = np.asarray(quantiles)"),
    Mistake("gaussian_nll", "factor", "dmean = -scale * d * inv", "dmean = -2 * scale * d * inv"),
    Mistake("gaussian_nll", "missing term", "(1 - d**2 * inv)).sum", "(-(d**2) * inv)).sum"),
    Mistake("gaussian_nll", "broadcast", ").sum(axis=1, keepdims=True)", ").mean(axis=1, keepdims=True)"),
    # with respect to the variance, not to its logarithm
    Mistake("gaussian_nll", "elementwise factor", "(1 - d**2 * inv)", "(inv - d**2 * inv**2)"),
    # with respect to the standard deviation's logarithm
    Mistake("gaussian_nll", "factor / variant", "(0.5 * scale * (1", "(scale * (1"),
    # the weights' sum taken for a constant
    Mistake("weighted_mse", "missing term", "(per_row - y) / total", "per_row / total"),
    Mistake("weighted_mse", "counts", "d / (total * d.shape[1])", "d / d.size"),
    Mistake("weighted_mse", "elementwise factor", "2 * dy * weight[:, None] * d /", "2 * dy * d /"),
    Mistake("weighted_mse", "mutation", "dpred = 2 * dy * weight[:, None] * d / (total * d.shape[1])", "np.divide(weight, total, out=weight)\n        dpred = 2 * dy * weight[:, None] * d / d.shape[1]"),
    # the last block if it is not full
    Mistake("contrastive", "misplaced / missing term", "        for start in range(0, n, 4):\n            at = slice(start, start + 4)\n            r =", "        for start in range(0, n - 3, 4):\n            at = slice(start, start + 4)\n            r ="),
    # the slope of the distance: without 1 / d
    Mistake("contrastive", "elementwise factor", "-gap / np.where(r > 0, r, 1)", "-gap"),
    Mistake("contrastive", "elementwise factor / variant", "gap = np.maximum(margin - r, 0)\n", "gap = margin - r\n"),
    Mistake("contrastive", "sign", "np.where(same[at], 1, -gap", "np.where(same[at], 1, gap"),
    # both halves hold where |d| = beta: twice the slope
    Mistake("smooth_l1", "kink", "np.where(np.abs(d) < beta, d / beta, np.sign(d))", "(np.abs(d) <= beta) * d / beta + (np.abs(d) >= beta) * np.sign(d)"),
    # the axis that was kept in the call is lost
    Mistake("gaussian_nll", "shape", ").sum(axis=1, keepdims=True)", ").sum(axis=1)"),
    Mistake("triplet", "cotangent", "(dy / len(anchor))", "(1 / len(anchor))"),
    # made again without the shift, for logits far out
    Mistake("distillation", "range", "scale * (p_s - p_t)", "scale * (np.exp(student / temperature) / np.exp(student / temperature).sum(axis=1, keepdims=True) - p_t)"),
]
